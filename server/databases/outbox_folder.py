"""The folder DATA/external: the records and outboxes of collections in vector databases, one file each."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from server.databases.outbox import Outbox, Record
from server.errors import StoreDamaged, StoreError
from server.store.collection_name import check_name
from server.store.folder_layout import FolderLayout
from server.store.folder_lock import unusable

FOLDER, FILE = "external", "outbox.db"

log = logging.getLogger(__name__)


class OutboxFolder:
    """The outboxes of one data folder, whose lock the caller holds.

    outboxes: those that are open, by the name of their collection. damaged: by name, the error of each that
    cannot be opened; its files are not changed.
    """

    def __init__(self, data: Path) -> None:
        """Open every outbox; raises StoreError where the folder itself cannot be used."""
        self._layout = FolderLayout(data, FOLDER)
        self.outboxes: dict[str, Outbox] = {}
        self.damaged: dict[str, StoreError] = {}
        if not self._layout.path.is_dir():
            return
        try:
            names = self._layout.names()
            self._layout.clean({})
        except OSError as error:
            raise unusable(self._layout.path, error) from None
        for name in names:
            try:
                self._open(name)
            except StoreError as error:
                self.damaged[name] = error
                log.error("the outbox of collection %s cannot be opened: %s", name, error.english)

    def _open(self, name: str) -> Outbox:
        home = self._layout.home(name)
        with self._reporting(name):
            outbox = Outbox(home / FILE)
        if outbox.record.info.name != name:
            outbox.close()
            raise StoreDamaged(
                "the folder {folder} holds the collection {name}; rename the folder to {name}",
                folder=home,
                name=outbox.record.info.name,
            )
        self.outboxes[name] = outbox
        return outbox

    def create(self, record: Record) -> Outbox:
        """Create the outbox of a collection, whole or not at all; its name must be free."""
        name = record.info.name
        check_name(name)
        with self._reporting(name):
            self._layout.prepare()
            with self._layout.staging() as staged:
                Outbox(staged / FILE, record).close()
                self._layout.place(staged, self._layout.home(name))
        return self._open(name)

    def remove(self, name: str) -> None:
        """Delete an outbox with all that waits in it, while no call uses it."""
        # As `DataFolder.remove`: the folder is renamed first, so that a kill leaves all of it or nothing.
        with self._reporting(name):
            self._layout.remove(name)
        self.outboxes.pop(name).close()
        self._layout.sweep()

    @contextmanager
    def _reporting(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unusable(self._layout.home(name), error) from error

    def close(self) -> None:
        """Close every file; no other call may be running."""
        with ExitStack() as stack:
            while self.outboxes:
                stack.callback(self.outboxes.popitem()[1].close)
