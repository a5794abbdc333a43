"""Files as documents that are read in a process of their own, within limits."""

import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import BinaryIO

from server.errors import BadSettings
from server.messages.message import Message
from server.sources.decoding import escaped, reading, shown_name
from server.sources.isolated.frames import Done, Failed, Found, Request, Wrong, message_of
from server.sources.isolated.limits import MB, Limits
from server.sources.isolated.process import ReaderProcess, answers
from server.sources.office.section import Unreadable, UnreadableFile
from server.sources.problems import Stopped
from server.sources.source import Read, Source

Started = Callable[[ReaderProcess], None]


def read_office(file: Path | None, source: Source, limits: Limits | None = None) -> Iterator[Read]:
    """Yield the documents of an office file; raises BadSettings, which names the file."""
    limits = limits or Limits()
    name = "stdin" if file is None else escaped(source.path_of(file))
    data = _bytes_of(file, limits.file_bytes)
    format = source.format_of(file)
    return read_apart(data, name, format, source, limits, shown=shown_name(file))


def read_apart(
    data: bytes,
    name: str,
    format: str,
    source: Source,
    limits: Limits,
    *,
    shown: str = "",
    started: Started | None = None,
) -> Generator[Read, None, None]:
    """Yield the documents of a file of any format; raises BadSettings, which names the file.

    name: its path as documents have it. shown: as messages have it, the same if left out. started: called
    with the process that reads, which may be ended from another thread.
    """
    shown = shown or name
    asked = Request(
        name,
        shown,
        format,
        len(data),
        limits.cpu_s,
        source.problems.keep_going,
        source.is_folder,
        source.options,
    )
    found = False
    try:
        for answer in answers(asked, data, limits, started):
            match answer:
                case Found():
                    found = True
                    yield answer.document, answer.n_read
                case Wrong():
                    source.problems.add(BadSettings(message_of(answer.why)))
                case Failed():
                    why = message_of(answer.why)
                    # What names the file is a row of it: rows after it could be read.
                    raise Stopped(why) if answer.named else unreadable(shown, why)
                case Done():
                    for note in answer.notes:
                        source.notes.add(message_of(note))
                    if not found and not answer.notes:
                        source.notes.skip("empty", shown)
    except Unreadable as error:
        raise unreadable(shown, error.sentence) from None


def unreadable(name: str, why: Message) -> UnreadableFile:
    """Return the error for a file that cannot be read."""
    return UnreadableFile("{name} was not read: {why}", name=name, why=why)


def _bytes_of(file: Path | None, most: int) -> bytes:
    """Return the bytes of a file, None for standard input; raises BadSettings for too many."""
    name = shown_name(file)
    with reading(name):
        if file is None:
            data = _at_most(sys.stdin.buffer, most)
        else:
            with file.open("rb") as opened:
                data = _at_most(opened, most)
    if data is None:
        raise unreadable(name, Message("it has more than {most:,} MB; split it", most=most // MB))
    return data


def _at_most(opened: BinaryIO, most: int) -> bytes | None:
    data = opened.read(most + 1)
    return None if len(data) > most else data
