"""Makes one part: its rows are read from the runs, and every text that has no vector yet is embedded once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from server.bulk import journal
from server.bulk.layout import Layout
from server.bulk.parts import (
    Facts,
    Range,
    Space,
    facts_of,
    made_of,
    range_of,
    rows_in,
    vectors_in,
    without_repeats,
    write_part,
)
from server.bulk.scanning import reject_line
from server.errors import BadSettings
from server.inference.model import Model
from server.inference.offline import encode_all
from server.messages.message import Message
from server.store.records import titled
from server.types import Vectors

# Texts between two records of the journal: what a kill may cost, some seconds of a core.
PORTION = 512
NO_TOKENS = Message("it has no token that the model knows, so it has no vector")


@dataclass(frozen=True, slots=True)
class Fill:
    """A part to make. runs: of all units, in the order of the input. journals: the folder of journals."""

    range: Range
    out: Path
    journals: Path
    runs: tuple[Path, ...]
    layout: Layout
    space: Space
    is_strict: bool = False

    @property
    def path(self) -> Path:
        return self.out / self.range.name


class Filled(msgspec.Struct, frozen=True):
    """What a part is made of, as in its metadata, and what it has cost.

    computed, reused: texts. is_old: whether the file was there already.
    """

    name: str
    made_of: str
    given: int
    rows: int
    rejected: int
    computed: int = 0
    reused: int = 0
    is_old: bool = False


def fill(asked: Fill, model: Model) -> Filled:
    """Make a part unless it is there; raises BadSettings for a text without tokens where that is an error."""
    table = rows_in(asked.range, asked.runs, asked.layout)
    given = len(table)
    rows = without_repeats(table)
    source = made_of(rows, asked.layout)
    old = facts_of(asked.path)
    if old and (old.made_of, old.fingerprint) == (source, asked.space.fingerprint):
        journal.forget(asked.journals, asked.range.name)
        return Filled(asked.range.name, source, given, old.rows, len(old.rejects), is_old=True)
    wanted = dict.fromkeys(rows["digest"].to_pylist())
    known = {digest: row for digest, row in _known(asked) if digest in wanted}
    reused = len(known)
    texts = _texts(rows, known)
    _embed(asked, model, texts, known)
    rejects = _rejects(rows, known)
    if rejects and asked.is_strict:
        raise BadSettings(
            "a text has no token that the model knows: {reject}; leave out --strict to list such rows and"
            " go on",
            reject=rejects[0],
        )
    kept = rows.filter(pa.array([each in known for each in rows["digest"].to_pylist()], pa.bool_()))
    vectors = np.zeros((len(kept), asked.space.dimension), np.float32)
    for place, digest in enumerate(kept["digest"].to_pylist()):
        vectors[place] = known[digest]
    space = asked.space
    facts = Facts(
        *(space.model_id, space.fingerprint, space.dimension, space.normalized),
        *(source, given, len(kept), rejects),
    )
    write_part(asked.path, kept, vectors, asked.layout, facts)
    journal.forget(asked.journals, asked.range.name)
    return Filled(
        asked.range.name, source, given, len(kept), len(rejects), len(known) - reused, reused
    )


def _known(asked: Fill) -> Iterator[tuple[bytes, Vectors]]:
    """Yield vectors of texts in the range that an earlier run has computed."""
    for path in sorted(asked.out.glob("part-*.parquet")):
        other = range_of(path)
        if other is None or not other.meets(asked.range):
            continue
        facts, space = facts_of(path), asked.space
        if facts and (facts.fingerprint, facts.dimension) == (space.fingerprint, space.dimension):
            yield from vectors_in(path)
    yield from journal.read(asked.journals, asked.range.name, asked.space.dimension)


def _texts(rows: Any, known: dict[bytes, Vectors]) -> dict[bytes, str]:
    """Return what is to be embedded by its digest, short texts first."""
    found = {}
    columns = (rows[name].to_pylist() for name in ("digest", "title", "text"))
    for digest, title, text in zip(*columns, strict=True):
        if digest not in known and digest not in found:
            found[digest] = titled(title, text)
    # Texts of similar length make full batches.
    return dict(sorted(found.items(), key=lambda each: len(each[1])))


def _embed(asked: Fill, model: Model, texts: dict[bytes, str], known: dict[bytes, Vectors]) -> None:
    """Add the vectors of texts to `known`, but of those without a token."""
    if not texts:
        return
    digests = list(texts)
    with journal.writing(asked.journals, asked.range.name) as file:
        for begin in range(0, len(digests), PORTION):
            some = digests[begin : begin + PORTION]
            found = _encoded(model, [texts[each] for each in some])
            done = [
                (digest, row) for digest, row in zip(some, found, strict=True) if row is not None
            ]
            if done:
                journal.append(file, [each for each, _ in done], np.stack([row for _, row in done]))
                known |= dict(done)


def _encoded(model: Model, texts: Sequence[str]) -> list[Vectors | None]:
    """Return a vector a text, float32 (D,); None for a text without tokens."""
    ids = model.tokenizer.encode(texts).ids
    some = [place for place, row in enumerate(ids) if len(row)]
    found: list[Vectors | None] = [None] * len(texts)
    rows = encode_all(model.encoder, [ids[place] for place in some])
    for place, row in zip(some, rows, strict=True):
        found[place] = np.asarray(row, np.float32)
    return found


def _rejects(rows: Any, known: dict[bytes, Vectors]) -> list[str]:
    columns = (rows[name].to_pylist() for name in ("digest", "file", "begin", "row"))
    return [
        reject_line(file, begin, row, NO_TOKENS).decode()
        for digest, file, begin, row in zip(*columns, strict=True)
        if digest not in known
    ]
