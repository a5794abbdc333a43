"""The answers to a request to read a file, in the process that reads."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from itertools import islice
from pathlib import Path

from server.errors import BadSettings
from server.messages.message import Message, SentenceError
from server.sources.checked import NotADocument, checked
from server.sources.formats import documents_of
from server.sources.held import Held
from server.sources.isolated.frames import (
    Answer,
    Began,
    Done,
    Failed,
    Found,
    Request,
    Wrong,
    sentence_of,
)
from server.sources.office.formats import OFFICE
from server.sources.office.given import Given
from server.sources.office.section import Section, Unreadable
from server.sources.place import FILE
from server.sources.problems import Problems
from server.sources.source import Read, Source
from server.store.records import is_blank

Reader = Callable[[Given], Iterator[Section]]
# By format: the module that reads it, and the package that this needs.
MODULES: Mapping[str, tuple[str, str]] = {
    "pdf": ("pdf", "pypdfium2"),
    "docx": ("docx", "lxml"),
    "xlsx": ("sheets", "python-calamine"),
    "pptx": ("pptx", "lxml"),
    "html": ("html", "lxml"),
    "epub": ("epub", "lxml"),
    "eml": ("mail", "lxml"),
}
# Sentences about one file.
MOST_NOTES = 100
_readers: dict[str, Reader] = {}


def load() -> None:
    """Import the readers whose packages are installed."""
    for format, (name, _) in MODULES.items():
        with suppress(ImportError):
            module = import_module(f"server.sources.office.{name}")
            _readers[format] = module.sections


def answers(request: Request, data: bytes) -> Iterator[Answer]:
    """Yield that the file has arrived, its documents, and how it ended."""
    yield Began()
    wrong: list[BadSettings] = []
    source = _source(request, data, wrong)
    try:
        for document, n_read in _documents(request, data, source):
            yield from _taken(wrong)
            yield Found.of(document, n_read)
    except MemoryError:
        why = Message("it needs more memory than a file may take; split it")
        yield Failed(sentence_of(why), is_last=True)
        return
    except (Unreadable, NotADocument) as error:
        yield Failed(sentence_of(error.sentence))
        return
    except SentenceError as error:
        yield Failed(sentence_of(error.sentence), named=True)
        return
    except Exception as error:
        # A bug of a library, or of this code, on a file that is wrong in some way.
        why = Message("it is damaged: {error}", error=f"{type(error).__name__}: {error}"[:200])
        yield Failed(sentence_of(why), is_last=isinstance(error, RecursionError))
        return
    yield from _taken(wrong)
    notes = islice(source.notes.messages(), MOST_NOTES)
    yield Done([sentence_of(message) for message in notes])


def _source(request: Request, data: bytes, wrong: list[BadSettings]) -> Source:
    return Source(
        request.name,
        (Held.of(request.name, data),),
        Path(),
        len(data),
        request.options,
        is_folder=request.is_folder,
        problems=Problems(request.keep_going, wrong.append),
    )


def _taken(wrong: list[BadSettings]) -> Iterator[Wrong]:
    """Yield the rows that were found to be wrong since the last time."""
    yield from (Wrong(sentence_of(error.sentence)) for error in wrong)
    wrong.clear()


def _documents(request: Request, data: bytes, source: Source) -> Iterator[Read]:
    if request.format not in OFFICE:
        yield from documents_of(source.files[0], source)
        return
    name, reader = request.name, _readers.get(request.format)
    if reader is None:
        raise Unreadable(
            "reading {format} needs {package}: pip install 'inkwell-embeddings[office]'",
            format=request.format,
            package=MODULES[request.format][1],
        )
    given, blank = Given(name, request.shown, data, source), 0
    for section in reader(given):
        if is_blank(section.text):
            blank += 1
            continue
        id = section.id or f"{name}#{section.tag}"
        document = checked(section.text, id, section.title, {FILE: name, **section.place})
        yield document, int(section.share * len(data))
    if blank:
        given.note(Message("parts without a visible character left out: {number:,}", number=blank))
