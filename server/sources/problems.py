"""What cannot be read: the first error ends a command, or each is listed and the rest is read."""

from collections.abc import Callable
from dataclasses import dataclass, field

from server.errors import BadSettings


class Stopped(BadSettings):
    """Raised for the first error, where reading could have gone on after it."""


def _ignore(error: BadSettings) -> None:
    """Do nothing with an error."""


@dataclass(slots=True)
class Problems:
    """Errors of rows and files.

    keep_going: whether to go on after one. listed: called with each when it does. number: how many came.
    files: files and folders of which not everything could be read, as (name of the source, path in it).
    """

    keep_going: bool = False
    listed: Callable[[BadSettings], None] = _ignore
    number: int = 0
    files: set[tuple[str, str]] = field(default_factory=set)

    def add(self, error: BadSettings, *, of_one_file: bool = False) -> None:
        """List the error; raise it as Stopped where nothing is read after one.

        of_one_file: it is a whole file that cannot be read, and there are others: they are read.
        """
        if not (self.keep_going or of_one_file):
            raise Stopped(error.sentence)
        self.number += 1
        self.listed(error)

    def hides(self, source: str, path: str) -> bool:
        """Return whether a file, or a folder that it is in, could not be read: it may be there."""
        if not self.files:
            return False
        parts = path.split("/")
        return any((source, "/".join(parts[:n])) in self.files for n in range(1, len(parts) + 1))
