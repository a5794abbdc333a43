"""Texts for load: generated with the lengths of real traffic, or read from a file.

Lengths follow quantiles measured on real questions, law articles and a mix of both with long tails.
The characters come, seeded, from the calibration texts, so that tokens look like Chinese text. Texts
are ordered so that every few seconds of a run have the same work, see `evenly`.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from export.texts.files import CHINESE, read_texts

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
# Characters at those quantiles; a text has two tokens more than characters.
LENGTHS = {
    "queries": (5, 9, 12, 15, 18, 27, 35, 60),
    "laws": (12, 35, 67, 100, 155, 270, 430, 700),
    "mixed": (5, 10, 14, 22, 168, 510, 900, 1200),
}
# This many texts in a row have the lengths of all. In random order the tokens of 300 mixed texts in a
# row have a standard deviation of 6 % of their mean, in this order 2 %.
EVENLY = 50
# load.lua replaces it with characters that make each request unique.
UNIQUE = "@@"
# Not among load.lua's characters, so no text of `unique` equals one of wrk's.
FIRST = "问"


def generate(name: str, count: int, seed: int = 1) -> list[str]:
    """Return `count` texts of the workload `name`: queries, laws or mixed."""
    random = np.random.default_rng(seed)
    pool = _characters()
    lengths = np.rint(np.interp(random.random(count), QUANTILES, LENGTHS[name])).astype(int)
    starts = random.integers(0, len(pool) - 1, count)
    return [(pool[start:] + pool)[:length] for start, length in zip(starts, lengths, strict=True)]


def unique(texts: Sequence[str], numbers: Iterable[int]) -> Iterator[str]:
    """Yield a text for each number, made unique by three characters that belong to the number."""
    for number in numbers:
        yield mark(number) + texts[number % len(texts)]


def mark(number: int) -> str:
    """Return three characters; they differ for three million numbers, then start again."""
    high, low = divmod(number, len(_alphabet()))
    return FIRST + _alphabet()[high % len(_alphabet())] + _alphabet()[low]


def write_bodies(path: Path, bodies: Iterable[Mapping[str, Any]]) -> Path:
    """Write one JSON body per line, as load.lua reads them; UNIQUE marks texts that must differ."""
    lines = [json.dumps(body, ensure_ascii=False) for body in bodies]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def single(text: str) -> dict[str, Any]:
    """Return the native request for one text, with the mark that makes it unique."""
    return {"texts": [UNIQUE + text]}


def write_singles(path: Path, texts: Iterable[str]) -> Path:
    """Write the native request for each text."""
    return write_bodies(path, map(single, texts))


def json_lines(path: Path) -> Iterator[Any]:
    """Yield the value of each line; a file that ends in .gz is unpacked."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


@cache
def _alphabet() -> list[str]:
    return sorted(set(_characters()))


@cache
def _characters() -> str:
    """Return the Chinese characters of the calibration texts in their order."""
    texts = read_texts(CHINESE.calibration, at_least=1)
    return "".join(c for text in texts for c in text if "一" <= c <= "鿿")


def load(name: str, count: int, texts: Path | None) -> list[str]:
    """Return texts of a JSON list or text file if `texts` is given, else generated ones; `evenly`."""
    return evenly(_read(name, count, texts))


def _read(name: str, count: int, texts: Path | None) -> list[str]:
    if texts is None:
        return generate(name, count)
    path = texts / f"{name}.json" if texts.is_dir() else texts
    if path.suffix == ".json":
        return [str(text) for text in json.loads(path.read_text(encoding="utf-8"))][:count]
    return read_texts(path, at_least=1)[:count]


def evenly(texts: Sequence[str]) -> list[str]:
    """Return the same texts, shuffled so that any EVENLY in a row have nearly the lengths of all.

    A slow server, which reaches few of them, and a fast one then compute equally long texts.
    """
    random = np.random.default_rng(1)
    by_length = np.argsort([len(text) for text in texts], kind="stable")
    alike = [random.permutation(part) for part in np.array_split(by_length, EVENLY)]
    rows = ([part[row] for part in alike if row < len(part)] for row in range(len(alike[0])))
    return [texts[place] for row in rows for place in random.permutation(row)]
