"""The command that judges search by questions whose right documents are known."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from server.cli.commands import opening
from server.cli.invocation import Invocation
from server.clock import now
from server.messages.message import Message

if TYPE_CHECKING:
    from server.cli.evaluation.judging import Judged, Plan, Way
    from server.cli.evaluation.questions import Question
    from server.cli.evaluation.report import Report
    from server.cli.target import CollectionTarget


def evaluate(given: Invocation) -> int:
    """Print how well each mode finds the right documents; status 1 where none of them is stored."""
    from server.cli.evaluation.judging import judge
    from server.cli.evaluation.report import as_json, show

    arguments = given.arguments
    questions = _questions(given)
    with opening.target(given) as (target, run):
        plan = run(_plan(given, target))
        judged = run(judge(target, questions, plan, _progress(given, len(questions))))
        report = _report(target.name, run(target.count()), judged)
    if arguments.json:
        given.terminal.say_json(as_json(report, verbose=arguments.verbose))
    else:
        show(report, given.terminal, verbose=arguments.verbose)
    if report.number == 0:
        given.terminal.inform(
            "error: no question has a right document in collection {name}: are its answers ids or texts"
            " of the documents, and is it the right collection?",
            name=target.name,
        )
        return 1
    return 0


def _questions(given: Invocation) -> "list[Question]":
    from server.cli.evaluation.columns import Asked
    from server.cli.evaluation.questions import Reading, read_questions
    from server.sources.decoding import check_encoding
    from server.sources.notes import Notes

    arguments, notes = given.arguments, Notes()
    check_encoding(arguments.encoding)
    asked = Asked(arguments.question_column, arguments.answer_column)
    found = read_questions(arguments.questions, Reading(asked, arguments.encoding, notes))
    for note in notes.messages():
        given.terminal.inform(note)
    return found


async def _plan(given: Invocation, target: "CollectionTarget") -> "Plan":
    """Return how to ask; without --modes, reranked only where a model scores pairs."""
    from server.cli.evaluation.judging import WAYS, Plan

    ways: tuple[Way, ...] | None = given.arguments.modes
    if ways is None:
        ways = WAYS if await target.has_reranker() else WAYS[:-1]
        if len(ways) < len(WAYS):
            given.terminal.inform("no model scores pairs, so reranking is not judged")
    return Plan(ways, given.arguments.filter, given.arguments.rerank_model)


def _progress(given: Invocation, total: int) -> Callable[[int], None]:
    from server.cli.ingest import Meter

    meter = Meter(given.terminal, now)

    def show(done: int) -> None:
        meter.show(Message("{done:,} questions asked", done=done), done, done / total)
        if done == total:
            meter.finish()

    return show


def _report(name: str, documents: int, judged: "list[Judged]") -> "Report":
    from server.cli.evaluation.comparison import differences, means
    from server.cli.evaluation.report import Report

    has_any = any(each.outcomes for each in judged)
    found = means(judged) if has_any else {}
    compared = differences(judged, found) if has_any else []
    return Report(name, documents, judged, found, compared)
