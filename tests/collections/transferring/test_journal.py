"""What a transfer notes, and how it compares documents."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from server.collections.transferring.comparison import difference
from server.collections.transferring.journal import UNKNOWN, Journal
from server.databases.outbox_rows import Put
from server.store.records import Document, Span

PLACES = ["here", "there"]
VECTORS = np.eye(2, 8, dtype=np.float32)
PUT = Put(Document("a", "墨池笔纸", "题", {"n": 1}), "d", [Span(0, 2), Span(2, 4)], VECTORS)


def test_journal_is_there_after_a_kill(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db", PLACES)
    assert journal.is_new and journal.after == 0
    journal.expect(["a", "b"])
    journal.note([("a", "1"), ("b", "2")], 7)
    journal.expect(["a", "c"])
    # Not closed: its files are as a kill leaves them.
    again = Journal(tmp_path / "j.db", PLACES)
    assert not again.is_new
    assert (again.after, again.count()) == (7, 3)
    assert again.digests(["a", "c", "z"]) == {"a": "1", "c": UNKNOWN}
    again.close()
    journal.close()


def test_sweep_finds_what_the_source_no_longer_has(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db", PLACES)
    journal.note([(id, id) for id in "abcd"], 4)
    for kept, gone in (("abd", "c"), ("bd", "a")):
        sweep = journal.begin_round()
        journal.saw(kept, sweep)
        assert journal.unseen(sweep, 10) == [gone]
        journal.forget(gone)
    assert sorted(journal.sample(10)) == ["b", "d"]
    journal.close()


def test_journal_of_other_collections_begins_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db", PLACES)
    journal.note([("a", "1")], 7)
    journal.close()
    other = Journal(tmp_path / "j.db", ["here", "there again"])
    assert other.is_new and (other.after, other.count()) == (0, 0)
    other.delete()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"document": Document("a", "墨池笔", "题", {"n": 1})}, "its text is another"),
        ({"document": Document("a", "墨池笔纸", None, {"n": 1})}, "its title is another"),
        ({"document": Document("a", "墨池笔纸", "题", {"n": True})}, "its metadata is another"),
        ({"spans": [Span(0, 4)], "vectors": VECTORS[:1]}, "it has other chunks (1, not 2)"),
        ({"vectors": VECTORS * 3}, None),
        ({"vectors": VECTORS + np.float32(0.01)}, "its vectors are others (least cosine 0.99"),
        ({"vectors": VECTORS * np.nan}, "its vectors are others (least cosine nan"),
    ],
)
def test_what_differs_is_said(change: dict[str, object], said: str | None) -> None:
    found = difference(PUT, replace(PUT, **change))  # type: ignore[arg-type]
    assert found == said if said is None else found is not None and found.startswith(said)
    assert difference(PUT, None) == "it is not there"
