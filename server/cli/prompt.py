"""Search at the terminal: a prompt that asks until the user leaves, and one query for scripts."""

from collections.abc import Callable
from typing import Any

from server.cli.target import Found
from server.errors import ServerError, StartupError
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.store.search import Hit, Mode

Search = Callable[[str], Found]

LEAVE = {"exit", "quit", "退出"}


def run_prompt(
    search: Search,
    name: str,
    count: int,
    terminal: Terminal,
    mode: Mode = "dense",
    *,
    ask: Callable[[str], str] = input,
) -> None:
    """Ask, search and show until exit, quit, 退出, the end of input or Ctrl-C."""
    if not count:
        terminal.say(_empty(name))
        return
    terminal.say(
        "{count:,} documents. Type a query and press Enter; type exit or quit to leave.",
        count=count,
    )
    try:
        while (query := _query(ask, terminal)).lower() not in LEAVE:
            if query:
                terminal.out.write(_answer(search, query, mode, terminal) + "\n")
    except (EOFError, KeyboardInterrupt):
        terminal.out.write("\n")  # the cursor still stands behind the question
    terminal.say("bye")


def one_shot(
    search: Search,
    name: str,
    count: int,
    query: str,
    terminal: Terminal,
    mode: Mode = "dense",
    *,
    as_json: bool = False,
) -> None:
    """Show the hits of one query, for people or as one line of JSON."""
    found = search(query) if count else Found([])
    if as_json:
        warnings = {"warnings": list(found.warnings)} if found.warnings else {}
        hits = [_json_of(hit) for hit in found.hits]
        terminal.say_json({"query": query, "hits": hits, **warnings})
        _warn(found, terminal)
    elif count:
        terminal.out.write(_table(found, mode, terminal) + "\n")
    else:
        terminal.say(_empty(name))


def _empty(name: str) -> Message:
    return Message(
        "collection {name} is empty; index a file or folder first: python -m server index FILE",
        name=name,
    )


def _query(ask: Callable[[str], str], terminal: Terminal) -> str:
    """Return what was typed; "" if it was not text, such as half of a deleted Chinese character."""
    try:
        query = ask("\n" + terminal.words("query> ")).strip()
        query.encode()
    except UnicodeError:
        terminal.say("that was not valid text, try again")
        return ""
    return query


def _answer(search: Search, query: str, mode: Mode, terminal: Terminal) -> str:
    """Return what was found, or the error: the prompt stays open for the next query."""
    try:
        return _table(search(query), mode, terminal)
    except StartupError as error:
        return terminal.words("error: {error}", error=error)
    except ServerError as error:
        return terminal.words("error: {error}", error=error.message)


def _warn(found: Found, terminal: Terminal) -> None:
    """Print on standard error why the filter cannot find what was perhaps meant."""
    for warning in found.warnings:
        terminal.inform("warning: {warning}", warning=_one_line(warning))


def _table(found: Found, mode: Mode, terminal: Terminal) -> str:
    _warn(found, terminal)
    if not found.hits:
        return terminal.words("nothing was found")
    return "\n".join(
        f"{rank}. {_score(hit, mode, terminal)}  {_one_line(_shown(hit))}"
        for rank, hit in enumerate(found.hits, start=1)
    )


def _score(hit: Hit, mode: Mode, terminal: Terminal) -> str:
    """Return the number by which the hit has its place, with its name."""
    if hit.rerank_score is not None:
        return f"{terminal.words('relevance')} {hit.rerank_score:.4f}"
    # Only a search by meaning has scores that mean the same for every query.
    label = Message("similarity" if mode == "dense" else "score")
    return f"{terminal.words(label)} {hit.score:.4f}"


def _shown(hit: Hit) -> str:
    return f"{hit.title} · {hit.text}" if hit.title else hit.text


def _json_of(hit: Hit) -> dict[str, Any]:
    begin, end = hit.span
    relevance = {} if hit.rerank_score is None else {"rerank_score": hit.rerank_score}
    return {
        "id": hit.id,
        "score": hit.score,
        **relevance,
        "text": hit.text,
        "title": hit.title,
        "metadata": hit.metadata,
        "part": {"begin": begin, "end": end, "whole": hit.whole},
    }


def _one_line(text: str) -> str:
    """Return a text without line ends and without control characters that could steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
