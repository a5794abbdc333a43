"""What was left out and what was wrong: the first of it on the terminal, all of it in a file."""

import json
from pathlib import Path
from typing import TextIO

from server.errors import BadSettings
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.sources.notes import WHY, Notes, Reason
from server.sources.problems import Problems

# Errors that the terminal shows.
SHOWN = 20
# How every report begins that is not empty.
BEGIN = b'{"kind": "'


class Report:
    """Collects files that are left out and rows that are wrong; use it as a context.

    verbose: whether the terminal shows all of them. file: gets a JSON object for each, None for no file.
    """

    def __init__(
        self, terminal: Terminal, *, keep_going: bool, verbose: bool, file: Path | None
    ) -> None:
        self._terminal, self._verbose = terminal, verbose
        self._opened: TextIO | None = None
        self._shown: list[Message] = []
        self._finished = False
        self.notes = Notes(each_skipped=self._skipped)
        self.problems = Problems(keep_going, self._wrong)
        if file is not None:
            self._opened = _to_write(file)

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self) -> None:
        """Print the notes on what was read, once, also where the command fails, and close the file."""
        if self._finished:
            return
        self._finished = True
        if self._opened is not None:
            self._opened.close()
        for message in self._shown:
            self._terminal.inform(message)
        if self.problems.number > (shown := len(self._shown)):
            self._terminal.inform(
                "and {number:,} more errors; --report FILE lists all",
                number=self.problems.number - shown,
            )
        for note in self.notes.messages():
            self._terminal.inform(note)

    def _wrong(self, error: BadSettings) -> None:
        if self._verbose or len(self._shown) < SHOWN:
            self._shown.append(Message("not stored: {error}", error=error))
        fields = error.sentence.fields
        why = fields.get("why", error.sentence)
        self._write(
            kind="error",
            file=str(fields.get("name", "")) or None,
            line=fields.get("line", fields.get("row")),
            reason=self._terminal.words(why) if isinstance(why, Message) else str(why),
        )

    def _skipped(self, reason: Reason, name: str) -> None:
        if self._verbose:
            self._terminal.inform("{why}: {files}", why=WHY[reason], files=name)
        self._write(kind="left out", file=name, line=None, reason=self._terminal.words(WHY[reason]))

    def _write(self, **fields: object) -> None:
        if self._opened is None or self._finished:
            return
        try:
            self._opened.write(json.dumps(fields, ensure_ascii=False) + "\n")
        except OSError as error:
            raise BadSettings(
                "report {file} cannot be written: {strerror}",
                file=self._opened.name,
                strerror=error.strerror,
            ) from None


def _to_write(file: Path) -> TextIO:
    """Open the file of a report; raises BadSettings where that would overwrite something else.

    A shell makes several names of `--report *.md`, and the first of them would be lost.
    """
    try:
        if file.is_file() and file.stat().st_size:
            with file.open("rb") as before:
                if before.read(len(BEGIN)) != BEGIN:
                    raise BadSettings(
                        "report {file} would overwrite a file that is no report; give --report another "
                        "file",
                        file=file,
                    )
        return file.open("w", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise BadSettings(
            "report {file} cannot be written: {strerror}", file=file, strerror=error.strerror
        ) from None
