"""Options that several scripts share; a script adds its own."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from server.config import DEFAULT_MODEL


def parser(
    doc: str | None,
    *,
    model: bool = True,
    float_model: bool = False,
    texts: str = "",
    seconds: int = 0,
    turns: int = 0,
) -> argparse.ArgumentParser:
    """Return a command line whose help is the script's docstring.

    texts: the files that a folder of real texts must hold. seconds, turns: the options' defaults.
    An option whose value is false, empty or 0 is left out.
    """
    found = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if model:
        found.add_argument("--model", type=Path, default=DEFAULT_MODEL, help="an artifact")
    if float_model:
        found.add_argument("--float", type=Path, help="float32 artifact of the same checkpoint")
    if texts:
        found.add_argument("--texts", type=Path, help=f"folder with {texts}")
    if seconds:
        found.add_argument("--seconds", type=int, default=seconds, help="of each run")
    if turns:
        found.add_argument(
            "--turns", type=int, default=turns, help="alternations of the contenders; medians count"
        )
    return found


def names_among(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a reader of names with commas between; it refuses a name that is not in `known`."""
    allowed = list(known)

    def names(text: str) -> list[str]:
        chosen = [name for name in text.split(",") if name]
        if unknown := set(chosen) - set(allowed):
            raise argparse.ArgumentTypeError(
                f"{', '.join(sorted(unknown))} is not among {', '.join(allowed)}"
            )
        return chosen

    return names
