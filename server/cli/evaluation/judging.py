"""Asks the questions in every mode and judges the hits by the right documents."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from server.cli.evaluation.metrics import ndcg, recall, reciprocal_rank
from server.cli.evaluation.questions import Question
from server.cli.evaluation.right import Right, StoredAnswers
from server.cli.target import CollectionTarget, Rerank
from server.cli.target import Question as Search
from server.store.search import Hit

Way = Literal["dense", "lexical", "hybrid", "reranked"]
WAYS: tuple[Way, ...] = get_args(Way)
# Hits of a question, and candidates of reranking, so that all columns mean the same in every row.
DEPTH = 100
# Questions that are asked at once: the engine embeds them together.
AT_ONCE = 16

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """How to ask. ways: which are judged. filter: as of a search. rerank_model: the first if it is empty."""

    ways: tuple[Way, ...]
    filter: Mapping[str, object] | None = None
    rerank_model: str = ""

    def search(self, text: str, way: Way) -> Search:
        if way == "reranked":
            rerank = Rerank(self.rerank_model, DEPTH)
            return Search(text, DEPTH, "hybrid", self.filter, rerank)
        return Search(text, DEPTH, way, self.filter)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one way found for one question. ranks: of its right documents, 0 for one that is not found."""

    ndcg_at_10: float
    recall_at_10: float
    recall_at_100: float
    mrr_at_10: float
    ranks: Mapping[str, int]
    first: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A question with its right documents and what every way found; no outcomes where none is stored."""

    question: Question
    right: Right
    outcomes: Mapping[Way, Outcome]


async def judge(
    target: CollectionTarget,
    questions: Sequence[Question],
    plan: Plan,
    show: Callable[[int], None],
) -> list[Judged]:
    """Return what was found, in the order of the questions; `show` gets how many are done."""
    judge = _Judge(target, plan)
    found: list[Judged] = []
    for begin in range(0, len(questions), AT_ONCE):
        found += await _all([judge.of(each) for each in questions[begin : begin + AT_ONCE]])
        show(len(found))
    return found


class _Judge:
    """Asks single questions. One is reranked at a time: its candidates fill the model's batches already."""

    def __init__(self, target: CollectionTarget, plan: Plan) -> None:
        self._target, self._plan = target, plan
        self._stored = StoredAnswers(target)
        self._reranking = asyncio.Lock()

    async def of(self, question: Question) -> Judged:
        right = await self._stored.of(question)
        outcomes: dict[Way, Outcome] = {}
        for way in self._plan.ways if right.relevant else ():
            hits = await self._hits(question, way)
            outcomes[way] = outcome([hit.id for hit in hits], right.relevant)
        return Judged(question, right, outcomes)

    async def _hits(self, question: Question, way: Way) -> Sequence[Hit]:
        async with self._reranking if way == "reranked" else nullcontext():
            return (await self._target.search(self._plan.search(question.text, way))).hits


async def _all(work: Sequence[Awaitable[T]]) -> list[T]:
    """Return all results; after an error nothing is left under way."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def outcome(found: Sequence[str], relevant: Mapping[str, float]) -> Outcome:
    """Judge the ids of hits, best first."""
    ranks = {id: rank for rank, id in enumerate(found, 1) if id in relevant}
    return Outcome(
        ndcg(found, relevant),
        recall(found, relevant, 10),
        recall(found, relevant, DEPTH),
        reciprocal_rank(found, relevant),
        {id: ranks.get(id, 0) for id in relevant},
        found[0] if found else "",
    )
