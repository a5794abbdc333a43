"""Vector databases beside the server: memory a vector, by the formulae of their documentation.

Nothing of this is measured here. pgvector documents a vector and not its index, whose layout is in its
source (`src/hnsw.h`). Each formula is of the database's default index, HNSW, with vectors of
32-bit numbers that are all kept in memory.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Links of a node at the lowest level of the graph, where nearly all nodes are: twice the default m of 16.
LINKS = 32
# PostgreSQL: a page, its head and the index's tail, a pointer to a tuple on it, and the alignment of tuples.
PAGE, PAGE_HEAD, ITEM, ALIGNED = 8192, 32, 4, 8
# Of pgvector's tuples: head of a node with its ten row pointers, head of its links, a link.
NODE_HEAD, LINKS_HEAD, LINK = 72, 4, 6


@dataclass(frozen=True, slots=True)
class Database:
    """A database. bytes_of: of memory for a vector of so many numbers. formula, source: where from.

    roomy: whether the formula has room for changes; otherwise it is multiplied as this server's own is.
    """

    name: str
    bytes_of: Callable[[int], float]
    formula: str
    source: str
    roomy: bool = False


def _of_qdrant(dimension: int) -> float:
    return dimension * 4 * 1.5


def _of_milvus(dimension: int) -> float:
    return dimension * 4 + LINKS * 4


def of_pgvector(dimension: int) -> float:
    """Return the bytes of an HNSW index that a vector takes: its node and links, in whole pages.

    As many nodes as fit stand on a page, so that the rest of it is lost: a vector of 1,024 numbers has a
    page for itself.
    """
    node = _aligned(NODE_HEAD + 4 * dimension + 8) + _aligned(LINKS_HEAD + LINKS * LINK) + 2 * ITEM
    return PAGE / max(1, (PAGE - PAGE_HEAD) // node)


def _aligned(size: int) -> int:
    return math.ceil(size / ALIGNED) * ALIGNED


DATABASES: Mapping[str, Database] = {
    "qdrant": Database(
        "Qdrant",
        _of_qdrant,
        "numbers x 4 bytes x 1.5",
        "https://qdrant.tech/documentation/capacity-planning/",
        roomy=True,
    ),
    "milvus": Database(
        "Milvus",
        _of_milvus,
        "numbers x 4 bytes + 32 links x 4 bytes",
        "https://milvus.io/ai-quick-reference/how-much-memory-overhead-is-typically-introduced-by-"
        "indexes-like-hnsw-or-ivf-for-a-given-number-of-vectors-and-how-can-this-overhead-be-managed-"
        "or-configured",
    ),
    "postgres": Database(
        "pgvector",
        of_pgvector,
        "numbers x 4 + 8 bytes, and by its source a head and 32 links x 6 bytes, in pages of 8 KB",
        "https://github.com/pgvector/pgvector#vector-type",
    ),
}
