"""Reads files as the command line does."""

from collections.abc import Callable
from typing import Any

import pytest

from server.errors import BadSettings
from server.sources.columns import Columns
from server.sources.notes import Notes
from server.sources.patterns import Selection
from server.sources.problems import Problems
from server.sources.readers import find_source, find_sources, read_documents
from server.sources.source import Options
from server.sources.values import Types, parse_types
from server.store.records import Document

Write = Callable[[str, bytes | str], str]


def options(
    *,
    columns: dict[str, str] | None = None,
    types: str | None = None,
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    **others: Any,
) -> Options:
    """Return options as the command line gives them."""
    found = Types() if types is None else parse_types(types)
    assert found is not None
    return Options(
        columns=Columns(**columns or {}),
        types=found,
        selection=Selection(include, exclude),
        **others,
    )


def read(*names: str, **given: Any) -> list[Document]:
    sources = find_sources(names, options(**given))
    return [document for document, _ in read_documents(*sources)]


def problems(name: str, **given: Any) -> tuple[list[Document], list[str]]:
    """Return the documents of a source that is read on after errors, and the errors."""
    errors: list[str] = []
    listed = Problems(True, lambda error: errors.append(error.english))
    sources = find_sources([name], options(**given), problems=listed)
    return [document for document, _ in read_documents(*sources)], errors


def texts(name: str, **given: Any) -> list[str]:
    return [document.text for document in read(name, **given)]


def refusal(name: str, **given: Any) -> BadSettings:
    """Return the error of reading a source; it must exist in Chinese."""
    with pytest.raises(BadSettings) as raised:
        read(name, **given)
    assert any("一" <= character <= "龥" for character in raised.value.chinese)
    return raised.value


def wrong_line(name: str, line: int, **given: Any) -> str:
    """Return why this line is not a document."""
    error = refusal(name, **given)
    english, chinese = f"{name}, line {line}: ", f"{name} 第 {line} 行："
    assert error.english.startswith(english) and error.chinese.startswith(chinese)
    return error.english.removeprefix(english)


def noted(name: str, **given: Any) -> Notes:
    """Return the notes on a source that was read to its end."""
    source = find_source(name, options(**given))
    for _ in read_documents(source):
        pass
    return source.notes


def sentences(notes: Notes) -> list[str]:
    """Return the notes in English; each must exist in Chinese."""
    said = list(notes.messages())
    assert all(any("一" <= character <= "龥" for character in each.chinese) for each in said)
    return [each.english for each in said]
