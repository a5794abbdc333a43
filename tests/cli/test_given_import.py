"""Documents with their vectors from files and into files, here and on a server."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.store.records import Document
from tests.cli.test_transfer import lines_of, stored
from tests.support.commands import Commands, write_lines
from tests.support.processes import serving

MATRIX = np.array([[1, 0, 0.5], [0, 2, 0], [0, 0, 3]], dtype=np.float64)
GIVEN = ("--embedder", "my-model", "--collection", "own")


def write_given(path: Path, *, with_vectors: bool = True) -> Path:
    rows: list[dict[str, Any]] = [
        {"id": "a", "text": "墨池", "title": "文房", "metadata": {"year": 2024}},
        {"id": "b", "metadata": {"image": "b.png"}},
        {"id": "c", "内容": "笔纸砚", "kind": "x"},
    ]
    if with_vectors:
        for row, vector in zip(rows, MATRIX.tolist(), strict=True):
            row["vector"] = vector
    return write_lines(path, [*map(json.dumps, rows), ""])


DOCUMENTS = [
    Document("a", "墨池", "文房", {"year": 2024}),
    Document("b", "", None, {"image": "b.png"}),
    Document("c", "笔纸砚", None, {"kind": "x"}),
]


@pytest.mark.parametrize("with_vectors", [True, False])
def test_vectors_come_in_the_lines_or_in_a_matrix(
    run: Commands, tmp_path: Path, *, with_vectors: bool
) -> None:
    file = write_given(tmp_path / "in.jsonl", with_vectors=with_vectors)
    np.save(tmp_path / "in.npy", MATRIX)
    matrix = () if with_vectors else ("--vectors", tmp_path / "in.npy")
    said = run("import", file, *matrix, *GIVEN)
    assert "added 3," in said.out
    assert "内容" in said.err
    documents, vectors = stored(run, "own")
    assert documents == DOCUMENTS
    assert np.array_equal(vectors, MATRIX.astype(np.float32))
    assert "unchanged 3" in run("import", file, *matrix, *GIVEN).out
    run("collections", "alias", "live", "own")
    alias = ("--embedder", "my-model", "--collection", "live")
    assert "unchanged 3" in run("import", file, *matrix, *alias).out
    run("export", tmp_path / "out.jsonl", "--with-vectors", "--collection", "own")
    again = ("--embedder", "my-model", "--collection", "again")
    assert "added 3," in run("import", tmp_path / "out.jsonl", *again).out
    assert np.array_equal(stored(run, "again")[1], vectors)
    assert "model embedder:my-model" in run("collections").out
    text = write_lines(tmp_path / "text.txt", ["墨池"])
    assert "--embedder my-model" in run.refused("index", text, "--collection", "own")
    assert "笔纸砚" in run("search", "笔纸", "--mode", "lexical", "--collection", "own").out
    assert "given vectors of my-model" in run("doctor", status=0).out
    run("check")
    run("backup", "own", tmp_path / "own.backup")
    run("restore", tmp_path / "own.backup", "--collection", "restored")
    assert stored(run, "restored")[0] == DOCUMENTS
    assert np.array_equal(stored(run, "restored")[1], vectors)


@pytest.mark.parametrize("with_matrix", [False, True])
def test_a_pipe_is_read_once(run: Commands, tmp_path: Path, *, with_matrix: bool) -> None:
    file = write_given(tmp_path / "in.jsonl", with_vectors=not with_matrix)
    np.save(tmp_path / "in.npy", MATRIX)
    matrix = ("--vectors", tmp_path / "in.npy") if with_matrix else ()
    # Its vectors tell how many numbers those of the collection have.
    run("import", write_lines(tmp_path / "z.jsonl", ['{"id": "z", "vector": [1, 1, 1]}']), *GIVEN)
    reader, writer = os.pipe()
    os.write(writer, file.read_bytes())
    os.close(writer)
    try:
        assert "added 3," in run("import", f"/dev/fd/{reader}", *matrix, *GIVEN).out
    finally:
        os.close(reader)
    assert stored(run, "own")[0][1:] == DOCUMENTS


def test_vectors_that_do_not_fit_are_refused_with_their_line(run: Commands, tmp_path: Path) -> None:
    file = write_given(tmp_path / "in.jsonl", with_vectors=False)
    np.save(tmp_path / "short.npy", MATRIX[:2])
    np.save(tmp_path / "flat.npy", MATRIX[0])
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    for name, words in (
        ("short.npy", "3 documents, and the .npy file has 2 rows"),
        ("flat.npy", "shape (3,)"),
        ("words.npy", "rows of numbers are needed"),
        ("broken.npy", "cannot be read"),
        ("missing.npy", "cannot be read"),
    ):
        assert words in run.refused("import", file, "--vectors", tmp_path / name, *GIVEN)
    assert "--embedder" in run.refused("import", file, "--vectors", tmp_path / "short.npy")
    assert "no line has a vector" in run.refused("import", file, *GIVEN)
    lines = ['{"id": "a", "vector": [1, 0]}', '{"id": "b", "vector": [1, 0, 0]}']
    file = write_lines(tmp_path / "wrong.jsonl", lines)
    said = run.refused("import", file, *GIVEN)
    assert "line 2" in said
    assert "has 3 numbers" in said
    assert [each.id for each in stored(run, "own")[0]] == ["a"]
    file = write_lines(tmp_path / "zero.jsonl", ['{"id": "z", "vector": [0, 0]}'])
    assert "length outside" in run.refused("import", file, *GIVEN)


def test_vectors_of_the_served_model_are_compared_with_its_own(
    run: Commands, tmp_path: Path
) -> None:
    run("import", write_lines(tmp_path / "in.jsonl", ['{"id": "a", "text": "墨池笔纸"}']))
    out = tmp_path / "out.jsonl"
    run("export", out, "--with-vectors")
    assert "vector" in lines_of(out)[0]
    (name,) = {word for word in run("collections").out.split() if word.startswith("toy")} or {""}
    copy = ("--collection", "copy", "--embedder")
    assert "added 1," in run("import", out, *copy, name).out
    assert np.array_equal(stored(run, "copy")[1], stored(run)[1])
    (row,) = lines_of(out)
    row["id"], row["text"] = "b", "风花雪鸟鱼虫"
    other = write_lines(tmp_path / "other.jsonl", [json.dumps(row)])
    assert "cosine" in run.refused("import", other, *copy, name)
    assert "two embedders" in run.refused("import", out, *copy, "my-model")


def test_a_server_takes_and_gives_them_too(
    run: Commands, toy_artifact: Path, tmp_path: Path
) -> None:
    file = write_given(tmp_path / "in.jsonl")
    (tmp_path / "served").mkdir()
    with serving(toy_artifact, tmp_path / "served") as server:
        url = ("--url", server.url)
        assert "added 3," in run("import", file, *GIVEN, *url).out
        run("collections", "alias", "live", "own", *url)
        alias = ("--embedder", "my-model", "--collection", "live")
        assert "unchanged 3" in run("import", file, *alias, *url).out
        out = tmp_path / "out.jsonl"
        run("export", out, "--with-vectors", "--collection", "own", *url)
        assert "unchanged 3" in run("import", out, *GIVEN, *url).out
        assert [each["id"] for each in lines_of(out)] == ["a", "b", "c"]
        assert "two embedders" in run.refused(
            "import", out, "--embedder", "x", "--collection", "own", *url
        )


def test_a_server_knows_its_model_by_the_name_it_was_given(
    run: Commands, toy_artifact: Path, tmp_path: Path
) -> None:
    run("import", write_lines(tmp_path / "in.jsonl", ['{"id": "a", "text": "墨池笔纸"}']))
    out = tmp_path / "out.jsonl"
    run("export", out, "--with-vectors")
    (tmp_path / "served").mkdir()
    flags = ("--model", f"mine={toy_artifact}")
    with serving(None, tmp_path / "served", *flags) as server:
        where = ("--collection", "copy", "--url", server.url)
        assert "added 1," in run("import", out, "--embedder", "mine", *where).out
        assert "墨池笔纸" in run("search", "墨池", *where).out
