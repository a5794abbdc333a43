"""Backups whose documents would grow when they are stored: refused early, unless an older server stored them."""

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from server.collections.document_limits import check_documents
from server.errors import InvalidRequest, StoreError
from server.store.collection import DATABASE_FILE
from server.store.folder import DataFolder
from server.store.records import MAX_ALL_PATHS, MAX_PATHS, MAX_TITLE, Document, Span
from server.store.upkeep import restoring
from server.store.upkeep.backup_growth import ALLOWED, TIMES, Growth, path_characters
from server.store.upkeep.database_file import copy
from server.store.upkeep.restoring import restore
from tests.store.test_restoring import INFO, change, refused, sign, vectors

LONG = 4_000_000


def sources(tmp_path: Path, document: Document, spans: Sequence[Span] | None = None) -> Path:
    """Return a backup of one document that no limit of the API was applied to."""
    with closing(DataFolder(tmp_path / "source")) as folder:
        parts = None if spans is None else [spans]
        folder.create(INFO).add([document], vectors(1 if spans is None else len(spans)), parts)
    copy(tmp_path / "source/collections/laws" / DATABASE_FILE, tmp_path / "backup")
    return tmp_path / "backup"


def grown(backup: Path, change_of: str, parts: int, span: str) -> None:
    """Change the document of a backup, and give it so many parts."""
    copies = f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {parts})"
    change(
        backup,
        f"UPDATE documents SET {change_of}",
        f"{copies} INSERT INTO parts SELECT NULL, document, {span}, vector, 0 FROM parts, n",
    )
    sign(backup)


@pytest.mark.parametrize(
    ("changed", "parts", "span"),
    [
        (f"title = printf('%.*c', {LONG}, 'a')", 40, "0, 1"),
        (f"text = printf('%.*c', {LONG}, 'a')", 40, f"0, {LONG}"),
        # 30,000 values under a key of 5,000 characters.
        (
            "metadata = '{\"' || printf('%.*c', 5000, 'k') || '\": [1'"
            " || replace(hex(zeroblob(15000)), '0', ',1') || ']}'",
            1,
            "0, 1",
        ),
    ],
    ids=["title", "parts", "metadata"],
)
def test_small_backup_that_would_grow_is_refused_before_anything_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str, parts: int, span: str
) -> None:
    backup = sources(tmp_path, Document("id-0", "文字"))
    grown(backup, changed, parts, span)
    monkeypatch.setattr(restoring, "insert_document", None)
    refused(
        tmp_path / "data", backup, StoreError, "with document 'id-0', its titles, parts and keys"
    )


def test_documents_that_the_limits_of_today_refuse_are_restored(tmp_path: Path) -> None:
    """Older servers stored them."""
    metadata = {"k" * 300: {"n" * 100: list(range(300))}, "deep": json.loads("[" * 50 + "]" * 50)}
    data = tmp_path / "data"
    document = Document("id-0", "文字" * 20, "题" * 20_000, metadata)
    with pytest.raises(InvalidRequest):
        check_documents([document])
    spans = [Span(n, n + 2) for n in range(20)]
    backup = sources(tmp_path, document, spans)
    assert restore(data, backup, None, force=False).documents == 1
    with closing(DataFolder(data)) as folder:
        assert folder.collections["laws"].documents.get(["id-0"])["id-0"] == document


def test_documents_within_the_limits_of_the_api_are_always_enough() -> None:
    """A small model, the longest titles and paths, and half of each part repeated."""
    # Titles of older servers, with vectors of 512 numbers.
    growth = Growth()
    for _ in range(1_000):
        assert growth.add_document("字" * 25_000, "题" * 30_000, "{}", {})
        assert all(growth.add_part(500, 4 * 512) for _ in range(50))
    growth = Growth()
    metadata = {"k" * 256: [0] * 254}
    written = json.dumps(metadata)
    assert path_characters(metadata) <= MAX_PATHS
    for _ in range(1_000):
        assert growth.add_document("字" * 13_000, "题" * MAX_TITLE, written, metadata)
        assert all(growth.add_part(500, 4 * 64) for _ in range(50))


def test_growth_is_bounded_by_what_was_read() -> None:
    growth = Growth()
    title = "a" * (MAX_TITLE + 1)
    assert growth.add_document("", title, "{}", {})
    most = (ALLOWED + TIMES * (len(title) + 2)) // (len(title) - TIMES * 16)
    assert all(growth.add_part(0, 16) for _ in range(most))
    assert not growth.add_part(0, 16)
    assert growth.add_document("a" * len(title), None, "{}", {})
    nested = {"k" * 100: {"n": [1, [2]]}}
    assert path_characters(nested) == 101 + 103 * 4
    wide = {"k" * 1_000: list(range(MAX_ALL_PATHS // 1_001 + 1))}
    assert not Growth().add_document("a" * MAX_ALL_PATHS, None, "{}", wide)
