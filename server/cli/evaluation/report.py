"""What `evaluate` prints: a table of the ways, sentences on their differences, and the worst questions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.cli.display import fitted, one_line, padded, width
from server.cli.evaluation.comparison import LEAST_QUESTIONS, Difference, Means
from server.cli.evaluation.judging import DEPTH, Judged, Way
from server.messages.message import Message
from server.messages.terminal import Terminal

# Questions of a list, unless --verbose asks for all; the worst of each way; characters of a text.
FEW, WORST, SHOWN = 5, 10, 80


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found. documents: number in the collection. tokens: of its chunks, where sizes are compared."""

    collection: str
    documents: int
    judged: Sequence[Judged]
    means: Mapping[Way, Means]
    differences: Sequence[Difference]
    tokens: int | None = None

    @property
    def left_out(self) -> list[Judged]:
        """Questions of which no right document is stored."""
        return [each for each in self.judged if not each.right.relevant]

    @property
    def partly(self) -> list[Judged]:
        """Judged questions of which some right document is not stored."""
        return [each for each in self.judged if each.right.relevant and each.right.missing]

    @property
    def number(self) -> int:
        return len(self.judged) - len(self.left_out)

    def worst(self, way: Way) -> list[Judged]:
        """Return the judged questions that this way answers worst and not fully, worst first."""
        asked = [each for each in self.judged if each.outcomes]
        asked.sort(key=lambda each: (each.outcomes[way].ndcg_at_10, each.outcomes[way].mrr_at_10))
        return [each for each in asked if each.outcomes[way].ndcg_at_10 < 1 - 1e-9][:WORST]


def show(report: Report, terminal: Terminal, *, verbose: bool) -> None:
    """Print the report: results on standard output."""
    if report.tokens is not None:
        terminal.say("\n{cut}:", cut=cut(report.tokens))
    terminal.say(
        "{judged:,} of {number:,} questions judged, on collection {name} with {documents:,} documents",
        judged=report.number,
        number=len(report.judged),
        name=report.collection,
        documents=report.documents,
    )
    for line in _not_stored(report, FEW if not verbose else len(report.judged)):
        terminal.say(line)
    if not report.means:
        return
    terminal.out.write("\n")
    for text in _table(report, terminal):
        terminal.out.write(f"{text}\n")
    terminal.out.write("\n")
    for line in _sentences(report):
        terminal.say(line)
    if verbose:
        for line in _worst(report):
            terminal.say(line)


def cut(tokens: int) -> Message:
    """Return how documents are cut, as people read it."""
    return (
        Message("chunks of {tokens} tokens", tokens=tokens)
        if tokens
        else Message("whole documents")
    )


def _not_stored(report: Report, most: int) -> Iterator[Message]:
    if report.left_out:
        yield Message(
            "left out: {number:,} questions, of which no right document is stored",
            number=len(report.left_out),
        )
        yield from _missing(report.left_out, most)
    if report.partly:
        yield Message(
            "judged by the others: {number:,} questions, of which some right document is not stored",
            number=len(report.partly),
        )
        yield from _missing(report.partly, most)


def _missing(questions: Sequence[Judged], most: int) -> Iterator[Message]:
    for each in questions[:most]:
        yield Message(
            "  {place}: {question} → {answer}",
            place=each.question.place,
            question=_short(each.question.text),
            answer=_short(each.right.missing[0]),
        )
    if len(questions) > most:
        yield Message("  and {number:,} more: --verbose lists them", number=len(questions) - most)


def _table(report: Report, terminal: Terminal) -> Iterator[str]:
    words = terminal.words
    heads = ("", "nDCG@10", words("95% interval"), "recall@10", f"recall@{DEPTH}", "MRR@10")
    rows: list[tuple[str, ...]] = [heads]
    for way, found in report.means.items():
        between = words("{low:.3f} to {high:.3f}", low=found.interval[0], high=found.interval[1])
        others = (found.recall_at_10, found.recall_at_100, found.mrr_at_10)
        figures = [f"{each:.3f}" for each in others]
        rows.append((words(NAMES[way]), f"{found.ndcg_at_10:.3f}", between, *figures))
    widths = [max(width(row[place]) for row in rows) for place in range(len(heads))]
    for row in rows:
        yield "  ".join(map(padded, row, widths)).rstrip()


# Each way as people read it; --modes and --json have the keys.
NAMES: Mapping[Way, Message] = {
    "dense": Message("dense"),
    "lexical": Message("lexical"),
    "hybrid": Message("hybrid"),
    "reranked": Message("reranked"),
}


def _sentences(report: Report) -> Iterator[Message]:
    if report.number < LEAST_QUESTIONS and len(report.means) > 1:
        yield Message(
            "{number} questions are too few to say which mode is better; ask at least {least}",
            number=report.number,
            least=LEAST_QUESTIONS,
        )
    for each in report.differences:
        yield _difference(each, report.number)


def _difference(found: Difference, number: int) -> Message:
    low, high = found.interval
    if not found.is_clear:
        return Message(
            "{better} and {other} do not differ on these {number:,} questions: their nDCG@10 differs"
            " by {difference:.3f}, and the 95% interval {low:.3f} to {high:.3f} includes 0",
            better=NAMES[found.better],
            other=NAMES[found.other],
            number=number,
            difference=found.difference,
            low=low,
            high=high,
        )
    return Message(
        "{better} is better than {other} on these {number:,} questions: its nDCG@10 is higher by"
        " {difference:.3f} (95% interval {low:.3f} to {high:.3f})",
        better=NAMES[found.better],
        other=NAMES[found.other],
        number=number,
        difference=found.difference,
        low=low,
        high=high,
    )


def _worst(report: Report) -> Iterator[Message]:
    for way in report.means:
        found = report.worst(way)
        if found:
            yield Message("\nworst questions, {way}:", way=NAMES[way])
        for each in found:
            outcome = each.outcomes[way]
            yield Message(
                "  {place}: {question} · nDCG@10 {ndcg:.3f}; right: {ranks}; first hit: {first}",
                place=each.question.place,
                question=_short(each.question.text),
                ndcg=outcome.ndcg_at_10,
                ranks=tuple(_rank(id, rank) for id, rank in list(outcome.ranks.items())[:FEW]),
                first=one_line(outcome.first) or Message("none"),
            )


def _rank(id: str, rank: int) -> Message:
    if rank:
        return Message("{id} at {rank}", id=one_line(id), rank=rank)
    return Message("{id} not among {depth}", id=one_line(id), depth=DEPTH)


def _short(text: str) -> str:
    return fitted(one_line(text[: 4 * SHOWN]), SHOWN)


def as_json(report: Report, *, verbose: bool) -> dict[str, Any]:
    """Return the report as JSON; with `verbose` also what every way found for every question."""
    found: dict[str, Any] = {
        "collection": report.collection,
        **({} if report.tokens is None else {"chunk_tokens": report.tokens}),
        "documents": report.documents,
        "questions": len(report.judged),
        "judged": report.number,
        "left_out": [_of_missing(each) for each in report.left_out],
        "partly_stored": [_of_missing(each) for each in report.partly],
        "modes": {way: _of_means(means) for way, means in report.means.items()},
        "differences": [
            {
                "better": each.better,
                "other": each.other,
                "ndcg@10": each.difference,
                "interval": list(each.interval),
                "clear": each.is_clear,
            }
            for each in report.differences
        ],
    }
    if verbose:
        found["outcomes"] = [_of_question(each) for each in report.judged if each.outcomes]
    return found


def _of_missing(each: Judged) -> dict[str, Any]:
    missing = list(each.right.missing)
    return {"place": each.question.place, "question": each.question.text, "missing": missing}


def _of_means(means: Means) -> dict[str, Any]:
    return {
        "ndcg@10": means.ndcg_at_10,
        "interval": list(means.interval),
        "recall@10": means.recall_at_10,
        f"recall@{DEPTH}": means.recall_at_100,
        "mrr@10": means.mrr_at_10,
    }


def _of_question(each: Judged) -> dict[str, Any]:
    return {
        "place": each.question.place,
        "question": each.question.text,
        "modes": {
            way: {
                "ndcg@10": outcome.ndcg_at_10,
                "ranks": dict(outcome.ranks),
                "first": outcome.first,
            }
            for way, outcome in each.outcomes.items()
        },
    }
