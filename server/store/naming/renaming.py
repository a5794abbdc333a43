"""Renames a collection on the disk, so that a kill at any step leaves the old name or the new one.

The name of the folder decides; everything else follows it. The steps, and what a start does after a kill:

1 note the renaming in names.json          nothing is renamed: the note is deleted
2 OLD to NEW, the folder                   the collection is NEW: a start does steps 3 to 5
3 let the aliases of OLD lead to NEW       a start does steps 4 and 5
4 write NEW into the database              a start does step 5
5 delete the note

A step that fails undoes those before it, in the opposite order.
"""

from contextlib import closing, suppress
from pathlib import Path

from server.errors import StoreError
from server.store.collection import DATABASE_FILE
from server.store.documents import Documents
from server.store.folder_layout import FolderLayout
from server.store.naming.names_file import Names, NamesFile, Renaming


def prepared(data: Path, layout: FolderLayout) -> NamesFile:
    """Make the folders of collections ready, as a start does, and return the names; raises OSError."""
    layout.prepare()
    names = NamesFile(data)
    finish(layout, names)
    return names


def rename(layout: FolderLayout, names: NamesFile, renaming: Renaming) -> None:
    """Rename a collection whose files are closed; raise OSError or StoreError, then nothing is renamed."""
    # An earlier one that failed, and could not be undone, may have left its note.
    finish(layout, names)
    before = names.names
    noted = Names(before.aliases, renaming)
    names.write(noted)
    try:
        with layout.renaming(renaming.old, renaming.new) as home:
            try:
                names.write(noted.renamed())
                _label(home, renaming.new)
            except BaseException:
                with suppress(OSError, StoreError):
                    _label(home, renaming.old)
                with suppress(OSError):
                    names.write(noted)
                raise
    except BaseException:
        # The note stays where the undoing failed, too: then the next start undoes the rest.
        if _name_of(layout.home(renaming.old)) == renaming.old:
            with suppress(OSError):
                names.write(before)
        raise
    try:
        names.write(names.names.settled())
    except OSError:
        # A start deletes the note, or the next change does.
        names.names = names.names.settled()


def finish(layout: FolderLayout, names: NamesFile) -> None:
    """Finish or undo a renaming that was interrupted; called at a start, and before another one."""
    going = names.names.renaming
    if going is None:
        return
    old, new = layout.home(going.old), layout.home(going.new)
    if new.exists() and not old.exists() and _name_of(new) in (going.old, going.new):
        names.write(names.names.renamed())
        _label(new, going.new)
    elif old.exists() and not new.exists() and _name_of(old) == going.new:
        _label(old, going.old)
    names.write(names.names.settled())


def _name_of(home: Path) -> str | None:
    """Return the name in a database; None where it cannot be read, which its opening reports."""
    try:
        with closing(Documents(home / DATABASE_FILE, None)) as documents:
            return documents.info.name
    except (StoreError, OSError):
        return None


def _label(home: Path, name: str) -> None:
    """Write the name of the collection into its database."""
    with closing(Documents(home / DATABASE_FILE, None)) as documents:
        if documents.info.name != name:
            with documents.transaction():
                documents.note("name", name)
