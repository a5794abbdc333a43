"""Decides whether an artifact may be written: its results against the float32 model's.

Three questions: do the results agree on texts that calibration never saw; is a text's result the
same alone and in a batch; does every length up to the maximum work (of long texts a sample, `_lengths`; none past
LONGEST_VERIFIED).
What agreement means depends on the task: a cosine of vectors, a difference of scores.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.errors import DisagreesWithCheckpoint
from server.inference.comparison import VECTORS, Comparison
from server.inference.manifest import Agreement
from server.types import Encoder, Ids, Packing, Task, VectorEncoder, Vectors

# A batch may not move any component of a vector further than this part of the vector's length, nor a
# score further than this.
BATCH_TOLERANCE = 1e-5
BATCH_TEXTS = 128
# Lengths compared with float32: one by one up to the first, then in steps.
SHORT_LENGTHS, LENGTH_STEP = 16, 37
# A model of up to so many tokens, as most are, runs every length. bge-small-zh-v1.5, 2026-11-24, 2 cores
# with AVX512-VNNI: 6.5 s. All lengths to 8,192 would be 256 times as many tokens, so a model that reads more
# runs a sample: every length up to SAMPLED_PAST, those that are compared up to EVERY_LENGTH, and past it
# each four times the one before, and the longest.
EVERY_LENGTH, SAMPLED_PAST = 512, 128
# No longer text is run: attention takes the square of its length. At 32,768 tokens Qwen3-Embedding-0.6B would
# multiply and add 300e12 numbers in float32 and in int8 each, an hour of two cores; at 8,192 it is 15e12.
LONGEST_VERIFIED = 8192
WORST_SHOWN = 5

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Least mean and least single agreement with the float32 model.

    order: of scores, the least mean agreement in the order of candidates, Kendall's tau.
    """

    mean: float = 0.997
    minimum: float = 0.98
    order: float = 0.9


# By task; scores are compared as probabilities.
DEFAULTS: Mapping[Task, Thresholds] = {
    "dense": Thresholds(),
    "score": Thresholds(mean=0.99, minimum=0.9, order=0.9),
    # bge-small-zh-v1.5 in int8: mean 0.9978, the worst token of 4,119 0.983 (2026-11-29).
    "token_vectors": Thresholds(mean=0.995, minimum=0.95),
    # Twenty random heads on the same rows: mean 0.991. A trained head was not at hand.
    "sparse": Thresholds(mean=0.99, minimum=0.9),
}


def verify(
    reference: Encoder,
    served: Encoder,
    texts: Sequence[str],
    token_ids: Sequence[Ids],
    max_tokens: int,
    thresholds: Thresholds,
    progress: Progress = lambda _: None,
    comparison: Comparison = VECTORS,
    instruction_offset: int = 0,
) -> Agreement:
    """Measure agreement; raises DisagreesWithCheckpoint that names the texts at fault.

    texts and token_ids correspond; token_ids are int64 (T,) arrays. instruction_offset: see the manifest.
    """
    progress("agreement")
    agreement = check_agreement(reference, served, texts, token_ids, thresholds, comparison)
    progress("batches")
    _check_batches(served, texts, token_ids, comparison)
    progress("lengths")
    # The first tokens may be an instruction's. Alone they are no text where pooling leaves them out.
    plain = [ids % instruction_offset for ids in token_ids] if instruction_offset else token_ids
    _check_lengths(reference, served, plain, max_tokens, thresholds, comparison)
    return agreement


def embed_each(encoder: VectorEncoder, token_ids: Sequence[Ids]) -> Vectors:
    """Return the results of texts one at a time: float32 (N, D)."""
    return np.concatenate([encoder.encode([ids]) for ids in token_ids])


def result_of(encoder: Encoder, ids: Ids) -> Any:
    """Return the result of one text alone."""
    return next(iter(encoder.encode([ids])))


def check_agreement(
    reference: Encoder,
    served: Encoder,
    texts: Sequence[str],
    token_ids: Sequence[Ids],
    thresholds: Thresholds,
    comparison: Comparison = VECTORS,
) -> Agreement:
    """Measure the agreement alone; raises DisagreesWithCheckpoint that names the worst texts.

    Mean and minimum are over texts, or over all their tokens where each has a vector.
    """
    by_text = [_agreements(reference, served, ids, comparison) for ids in token_ids]
    found = np.nan_to_num(np.concatenate(by_text), nan=-1.0)
    mean, minimum = float(found.mean()), float(found.min())
    if mean < thresholds.mean or minimum < thresholds.minimum:
        least = np.array([np.nan_to_num(each, nan=-1.0).min(initial=1.0) for each in by_text])
        worst = [(float(least[i]), texts[i]) for i in np.argsort(least)[:WORST_SHOWN]]
        listed = "".join(f"\n  {agreement:.4f}  {_shorten(text)}" for agreement, text in worst)
        raise DisagreesWithCheckpoint(
            "{measure} to the float32 model: mean {mean:.5f} (needs {least_mean}), minimum "
            "{minimum:.4f} (needs {least}); export --precision auto, calibrate on texts like these "
            "(--calibration FILE), or accept less (--min-agreement MEAN,MIN); worst texts:{listed}",
            measure=comparison.measure,
            mean=mean,
            least_mean=thresholds.mean,
            minimum=minimum,
            least=thresholds.minimum,
            listed=listed,
        )
    return Agreement(mean=round(mean, 6), minimum=round(minimum, 6), texts=len(texts))


def _agreements(reference: Encoder, served: Encoder, ids: Ids, comparison: Comparison) -> Vectors:
    """Return the agreement of each row of one text's results: one, or one a token."""
    return comparison.agreement(*comparison.rows(result_of(served, ids), result_of(reference, ids)))


def _check_batches(
    served: Encoder, texts: Sequence[str], token_ids: Sequence[Ids], comparison: Comparison
) -> None:
    """Compare texts alone and in a batch: three of each length, as many lengths as the encoder takes."""
    for chosen in _together(served.packing, token_ids):
        members = [(index, token_ids[index]) for index in chosen]
        # Between a text and itself stands another of its length, made of the next one's tokens.
        batch = [
            row
            for index, ids in members
            for row in (ids, np.resize(token_ids[index - 1], len(ids)), ids)
        ]
        together = [*served.encode(batch)]
        for place, (index, ids) in enumerate(members):
            alone = result_of(served, ids)
            first, last = together[3 * place], together[3 * place + 2]
            # subtle: not the built-in max, which may lose NaN.
            distance = np.max([_distance(each, alone, comparison) for each in (first, last)])
            if not distance <= BATCH_TOLERANCE:
                raise DisagreesWithCheckpoint(
                    "a result changes by {distance:.1e} in a batch (at most {most:.0e}): {text}",
                    distance=distance,
                    most=BATCH_TOLERANCE,
                    text=_shorten(texts[index]),
                )


def _distance(found: Any, right: Any, comparison: Comparison) -> float:
    """Return how far a text's result is from the right one, in the row that is furthest; NaN stays NaN."""
    return float(comparison.distance(*comparison.rows(found, right)).max(initial=0.0))


def _together(packing: Packing, token_ids: Sequence[Ids]) -> Iterator[list[int]]:
    """Yield batches of some of the texts, each text of another length than those beside it."""
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
    comparison: Comparison,
) -> None:
    """Run text of 1 token to the maximum: sound results everywhere, and close to float32."""
    stream = np.concatenate(token_ids)
    stream = np.resize(stream, max(len(stream), max_tokens))
    compared, run = _lengths(max_tokens)
    for length in run:
        ids = stream[:length]
        result = _run_length(served, ids, comparison)
        if length not in compared:
            continue
        rows = comparison.rows(result, result_of(reference, ids))
        found = float(comparison.agreement(*rows).min(initial=1.0))
        # One or two ids are no text: the special tokens alone take two.
        if not np.isfinite(found) or (length > 2 and found < thresholds.minimum):
            raise DisagreesWithCheckpoint(
                "at {length} tokens the {measure} to the float32 model is {found:.4f} (needs {least})",
                length=length,
                measure=comparison.measure,
                found=found,
                least=thresholds.minimum,
            )


def _lengths(max_tokens: int) -> tuple[set[int], list[int]]:
    """Return the lengths that are compared with float32, and all that are run, in order."""
    max_tokens = min(max_tokens, LONGEST_VERIFIED)
    compared = {*range(1, SHORT_LENGTHS)}
    compared.update(range(SHORT_LENGTHS, min(max_tokens, EVERY_LENGTH), LENGTH_STEP))
    longer = EVERY_LENGTH
    while (longer := 4 * longer) < max_tokens:
        compared.add(longer)
    compared.add(max_tokens)
    every = max_tokens if max_tokens <= EVERY_LENGTH else min(SAMPLED_PAST, EVERY_LENGTH)
    run = sorted({*range(1, every + 1), *compared})
    return compared, [length for length in run if length <= max_tokens]


def _run_length(served: Encoder, ids: Ids, comparison: Comparison) -> Any:
    """Return the result of one text, if there is a sound one for its length."""
    try:
        result = result_of(served, ids)
    except Exception as error:
        # onnxruntime has exceptions of its own; a traced graph may have a length built into it.
        raise DisagreesWithCheckpoint(
            "at {length} tokens the graph cannot be run: {error}", length=len(ids), error=error
        ) from None
    if not comparison.is_sound(comparison.rows(result, result)[0]):
        raise DisagreesWithCheckpoint(
            "at {length} tokens the result is zero or holds NaN or infinity", length=len(ids)
        )
    return result


def _shorten(text: str, limit: int = 60) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= limit else line[: limit - 1] + "…")
