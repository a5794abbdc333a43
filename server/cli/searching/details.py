"""What a search may show besides its hits, as lines for people: explanations, parts, groups, counts."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from server.cli.display import fitted, one_line
from server.messages.message import Message
from server.messages.terminal import Terminal

Json = dict[str, Any]
INDENT = "   "
DIM = "2"
# Numbers of a vector that are shown.
NUMBERS = 4


def detail_lines(hit: Json, terminal: Terminal, room: int | None) -> Iterator[str]:
    """Yield the lines below a hit. room: columns of the terminal; None where nothing is cut."""
    explanation = hit.get("explanation")
    if explanation is not None:
        for line in _explained(explanation, terminal):
            yield _line(line, terminal, room)
    for each in hit.get("parts", ()):
        place = terminal.words("part {begin}-{end}", begin=each["begin"], end=each["end"])
        yield _line(f"{place}  {each['score']:.4f}  {one_line(each['text'])}", terminal, room)
    if "vector" in hit:
        numbers = hit["vector"]
        shown = ", ".join(f"{each:.4f}" for each in numbers[:NUMBERS])
        said = terminal.words("vector of {number} numbers", number=len(numbers))
        yield _line(f"{said}: {shown}, …", terminal, room)
    if "document" in hit:
        text = terminal.words(Message("{text}", text=hit["document"]))
        yield from (INDENT + line for line in text.splitlines())


def _line(text: str, terminal: Terminal, room: int | None) -> str:
    text = text if room is None else fitted(text, room - len(INDENT))
    return INDENT + terminal.styled(text, DIM)


def _explained(explanation: Json, terminal: Terminal) -> Iterator[str]:
    """Yield both halves of a score, how they became one, and the terms of the query."""
    cosine, by_words, fusion = (explanation[key] for key in ("cosine", "words", "fusion"))
    said = []
    if cosine is not None:
        said.append(terminal.words("meaning {cosine:.4f}", cosine=cosine))
    if by_words is not None:
        said.append(
            terminal.words(
                "words {share:.4f} = {bm25:.4f} / {attainable:.4f}",
                share=by_words["share"],
                bm25=by_words["bm25"],
                attainable=by_words["attainable"],
            )
        )
    if fusion is not None:
        said.append(_fused(fusion, terminal))
    yield " · ".join(said)
    if by_words is not None and by_words["terms"]:
        terms = ", ".join(
            f"{'+' if each['matched'] else '-'}{one_line(each['term'])} {each['weight']:.2f}"
            for each in by_words["terms"]
        )
        yield terminal.words("terms (+ found, - not found): {terms}", terms=terms)


def _fused(fusion: Json, terminal: Terminal) -> str:
    weights = fusion["weights"]
    said = f"{fusion['kind']} {weights['dense']:g} : {weights['lexical']:g}"
    if "ranks" not in fusion:
        return said
    ranks = (str(fusion["ranks"][half] or "-") for half in ("dense", "lexical"))
    return f"{said} · {terminal.words('ranks {ranks}', ranks=' : '.join(ranks))}"


def value_text(value: object) -> str:
    """Return a value of metadata as people read it."""
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def facet_lines(facets: Sequence[Json], terminal: Terminal, room: int | None) -> Iterator[str]:
    """Yield a line for each key: its values, with how many documents have each."""
    for facet in facets:
        values = [f"{value_text(each['value'])} {each['documents']:,}" for each in facet["values"]]
        if not facet["complete"]:
            values.append("…")
        said = ", ".join(values) or terminal.words("no documents have it")
        line = f"{one_line(facet['key'])}: {said}"
        yield line if room is None else fitted(line, room)


def say_what_follows(reply: Json, terminal: Terminal) -> None:
    """Print on standard error how to see the next hits, for a search with a cursor."""
    if reply.get("changed"):
        terminal.inform("warning: the collection was written since the first page")
    if reply.get("next"):
        terminal.inform("there are more: --cursor {cursor}", cursor=reply["next"])
