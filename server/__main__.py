"""python -m server: the command line, which `cli/parser.py` defines."""

import os
import sys

# `python -m` puts the working directory first on the import path: a faiss.py or secrets.py there would be
# imported in place of the real one. It stays only if this package is in it, as in a clone.
if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(__file__)):
    del sys.path[0]

from server.cli.parser import run

run()
