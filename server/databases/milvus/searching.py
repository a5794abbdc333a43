"""Searches of Milvus: by one field of vectors, or by two whose hits are fused by their ranks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from server.databases.milvus.client import AnnSearchRequest, RRFRanker
from server.databases.milvus.expression import EVERY
from server.databases.milvus.rows import Stored
from server.databases.milvus.schema import STRONG

# Candidates that HNSW compares, at least, and for each hit. It takes no fewer than there are hits.
LEAST_CANDIDATES, CANDIDATES = 128, 2
# In 1 / (60 + rank): that of the paper on reciprocal rank fusion, and of Milvus.
RANK_OFFSET = 60


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched for in one field. asked: a vector, or a text. kept: a filter's expression."""

    field: str
    metric: str
    asked: Any
    k: int
    kept: str

    @property
    def parameters(self) -> dict[str, Any]:
        candidates = max(LEAST_CANDIDATES, CANDIDATES * self.k)
        inner = {"ef": candidates} if self.metric == "COSINE" else {}
        return {"metric_type": self.metric, "params": inner}

    @property
    def filter(self) -> str:
        return "" if self.kept == EVERY else self.kept


@dataclass(frozen=True, slots=True)
class Field:
    """A field that can be searched, and how its hits are scored."""

    name: str
    metric: str

    def of(self, asked: Any, k: int, kept: str) -> Search:
        return Search(self.name, self.metric, asked, k, kept)


@dataclass(frozen=True, slots=True)
class Hit:
    """A row that a search found, with the fields that were asked for."""

    label: int
    score: float
    row: Stored


BY_VECTOR = Field("vector", "COSINE")
BY_WORDS = Field("bm25", "BM25")


def ran(
    call: Callable[..., Any],
    name: str,
    search: Search | Sequence[Search],
    k: int,
    fields: Sequence[str],
) -> list[Hit]:
    """Return what a search finds, or what several find together, best first."""
    shared = {"limit": k, "output_fields": list(fields), "consistency_level": STRONG}
    if isinstance(search, Search):
        (found,) = call(
            "search",
            name,
            data=[search.asked],
            anns_field=search.field,
            search_params=search.parameters,
            filter=search.filter,
            **shared,
        )
        # subtle: milvus-lite gives BM25 as a distance, below 0; of a server it is above.
        sign = abs if search.metric == "BM25" else float
    else:
        requests = [
            AnnSearchRequest([each.asked], each.field, each.parameters, each.k, each.filter or None)
            for each in search
        ]
        (found,) = call("hybrid_search", name, requests, RRFRanker(RANK_OFFSET), **shared)
        sign = float
    return [
        Hit(hit["label"], sign(hit["distance"]), {**hit["entity"], "label": hit["label"]})
        for hit in found
    ]
