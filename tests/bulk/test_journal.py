"""Vectors in a journal: what a killed process has left is read up to where it is whole."""

from pathlib import Path

import numpy as np
import pytest

from server.bulk import journal
from server.types import Vectors

PART = "part-00000-of-00001.parquet"
DIMENSION = 8


def records(number: int, seed: int) -> tuple[list[bytes], Vectors]:
    random = np.random.default_rng(seed)
    digests = [random.bytes(32) for _ in range(number)]
    return digests, random.standard_normal((number, DIMENSION), np.float32)


def write(folder: Path, number: int, seed: int) -> tuple[list[bytes], Vectors]:
    digests, vectors = records(number, seed)
    with journal.writing(folder, PART) as file:
        journal.append(file, digests[: number // 2], vectors[: number // 2])
        journal.append(file, digests[number // 2 :], vectors[number // 2 :])
    return digests, vectors


def read(folder: Path) -> dict[bytes, list[float]]:
    return {digest: row.tolist() for digest, row in journal.read(folder, PART, DIMENSION)}


def test_all_attempts_at_a_part_are_read_and_no_other_part(tmp_path: Path) -> None:
    wanted: dict[bytes, list[float]] = {}
    for seed in range(3):
        digests, vectors = write(tmp_path, 5, seed)
        wanted |= dict(zip(digests, vectors.tolist(), strict=True))
    with journal.writing(tmp_path, "part-00001-of-00002.parquet") as file:
        journal.append(file, *records(2, 9))
    assert read(tmp_path) == wanted
    journal.forget(tmp_path, PART)
    assert read(tmp_path) == {}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("seed", range(20))
def test_cut_or_damaged_file_ends_before_the_record_that_is_not_whole(
    tmp_path: Path, seed: int
) -> None:
    random = np.random.default_rng(seed)
    digests, vectors = write(tmp_path, 12, seed)
    (path,) = tmp_path.iterdir()
    data, size = bytearray(path.read_bytes()), journal.record(DIMENSION).itemsize
    assert len(data) == 12 * size
    place = int(random.integers(len(data)))
    if seed % 2:
        path.write_bytes(data[:place])
    else:
        data[place] ^= 1 << int(random.integers(8))
        path.write_bytes(data)
    whole = place // size
    assert read(tmp_path) == dict(zip(digests[:whole], vectors[:whole].tolist(), strict=True))


def test_vector_of_another_number_of_dimensions_is_no_record(tmp_path: Path) -> None:
    write(tmp_path, 3, 0)
    assert list(journal.read(tmp_path, PART, DIMENSION + 1)) == []
