"""The client of Milvus: the one import of pymilvus, which makes it silent and keeps it from reading files.

The import takes 0.5 s and 100 MB, so only an address of Milvus imports this file.
"""

import logging
import os

# It would read a file .env in or above its own folder, and put what it finds into the environment.
os.environ["PYTHON_DOTENV_DISABLED"] = "1"

from pymilvus import (
    AnnSearchRequest,
    DataType,
    Function,
    FunctionType,
    MilvusClient,
    RRFRanker,
)

# It writes every failed call to the standard error with a traceback; what it has to say is in our errors.
for _name in ("pymilvus", "pymilvus.milvus_client", "pymilvus.bulk_writer"):
    logging.getLogger(_name).handlers.clear()
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

__all__ = [
    "AnnSearchRequest",
    "DataType",
    "Function",
    "FunctionType",
    "MilvusClient",
    "RRFRanker",
]
