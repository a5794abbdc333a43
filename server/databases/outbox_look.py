"""Looks into the outboxes of a data folder that another process may be using; nothing is changed."""

from dataclasses import dataclass
from pathlib import Path

from server.databases.outbox import DATABASE, REFUSAL
from server.databases.outbox_folder import FILE, FOLDER
from server.errors import StartupError, StoreDamaged
from server.store.folder_layout import FolderLayout
from server.store.upkeep.database_file import peek


@dataclass(frozen=True, slots=True)
class Look:
    """An outbox, or the error that prevented reading it.

    database: the name of its vector database. writes: that wait. set_aside: that were set aside. refused: what the
    database said of the write at the head.
    """

    name: str
    database: str = ""
    writes: int = 0
    set_aside: int = 0
    refused: str | None = None
    error: StartupError | None = None


def outboxes_in(data: Path) -> list[Look]:
    """Return what is to be seen of every outbox of a data folder."""
    layout = FolderLayout(data, FOLDER)
    return [_look(name, layout.home(name) / FILE) for name in layout.names()]


def _look(name: str, path: Path) -> Look:
    try:
        meta: dict[str, str] = dict(peek(path, "SELECT key, value FROM meta"))
        query = "SELECT count(*) FROM writes WHERE aside IS "
        writes, set_aside = (peek(path, query + each)[0][0] for each in ("NULL", "NOT NULL"))
        return Look(name, meta[DATABASE], writes, set_aside, meta.get(REFUSAL))
    except StartupError as error:
        return Look(name, error=error)
    except Exception as error:
        said = f"{path}: {type(error).__name__}: {error}"
        return Look(name, error=StoreDamaged("{said} (cannot be read)", said=said))
