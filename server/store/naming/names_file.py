"""The file DATA/names.json: aliases of collections, and the renaming that is under way.

It is replaced whole and durably, so after a kill there is the old content or the new one. A data folder
without aliases has no such file.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from server.errors import StoreDamaged, StoreError
from server.store.collection_name import is_name
from server.system.atomic_file import replacing

FILE = "names.json"
# Of the file; the most aliases take 300 KB.
MOST_BYTES = 1 << 20
MAX_ALIASES = 1_000


class Renaming(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A collection that gets another name. keep: whether the old name becomes an alias of the new one."""

    old: str
    new: str
    keep: bool


class Names(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The content of the file. aliases: the name of a collection by its alias."""

    aliases: Mapping[str, str] = {}
    renaming: Renaming | None = None

    def with_alias(self, alias: str, collection: str) -> "Names":
        return Names({**self.aliases, alias: collection}, self.renaming)

    def without_alias(self, alias: str) -> "Names":
        kept = {each: to for each, to in self.aliases.items() if each != alias}
        return Names(kept, self.renaming)

    def renamed(self) -> "Names":
        """Return the names after the renaming, which is still under way; a second time nothing changes."""
        going = self.renaming
        if going is None:
            return self
        aliases = {each: going.new if to == going.old else to for each, to in self.aliases.items()}
        if going.keep:
            aliases[going.old] = going.new
        # The collection itself has this name now.
        aliases.pop(going.new, None)
        return Names(aliases, going)

    def settled(self) -> "Names":
        """Return the names without a renaming."""
        return Names(self.aliases)


class NamesFile:
    """The file of one data folder, as it was read or written last; only the lock's holder writes it.

    Each change replaces the whole file, so the caller makes one at a time, over all its steps.
    """

    def __init__(self, data: Path) -> None:
        """Raise StoreDamaged for a file that this server did not write."""
        self._path = data / FILE
        self.names = read(data)

    def write(self, names: Names) -> None:
        """Replace the file; where that raises OSError, `names` stay as they were."""
        if names == self.names:
            return
        with replacing(self._path) as file:
            file.write(msgspec.json.encode(names))
        self.names = names


def read(data: Path) -> Names:
    """Return the names of a data folder; raise StoreDamaged for a file that this server did not write."""
    path = data / FILE
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return Names()
    except OSError as error:
        raise StoreError(
            "{path} cannot be read: {why}", path=path, why=os.strerror(error.errno or 0)
        ) from None
    try:
        if len(content) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES} bytes")
        names = msgspec.json.decode(content, type=Names)
        _check(names)
    except (ValueError, UnicodeDecodeError) as error:
        raise StoreDamaged(
            "{path} is not what was written ({why}): mend it, or delete it and set the aliases again",
            path=path,
            why=str(error),
        ) from None
    return names


def _check(names: Names) -> None:
    every = {*names.aliases, *names.aliases.values()}
    if names.renaming is not None:
        every |= {names.renaming.old, names.renaming.new}
    for name in every:
        if not is_name(name):
            raise ValueError(f"{ascii(name)[:80]} cannot name a collection")
    if len(names.aliases) > MAX_ALIASES + 1:
        raise ValueError(f"it has {len(names.aliases)} aliases, at most {MAX_ALIASES} are possible")
