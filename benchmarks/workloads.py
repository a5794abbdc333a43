"""Texts for load: generated with the length distributions of real traffic, or read from a file.

Lengths follow quantiles measured on real questions, law articles and a mix of both with long tails;
the characters are drawn, seeded, from the calibration texts, so that tokens look like Chinese text.
Either way they stand in an order in which every few seconds of a run have the same work, see `evenly`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from export.texts import CALIBRATION, read_texts

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
# Characters at those quantiles; a text has two tokens more.
LENGTHS = {
    "queries": (5, 9, 12, 15, 18, 27, 35, 60),
    "laws": (12, 35, 67, 100, 155, 270, 430, 700),
    "mixed": (5, 10, 14, 22, 168, 510, 900, 1200),
}
# In so many texts in a row are the lengths of all. By chance, the tokens of 300 mixed texts in a row have
# a standard deviation of 6 % of their mean, in this order 2 %.
EVENLY = 50
# What load.lua replaces with characters that make each request unique.
UNIQUE = "@@"
# Not among load.lua's characters: no text of `unique` is one of wrk's.
FIRST = "问"


def generate(name: str, count: int, seed: int = 1) -> list[str]:
    """`count` texts of the workload `name`: queries, laws or mixed."""
    random = np.random.default_rng(seed)
    pool = _characters()
    lengths = np.rint(np.interp(random.random(count), QUANTILES, LENGTHS[name])).astype(int)
    starts = random.integers(0, len(pool) - 1, count)
    return [(pool[start:] + pool)[:length] for start, length in zip(starts, lengths, strict=True)]


def unique(texts: Sequence[str], numbers: Iterable[int]) -> Iterator[str]:
    """A text for each number, in turn, made unique by three characters of the number's own."""
    for number in numbers:
        yield mark(number) + texts[number % len(texts)]


def mark(number: int) -> str:
    """Three characters that differ for three million numbers, and then begin again."""
    high, low = divmod(number, len(_alphabet()))
    return FIRST + _alphabet()[high % len(_alphabet())] + _alphabet()[low]


def write_bodies(path: Path, bodies: Iterable[Mapping[str, Any]]) -> Path:
    """One JSON body a line, as load.lua reads them; texts that are to differ hold UNIQUE."""
    lines = [json.dumps(body, ensure_ascii=False) for body in bodies]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def single(text: str) -> dict[str, Any]:
    """The native request for one text, with the place for what makes it unique."""
    return {"texts": [UNIQUE + text]}


@cache
def _alphabet() -> list[str]:
    return sorted(set(_characters()))


@cache
def _characters() -> str:
    """The Chinese characters of the calibration texts, as they follow each other."""
    texts = read_texts(CALIBRATION, at_least=1)
    return "".join(c for text in texts for c in text if "一" <= c <= "鿿")


def load(name: str, count: int, texts: Path | None) -> list[str]:
    """Texts of a JSON list or a text file when `texts` is given, generated ones otherwise; `evenly`."""
    return evenly(_read(name, count, texts))


def _read(name: str, count: int, texts: Path | None) -> list[str]:
    if texts is None:
        return generate(name, count)
    path = texts / f"{name}.json" if texts.is_dir() else texts
    if path.suffix == ".json":
        return [str(text) for text in json.loads(path.read_text(encoding="utf-8"))][:count]
    return read_texts(path, at_least=1)[:count]


def evenly(texts: Sequence[str]) -> list[str]:
    """The same texts, shuffled so that any EVENLY in a row have nearly the lengths of all.

    A slow server, which comes to few of them, and a fast one then compute equally long texts.
    """
    random = np.random.default_rng(1)
    by_length = np.argsort([len(text) for text in texts], kind="stable")
    alike = [random.permutation(part) for part in np.array_split(by_length, EVENLY)]
    rows = ([part[row] for part in alike if row < len(part)] for row in range(len(alike[0])))
    return [texts[place] for row in rows for place in random.permutation(row)]
