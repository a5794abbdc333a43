"""The client of Milvus: the one import of pymilvus, which makes it silent and keeps it from reading files.

The import takes 0.5 s and 100 MB, so only an address of Milvus imports this file.
"""

import logging
import os

# It would read a file .env in or above its own folder, and put what it finds into the environment.
os.environ["PYTHON_DOTENV_DISABLED"] = "1"
# It reads these for a connection that is not used here, and a wrong value would stop the import.
for _name in ("URI", "DEFAULT_CONNECTION", "CONN_ALIAS", "CONN_TIMEOUT"):
    os.environ.pop(f"MILVUS_{_name}", None)

from pymilvus import (  # noqa: E402
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
