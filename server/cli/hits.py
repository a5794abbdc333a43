"""Hits of a search as people read them, and as one line of JSON for programs.

On a terminal a hit has a few lines: score and title, the place in its file, and the text around the words
of the query, which are marked. In a pipe it is one line with the whole text.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from server.cli.display import DOTS, columns_of, fitted, one_line, place_of, width
from server.cli.searching.details import (
    DIM,
    INDENT,
    Json,
    detail_lines,
    facet_lines,
    say_what_follows,
    value_text,
)
from server.cli.searching.reply import details_of, reply_of
from server.cli.target import Found, Question
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.store.lexical import SHOWN, highlight
from server.store.search import Hit, Mode

BOLD, MARKED = "1", "1;33"
# Lines of text of a hit, and columns that are shown before the first word of the query.
TEXT_LINES, BEFORE = 3, 20
# Hits of which the search says where its words are; it looks in at most so many texts.
MOST_MARKED = 100

# A character, and whether it is of a word of the query.
Cells = list[tuple[str, bool]]


def for_people(question: Question, terminal: Terminal) -> Question:
    """Return the question as it is asked for a terminal: with the places of the words that were searched."""
    groups = question.options.get("group_by")
    hits = question.top_k * (groups.get("hits", 3) if groups else 1)
    if not question.text or hits > MOST_MARKED or columns_of(terminal) is None:
        return question
    return replace(question, options={**question.options, "highlight": True})


def show_hits(found: Found, question: Question, terminal: Terminal) -> None:
    """Print the hits, best first, and what else the search shows."""
    _warn(found, terminal)
    reply, room = reply_of(found), columns_of(terminal)
    if not found.hits:
        terminal.say("nothing was found")
    ranked = enumerate(
        zip(found.hits, details_of(found), strict=True), 1 + question.options.get("offset", 0)
    )
    for value, number in _groups(reply):
        if number:
            key = question.options.get("group_by", {}).get("key", "")
            terminal.out.write(terminal.styled(f"[{one_line(key)}: {value}]", DIM) + "\n")
        for rank, (hit, details) in islice(ranked, number):
            lines = (
                [_line(rank, hit, details, question, terminal)]
                if room is None
                else _lines(rank, hit, details, question, terminal, room)
            )
            lines = [*lines, *detail_lines(details, terminal, room)]
            terminal.out.write("".join(f"{line}\n" for line in lines))
    for line in facet_lines(reply.get("facets", ()), terminal, room):
        terminal.out.write(f"{line}\n")
    say_what_follows(reply, terminal)


def _groups(reply: Json) -> Iterator[tuple[str, int | None]]:
    """Yield the value of each group and how many hits it has; all hits as one without a name."""
    if "groups" not in reply:
        yield "", None
    for each in reply.get("groups", ()):
        yield value_text(each["value"]), len(each["hits"])


def show_json(found: Found, query: str | None, terminal: Terminal) -> None:
    """Print the query, if there is one, and the reply of the search as one line of JSON."""
    asked = {} if query is None else {"query": query}
    terminal.say_json({**asked, **reply_of(found)})
    _warn(found, terminal)


def _warn(found: Found, terminal: Terminal) -> None:
    """Print on standard error why the filter cannot find what was perhaps meant."""
    for warning in found.warnings:
        terminal.inform("warning: {warning}", warning=one_line(warning))


def _line(rank: int, hit: Hit, details: Json, question: Question, terminal: Terminal) -> str:
    text = f"{hit.title} · {hit.text}" if hit.title else hit.text
    place = place_of(hit.metadata, terminal)
    at = f"  ({place})" if place else ""
    return f"{_head(rank, hit, details, question, terminal)}  {one_line(text)}{at}"


def _lines(
    rank: int, hit: Hit, details: Json, question: Question, terminal: Terminal, room: int
) -> Iterator[str]:
    head = _head(rank, hit, details, question, terminal)
    title = _cells(hit.title or "", highlight(hit.title or "", question.text))
    yield "  ".join(
        each
        for each in (head, _written(_cut(title, room - width(head) - 2), terminal, BOLD))
        if each
    )
    place = place_of(hit.metadata, terminal)
    if place:
        yield INDENT + terminal.styled(fitted(place, room - len(INDENT)), DIM)
    # Those of the search know its synonyms.
    marks = details.get("highlights") or highlight(hit.text, question.text)
    cells = _cells(hit.text, marks)
    for line in excerpt(cells, max(room - len(INDENT), BEFORE)):
        yield INDENT + _written(line, terminal)


def _head(rank: int, hit: Hit, details: Json, question: Question, terminal: Terminal) -> str:
    """Return the beginning of a hit: its place, its score, and its collection where there are several."""
    head = f"{rank}. {_score(hit, question.mode, terminal)}".rstrip()
    return f"{head} [{details['collection']}]" if "collection" in details else head


def _score(hit: Hit, mode: Mode, terminal: Terminal) -> str:
    """Return the number by which the hit has its place, with its name; empty where it has none."""
    if hit.rerank_score is not None:
        return f"{terminal.words('relevance')} {hit.rerank_score:.4f}"
    if math.isnan(hit.score):
        return ""
    # Only a search by meaning has scores that mean the same for every query.
    label = Message("similarity" if mode == "dense" else "score")
    return f"{terminal.words(label)} {hit.score:.4f}"


def _cells(text: str, marks: Iterable[Sequence[int]]) -> Cells:
    """Return the characters of a text on one line, with those between the marks marked."""
    marked = {place for begin, end in marks for place in range(begin, end)}
    cells: Cells = []
    for place, character in enumerate(text[:SHOWN]):
        shown = character if character.isprintable() else " "
        if shown != " " or (cells and cells[-1][0] != " "):
            cells.append((shown, place in marked))
    return cells


def excerpt(cells: Cells, columns: int) -> list[Cells]:
    """Return a few lines of a text, from a little before the first marked character."""
    first = next((place for place, (_, marked) in enumerate(cells) if marked), 0)
    begin = 0
    if width("".join(each for each, _ in cells[:first])) > columns:
        begin = first
        while begin and width("".join(each for each, _ in cells[begin:first])) < BEFORE:
            begin -= 1
        cells = [(DOTS, False), *cells[begin:]]
    lines: list[Cells] = []
    while cells and len(lines) < TEXT_LINES:
        line = cells if _fits(cells, columns) else cells[: _break(cells, columns)]
        cells = cells[len(line) :]
        if cells and len(lines) == TEXT_LINES - 1:
            line = _cut([*line, *cells[:2]], columns)
        lines.append(line)
        while cells and cells[0][0] == " ":
            cells = cells[1:]
    return lines


def _fits(cells: Cells, columns: int) -> bool:
    return len(cells) <= columns and width("".join(each for each, _ in cells)) <= columns


def _break(cells: Cells, columns: int) -> int:
    """Return how many characters stand on a line; a word of letters is not broken where it can be avoided."""
    number, used = 0, 0
    for character, _ in cells:
        used += width(character)
        if used > columns:
            break
        number += 1
    space = next((place for place in range(number, number // 2, -1) if cells[place][0] == " "), 0)
    return space or max(number, 1)


def _cut(cells: Cells, columns: int) -> Cells:
    """Return the beginning of a text that fits, with dots where something is left out."""
    if _fits(cells, columns):
        return cells
    kept = fitted("".join(each for each, _ in cells[: max(columns, 0) + 1]), max(columns, 1))
    return [*cells[: len(kept) - 1], (DOTS, False)]


def _written(cells: Cells, terminal: Terminal, style: str = "") -> str:
    """Return characters with the marked ones in colour, and the others in a style."""
    runs: list[tuple[str, bool]] = []
    for character, marked in cells:
        if runs and runs[-1][1] == marked:
            runs[-1] = runs[-1][0] + character, marked
        else:
            runs.append((character, marked))
    return "".join(
        terminal.styled(run, MARKED) if marked else (terminal.styled(run, style) if style else run)
        for run, marked in runs
    )
