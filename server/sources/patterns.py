"""Patterns of paths: `*` within a name, `**` across folders, `?` and `[a-z]` for one character."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True)
class Selection:
    """The files of a folder that are read.

    include: patterns of which one must fit, all files where there are none. exclude: patterns of which
    none may fit. A pattern without a slash is for the name of a file or folder at any depth; with one it
    is for the path within the folder.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def takes(self, path: str) -> bool:
        """Return whether a file is read; path: relative to the folder, with slashes."""
        return (not self.include or _fits(self.include, path)) and not self.leaves_out(path)

    def leaves_out(self, path: str) -> bool:
        """Return whether a file, or a folder with all that is in it, is excluded."""
        return bool(self.exclude) and _fits(self.exclude, path)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that was given as a source: the folder before its first wildcard, and the rest."""

    folder: Path
    rest: str

    @classmethod
    def of(cls, name: str) -> "Pattern | None":
        """Return the pattern of a name, None for a name without wildcards."""
        if not MAGIC.search(name):
            return None
        parts = Path(name).parts
        fixed = next(n for n, part in enumerate(parts) if MAGIC.search(part))
        return cls(Path(*parts[:fixed]), "/".join(parts[fixed:]))

    def fits(self, path: str) -> bool:
        """Return whether a file fits; path: relative to the folder, with slashes."""
        return _compiled(self.rest).fullmatch(path) is not None

    def reaches(self, folder: str) -> bool:
        """Return whether files in a folder may fit; folder: relative to the first one, with slashes."""
        steps = self.rest.split("/")
        for place, name in enumerate(folder.split("/")):
            if place < len(steps) and "**" in steps[place]:
                return True
            if place >= len(steps) - 1 or not _compiled(steps[place]).fullmatch(name):
                return False
        return True


def _fits(patterns: Iterable[str], path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return any(
        _compiled(pattern.removeprefix("./").rstrip("/")).fullmatch(
            path if "/" in pattern.rstrip("/") else name
        )
        for pattern in patterns
    )


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Return a pattern of paths as a regular expression."""
    written, place = "", 0
    while place < len(pattern):
        if pattern.startswith("**/", place):
            written, place = written + "(?:[^/]+/)*", place + 3
        elif pattern.startswith("**", place):
            written, place = written + ".*", place + 2
        elif pattern[place] == "*":
            written, place = written + "[^/]*", place + 1
        elif pattern[place] == "?":
            written, place = written + "[^/]", place + 1
        elif found := re.compile(r"\[(!?)([^\]/]+)\]").match(pattern, place):
            chosen = re.sub(r"([\\^\[&~|])", r"\\\1", found[2])
            written += f"[{'^/' if found[1] else ''}{chosen}]"
            place = found.end()
        else:
            written, place = written + re.escape(pattern[place]), place + 1
    return re.compile(written, re.DOTALL)
