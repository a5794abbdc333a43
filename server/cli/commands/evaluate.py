"""The command that judges search by questions whose right documents are known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.commands import opening
from server.cli.invocation import Invocation
from server.clock import now
from server.errors import BadSettings
from server.messages.message import Message

if TYPE_CHECKING:
    from server.cli.evaluation.judging import Judged, Plan, Way
    from server.cli.evaluation.questions import Question
    from server.cli.evaluation.report import Report
    from server.cli.target import CollectionTarget


def evaluate(given: Invocation) -> int:
    """Print how well each mode finds the right documents; status 1 where none of them is stored."""
    from server.cli.evaluation.report import as_json, show
    from server.cli.evaluation.sizes import compared

    arguments, terminal = given.arguments, given.terminal
    if arguments.plot is not None:
        _check_plot(arguments.plot)
    questions = _questions(given)
    sizes, documents = arguments.chunk_tokens, arguments.documents
    reports = _of_trials(given, questions) if sizes or documents else [_of_stored(given, questions)]
    if arguments.json:
        found = [as_json(report, verbose=arguments.verbose) for report in reports]
        terminal.say_json({"sizes": found} if sizes else found[0])
    else:
        for report in reports:
            show(report, terminal, verbose=arguments.verbose)
        for sentence in compared(reports):
            terminal.say(sentence)
    if arguments.plot is not None:
        _draw(given, reports)
    if not any(report.number for report in reports):
        terminal.inform(
            "error: no question has a right document in collection {name}: are its answers ids or texts"
            " of the documents, and is it the right collection?",
            name=reports[0].collection,
        )
        return 1
    return 0


def _of_stored(given: Invocation, questions: "list[Question]") -> "Report":
    """Judge the collection that is named."""
    with opening.target(given) as (target, run):
        return _judged(given, target, run, questions)


def _of_trials(given: Invocation, questions: "list[Question]") -> "list[Report]":
    """Judge collections that are made for this only, one for each size of chunks."""
    from server.cli.evaluation.trials import trials

    reports = []
    with trials(given) as opened:
        for tokens in given.arguments.chunk_tokens or (None,):
            report = _judged(given, opened.of(tokens), opened.run, questions)
            reports.append(replace(report, tokens=tokens))
    return reports


def _judged(
    given: Invocation, target: "CollectionTarget", run: opening.Run, questions: "list[Question]"
) -> "Report":
    from server.cli.evaluation.judging import judge

    plan = run(_plan(given, target))
    judged = run(judge(target, questions, plan, _progress(given, len(questions))))
    return _report(target.name, run(target.count()), judged)


def _check_plot(file: Path) -> None:
    """Refuse, before anything is measured, a file that cannot be meant or cannot be written."""
    if file.suffix.lower() != ".svg":
        raise BadSettings("--plot {file} is no .svg file", file=file)
    if not file.parent.is_dir():
        raise BadSettings(
            "--plot {file}: there is no folder {folder}", file=file, folder=file.parent
        )


def _draw(given: Invocation, reports: "list[Report]") -> None:
    from server.cli.evaluation.plot import drawn
    from server.cli.evaluation.report import NAMES, cut
    from server.cli.transfer import replacing

    words, file = given.terminal.words, given.arguments.plot
    groups = []
    for report in reports:
        label = report.collection if report.tokens is None else words(cut(report.tokens))
        groups.append((label, {words(NAMES[way]): found for way, found in report.means.items()}))
    with replacing(file) as opened:
        opened.write(drawn(groups).encode())
    given.terminal.inform("picture written to {file}", file=file)


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
