"""Decides whether an artifact may be written: its vectors against the float32 model's.

Three questions: do the vectors agree on texts that calibration never saw; is a text's vector the
same alone and in a batch; does every length up to the maximum work (past `EVERY_LENGTH` a sample).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from export.errors import DisagreesWithCheckpoint
from server.inference.encoder import row_cosines
from server.inference.manifest import Agreement
from server.types import Encoder, Ids, Packing, Vectors

# A batch may not move any component of a vector further than this part of the vector's length.
BATCH_TOLERANCE = 1e-5
BATCH_TEXTS = 128
# Lengths compared with float32: one by one up to the first, then in steps.
SHORT_LENGTHS, LENGTH_STEP = 16, 37
# Lengths that are run at all: every one up to this, which most encoders end at. bge-small-zh-v1.5,
# 2026-11-24, 2 cores with AVX512-VNNI: 6.5 s. Past it only those that are compared: all lengths to
# 8,192 would be 256 times as many tokens.
EVERY_LENGTH = 512
WORST_SHOWN = 5

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Least mean and least single cosine to the float32 model."""

    mean: float = 0.997
    minimum: float = 0.98


def verify(
    reference: Encoder,
    served: Encoder,
    texts: Sequence[str],
    token_ids: Sequence[Ids],
    max_tokens: int,
    thresholds: Thresholds,
    progress: Progress = lambda _: None,
) -> Agreement:
    """Measure agreement; raises DisagreesWithCheckpoint that names the texts at fault.

    texts and token_ids correspond; token_ids are int64 (T,) arrays.
    """
    progress("agreement")
    agreement = _check_agreement(reference, served, texts, token_ids, thresholds)
    progress("batches")
    _check_batches(served, texts, token_ids)
    progress("lengths")
    _check_lengths(reference, served, token_ids, max_tokens, thresholds)
    return agreement


def embed_each(encoder: Encoder, token_ids: Sequence[Ids]) -> Vectors:
    """Vectors of texts one at a time: float32 (N, D)."""
    return np.concatenate([encoder.encode([ids]) for ids in token_ids])


def _check_agreement(
    reference: Encoder,
    served: Encoder,
    texts: Sequence[str],
    token_ids: Sequence[Ids],
    thresholds: Thresholds,
) -> Agreement:
    cosines = row_cosines(embed_each(reference, token_ids), embed_each(served, token_ids))
    cosines = np.nan_to_num(cosines, nan=-1.0)
    mean, minimum = float(cosines.mean()), float(cosines.min())
    if mean < thresholds.mean or minimum < thresholds.minimum:
        worst = [(float(cosines[i]), texts[i]) for i in np.argsort(cosines)[:WORST_SHOWN]]
        listed = "".join(f"\n  {cosine:.4f}  {_shorten(text)}" for cosine, text in worst)
        raise DisagreesWithCheckpoint(
            "cosine to the float32 model: mean {mean:.5f} (needs {least_mean}), minimum {minimum:.4f} "
            "(needs {least}); calibrate on texts like these (--calibration FILE), export "
            "--precision fp32, or accept less (--min-agreement MEAN,MIN); worst texts:{listed}",
            mean=mean,
            least_mean=thresholds.mean,
            minimum=minimum,
            least=thresholds.minimum,
            listed=listed,
        )
    return Agreement(mean=round(mean, 6), minimum=round(minimum, 6), texts=len(texts))


def _check_batches(served: Encoder, texts: Sequence[str], token_ids: Sequence[Ids]) -> None:
    """Texts among others: three of each length, of as many lengths as the encoder takes at once."""
    for chosen in _together(served.packing, token_ids):
        members = [(index, token_ids[index]) for index in chosen]
        # Between a text and itself stands another of its length, made of the next one's tokens.
        batch = [
            row
            for index, ids in members
            for row in (ids, np.resize(token_ids[index - 1], len(ids)), ids)
        ]
        together = served.encode(batch).reshape(len(members), 3, -1)[:, ::2]
        alone = embed_each(served, [ids for _, ids in members])
        moved = np.abs(together - alone[:, None]).max(axis=(1, 2))
        differences = moved / np.linalg.norm(alone, axis=1)
        for (index, _), difference in zip(members, differences, strict=True):
            if not difference <= BATCH_TOLERANCE:
                raise DisagreesWithCheckpoint(
                    "a vector changes by {difference:.1e} in a batch (at most {BATCH_TOLERANCE:.0e}): "
                    "{shorten}",
                    difference=difference,
                    BATCH_TOLERANCE=BATCH_TOLERANCE,
                    shorten=_shorten(texts[index]),
                )


def _together(packing: Packing, token_ids: Sequence[Ids]) -> Iterator[list[int]]:
    """Some of the texts in batches, each of another length than those beside it."""
    order = np.random.default_rng(0).permutation(len(token_ids))[:BATCH_TEXTS]
    batch: dict[int, int] = {}
    for index in map(int, order):
        length = len(token_ids[index])
        if batch and not packing.allows([*batch, length]):
            yield [*batch.values()]
            batch = {}
        batch[length] = index
    yield [*batch.values()]


def _check_lengths(
    reference: Encoder,
    served: Encoder,
    token_ids: Sequence[Ids],
    max_tokens: int,
    thresholds: Thresholds,
) -> None:
    """Running text from 1 token to the maximum: a direction everywhere, and close to float32."""
    stream = np.concatenate(token_ids)
    stream = np.resize(stream, max(len(stream), max_tokens))
    compared = {
        *range(1, SHORT_LENGTHS),
        *range(SHORT_LENGTHS, max_tokens, LENGTH_STEP),
        max_tokens,
    }
    for length in sorted({*range(1, EVERY_LENGTH + 1), *compared}):
        if length > max_tokens:
            break
        ids = stream[:length]
        vector = _embed_length(served, ids)
        if length not in compared:
            continue
        cosine = float(row_cosines(embed_each(reference, [ids]), vector)[0])
        # One or two ids are no text: the special tokens alone take two.
        if not np.isfinite(cosine) or (length > 2 and cosine < thresholds.minimum):
            raise DisagreesWithCheckpoint(
                "at {length} tokens the cosine to the float32 model is {cosine:.4f} (needs {minimum})",
                length=length,
                cosine=cosine,
                minimum=thresholds.minimum,
            )


def _embed_length(served: Encoder, ids: Ids) -> Vectors:
    """The vector of one text, float32 (1, D), if there is one for its length."""
    try:
        vector = embed_each(served, [ids])
    except Exception as error:
        # onnxruntime has kinds of its own; a traced graph may have a length built into it.
        raise DisagreesWithCheckpoint(
            "at {n_ids} tokens the graph cannot be run: {error}",
            n_ids=len(ids),
            error=error,
        ) from None
    if not np.isfinite(vector).all() or not vector.any():
        raise DisagreesWithCheckpoint(
            "at {n_ids} tokens the vector is zero or holds NaN or infinity",
            n_ids=len(ids),
        )
    return vector


def _shorten(text: str, limit: int = 60) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= limit else line[: limit - 1] + "…")
