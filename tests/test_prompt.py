"""A conversation with the prompt: what is typed, what is shown."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from server.manifest import Manifest
from server.prompt import NOT_TEXT, one_shot, run_prompt
from server.store.collection import Collection
from server.store.documents import Document
from server.types import Vectors

TEXTS = {"墨": "磨墨", "池": "池塘\n与\x1b[2J鱼", "砚": "砚台", "笔": "毛笔"}


def embed_query(query: str) -> Vectors:
    """The axis of the document named by the first character, and a little of the ones after it."""
    vector = np.zeros(4, dtype=np.float32)
    place = list(TEXTS).index(query[0])
    vector[[place, (place + 1) % 4, (place + 2) % 4]] = [0.8, 0.48, 0.36]
    return vector


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Collection]:
    manifest = cast(Manifest, SimpleNamespace(fingerprint="model-a", dimension=4))
    opened = Collection.open(tmp_path, "main", manifest)
    yield opened
    opened.close()


@pytest.fixture
def collection(empty: Collection) -> Collection:
    documents = [Document(id, text, metadata={"类": "文房"}) for id, text in TEXTS.items()]
    empty.add(documents, np.eye(4, dtype=np.float32))
    return empty


def typed(*answers: str | BaseException) -> Callable[[str], str]:
    """An `input` that answers these, in order, and raises those that are exceptions."""
    rest = list(answers)

    def ask(question: str) -> str:
        assert "查询" in question and "query" in question
        answer = rest.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return ask


def talk(collection: Collection, *answers: str | BaseException) -> list[str]:
    said: list[str] = []
    run_prompt(collection, embed_query, ask=typed(*answers), say=said.append)
    return said


def test_a_query_shows_the_three_best(collection: Collection) -> None:
    welcome, table, bye = talk(collection, "墨", "exit")
    assert "4 条文档" in welcome and "4 documents" in welcome
    assert table.splitlines() == [
        "1. 相似度 similarity 0.8000  磨墨",
        "2. 相似度 similarity 0.4800  池塘 与 [2J鱼",
        "3. 相似度 similarity 0.3600  砚台",
    ]
    assert "再见" in bye


@pytest.mark.parametrize(
    "leave", ["exit", "quit", "退出", " EXIT ", EOFError(), KeyboardInterrupt()]
)
def test_ways_to_leave(collection: Collection, leave: str | BaseException) -> None:
    assert "bye" in talk(collection, leave)[-1]


def test_an_empty_query_asks_again(collection: Collection) -> None:
    assert len(talk(collection, "", "  ", "砚", "quit")) == 3


def test_a_query_that_is_no_text_asks_again(collection: Collection) -> None:
    broken = UnicodeDecodeError("utf-8", b"\xe5", 0, 1, "unexpected end of data")
    said = talk(collection, broken, "\udce5", "笔", "quit")
    assert said[1:3] == [NOT_TEXT, NOT_TEXT]
    assert "毛笔" in said[3]


def test_an_empty_collection_says_how_to_index(empty: Collection) -> None:
    (said,) = talk(empty)
    assert "index FILE" in said and "没有文档" in said and "main" in said


def test_one_shot_shows_the_hits(collection: Collection) -> None:
    said: list[str] = []
    one_shot(collection, embed_query, "砚", 1, say=said.append)
    assert said == ["1. 相似度 similarity 0.8000  砚台"]


def test_one_shot_json_is_one_line_of_everything(collection: Collection) -> None:
    said: list[str] = []
    one_shot(collection, embed_query, "池", 1, as_json=True, say=said.append)
    assert "池塘" in said[0] and "\n" not in said[0]
    reply = json.loads(said[0])
    assert reply["query"] == "池"
    (hit,) = reply["hits"]
    assert hit.pop("score") == pytest.approx(0.8)
    assert hit == {"id": "池", "text": TEXTS["池"], "title": None, "metadata": {"类": "文房"}}


def test_one_shot_on_an_empty_collection(empty: Collection) -> None:
    said: list[str] = []
    one_shot(empty, embed_query, "墨", say=said.append)
    one_shot(empty, embed_query, "墨", as_json=True, say=said.append)
    assert "index FILE" in said[0]
    assert json.loads(said[1]) == {"query": "墨", "hits": []}
