"""The prompt: what is typed and what is shown."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from server.cli.display import width
from server.cli.history import KEPT, MOST_BYTES, History
from server.cli.hits import show_hits, show_json
from server.cli.line_reader import LineReader
from server.cli.prompt import Prompt
from server.cli.target import Found, Question, Rerank
from server.errors import Overloaded, StoreError
from server.messages.message import Language
from server.messages.terminal import Terminal
from server.store.records import Span
from server.store.search import Hit, Mode
from tests.support.commands import Commands, write_lines
from tests.support.fakes import PATIENCE_S
from tests.support.processes import ROOT, Server, command, environment, serving
from tests.support.pseudo_terminal import at_a_terminal

HITS = [
    Hit("墨", 0.8, "磨墨", None, {"类": "文房"}, Span(0, 2), True),
    Hit("池", 0.48, "池塘\n与\x1b[2J鱼", None, {}, Span(0, 9), True),
    Hit("砚", 0.36, "砚台", "文房\n四宝", {}, Span(10, 12), False),
]
WARNING = "no value of 'year' can match: the filter compares it with a number"
DISK = "the disk is full: free some space and try again"


class Searching:
    """Two collections, and what was asked of them."""

    def __init__(self, count: int = 3) -> None:
        self.asked: list[tuple[str, Question]] = []
        self._counts = {"main": count, "法律": 7}

    def search(self, name: str, question: Question) -> Found:
        self.asked.append((name, question))
        if question.text == "full":
            raise Overloaded("the queue is full", retry_after_s=1)
        if question.text == "disk":
            raise StoreError(DISK)
        if question.text == "stop":
            raise KeyboardInterrupt
        if question.text == "typed":
            return Found([], [WARNING])
        return Found([] if question.text == "nothing" else HITS)

    def count(self, name: str) -> int:
        return self._counts[name]

    def names(self) -> Sequence[str]:
        return tuple(self._counts)


class Typed(LineReader):
    """Lines that a person types, or raises: an exception stands for a key."""

    def __init__(self, *lines: str | BaseException, interactive: bool = True) -> None:
        self._lines = list(lines)
        self.interactive = interactive
        self.remembered: list[str] = []
        self.complete: Callable[[str, str], Sequence[str]] | None = None

    def edit(self, complete: Callable[[str, str], Sequence[str]]) -> None:
        self.complete = complete

    def line(self, prompt: str) -> str:
        assert prompt in ("query> ", "查询> ")
        found = self._lines.pop(0) if self._lines else EOFError()
        if isinstance(found, BaseException):
            raise found
        return found

    def remember(self, line: str) -> None:
        self.remembered.append(line)


class Talk:
    """A conversation that has ended."""

    def __init__(
        self,
        *lines: str | BaseException,
        count: int = 3,
        language: Language = "en",
        interactive: bool = True,
        mode: Mode = "dense",
    ) -> None:
        self.searching, self.reader = Searching(count), Typed(*lines, interactive=interactive)
        out, err = io.StringIO(), io.StringIO()
        terminal = Terminal(language, out, err)
        question = Question("", mode=mode)
        prompt = Prompt(self.searching, "main", question, terminal, self.reader)
        self.status = prompt.run()
        self.out, self.err = out.getvalue(), err.getvalue()


def test_a_query_shows_the_hits() -> None:
    talk = Talk("墨", "exit")
    assert "3 documents in main" in talk.err and "/help" in talk.err
    assert talk.out.splitlines() == [
        "1. similarity 0.8000  磨墨",
        "2. similarity 0.4800  池塘 与 [2J鱼",
        "3. similarity 0.3600  文房 四宝 · 砚台",
    ]
    assert talk.err.endswith("bye\n")


def test_a_conversation_in_chinese() -> None:
    talk = Talk("墨", "disk", "退出", language="zh")
    assert "3 条文档" in talk.err and "退出" in talk.err
    assert talk.out.splitlines()[0] == "1. 相似度 0.8000  磨墨"
    assert "错误：" in talk.err and "磁盘已满" in talk.err
    assert talk.err.endswith("再见\n")


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_only_cosines_are_called_similarities(mode: Mode) -> None:
    assert Talk("墨", mode=mode).out.startswith("1. score 0.8000 ")


@pytest.mark.parametrize(
    "leave", ["exit", "quit", "退出", "EXIT", "/quit", EOFError(), KeyboardInterrupt()]
)
def test_ways_to_leave(leave: str | BaseException) -> None:
    talk = Talk(leave, "墨")
    assert talk.err.endswith("bye\n") and talk.out == "" and talk.status == 0


def test_a_query_that_is_no_text_asks_again() -> None:
    broken = UnicodeDecodeError("utf-8", b"\xe5", 0, 1, "unexpected end of data")
    talk = Talk(broken, "", "笔", "quit")
    assert "that was not valid text, try again" in talk.err
    assert "磨墨" in talk.out and talk.reader.remembered == ["笔", "quit"]


def test_a_query_that_fails_or_is_stopped_does_not_end_the_conversation() -> None:
    talk = Talk("full", "disk", "stop", "墨", "exit")
    assert "the queue is full" in talk.err and DISK in talk.err and "stopped" in talk.err
    assert "磨墨" in talk.out and talk.status == 0


def test_a_query_without_hits_says_so() -> None:
    assert Talk("nothing").out == "nothing was found\n"


def test_an_empty_collection_says_how_to_index() -> None:
    talk = Talk(count=0)
    assert "index FILE" in talk.err and "is empty" in talk.err and "main" in talk.err


def test_the_prompt_says_what_the_filter_cannot_find() -> None:
    assert f"警告：{WARNING}\n" in Talk("typed", language="zh").err


# --- commands ---------------------------------------------------------------------------------------


def test_commands_change_how_is_searched() -> None:
    commands = (
        "/mode hybrid",
        "/top-k 9",
        '/filter {"year": 2024}',
        "/collection 法律",
        "/rerank on",
    )
    talk = Talk(*commands, "墨", "/filter off", "/rerank off", "砚")
    first, second = talk.searching.asked
    assert first == ("法律", Question("墨", 9, "hybrid", {"year": 2024}, Rerank()))
    assert second == ("法律", Question("砚", 9, "hybrid"))
    assert 'mode hybrid · top-k 9 · filter {"year": 2024} · rerank on' in talk.err
    assert "collection 法律 (7 documents)" in talk.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/moed dense", "no command /moed"),
        ("/", "no command /"),
        ("/mode fast", "'fast' is not possible: /mode dense|lexical|hybrid"),
        ("/top-k 0", "'0' is not possible: /top-k N"),
        ("/top-k 1001", "'1001' is not possible"),
        ("/top-k 99999999999999999999", "is not possible"),
        ("/filter {", "'{' is not possible"),
        ("/filter []", "'[]' is not possible"),
        ('/filter {"a": {"$near": 1}}', "$near"),
        ("/collection none", "no collection none, only main, 法律"),
        ("/rerank maybe", "'maybe' is not possible: /rerank on|off"),
    ],
)
def test_what_is_no_command_is_said_and_not_searched(line: str, words: str) -> None:
    talk = Talk(line)
    assert words in talk.err and not talk.searching.asked
    assert "错误：" in Talk(line, language="zh").err


def test_a_query_may_begin_with_a_slash() -> None:
    assert Talk("//etc/passwd").searching.asked[0][1].text == "/etc/passwd"


def test_help_lists_every_command_in_both_languages() -> None:
    for language, words in (("en", "list the commands"), ("zh", "列出命令")):
        talk = Talk("/help", language=language)  # type: ignore[arg-type]
        for name in ("/mode", "/top-k", "/filter", "/collection", "/rerank", "/help", "/quit"):
            assert f"\n{name}" in talk.err
        assert words in talk.err and "mode dense" in talk.err or "模式 dense" in talk.err


def test_commands_and_their_values_are_completed() -> None:
    complete = Talk("exit").reader.complete
    assert complete is not None
    assert {"/collection ", "/help"} <= set(complete("", "/c"))
    assert complete("/mode ", "") == ("dense", "lexical", "hybrid")
    assert complete("/collection ", "") == ("main", "法律")
    assert complete("a query ", "w") == () and complete("/none ", "") == ()


# --- hits -------------------------------------------------------------------------------------------


class Window(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


LONG = "砚台是文房四宝之一。" * 30 + "人工智能正在改变世界。" + "毛笔用来写字。" * 30
PLACED = Hit(
    *("a", 0.5, LONG, "一个标题\x1b[2J", {"file": "b\x07.pdf", "page": 3, "heading": "总则"}),
    *(Span(0, 9), False),
)


def shown(hit: Hit, query: str, monkeypatch: pytest.MonkeyPatch, *, colour: bool) -> list[str]:
    monkeypatch.setenv("COLUMNS", "60")
    out = Window()
    show_hits(Found([hit]), Question(query), Terminal("en", out, io.StringIO(), colour))
    return out.getvalue().splitlines()


def test_a_terminal_gets_a_few_lines_around_the_words_of_the_query(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = shown(PLACED, "人工智能", monkeypatch, colour=False)
    head, place, *text = plain
    assert head == "1. similarity 0.5000  一个标题 [2J"
    assert place == "   b .pdf · page 3 · 总则"
    assert len(text) == 3 and "人工智能" in text[0] and text[0].startswith("   …")
    assert text[-1].endswith("…")
    assert all(width(line) <= 60 for line in plain) and width(text[0]) > 55
    coloured = shown(PLACED, "人工智能", monkeypatch, colour=True)
    assert "\x1b[1;33m人工智能\x1b[0m" in coloured[2] and "\x1b[1m" in coloured[0]
    assert [re.sub("\x1b\\[[0-9;]*m", "", line) for line in coloured] == plain


def test_short_text_and_words_of_letters_are_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    short = Hit("a", 0.5, "磨墨", None, {}, Span(0, 2), True)
    assert shown(short, "x", monkeypatch, colour=False) == ["1. similarity 0.5000", "   磨墨"]
    text = "The inkwell holds ink for the brush and the pen " * 3
    lines = shown(Hit("a", 0.5, text, None, {}, Span(0, 9), True), "x", monkeypatch, colour=False)
    assert lines[1] == "   The inkwell holds ink for the brush and the pen The"
    assert lines[2].startswith("   inkwell")


def test_a_pipe_gets_the_place_at_the_end_of_the_line() -> None:
    out = io.StringIO()
    show_hits(Found([PLACED]), Question("x"), Terminal("zh", out, io.StringIO()))
    assert out.getvalue().endswith("写字。  (b .pdf · 第 3 页 · 总则)\n")


def test_json_is_one_line_of_everything() -> None:
    out, err = io.StringIO(), io.StringIO()
    show_json(Found(HITS, [WARNING]), "砚", Terminal("en", out, err))
    (line,) = out.getvalue().splitlines()
    reply = json.loads(line)
    assert reply["query"] == "砚" and reply["warnings"] == [WARNING]
    assert reply["hits"][2] == {
        "id": "砚",
        "score": 0.36,
        "text": "砚台",
        "title": "文房\n四宝",
        "metadata": {},
        "part": {"begin": 10, "end": 12, "whole": False},
    }
    assert err.getvalue() == f"warning: {WARNING}\n"


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], coloured: bool
) -> None:
    monkeypatch.setattr(sys, "stdout", Window())
    assert Terminal.of(variables).colour is coloured
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not Terminal.of(variables).colour


# --- history ----------------------------------------------------------------------------------------


def test_history_is_kept_for_this_user_alone(tmp_path: Path) -> None:
    variables = {"XDG_STATE_HOME": str(tmp_path / "state")}
    history = History.of(variables)
    for line in ("墨", "墨", "砚\x85 台", "墨"):
        history.add(line)
    path = tmp_path / "state/inkwell/history"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o644)
    assert History.of(variables).lines == ["墨", "砚 台", "墨"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_history_is_where_it_is_wanted_or_nowhere(tmp_path: Path) -> None:
    History.of({"HOME": str(tmp_path)}).add("墨")
    assert (tmp_path / ".local/state/inkwell/history").read_text("utf-8") == "墨\n"
    History.of({"INKWELL_HISTORY": str(tmp_path / "own"), "HOME": "/"}).add("砚")
    assert (tmp_path / "own").read_text("utf-8") == "砚\n"
    for variables in ({"INKWELL_HISTORY": "", "HOME": str(tmp_path)}, {}, {"HOME": "relative"}):
        off = History.of(variables)
        off.add("笔")
        assert off.lines == ["笔"]
    assert "笔" not in (tmp_path / ".local/state/inkwell/history").read_text("utf-8")


def test_history_does_not_grow_without_end(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("".join(f"{n} {'x' * 100}\n" for n in range(20_000)))
    assert len(History(path).lines) == KEPT
    assert path.stat().st_size < MOST_BYTES // 2
    assert History(path).lines[-1].startswith("19999 ")


def test_history_that_cannot_be_used_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("secret\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "real/below"):
        history = History(tmp_path / name)
        assert history.lines == []
        history.add("墨")
    assert (tmp_path / "real").read_text() == "secret\n"


# --- at a real terminal -----------------------------------------------------------------------------


# The second is not installed everywhere, as in a small container: Chinese must be typed all the same.
@pytest.mark.parametrize("locale", ["C.UTF-8", "zh_CN.UTF-8"])
def test_keys_edit_the_line_at_a_real_terminal(
    run: Commands, toy_artifact: Path, tmp_path: Path, locale: str
) -> None:
    pytest.importorskip("readline")
    state, path = tmp_path / "state", write_lines(tmp_path / "texts.txt", ["墨池", "砚台"])
    with serving(toy_artifact, tmp_path) as server:
        url = ("--url", server.url)
        run("index", path, *url)
        with at_a_terminal("search", *url, XDG_STATE_HOME=str(state), LC_ALL=locale) as talk:
            check_keys(talk, server)
    assert (state / "inkwell/history").read_text("utf-8").splitlines() == [
        *("墨池", "/mode hybrid", "墨", "/quit")
    ]


def check_keys(talk: Callable[[str, str], str], server: Server) -> None:
    talk("", "> ")
    # Typed 池, left arrow, 墨: the line is 墨池. Then the line before, by the up arrow.
    assert "\x1b[1;33m墨池" in talk("池\x1b[D墨\r", "> ")
    assert "1." in talk("\x1b[A\r", "> ")
    assert " hybrid · " in talk("/mod\thyb\t\r", "off\r\n\r\n")
    server.process.kill()
    assert server.url in talk("墨\r", "\r\n\r\n")
    talk("/quit\r", "\r\n")


def test_a_pipe_gets_hits_and_nothing_else(run: Commands, tmp_path: Path) -> None:
    run("index", write_lines(tmp_path / "texts.txt", ["墨池", "砚台"]))
    done = subprocess.run(
        command("search", "--top-k", "1", "--data", run.data),
        cwd=ROOT,
        env=environment(INKWELL_MODEL=os.environ["INKWELL_MODEL"]),
        input="墨池\n/none\n砚台\n".encode(),
        capture_output=True,
        timeout=PATIENCE_S,
    )
    first, second = done.stdout.decode().splitlines()
    assert first.endswith("墨池") and second.endswith("砚台")
    assert "\x1b" not in done.stdout.decode() + done.stderr.decode()
    assert done.stderr.decode().splitlines() == [
        "error: there is no command /none; /help lists them, and //TEXT searches for /TEXT"
    ]
    assert done.returncode == 1, "a query failed, and no person has seen it"
