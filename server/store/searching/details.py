"""What a query with options says of one hit beside its text: the explanation, parts, the document, the vector."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.store.records import Span
from server.store.searching.above import Above
from server.store.words.asked import Asked
from server.store.words.explanation import WordsExplanation
from server.types import Vectors

# Characters of a number of a vector, and of an explanation: about.
NUMBER, EXPLAINED = 12, 2_000


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a hit's score came about.

    cosine: None where vectors took no part. words: None where words took none. ranks: in either search from 1
    on, by vectors and by words, for reciprocal ranks; None where the search did not find the hit.
    """

    cosine: float | None
    words: WordsExplanation | None
    ranks: tuple[int | None, int | None] | None = None


@dataclass(frozen=True, slots=True)
class FoundPart:
    """One of the best chunks of a hit's document."""

    text: str
    score: float
    span: Span
    above: Above | None = None


@dataclass(frozen=True, slots=True)
class HitDetails:
    """What else a query asked for of a hit; None where it did not.

    parts: best first. document: the whole text. vector: float32 (D,), of the chunk that matched, as stored.
    above: what stands above that chunk. asked: what the query asks for, with the synonyms and without the stop
    words of the collection. collection: its name, in a search over several.
    """

    explanation: Explanation | None = None
    parts: Sequence[FoundPart] | None = None
    document: str | None = None
    vector: Vectors | None = None
    above: Above | None = None
    asked: Asked | None = None
    collection: str | None = None

    @property
    def n_characters(self) -> int:
        """How many characters they take in a reply, about."""
        size = len(self.document or "") + sum(len(part.text) for part in self.parts or ())
        size += 0 if self.vector is None else NUMBER * len(self.vector)
        higher = [self.above, *(part.above for part in self.parts or ())]
        size += sum(len(each.context) for each in higher if each is not None)
        return size + (0 if self.explanation is None else EXPLAINED)
