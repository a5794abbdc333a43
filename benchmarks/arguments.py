"""The options that several scripts have, each said once; a script adds those of its own."""

import argparse
from pathlib import Path

from server.config import DEFAULT_MODEL


def parser(
    doc: str | None, *, model: bool = True, texts: str = "", seconds: int = 0, turns: int = 0
) -> argparse.ArgumentParser:
    """A command line whose help is the script's docstring.

    texts: the files that a folder of real texts must hold. seconds, turns: the options' defaults.
    An option whose value is empty or 0 is left out.
    """
    found = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if model:
        found.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="an artifact")
    if texts:
        found.add_argument("--texts", type=Path, help=f"folder with {texts}")
    if seconds:
        found.add_argument("--seconds", type=int, default=seconds, help="of each run")
    if turns:
        found.add_argument(
            "--turns", type=int, default=turns, help="alternations of the contenders"
        )
    return found
