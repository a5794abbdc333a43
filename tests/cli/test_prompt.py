"""The prompt: what is typed and what is shown."""

import io
import json
from collections.abc import Callable

import pytest

from server.cli.prompt import one_shot, run_prompt
from server.cli.target import Found
from server.errors import Overloaded, StoreError
from server.messages.message import Language
from server.messages.terminal import Terminal
from server.store.records import Span
from server.store.search import Hit, Mode

HITS = [
    Hit("墨", 0.8, "磨墨", None, {"类": "文房"}, Span(0, 2), True),
    Hit("池", 0.48, "池塘\n与\x1b[2J鱼", None, {}, Span(0, 9), True),
    Hit("砚", 0.36, "砚台", "文房\n四宝", {}, Span(10, 12), False),
]


WARNING = "no value of 'year' can match: the filter compares it with a number"
DISK = "the disk is full: free some space and try again"


def search(query: str) -> Found:
    if query == "full":
        raise Overloaded("the queue is full", retry_after_s=1)
    if query == "disk":
        raise StoreError(DISK)
    if query == "typed":
        return Found([], [WARNING])
    return Found([] if query == "nothing" else HITS)


def typed(*answers: str | BaseException) -> Callable[[str], str]:
    """Return an `input` that gives these answers in order, and raises exceptions among them."""
    rest = list(answers)

    def ask(question: str) -> str:
        assert question in ("\nquery> ", "\n查询> ")
        answer = rest.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return ask


class Lines(io.StringIO):
    """A stream that keeps what each call printed."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def write(self, text: str) -> int:
        self.said.append(text.removesuffix("\n"))
        return len(text)


def talk(
    *answers: str | BaseException,
    count: int = 3,
    mode: Mode = "dense",
    language: Language = "en",
) -> list[str]:
    out = Lines()
    terminal = Terminal(language, out, io.StringIO())
    run_prompt(search, "main", count, terminal, mode, ask=typed(*answers))
    return out.said


def test_a_query_shows_the_hits() -> None:
    welcome, table, bye = talk("墨", "exit")
    assert "3 documents" in welcome
    assert table.splitlines() == [
        "1. similarity 0.8000  磨墨",
        "2. similarity 0.4800  池塘 与 [2J鱼",
        "3. similarity 0.3600  文房 四宝 · 砚台",
    ]
    assert bye == "bye"


def test_a_conversation_in_chinese() -> None:
    welcome, table, broken, bye = talk("墨", "disk", "退出", language="zh")
    assert "3 条文档" in welcome and "退出" in welcome
    assert table.splitlines()[0] == "1. 相似度 0.8000  磨墨"
    assert broken.startswith("错误：") and "磁盘已满" in broken
    assert bye == "再见"


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_only_cosines_are_called_similarities(mode: Mode) -> None:
    assert talk("墨", "exit", mode=mode)[1].startswith("1. score 0.8000 ")


@pytest.mark.parametrize(
    "leave", ["exit", "quit", "退出", " EXIT ", EOFError(), KeyboardInterrupt()]
)
def test_ways_to_leave(leave: str | BaseException) -> None:
    assert "bye" in talk(leave)[-1]


def test_an_empty_query_asks_again() -> None:
    assert len(talk("", "  ", "砚", "quit")) == 3


def test_a_query_that_is_no_text_asks_again() -> None:
    broken = UnicodeDecodeError("utf-8", b"\xe5", 0, 1, "unexpected end of data")
    said = talk(broken, "\udce5", "笔", "quit")
    assert said[1:3] == ["that was not valid text, try again"] * 2
    assert "磨墨" in said[3]


def test_a_query_that_fails_does_not_end_the_conversation() -> None:
    _, full, disk, table, _ = talk("full", "disk", "墨", "exit")
    assert "the queue is full" in full
    assert DISK in disk
    assert "磨墨" in table


def test_a_query_without_hits_says_so() -> None:
    assert talk("nothing", "exit")[1] == "nothing was found"


def test_an_empty_collection_says_how_to_index() -> None:
    (said,) = talk(count=0)
    assert "index FILE" in said and "is empty" in said and "main" in said


def shot(query: str, *, count: int = 3, as_json: bool = False) -> str:
    out = Lines()
    one_shot(search, "main", count, query, Terminal("en", out, io.StringIO()), as_json=as_json)
    return "\n".join(out.said)


@pytest.mark.parametrize("as_json", [False, True])
def test_what_the_filter_cannot_find_is_said_beside_the_hits(as_json: bool) -> None:
    out, err = io.StringIO(), io.StringIO()
    one_shot(search, "main", 3, "typed", Terminal("en", out, err), as_json=as_json)
    assert err.getvalue() == f"warning: {WARNING}\n"
    if as_json:
        reply = {"query": "typed", "hits": [], "warnings": [WARNING]}
        assert json.loads(out.getvalue()) == reply
    else:
        assert out.getvalue() == "nothing was found\n"


def test_the_prompt_says_what_the_filter_cannot_find() -> None:
    out, err = Lines(), io.StringIO()
    run_prompt(search, "main", 3, Terminal("zh", out, err), ask=typed("typed", "exit"))
    assert err.getvalue() == f"警告：{WARNING}\n"


def test_one_shot_shows_the_hits() -> None:
    assert shot("墨").splitlines()[0] == "1. similarity 0.8000  磨墨"


def test_one_shot_json_is_one_line_of_everything() -> None:
    said = shot("砚", as_json=True)
    assert "砚台" in said and "\n" not in said
    reply = json.loads(said)
    assert reply["query"] == "砚"
    assert reply["hits"][2] == {
        "id": "砚",
        "score": 0.36,
        "text": "砚台",
        "title": "文房\n四宝",
        "metadata": {},
        "part": {"begin": 10, "end": 12, "whole": False},
    }
    assert [hit["metadata"] for hit in reply["hits"]] == [{"类": "文房"}, {}, {}]


def test_one_shot_on_an_empty_collection() -> None:
    assert "index FILE" in shot("墨", count=0)
    assert json.loads(shot("墨", count=0, as_json=True)) == {"query": "墨", "hits": []}
