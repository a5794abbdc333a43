"""Vectors that come with documents: whose they are, and whether they fit.

How this works. A vector of another model has the right dimension often enough, and every search would
still answer. So a collection takes vectors of one embedder only:

- A collection that was created for an embedder holds its vectors and no others; no model of this server
  is asked.
- A collection of a served model takes vectors whose sender names that model. A few of their texts are
  embedded here and compared, so that a wrong name is noticed before anything is stored.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from server.collections.chunk_embedding import embed
from server.collections.external.kinds import Writable
from server.collections.writing.outcome import Outcome
from server.errors import InvalidRequest, shown
from server.inference.comparison import row_cosines
from server.inference.engine import Engine
from server.store.passages.reading import readings
from server.store.reading.parts import Parts
from server.store.records import GIVEN, Document, Info, titled
from server.store.schema import MAX_DIMENSION
from server.store.vector_index import LEAST_NORM, MOST_NORM, usable
from server.types import Vectors

# Printable ASCII without blanks: a backup takes no other fingerprint.
NAME = re.compile(r"[!-~]{1,100}")
# Texts of one request that are embedded to compare their vectors with the given ones.
SAMPLE = 4
# Least cosine of vectors of one model: those of a float32 model and of its int8 artifact have 0.99,
# those of another model about 0.
SAME_MODEL = 0.95


def info_of_given(name: str, embedder: str, dimension: int) -> Info:
    """Return the description of a collection of given vectors; raises InvalidRequest."""
    if not NAME.fullmatch(embedder):
        raise InvalidRequest(
            f"embedder {shown(embedder)} must be 1 to 100 visible ASCII characters without blanks, such as"
            " text-embedding-3-small",
            param="embedder",
        )
    if not 1 <= dimension <= MAX_DIMENSION:
        raise InvalidRequest(
            f"dimension {dimension} is outside 1 to {MAX_DIMENSION}", param="dimension"
        )
    return Info(name, GIVEN + embedder, dimension)


def check_embedder(live: Writable, named: str | None) -> None:
    """Raise InvalidRequest unless vectors of this embedder belong into the collection."""
    known = names_of(live)
    of = f"collection {live.name!r} holds vectors of {known[0]!r}"
    if named is None and live.info.embedder is None:
        raise InvalidRequest(
            f'{of}, a model of this server; if that model made these vectors, say so: "embedder":'
            f' "{known[0]}", or leave the vectors out and they are computed here',
            param="embedder",
        )
    if named is not None and named not in known:
        raise InvalidRequest(
            f"{of}, and these are of {shown(named)}: vectors of two embedders cannot be compared; store"
            ' them in a collection of their own: POST /collections with "embedder" and "dimension"',
            param="embedder",
        )


def names_of(live: Writable) -> list[str]:
    """Return the names of what makes the collection's vectors; raises OtherModel where none is known."""
    info = live.info
    if info.embedder is not None:
        return [info.embedder, info.fingerprint]
    engine = live.engine
    names = (engine.model.name, engine.manifest.model_id, info.fingerprint)
    return list(dict.fromkeys(names))


def check_vectors(vectors: Vectors, dimension: int, place: str) -> None:
    """Raise InvalidRequest unless these are vectors of the collection: float32 (B, D).

    place: of the document, for the message.
    """
    found = vectors.shape[1]
    if found != dimension:
        raise InvalidRequest(
            f"a vector of {place} has {found} numbers, and those of the collection have {dimension}",
            param="documents",
        )
    if not np.isfinite(vectors).all():
        raise InvalidRequest(
            f"a vector of {place} has a number that is not finite as float32; scale it down",
            param="documents",
        )
    if not (usable(vectors) & vectors.any(axis=1)).all():
        raise InvalidRequest(
            f"a vector of {place} has a length outside {LEAST_NORM:g} to {MOST_NORM:g}, so it has no"
            " direction that can be compared",
            param="documents",
        )


async def add_given(
    live: Writable,
    documents: Sequence[Document],
    parts: Mapping[str, Parts],
    embedder: str | None,
    *,
    replace: bool = True,
) -> Outcome:
    """Store documents as `LiveCollection.add` does, some with vectors of this embedder."""
    if parts or embedder is not None:
        check_embedder(live, embedder)
    if parts and live.info.embedder is None:
        await check_sample(documents, parts, live.engine)
    stored = await live.add(documents, replace=replace, parts=parts)
    return stored if isinstance(stored, Outcome) else Outcome(stored)


async def check_sample(
    documents: Sequence[Document], parts: Mapping[str, Parts], engine: Engine
) -> None:
    """Embed a few texts and raise InvalidRequest where their given vectors are not alike."""
    given = [document for document in documents if document.id in parts]
    places = np.linspace(0, len(given) - 1, min(SAMPLE, len(given)), dtype=int)
    some = [given[place] for place in dict.fromkeys(places.tolist())]
    texts = [_first_texts(document, parts[document.id]) for document in some]
    made = await embed([text for each in texts for text in each], engine)
    owners = np.repeat(np.arange(len(some)), [len(each) for each in texts])
    given_rows = np.stack([parts[each.id].vectors[0] for each in some])[owners]
    found = np.full(len(some), -1.0)
    np.maximum.at(found, owners, row_cosines(given_rows, made))
    worst = int(np.argmin(found))
    if not found[worst] >= SAME_MODEL:
        raise InvalidRequest(
            f"the vector of document {shown(some[worst].id)} is not of the served model"
            f" {engine.model.name!r}: its cosine with the one computed here is {found[worst]:.3f}, at least"
            f" {SAME_MODEL} is needed; leave the vectors out, or store them in a collection of their own",
            param="documents",
        )


def _first_texts(document: Document, parts: Parts) -> list[str]:
    """Return what the sender may have embedded for the first part: with what stands above it, or less."""
    begin, end = parts.spans[0]
    text = document.text[begin:end]
    (whole,) = readings(document, [parts.spans[0]])
    return list(dict.fromkeys((whole, titled(document.title, text), text)))
