"""Which machines computed a collection's vectors, told by what they make of the self-test's texts.

Two CPUs may compute slightly other int8 products from one artifact: one without VNNI adds them in
pairs that saturate. The fingerprint, which names the artifact, cannot tell them apart. So a
collection keeps, of each kind of machine that has written to it, the vectors of the self-test's
texts, and any other machine compares its own with them: what differs is measured, not guessed from
names of instruction sets.

The rule. A collection of another kind of machine is searched and written all the same, and the log,
its stats and `doctor` say so: both kinds are within USABLE_VECTORS of the exporting machine's, or
the model would not have opened, and nearly as close to float32 as each other (cosine 0.9990 with
VNNI, 0.9985 without, 2026-11-25). docs/cpu.md has the figures.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from server.inference.encoder import SAME_VECTORS, row_cosines
from server.system.cpu import cpu_features, int8_instruction_set
from server.types import Vectors

# Under this key among a collection's notes.
NOTE = "computed_by"


class Origin(msgspec.Struct, frozen=True):
    """A kind of machine.

    instruction_set: its best one for int8, for people. vectors: of the self-test's texts, float16
    (B, D), which is exact enough for a cosine to 0.000001.
    """

    instruction_set: str
    dimension: int
    vectors: bytes


def origin_here(vectors: Vectors) -> Origin:
    """The kind of this machine; vectors: of the self-test's texts as it computes them, float32 (B, D)."""
    instruction_set = int8_instruction_set(cpu_features())
    return Origin(instruction_set, vectors.shape[1], vectors.astype("<f2").tobytes())


def read_origins(note: str | None) -> list[Origin]:
    """Of a collection's note; none where it was written before there were such notes."""
    try:
        return msgspec.json.decode(note or "[]", type=list[Origin])
    except msgspec.DecodeError:
        # No vector depends on it: a note that cannot be read is one that is not there.
        return []


def agreement(origins: Sequence[Origin], here: Origin) -> float | None:
    """The least cosine between self-test vectors of these machines and this one's, at most 1.

    None where no machine is known, and of ones with another self-test.
    """
    shape = here.dimension, len(here.vectors)
    known = [each for each in origins if (each.dimension, len(each.vectors)) == shape]
    return min((_cosine(origin, here) for origin in known), default=None)


def note_of(note: str | None, here: Origin) -> dict[str, str]:
    """What to note with a write by this machine: nothing where its kind is noted already."""
    origins = read_origins(note)
    if any((agreement([each], here) or 0.0) >= SAME_VECTORS for each in origins):
        return {}
    return {NOTE: msgspec.json.encode([*origins, here]).decode()}


def _cosine(one: Origin, other: Origin) -> float:
    return min(float(row_cosines(_rows(one), _rows(other)).min()), 1.0)


def _rows(origin: Origin) -> Vectors:
    flat = np.frombuffer(origin.vectors, dtype="<f2").astype(np.float32)
    return flat.reshape(-1, origin.dimension)
