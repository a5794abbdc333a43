"""Reads the file of a request in a process of its own, so that neither the loop nor the server waits."""

import asyncio
import re
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from server.errors import BadSettings, InvalidRequest, RequestTooLarge
from server.sources.held import Held
from server.sources.isolated.limits import MB, Limits
from server.sources.isolated.process import ReaderProcess
from server.sources.isolated.read import read_apart
from server.sources.problems import Problems
from server.sources.replacements import Replacements
from server.sources.source import Options, Source
from server.store.records import Document
from server.system.turns import Turns

# Files that are read at once; each takes a core, and memory up to its limit.
READING = Turns(2)
LIMITS = Limits(wait_s=60.0, cpu_s=50, memory_bytes=1024 * MB, text_bytes=128 * MB)
# Of one file.
MAX_DOCUMENTS = 100_000
MAX_WRONG, MAX_NOTES = 1_000, 100
# Flags of the command `index` that are parameters of a request, too.
FLAG = re.compile(r"--((?:text|title|id)-column|encoding|types)\b")


@dataclass(slots=True)
class Contents:
    """What a file holds. wrong: the first errors of rows, of n_wrong."""

    documents: list[Document] = field(default_factory=list)
    wrong: list[BadSettings] = field(default_factory=list)
    n_wrong: int = 0
    notes: list[str] = field(default_factory=list)

    def add_wrong(self, error: BadSettings) -> None:
        self.n_wrong += 1
        if len(self.wrong) < MAX_WRONG:
            self.wrong.append(error)


async def read_file(data: bytes, name: str, format: str, options: Options) -> Contents:
    """Return the documents of a file; raises InvalidRequest or RequestTooLarge.

    When cancelled, the process that reads is ended, and with it the thread that waits for it.
    """
    processes: list[ReaderProcess] = []
    async with READING.here():
        try:
            return await asyncio.to_thread(_read, data, name, format, options, processes)
        except asyncio.CancelledError:
            for process in processes:
                process.kill()
            raise


def _read(
    data: bytes, name: str, format: str, options: Options, processes: list[ReaderProcess]
) -> Contents:
    found = Contents()
    source = Source(
        name,
        (Held.of(name, b""),),
        Path(),
        len(data),
        options,
        problems=Problems(keep_going=True, listed=found.add_wrong),
    )
    reading = read_apart(data, name, format, source, LIMITS, started=processes.append)
    replacements = Replacements()
    try:
        for read, _ in reading:
            document, is_other = replacements.settle(read)
            if is_other:
                source.notes.replaced[name] += 1
            if len(found.documents) == MAX_DOCUMENTS:
                raise RequestTooLarge(
                    f"{name} has more than {MAX_DOCUMENTS} documents, the most of one request; split it, or"
                    " use the command `index`"
                )
            found.documents.append(document)
    except BadSettings as error:
        raise InvalidRequest(in_terms_of_http(error.english), param="name") from None
    finally:
        reading.close()
    found.notes = [
        in_terms_of_http(note.english) for note in islice(source.notes.messages(), MAX_NOTES)
    ]
    return found


def in_terms_of_http(sentence: str) -> str:
    """Return a sentence with the names of parameters where it has the flags of a command."""
    return FLAG.sub(lambda found: found[1].replace("-", "_"), sentence)
