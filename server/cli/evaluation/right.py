"""Finds the documents that are meant by an answer: by their id, or by their text or a passage of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from server.cli.evaluation.questions import Question, ids_in
from server.cli.target import CollectionTarget
from server.cli.target import Question as Search
from server.store.records import MAX_ID, text_id

# Candidates that a passage is looked for in, and its characters that find them by their words.
CANDIDATES, PASSAGE_CHARACTERS = 20, 512
# Documents with the same text that are looked for.
ALIKE = 100
# A passage that is in so many documents says of none that it is the right one.
TOO_COMMON = 10


@dataclass(frozen=True, slots=True)
class Right:
    """The right documents of a question with their relevance. missing: answers that are not stored."""

    relevant: Mapping[str, float]
    missing: tuple[str, ...]


class StoredAnswers:
    """The stored documents of answers; an answer that several questions have is looked for once."""

    def __init__(self, target: CollectionTarget) -> None:
        self._target = target
        self._known: dict[str, tuple[str, ...]] = {}

    async def of(self, question: Question) -> Right:
        relevant: dict[str, float] = {}
        missing = []
        for answer, relevance in question.answers.items():
            if answer not in self._known:
                self._known[answer] = await self._found(answer)
            if not self._known[answer]:
                missing.append(answer)
            for id in self._known[answer]:
                relevant[id] = max(relevance, relevant.get(id, 0.0))
        return Right(relevant, tuple(missing))

    async def _found(self, answer: str) -> tuple[str, ...]:
        if await self._is_stored(answer):
            return (answer,)
        if await self._is_stored(text_id(answer)):
            return tuple({text_id(answer): None, **dict.fromkeys(await self._with_text(answer))})
        several = [id for id in ids_in(answer) if await self._is_stored(id)]
        return tuple(several) or await self._with_passage(answer)

    async def _is_stored(self, id: str) -> bool:
        return len(id) <= MAX_ID and await self._target.get(id) is not None

    async def _with_text(self, text: str) -> list[str]:
        """Return the documents with this very text: questions that have one answer differ in the title."""
        search = Search(text[:PASSAGE_CHARACTERS], ALIKE, "lexical")
        hits = (await self._target.search(search)).hits
        return [hit.id for hit in hits if hit.whole and hit.text == text]

    async def _with_passage(self, passage: str) -> tuple[str, ...]:
        """Return the documents whose text has this passage; white space counts as one space."""
        wanted = _spaced(passage)
        search = Search(passage[:PASSAGE_CHARACTERS], CANDIDATES, "lexical")
        found = []
        for hit in (await self._target.search(search)).hits:
            document = None if hit.whole else await self._target.get(hit.id)
            if wanted in _spaced(hit.text if document is None else document.text):
                found.append(hit.id)
        return tuple(found) if len(found) <= TOO_COMMON else ()


def _spaced(text: str) -> str:
    return " ".join(text.split())
