"""Search at the terminal: a prompt that asks until it is left, and one query for scripts."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from server.errors import ServerError, StartupError
from server.store.search import Hit, Mode

Search = Callable[[str], Sequence[Hit]]
Say = Callable[[str], object]

LEAVE = {"exit", "quit", "退出"}
WELCOME = (
    "{count:,} 条文档。输入查询并按回车；输入 exit、quit 或 退出 结束。\n"
    "{count:,} documents. Type a query and press Enter; exit, quit or 退出 leaves."
)
ASK = "\n查询 query> "
NOT_TEXT = "输入不是有效的文字，请重新输入 · that was not valid text, try again"
BYE = "再见 · bye"
EMPTY = (
    "集合 {name} 中没有文档，请先索引一个文件或文件夹：python -m server index FILE\n"
    "collection {name} is empty; index a file or folder first: python -m server index FILE"
)
NOTHING = "没有找到 · nothing was found"
# Only a search by meaning has scores that mean the same for every query.
SCORE: dict[Mode, str] = {
    "dense": "相似度 similarity",
    "lexical": "得分 score",
    "hybrid": "得分 score",
}


def run_prompt(
    search: Search,
    name: str,
    count: int,
    mode: Mode = "dense",
    *,
    ask: Callable[[str], str] = input,
    say: Say = print,
) -> None:
    """Ask, search and show until exit, quit, 退出, the end of input or Ctrl-C."""
    if not count:
        say(EMPTY.format(name=name))
        return
    say(WELCOME.format(count=count))
    try:
        while (query := _query(ask, say)).lower() not in LEAVE:
            if query:
                say(_answer(search, query, mode))
    except (EOFError, KeyboardInterrupt):
        say("")  # the terminal's cursor is still behind the question
    say(BYE)


def one_shot(
    search: Search,
    name: str,
    count: int,
    query: str,
    mode: Mode = "dense",
    *,
    as_json: bool = False,
    say: Say = print,
) -> None:
    """Show the hits of one query, for people or as one line of JSON."""
    hits = search(query) if count else []
    if as_json:
        found = {"query": query, "hits": [_json_of(hit) for hit in hits]}
        say(json.dumps(found, ensure_ascii=False))
    else:
        say(_table(hits, mode) if count else EMPTY.format(name=name))


def _query(ask: Callable[[str], str], say: Say) -> str:
    """What was typed; nothing where it was no text: half of a Chinese character, deleted."""
    try:
        query = ask(ASK).strip()
        query.encode()
    except UnicodeError:
        say(NOT_TEXT)
        return ""
    return query


def _answer(search: Search, query: str, mode: Mode) -> str:
    """What was found, or why nothing could be: the next query may be luckier."""
    try:
        return _table(search(query), mode)
    except StartupError as error:
        return f"错误：{error.chinese}\nerror: {error.english}"
    except ServerError as error:
        return f"错误 error: {error.message}"


def _table(hits: Sequence[Hit], mode: Mode) -> str:
    if not hits:
        return NOTHING
    return "\n".join(
        f"{rank}. {SCORE[mode]} {hit.score:.4f}  {_one_line(_shown(hit))}"
        for rank, hit in enumerate(hits, start=1)
    )


def _shown(hit: Hit) -> str:
    return f"{hit.title} · {hit.text}" if hit.title else hit.text


def _json_of(hit: Hit) -> dict[str, Any]:
    begin, end = hit.span
    return {
        "id": hit.id,
        "score": hit.score,
        "text": hit.text,
        "title": hit.title,
        "metadata": hit.metadata,
        "part": {"begin": begin, "end": end, "whole": hit.whole},
    }


def _one_line(text: str) -> str:
    """Without line ends, and without the control characters that could steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
