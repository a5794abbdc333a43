"""Collections to files and back: a document a line, and vectors with their texts."""

import asyncio
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import faiss
import numpy as np
import pytest

from server.cli.ingest import Meter
from server.cli.remote import Remote
from server.cli.target import Target
from server.cli.transfer import export_documents, replacing
from server.clock import now
from server.messages.terminal import Terminal
from server.store.collection import DATABASE_FILE
from server.store.documents import Documents
from server.store.faiss_files import StoredVectors
from server.store.folder import DataFolder
from server.store.reading.parts import Parts
from server.store.records import Document
from server.store.vector_blob import rounded
from server.types import Vectors, unit
from tests.support.commands import Commands, write_lines
from tests.support.processes import serving
from tests.support.toys import toy_texts, write_toy_texts

ROWS = [
    {"id": "a", "text": "墨池\n与砚台", "title": "文房", "metadata": {"year": 2024, "类": ["一"]}},
    {"id": "b", "text": "毛笔", "title": None, "metadata": {}},
    {"id": "c/\u2028", "text": " a\0b\r\n\x85 ", "title": None, "metadata": {"x": {"y": None}}},
]


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def stored(run: Commands, name: str = "default") -> tuple[list[Document], Vectors]:
    """Documents in order, and the vectors of all parts."""
    documents = Documents(run.data / "collections" / name / DATABASE_FILE, None)
    found = [document for _, document in documents.page(0, 10_000)]
    vectors = documents.vectors(documents.labels()).copy()
    documents.close()
    return found, vectors


def write_rows(path: Path) -> Path:
    return write_lines(path, [json.dumps(row) for row in ROWS])


def test_what_is_exported_can_be_imported(run: Commands, tmp_path: Path) -> None:
    run("import", write_rows(tmp_path / "in.jsonl"))
    said = run("export", tmp_path / "out.jsonl")
    assert "exported 3 documents" in said.err
    assert said.out == ""
    assert lines_of(tmp_path / "out.jsonl") == ROWS
    assert "added 3," in run("import", tmp_path / "out.jsonl", "--collection", "again").out
    assert stored(run, "again")[0] == stored(run)[0]


class Busy(Remote):
    """A collection in which each document becomes another one while it is exported."""

    async def with_parts(self, ids: Sequence[str]) -> Sequence[tuple[Document, Parts | None]]:
        await self.delete(["b"])
        await self.add([Document("a", "short")])
        return await super().with_parts(ids)


def test_vectors_are_exported_with_the_text_that_they_are_of(
    toy_artifact: Path, tmp_path: Path
) -> None:
    with serving(toy_artifact, tmp_path) as server:
        target = Busy(server.url, "default")
        asyncio.run(target.add([Document("a", "long " * 100), Document("b", "b")]))
        meter = Meter(Terminal("en", io.StringIO(), io.StringIO()), now)
        out = tmp_path / "out.jsonl"
        assert asyncio.run(export_documents(target, str(out), meter, target.with_parts)) == 1
    (row,) = lines_of(out)
    assert row["text"] == "short" and "vector" in row


def test_documents_that_fill_more_than_a_reply_are_exported_with_vectors(
    run: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": f"{n}", "text": f"{n} " + "w" * 90_000} for n in range(30)]
    file = write_lines(tmp_path / "in.jsonl", [json.dumps(row) for row in rows])
    run("import", file, "--chunk-tokens", "0")
    monkeypatch.setenv("INKWELL_MAX_REPLY_BYTES", "1000000")
    assert "exported 30 documents" in run("export", tmp_path / "out.jsonl", "--with-vectors").err
    assert [row["id"] for row in lines_of(tmp_path / "out.jsonl")] == [row["id"] for row in rows]


class Stored:
    """A target with one document, as a version without limits stored it."""

    name = "default"

    def __init__(self, document: Document) -> None:
        self.document = document

    async def count(self) -> int:
        return 1

    async def pages(self) -> AsyncIterator[list[Document]]:
        yield [self.document]


def test_a_document_that_is_nested_too_deeply_to_copy_is_exported(tmp_path: Path) -> None:
    deep: object = []
    for _ in range(400):
        deep = [deep]
    target = Stored(Document("a", "墨", None, {"a": deep}))
    out, meter = tmp_path / "out.jsonl", Meter(Terminal.of({}), now)
    assert asyncio.run(export_documents(cast(Target, target), str(out), meter)) == 1
    assert lines_of(out) == [target.document.fields()]


def test_standard_output_gets_the_documents_and_nothing_else(
    run: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("import", write_rows(tmp_path / "in.jsonl"))
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    run("export", "-")
    written = out.buffer
    assert isinstance(written, io.BytesIO)
    assert [json.loads(line) for line in written.getvalue().splitlines()] == ROWS


def test_export_of_what_is_not_there_leaves_the_file_alone(run: Commands, tmp_path: Path) -> None:
    DataFolder(run.data).close()
    out = write_lines(tmp_path / "out.jsonl", ["as it was"])
    for arguments in ((out,), ("--pair", tmp_path / "a.faiss", out)):
        assert run.refused("export", *arguments, "--collection", "missing").count("missing") == 2
    assert out.read_text() == "as it was\n"
    assert {path.name for path in tmp_path.iterdir()} == {"out.jsonl", "data"}


@pytest.mark.parametrize("name", ["folder", "missing/out.jsonl"])
def test_place_that_cannot_be_written_is_named(run: Commands, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    run("import", write_rows(tmp_path / "in.jsonl"))
    assert run.refused("export", tmp_path / name).count(str(tmp_path / name)) == 2


def test_file_that_is_not_finished_never_appears(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("command", ["export", "import"])
def test_a_file_or_a_pair_is_needed(run: Commands, command: str) -> None:
    assert "--pair" in run.refused(command)
    assert "--pair" in run.refused(command, "x", "--pair", "a", "b")
    assert "--url" in run.refused(command, "--pair", "a", "b", "--url", "http://127.0.0.1:1")


# --- pairs ----------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "index.faiss", tmp_path / "texts.txt"


def test_pair_is_what_the_tutorials_read(
    run: Commands, tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    run("index", write_toy_texts(tmp_path / "in.txt", 300))
    said = run("export", "--pair", *pair)
    assert "exported 300 vectors" in said.err and "spaces in 0 texts" in said.err
    index = faiss.read_index(str(pair[0]))
    texts = pair[1].read_text(encoding="utf-8").split("\n")[:-1]
    assert type(index) is faiss.IndexFlatIP
    documents, vectors = stored(run)
    assert texts == [document.text for document in documents]
    assert sorted(texts) == sorted(toy_texts(300))
    np.testing.assert_allclose(index.reconstruct_n(0, 300), unit(vectors), atol=1e-6)
    assert np.linalg.norm(index.reconstruct_n(0, 300), axis=1) == pytest.approx(1, abs=1e-6)
    again = faiss.IndexFlatIP(index.d)
    again.add(index.reconstruct_n(0, 300))
    assert bytes(faiss.serialize_index(again).data) == pair[0].read_bytes()


def test_pair_comes_back_without_embedding(
    run: Commands, tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    run("index", write_toy_texts(tmp_path / "in.txt", 300))
    run("export", "--pair", *pair)
    # Marked vectors show whether they were taken: close to what this model makes, but not equal.
    given = faiss.read_index(str(pair[0])).reconstruct_n(0, 300) + np.float32(0.01)
    index = faiss.IndexFlatIP(given.shape[1])
    index.add(given)
    faiss.write_index(index, str(pair[0]))
    said = run("import", "--pair", *pair, "--collection", "again")
    assert "added 300, unchanged 0" in said.out and "embedded again" not in said.err
    documents, vectors = stored(run, "again")
    row_of = {document.text: row for row, document in enumerate(stored(run)[0])}
    assert {document.text for document in documents} == row_of.keys()
    rows = [row_of[document.text] for document in documents]
    np.testing.assert_array_equal(vectors, rounded(given[rows]))
    assert "unchanged 300" in run("import", "--pair", *pair, "--collection", "again").out


def test_parts_are_written_one_a_line_with_their_title(
    run: Commands, tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    text = "\n".join(f"第{place}行有几个字。" for place in range(20))
    rows = [{"id": "a", "text": text, "title": "标\n题"}, {"id": "b", "text": "砚\u2028台\r"}]
    run("import", write_lines(tmp_path / "in.jsonl", [json.dumps(row) for row in rows]))
    said = run("export", "--pair", *pair)
    lines = pair[1].read_text(encoding="utf-8").splitlines()
    n_parts = len(stored(run)[1])
    assert n_parts > 3
    assert len(lines) == n_parts == faiss.read_index(str(pair[0])).ntotal
    assert all(line.startswith("标 题 第") for line in lines[:-1]) and lines[-1] == "砚 台"
    assert f"spaces in {n_parts} texts" in said.err
    said = run("import", "--pair", *pair, "--collection", "again")
    assert f"added {n_parts}," in said.out and "embedded again" not in said.err


def of_another_model(given: Vectors) -> Vectors:
    return np.roll(given, 1, axis=1)


def of_another_size(given: Vectors) -> Vectors:
    return np.concatenate([given, given], axis=1)


@pytest.mark.parametrize("changed", [of_another_model, of_another_size])
def test_vectors_of_another_model_are_not_taken(
    run: Commands, tmp_path: Path, pair: tuple[Path, Path], changed: Callable[[Vectors], Vectors]
) -> None:
    run("index", write_toy_texts(tmp_path / "in.txt", 40))
    run("export", "--pair", *pair)
    write_index(pair[0], changed(stored(run)[1]))
    said = run("import", "--pair", *pair, "--collection", "again")
    assert "embedded again" in said.err
    assert "added 40," in said.out
    # float16 of float16 rows that were scaled to unit length.
    np.testing.assert_allclose(stored(run, "again")[1], stored(run)[1], atol=5e-4)


def write_index(path: Path, vectors: Vectors, kind: str = "Flat") -> None:
    index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    index.train(np.ascontiguousarray(vectors))
    if kind.startswith("IDMap"):
        places = np.arange(len(vectors))[::-1].copy()
        index.add_with_ids(np.ascontiguousarray(vectors[::-1]), places)
    else:
        index.add(np.ascontiguousarray(vectors))
    faiss.write_index(index, str(path))


@pytest.mark.filterwarnings("ignore:.*training points:UserWarning")
@pytest.mark.parametrize(
    "kind",
    ["Flat", "SQ8", "SQfp16", "HNSW8", "IVF4,Flat", "IVF4,SQ8", "IDMap,Flat", "IDMap2,IVF4,Flat"],
)
def test_indexes_that_keep_their_vectors_are_read(tmp_path: Path, kind: str) -> None:
    vectors = np.random.default_rng(0).standard_normal((400, 8), dtype=np.float32)
    write_index(tmp_path / "index", vectors, kind)
    found = StoredVectors(tmp_path / "index")
    assert (found.number, found.dimension) == (400, 8)
    rows = np.concatenate([found.rows(0, 150), found.rows(150, 400)])
    np.testing.assert_allclose(rows, vectors, atol=0.05 if "SQ" in kind else 0)


def test_indexes_that_do_not_are_refused(run: Commands, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((400, 8), dtype=np.float32)
    texts, path = write_toy_texts(tmp_path / "in.txt", 400), tmp_path / "index"
    for kind in ("PQ4x4fs", "IVF1,PQ4x4fs", "IDMap,PQ4x4"):
        write_index(path, vectors, kind)
        said = run.refused("import", "--pair", path, texts)
        assert said.count("does not keep its vectors") == 2 and said.count("index TEXTS") == 2
    ids = faiss.IndexIDMap2(faiss.IndexFlatIP(8))
    ids.add_with_ids(vectors, np.arange(400) * 2)
    faiss.write_index(ids, str(path))
    assert "not the numbers of lines, 0 to 399" in run.refused("import", "--pair", path, texts)
    vectors[390, 3] = np.nan
    write_index(path, vectors)
    with pytest.raises(Exception, match="vector 390 has a number that is not finite"):
        StoredVectors(path).rows(380, 400)


@pytest.mark.parametrize("content", [b"", b"no index at all", b"IxFI\x08\0\0\0"])
def test_what_is_no_index_is_refused(run: Commands, tmp_path: Path, content: bytes) -> None:
    texts, path = write_toy_texts(tmp_path / "in.txt", 5), tmp_path / "index"
    path.write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    for bad in (path, tmp_path, tmp_path / "missing", tmp_path / "pipe"):
        assert run.refused("import", "--pair", bad, texts).count(f" {bad} ") == 2


def test_texts_that_do_not_fit_the_vectors_are_refused(
    run: Commands, tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    write_index(pair[0], np.eye(4, dtype=np.float32))
    write_lines(pair[1], ["a", "", "c"])
    said = run.refused("import", "--pair", *pair)
    assert "4 vectors" in said and "3 lines" in said and "4 个向量" in said and "3 行" in said
    pair[1].write_bytes("墨\n池\n笔\n砚".encode("gb18030"))
    assert "read as gb18030, which was detected" in run("import", "--pair", *pair).err
    assert "--encoding" in run.refused("import", "--pair", *pair, "--encoding", "utf-8")
    assert "unchanged 4," in run("import", "--pair", *pair, "--encoding", "gb18030").out
    assert "nonsense" in run.refused("import", "--pair", *pair, "--encoding", "nonsense")
    assert "missing" in run.refused("import", "--pair", pair[0], tmp_path / "missing")


def test_blank_lines_are_left_out_with_their_vectors(
    run: Commands, tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    texts = toy_texts(30)
    run("index", write_lines(tmp_path / "in.txt", texts))
    vectors = stored(run)[1]
    spaced = [line for text in texts for line in (text, " ")]
    pair[1].write_bytes("\r\n".join(["\ufeff" + spaced[0], *spaced[1:-1]]).encode())
    write_index(pair[0], np.repeat(vectors, 2, axis=0)[:-1])
    said = run("import", "--pair", *pair, "--collection", "again")
    assert "added 30," in said.out
    assert "blank lines: 29" in said.out
    np.testing.assert_array_equal(stored(run, "again")[1], vectors)


def test_text_that_the_collection_cuts_is_embedded_in_parts(
    run: Commands, tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    texts = ["墨池", "".join(f"{place}是一句话。" for place in range(40))]
    run("index", write_lines(tmp_path / "in.txt", texts), "--chunk-tokens", "0")
    run("export", "--pair", *pair)
    run("index", write_lines(tmp_path / "one.txt", ["砚台"]), "--collection", "cut")
    assert "added 2," in run("import", "--pair", *pair, "--collection", "cut").out
    documents, vectors = stored(run, "cut")
    assert [document.text for document in documents] == ["砚台", *texts]
    assert len(vectors) > 4
