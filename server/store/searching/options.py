"""What a query may ask for besides its best hits: pages, groups, an order, parts, vectors, counts."""

from dataclasses import dataclass

# Documents from which groups are formed.
GROUPED = 1_000


@dataclass(frozen=True, slots=True)
class Like:
    """Search by the vectors of stored documents: near to those of `ids`, away from those of `unlike`."""

    ids: tuple[str, ...]
    unlike: tuple[str, ...] = ()

    @property
    def all(self) -> list[str]:
        """Every id, each once."""
        return list(dict.fromkeys((*self.ids, *self.unlike)))


@dataclass(frozen=True, slots=True)
class Grouping:
    """Hits grouped by a key of their metadata; hits: of each group at most."""

    key: str
    hits: int


@dataclass(frozen=True, slots=True)
class SortKey:
    key: str
    is_descending: bool = False


@dataclass(frozen=True, slots=True)
class Sorting:
    """An order by keys of the metadata, the first key first.

    candidates: how many of the best hits are put in order; all that the filter keeps where there is no query.
    """

    keys: tuple[SortKey, ...]
    candidates: int


@dataclass(frozen=True, slots=True)
class Diversity:
    """Hits that are relevant and unlike each other (maximal marginal relevance).

    relevance: its weight against difference, 0 to 1; 1 changes nothing. candidates: hits to choose from.
    """

    relevance: float
    candidates: int


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a query; the defaults ask for nothing.

    offset: hits that are left out at the beginning. look_ahead: say whether there are more hits. explain: say
    how each score came about. parts: of each hit's document, so many of its best chunks. document: the whole
    text of each hit's document. vectors: the vector of each hit. facets: keys whose values are counted. above:
    what stands above each hit and part in its document. asked: say what the query asks for in this collection.
    shares: the score by words is the part of the attainable BM25, which compares across collections.
    """

    offset: int = 0
    look_ahead: bool = False
    explain: bool = False
    parts: int = 0
    document: bool = False
    vectors: bool = False
    like: Like | None = None
    group: Grouping | None = None
    sort: Sorting | None = None
    diversity: Diversity | None = None
    facets: tuple[str, ...] = ()
    above: bool = False
    asked: bool = False
    shares: bool = False

    @property
    def asks_for_details(self) -> bool:
        """Whether more than its text is said of each hit."""
        wanted = (self.explain, self.parts, self.document, self.vectors, self.above, self.asked)
        return any(wanted)

    def depth(self, top_k: int) -> int:
        """Return how many of the best documents must be known for `top_k` hits, or groups."""
        if self.group is not None:
            found = GROUPED
        elif self.sort is not None:
            found = self.sort.candidates
        elif self.diversity is not None:
            found = self.diversity.candidates
        else:
            found = self.offset + top_k + self.look_ahead
        return found + (0 if self.like is None else len(self.like.all))


PLAIN = Options()
