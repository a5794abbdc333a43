"""Backups over HTTP: received and checked before they have their name, and sent to be restored."""

from contextlib import closing
from pathlib import Path

from server.cli.commands.opening import Run
from server.cli.remote import Remote
from server.errors import BadSettings, StoreError
from server.store.upkeep.backup_file import BackupFile, opened, writing
from server.system.atomic_file import install, scratch_for


def receive(remote: Remote, target: Path, run: Run) -> int:
    """Write a backup of a collection into a file, which replaces another; return its size in bytes.

    Every row is checked before the file gets its name, so a part of a backup never looks like one.
    """
    with writing(target):
        with scratch_for(target) as (scratch, file):
            run(remote.backup(file))
            file.flush()
            _check(scratch, target)
            install(scratch, target)
        return target.stat().st_size


def _check(scratch: Path, target: Path) -> None:
    try:
        with closing(BackupFile(scratch, str(target))) as backup:
            backup.check()
    except (BadSettings, StoreError) as error:
        raise StoreError(
            "what came is no sound backup, and {target} was not written: {why}",
            target=target,
            why=error,
        ) from error


def send(remote: Remote, file: Path, name: str | None, run: Run, *, force: bool) -> tuple[str, int]:
    """Make a collection of a server from a backup; return its name and how many documents it has."""
    with opened(file, name) as (_, given):
        pass  # examined, and closed before it is sent
    with file.open("rb") as content:
        return given, run(remote.named(given).restore(content, replace=force))
