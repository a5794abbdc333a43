"""The kinds of CPU that computed a collection's vectors, known by their self-test's vectors.

Two CPUs may compute slightly other int8 products from one artifact: one without VNNI adds them in
pairs that saturate. The fingerprint, which names the artifact, cannot tell them apart. So a
collection keeps, of each kind of CPU that has written to it, the vectors of the self-test's
texts, and another machine compares its own with them: the difference is measured, not guessed from
names of instruction sets.

The rule. A collection of another kind of CPU is searched and written all the same, and the log,
its stats and `doctor` report it: both kinds are within USABLE_VECTORS of the exporting machine's, or
the model would not have opened, and nearly as close to float32 as each other (cosine 0.9990 with
VNNI, 0.9985 without, 2026-11-25). docs/en/explanation/cpu.md has the figures.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from server.inference.comparison import SAME_VECTORS, row_cosines
from server.store.records import COMPUTED_BY
from server.system.cpu import cpu_features, int8_instruction_set
from server.types import Vectors

NOTE = COMPUTED_BY


class CpuProvenance(msgspec.Struct, frozen=True):
    """A kind of CPU.

    instruction_set: its best one for int8, for people. vectors: of the self-test's texts, float16
    (B, D), which is exact enough for a cosine to 0.000001.
    """

    instruction_set: str
    dimension: int
    vectors: bytes


def provenance_here(vectors: Vectors) -> CpuProvenance:
    """Return the kind of this machine's CPU.

    vectors: of the self-test's texts as this machine computes them, float32 (B, D).
    """
    instruction_set = int8_instruction_set(cpu_features())
    return CpuProvenance(instruction_set, vectors.shape[1], vectors.astype("<f2").tobytes())


def read_provenances(note: str | None) -> list[CpuProvenance]:
    """Return the kinds in a collection's note; none where it was written before there were such notes."""
    try:
        return msgspec.json.decode(note or "[]", type=list[CpuProvenance])
    except msgspec.DecodeError:
        # No vector depends on it, so a note that cannot be read counts as missing.
        return []


def agreement(known: Sequence[CpuProvenance], here: CpuProvenance) -> float | None:
    """Return the least cosine between the known kinds' self-test vectors and this one's, at most 1.

    None where no kind is known, or where their self-test was another.
    """
    shape = here.dimension, len(here.vectors)
    comparable = [each for each in known if (each.dimension, len(each.vectors)) == shape]
    return min((_cosine(each, here) for each in comparable), default=None)


def note_of(note: str | None, here: CpuProvenance) -> dict[str, str]:
    """Return what to note with a write by this machine; nothing where its kind is noted already."""
    known = read_provenances(note)
    if any((agreement([each], here) or 0.0) >= SAME_VECTORS for each in known):
        return {}
    return {NOTE: msgspec.json.encode([*known, here]).decode()}


def _cosine(one: CpuProvenance, other: CpuProvenance) -> float:
    return min(float(row_cosines(_rows(one), _rows(other)).min()), 1.0)


def _rows(provenance: CpuProvenance) -> Vectors:
    flat = np.frombuffer(provenance.vectors, dtype="<f2").astype(np.float32)
    return flat.reshape(-1, provenance.dimension)
