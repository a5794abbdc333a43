"""Reads files as the command line does."""

from collections.abc import Callable
from typing import Any

import pytest

from server.errors import BadSettings
from server.sources.notes import Notes
from server.sources.readers import find_source, read_documents
from server.store.records import Document

Write = Callable[[str, bytes | str], str]


def read(name: str, **options: Any) -> list[Document]:
    return [document for document, _ in read_documents(find_source(name, **options))]


def texts(name: str, **options: Any) -> list[str]:
    return [document.text for document in read(name, **options)]


def refusal(name: str, **options: Any) -> BadSettings:
    """Return the error of reading a source; it must exist in Chinese."""
    with pytest.raises(BadSettings) as raised:
        read(name, **options)
    assert any("一" <= character <= "龥" for character in raised.value.chinese)
    return raised.value


def wrong_line(name: str, line: int, **options: Any) -> str:
    """Return why this line is not a document."""
    error = refusal(name, **options)
    english, chinese = f"{name}, line {line}: ", f"{name} 第 {line} 行："
    assert error.english.startswith(english) and error.chinese.startswith(chinese)
    return error.english.removeprefix(english)


def noted(name: str, **options: Any) -> Notes:
    """Return the notes on a source that was read to its end."""
    source = find_source(name, **options)
    for _ in read_documents(source):
        pass
    return source.notes


def sentences(notes: Notes) -> list[str]:
    """Return the notes in English; each must exist in Chinese."""
    said = list(notes.messages())
    assert all(any("一" <= character <= "龥" for character in each.chinese) for each in said)
    return [each.english for each in said]
