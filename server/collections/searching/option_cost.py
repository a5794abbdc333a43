"""Estimates of what the options of a query cost, beside `read_cost`: seconds of one thread."""

from server.store.search import Query
from server.store.searching.answers import is_listing
from server.store.searching.options import GROUPED, PLAIN

# A text is divided into words again; a vector is read and its checksum compared; two vectors are compared.
# Attributes of one document are counted, or put in order.
EXPLAINED_S, READ_VECTOR_S, COMPARED_S = 100e-6, 20e-6, 0.1e-6
COUNTED_ROW_S, SORTED_ROW_S = 0.1e-6, 1.5e-6
# A document is read and outlined, beside the time to read it.
OUTLINED = 8
# Chunks of a document, about: of those that `like` names, and of those whose parts are scored.
CHUNKS = 8


def hits_read(query: Query) -> int:
    """Return how many hits' texts are read."""
    options = query.options
    if options.group is not None:
        return GROUPED
    if options.sort is not None and not is_listing(query):
        return options.sort.candidates
    return query.top_k


def of_options(query: Query, rows: int, hit_s: float) -> float:
    """Return the cost of what a query asks for besides its hits. rows: chunks of the collection."""
    options = query.options
    if options is PLAIN:
        return 0.0
    shown = min(query.top_k * (1 if options.group is None else options.group.hits), rows)
    cost = COUNTED_ROW_S * rows * len(options.facets)
    if options.explain:
        cost += EXPLAINED_S * shown
    if options.parts:
        cost += (hit_s + CHUNKS * COMPARED_S) * shown * options.parts
    if options.document:
        cost += hit_s * shown
    if options.above:
        cost += OUTLINED * hit_s * shown
    if options.vectors:
        cost += READ_VECTOR_S * shown
    if options.like is not None:
        cost += CHUNKS * READ_VECTOR_S * len(options.like.all)
    if options.diversity is not None:
        candidates = min(options.diversity.candidates, rows)
        chosen = min(options.offset + query.top_k, candidates)
        cost += candidates * (READ_VECTOR_S + chosen * COMPARED_S)
    if options.sort is not None and is_listing(query):
        cost += SORTED_ROW_S * rows * len(options.sort.keys)
    return cost
