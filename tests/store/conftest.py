"""Fixtures of the tests of documents: an empty database of documents, open, and its path."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.store.documents import Documents
from tests.support.stored_documents import INFO


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "documents.sqlite3"


@pytest.fixture
def documents(path: Path) -> Iterator[Documents]:
    opened = Documents(path, INFO, busy_timeout_s=0)
    yield opened
    opened.close()
