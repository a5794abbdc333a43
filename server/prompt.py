"""Search at the terminal: a prompt that asks until it is left, and one query for scripts."""

import json
from collections.abc import Callable
from dataclasses import asdict

from server.store.collection import Collection, Hit
from server.types import Vectors

Embed = Callable[[str], Vectors]  # a query -> float32 (D,)
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
    "集合 {name} 中没有文档，请先索引一个文本文件（每行一条）：python -m server index FILE\n"
    "collection {name} is empty; index a text file first, one document a line:"
    " python -m server index FILE"
)


def run_prompt(
    collection: Collection,
    embed_query: Embed,
    top_k: int = 3,
    *,
    ask: Callable[[str], str] = input,
    say: Say = print,
) -> None:
    """Ask, search and show until exit, quit, 退出, the end of input or Ctrl-C."""
    if not collection.count:
        say(EMPTY.format(name=collection.name))
        return
    say(WELCOME.format(count=collection.count))
    try:
        while (query := _query(ask, say)).lower() not in LEAVE:
            if query:
                say(_table(collection.search(embed_query(query), top_k)))
    except (EOFError, KeyboardInterrupt):
        say("")  # the terminal's cursor is still behind the question
    say(BYE)


def one_shot(
    collection: Collection,
    embed_query: Embed,
    query: str,
    top_k: int = 3,
    *,
    as_json: bool = False,
    say: Say = print,
) -> None:
    """Show the hits of one query, for people or as one line of JSON."""
    hits = collection.search(embed_query(query), top_k) if collection.count else []
    if as_json:
        say(json.dumps({"query": query, "hits": [asdict(hit) for hit in hits]}, ensure_ascii=False))
    elif hits:
        say(_table(hits))
    else:
        say(EMPTY.format(name=collection.name))


def _query(ask: Callable[[str], str], say: Say) -> str:
    """What was typed; nothing where it was no text: half of a Chinese character, deleted."""
    try:
        query = ask(ASK).strip()
        query.encode()
    except UnicodeError:
        say(NOT_TEXT)
        return ""
    return query


def _table(hits: list[Hit]) -> str:
    return "\n".join(
        f"{rank}. 相似度 similarity {hit.score:.4f}  {_one_line(hit.text)}"
        for rank, hit in enumerate(hits, start=1)
    )


def _one_line(text: str) -> str:
    """Without line ends, and without the control characters that could steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
