"""What a transfer has copied so far, on the disk of this server, so that it goes on after a kill.

The ids of the copied documents tell three cases apart: a document that the source no longer has and that was
copied is removed from the target too, one that was never copied belongs to somebody else, and one that has been
copied and is written in the target by others is not overwritten once clients write there.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from server.store.sqlite.database import Connection, Database
from server.store.sqlite.database_path import SHARED, WAL, beside

VERSION = 1
TABLES = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    # round: the last sweep of the source that saw it.
    """CREATE TABLE copied (
        id TEXT PRIMARY KEY, digest TEXT NOT NULL, round INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
)
# Keys of `meta`. PLACES: the source and the target, as `Place.identity` has them.
PLACES, AFTER, ROUND = "places", "after", "round"
# The digest of a document that may never have arrived.
UNKNOWN = ""
MARKED = "UPDATE copied SET round = ? WHERE id = ?"


class Journal:
    """The file of one transfer. Methods block, and one is called at a time; each lasts when it returns."""

    def __init__(self, path: Path, places: Sequence[str]) -> None:
        """Open the file, or begin a new one where it is of other places; raises StoreError."""
        self.path = path
        wanted = "\n".join(places)
        # Whether nothing was copied before.
        self.is_new = not path.exists()
        self._database = self._opened(wanted)
        if self._meta(PLACES) != wanted:
            # Of a collection of this name that has been removed, restored or reindexed since.
            self.delete()
            self.is_new = True
            self._database = self._opened(wanted)
        # The number of the last document of the source that was copied.
        self.after = int(self._meta(AFTER))

    def _opened(self, places: str) -> Database:
        def create(writer: Connection) -> None:
            for statement in TABLES:
                writer.execute(statement)
            meta = {PLACES: places, AFTER: "0", ROUND: "0"}
            writer.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())

        return Database(self.path, VERSION, create, _migrate)

    def _meta(self, key: str) -> str:
        return str(self._database.rows("SELECT value FROM meta WHERE key = ?", (key,))[0][0])

    def expect(self, ids: Iterable[str]) -> None:
        """Note ids that are about to be copied: after a kill they may be there, or still be on their way."""
        with self._database.transaction() as writer:
            insert = "INSERT OR IGNORE INTO copied (id, digest) VALUES (?, ?)"
            writer.executemany(insert, ((id, UNKNOWN) for id in ids))

    def note(self, copied: Iterable[tuple[str, str]], after: int) -> None:
        """Note ids that were copied, with their digests, and the number of the last."""
        with self._database.transaction() as writer:
            insert = "INSERT OR REPLACE INTO copied (id, digest) VALUES (?, ?)"
            writer.executemany(insert, copied)
            writer.execute("UPDATE meta SET value = ? WHERE key = ?", (str(after), AFTER))
        self.after = after

    def count(self) -> int:
        """Return how many documents have been copied, or may have been, and not been removed since."""
        return int(self._database.rows("SELECT count(*) FROM copied")[0][0])

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        """Return the digests of those of the ids that were copied or may have been; UNKNOWN for the latter."""
        return dict(self._database.rows_of("SELECT id, digest FROM copied WHERE id IN", ids))

    def sample(self, number: int) -> list[str]:
        """Return ids that were copied, drawn at random."""
        query = "SELECT id FROM copied ORDER BY random() LIMIT ?"
        return [id for (id,) in self._database.rows(query, (number,))]

    # --- what the source no longer has ----------------------------------------------------------------

    def begin_round(self) -> int:
        """Begin a sweep of the source; returns its number."""
        number = int(self._meta(ROUND)) + 1
        with self._database.transaction() as writer:
            writer.execute("UPDATE meta SET value = ? WHERE key = ?", (str(number), ROUND))
        return number

    def saw(self, ids: Iterable[str], number: int) -> None:
        """Note that the source has these documents still."""
        with self._database.transaction() as writer:
            writer.executemany(MARKED, ((number, id) for id in ids))

    def unseen(self, number: int, limit: int) -> list[str]:
        """Return ids that were copied and that a sweep has not seen."""
        query = "SELECT id FROM copied WHERE round < ? LIMIT ?"
        return [id for (id,) in self._database.rows(query, (number, limit))]

    def forget(self, ids: Iterable[str]) -> None:
        """Forget documents that were removed from the target."""
        with self._database.transaction() as writer:
            writer.executemany("DELETE FROM copied WHERE id = ?", ((id,) for id in ids))

    # --- the end --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file for the next run."""
        self._database.close()

    def delete(self) -> None:
        """Close the file and delete it."""
        self._database.close()
        for each in (self.path, beside(self.path, WAL), beside(self.path, SHARED)):
            each.unlink(missing_ok=True)


def _migrate(writer: Connection, version: int) -> None:
    raise AssertionError(f"there is no migration from version {version}")
