"""Compares documents of the source with those of the target: what a transfer has copied must be the same there."""

from collections.abc import Sequence

import numpy as np

from server.collections.transferring.place import Place
from server.databases.outbox_rows import Put
from server.inference.comparison import row_cosines

# Documents that are compared at the end, and of one question.
SAMPLE, AT_ONCE = 100, 20
# Stores keep numbers in other precisions: float16 here moves a cosine by less than 0.000001.
LEAST_COSINE = 0.99999


async def differences(source: Place, target: Place, ids: Sequence[str]) -> dict[str, str]:
    """Return in what documents of these ids differ, by id; those that the source no longer has are left out."""
    found: dict[str, str] = {}
    for begin in range(0, len(ids), AT_ONCE):
        some = ids[begin : begin + AT_ONCE]
        wanted, copied = await source.of(some), await target.of(some)
        for id, put in wanted.items():
            if (what := difference(put, copied.get(id))) is not None:
                found[id] = what
    return found


def difference(wanted: Put, copied: Put | None) -> str | None:
    """Return in what a copied document differs; None where it is the same."""
    if copied is None:
        return "it is not there"
    document, other = wanted.document, copied.document
    for name in ("title", "text"):
        if getattr(document, name) != getattr(other, name):
            return f"its {name} is another"
    if not document.is_same(other):
        return "its metadata is another"
    if tuple(wanted.spans) != tuple(copied.spans):
        return f"it has other chunks ({len(copied.spans)}, not {len(wanted.spans)})"
    least = float(row_cosines(np.asarray(wanted.vectors), np.asarray(copied.vectors)).min())
    # subtle: a cosine that is no number is not near either.
    if not least >= LEAST_COSINE:
        return f"its vectors are others (least cosine {least:.6f}, needs {LEAST_COSINE})"
    return None
