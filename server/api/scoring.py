"""Scores of pairs, as every dialect asks for them."""

from collections.abc import Sequence

from server.api.operation import Call
from server.api.truncation import Truncation
from server.errors import EmptyInput
from server.inference.engine import Scored
from server.inference.registry import Choice
from server.types import Pair

ALLOWED = Truncation()


def pairs_with(query: str, texts: Sequence[str]) -> list[Pair]:
    """Return the query with each of the texts; raises EmptyInput for an empty query."""
    if not query:
        raise EmptyInput("query is empty")
    return [(query, text) for text in texts]


async def scored(
    call: Call, model: str, pairs: Sequence[Pair], truncation: Truncation = ALLOWED
) -> tuple[Choice, Scored]:
    """Return the model of this name, or the first of scores, and what it gives the pairs.

    A wrong request is refused for what is wrong with it, also where no model could answer it.
    """
    call.models.default.check_pairs(pairs)
    choice = call.models.choose(model, "score")
    engine = choice.engine
    return choice, await engine.score(pairs, truncate=truncation.allowed, keep=truncation.keep)
