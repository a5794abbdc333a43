"""python -m server: see `cli/parser.py`."""

import sys

from server.cli.parser import main

sys.exit(main(sys.argv[1:]))
