"""The command that searches: one query, or a prompt."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from server.cli.commands import opening
from server.cli.invocation import Invocation

if TYPE_CHECKING:
    from server.cli.commands.opening import Run
    from server.cli.line_reader import LineReader
    from server.cli.target import CollectionTarget, Found, Question, Rerank


def search(given: Invocation) -> int:
    """Answer one query, or open a prompt."""
    from server.cli.hits import for_people, show_hits, show_json
    from server.cli.prompt import Prompt, empty
    from server.cli.searching.options import given_options
    from server.cli.target import Found, Question

    arguments, terminal = given.arguments, given.terminal
    options = given_options(arguments)
    question = Question(
        *(arguments.query or "", arguments.top_k, arguments.mode, arguments.filter),
        *(_rerank(given), options),
    )
    with opening.target(given) as (target, run):
        searching = _Collections(target, run)
        if arguments.query is None and not question.is_without_text:
            return Prompt(searching, target.name, question, terminal, _reader(given)).run()
        # The reply to an empty collection is exact, too: without groups, with counts of nothing.
        exact = arguments.json and options
        if exact or "collections" in options or searching.count(target.name):
            asked = question if arguments.json else for_people(question, terminal)
            found = searching.search(target.name, asked)
        elif arguments.json:
            found = Found([])
        else:
            terminal.inform(empty(target.name))
            return 0
    if arguments.json:
        show_json(found, arguments.query, terminal)
    else:
        show_hits(found, question, terminal)
    return 0


class _Collections:
    """The collections of a target, for a prompt that may go from one to another."""

    def __init__(self, target: "CollectionTarget", run: "Run") -> None:
        self._target = target
        self._run = run

    def search(self, name: str, question: "Question") -> "Found":
        found: Found = self._run(self._target.named(name).search(question))
        return found

    def count(self, name: str) -> int:
        return int(self._run(self._target.named(name).count()))

    def names(self) -> Sequence[str]:
        """Return the names of all collections, and then their aliases."""
        return (*self._run(self._target.names()), *sorted(self._run(self._target.aliases())))


def _reader(given: Invocation) -> "LineReader":
    from server.cli.history import History
    from server.cli.line_reader import LineReader

    history = None if given.arguments.no_history else History.of(given.variables)
    return LineReader(given.terminal, history)


def _rerank(given: Invocation) -> "Rerank | None":
    """Return how to rerank, None where no flag asks for it."""
    from server.cli.target import Rerank

    model, top_n = given.arguments.rerank_model, given.arguments.rerank_top_n
    asked = given.arguments.rerank or model or top_n
    return Rerank(model, top_n) if asked else None
