"""How good are the vectors on STS-B, beside float32 and sentence-transformers, and in batches?

    python -m benchmarks.quality --sts FILE.tsv [--model ARTIFACT] [--float ARTIFACT]

FILE, of any language, has a pair and its score on each line: sentence, tab, sentence, tab, score. The English
STSBenchmark is read as it is published (sts-test.csv: tabs, the score in the fifth column). Results: Spearman's
rank correlation x 100 of cosine and score, with the model's own text preparation and without
lower-casing; for the shipped model, the cosine to sentence-transformers' vectors of 200 stored
texts; the cosine to the vectors of a float32 artifact, if given (`make export ARGS="--precision
fp32"`); and the largest difference of any component between 500 texts alone and in mixed batches.
One JSON line per result.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks import machine, reference
from benchmarks.arguments import parser
from server.inference.comparison import row_cosines
from server.inference.manifest import TOKENIZER_FILE
from server.inference.model import Model
from server.inference.tokenizer import Tokenizer
from server.system.output import until_reader_leaves
from server.types import Vectors

BATCH_TEXTS = 500
Scores = npt.NDArray[np.float64]


def main() -> None:
    arguments = _arguments()
    texts, scores = read_pairs(arguments.sts)
    found = {}
    for name, folder in {"served": arguments.model, "float32": arguments.float}.items():
        if folder is None:
            continue
        model = Model(folder)
        vectors = found[name] = embed(model, texts, model.tokenizer)
        line = {"case": "sts", "model": name, "spearman": spearman(vectors, scores)}
        if model.manifest.text.lower_case:
            plain = msgspec.structs.replace(model.manifest.text, lower_case=False)
            tokenizer = Tokenizer((folder / TOKENIZER_FILE).read_text(encoding="utf-8"), plain)
            line["spearman_not_lower_cased"] = spearman(embed(model, texts, tokenizer), scores)
        machine.show(line, arguments, folder)
        if model.manifest.model_id == reference.MODEL:
            known, expected = reference.load()
            agreement = _agreement(embed(model, known, model.tokenizer), expected)
            line = {"case": "sentence-transformers", "model": name, **agreement}
            machine.show(line, arguments, folder)
    if "float32" in found:
        agreement = _agreement(found["served"], found["float32"])
        machine.show({"case": "agreement", **agreement}, arguments)
    difference = invariance(Model(arguments.model), texts)
    line = {"case": "batch", "texts": BATCH_TEXTS, "largest_difference": difference}
    machine.show(line, arguments)


def read_pairs(path: Path) -> tuple[list[str], Scores]:
    """Return the first sentences and then the second ones, and the scores: float64 (pairs,)."""
    # Not `splitlines`, which also ends a line at characters that a sentence may have.
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    rows = [
        _pair(path, number, line.rstrip("\r").split("\t")) for number, line in enumerate(lines, 1)
    ]
    first, second, scores = zip(*rows, strict=True)
    return [*first, *second], np.array(scores)


def _pair(path: Path, number: int, row: Sequence[str]) -> tuple[str, str, float]:
    """Return the sentences and the score of a line."""
    # STSBenchmark: genre, file, year, number, score, two sentences, and sometimes their sources.
    first, second, score = (5, 6, 4) if len(row) > 6 else (0, 1, 2)
    try:
        return row[first], row[second], float(row[score])
    except (IndexError, ValueError):
        raise SystemExit(
            f"{path} line {number} is not a sentence, a sentence and a score with tabs between"
        ) from None


def _agreement(vectors: Vectors, expected: Vectors) -> dict[str, Any]:
    cosines = row_cosines(vectors, expected)
    return {
        "texts": len(cosines),
        "mean": round(float(cosines.mean()), 5),
        "minimum": round(float(cosines.min()), 5),
    }


def embed(model: Model, texts: Sequence[str], tokenizer: Tokenizer) -> Vectors:
    """Return vectors, computed one text at a time: float32 (N, D)."""
    return np.concatenate([model.encoder.encode([ids]) for ids in tokenizer.encode(texts).ids])


def spearman(vectors: Vectors, scores: Scores) -> float:
    """Return the rank correlation x 100 of the pairs' cosines with their scores.

    vectors: float32 (2 x pairs, D), of the first sentences and then the second ones. Ties share their
    mean rank.
    """
    half = len(scores)
    cosines = row_cosines(vectors[:half], vectors[half:])
    return round(float(np.corrcoef(_ranks(cosines), _ranks(scores))[0, 1]) * 100, 2)


def _ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: npt.NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def invariance(model: Model, texts: Sequence[str]) -> float:
    """Return the largest difference between texts alone and in random batches, sorted as lanes do."""
    random = np.random.default_rng(0)
    step = max(1, len(texts) // BATCH_TEXTS)
    ids = list(model.tokenizer.encode(texts[::step][:BATCH_TEXTS]).ids)
    alone = np.concatenate([model.encoder.encode([each]) for each in ids])
    worst = 0.0
    for size in (2, 3, 8):
        order = random.permutation(len(ids))
        for begin in range(0, len(ids), size):
            members = sorted(order[begin : begin + size], key=lambda index: len(ids[index]))
            if not model.encoder.packing.allows([len(ids[index]) for index in members]):
                continue
            together = model.encoder.encode([ids[index] for index in members])
            worst = max(worst, float(np.abs(together - alone[members]).max()))
    return worst


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, float_model=True)
    options.add_argument("--sts", type=Path, required=True, metavar="FILE.tsv")
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
