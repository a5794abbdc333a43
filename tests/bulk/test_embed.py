"""Corpora of all formats to vectors: each row once, each text computed once, wrong rows named."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.inference.model import Model
from tests.support.bulk_corpora import (
    check_truth,
    corpus,
    manifest,
    read,
    rejects,
    run,
    write_csv,
    write_jsonl,
    write_parquet,
)

pytest.importorskip("distributed")
pq = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.bulk

SAID = re.compile(
    r"([\d,]+) vectors in .*: ([\d,]+) texts embedded, ([\d,]+) taken from before, ([\d,]+) rows"
)


def embed(artifact: Path, out: Path, *inputs: str | Path) -> tuple[int, ...]:
    """Return how many vectors there are, and how many texts were embedded, reused and rejected."""
    said, _ = run("embed", *inputs, "--out", out, "--model", artifact, "--lanes", "2")
    found = SAID.match(said)
    assert found, said
    return tuple(int(number.replace(",", "")) for number in found.groups())


def test_every_format_is_embedded_and_equal_texts_once(
    toy_artifact: Path, toy_model: Model, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    (given / "deep").mkdir(parents=True)
    some = [corpus(60, seed) for seed in range(5)]
    write_jsonl(given / "a.jsonl", some[0])
    write_jsonl(given / "deep" / "b.jsonl.gz", some[1])
    write_csv(given / "c.csv", some[2])
    write_parquet(given / "d.parquet", some[3])
    (given / "readme.txt").write_text("not read")
    more = write_jsonl(tmp_path / "more-1.jsonl", some[4])
    rows = [row for each in some for row in each]
    texts = {(row["title"] or None, row["text"]) for row in rows}
    out = tmp_path / "out"
    pattern = tmp_path / "more-*.jsonl"
    assert embed(toy_artifact, out, given, pattern) == (len(rows), len(texts), 0, 0)
    check_truth(out, rows, toy_model)
    assert len(manifest(out)["files"]) == 5
    # Again: nothing is computed, and no file is written again.
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert embed(toy_artifact, out, given, pattern) == (len(rows), 0, 0, 0)
    assert before == {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    # One more file: only its new texts are computed.
    added = [*corpus(10, 9), {"id": "again", "title": rows[0]["title"], "text": rows[0]["text"]}]
    write_jsonl(tmp_path / "more-2.jsonl", added)
    n_vectors, computed, _, _ = embed(toy_artifact, out, given, pattern)
    new = {(row["title"] or None, row["text"]) for row in added} - texts
    assert (n_vectors, computed) == (len(rows) + len(added), len(new))
    check_truth(out, rows + added, toy_model)
    assert more.exists()


def test_more_rows_divide_the_parts_and_no_vector_is_computed_again(
    toy_artifact: Path, toy_model: Model, tmp_path: Path
) -> None:
    first, second = corpus(500, 1), corpus(1000, 2)
    out, given = tmp_path / "out", tmp_path / "given"
    given.mkdir()
    write_jsonl(given / "a.jsonl", first)
    embed(toy_artifact, out, given)
    assert {name[-13:] for name in manifest(out)["parts"]} == {"00001.parquet"}
    write_jsonl(given / "b.jsonl", second)
    texts = [{(row["title"], row["text"]) for row in some} for some in (first, second)]
    _, computed, reused, _ = embed(toy_artifact, out, given)
    assert computed == len(texts[1] - texts[0])
    assert reused == len(texts[0])
    assert {name[-13:] for name in manifest(out)["parts"]} == {"00004.parquet"}
    assert {path.name for path in out.glob("*.parquet")} == manifest(out)["parts"].keys()
    check_truth(out, first + second, toy_model)


def test_wrong_rows_are_listed_with_their_places(toy_artifact: Path, tmp_path: Path) -> None:
    lines = [
        b'{"id": "good", "text": "\xe5\xa2\xa8"}',
        b'{"id": "none"}',
        b"",
        b'{"id": "blank", "text": " "}',
        b'{"id": "bytes", "text": "\xff\xfe"}',
        b"{broken",
        b'{"id": "half", "text": "\\ud800"}',
        b'{"id": 7, "text": "number as id"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "b.csv").write_bytes(b'id,text\n1,"two\nlines"\n2\n3,\xff\n4,good\n')
    out = tmp_path / "out"
    found = embed(toy_artifact, out, tmp_path / "a.jsonl", tmp_path / "b.csv")
    assert found == (4, 4, 0, 7)
    assert {id for id, _ in read(out)} == {"good", "7", "1", "4"}
    places = [(Path(each["file"]).name, each["row"]) for each in rejects(out)]
    assert places == [*(("a.jsonl", row) for row in (2, 4, 5, 6, 7)), ("b.csv", 2), ("b.csv", 3)]
    whys = " ".join(each["why"] for each in rejects(out))
    for why in ("no column is named text", '"text" is empty', "not UTF-8", "not JSON", "1 fields"):
        assert why in whys
    arguments = (
        "embed",
        tmp_path / "a.jsonl",
        "--out",
        tmp_path / "strict",
        "--model",
        toy_artifact,
    )
    _, error = run(*arguments, "--strict", status=1)
    assert "a.jsonl, row 2: no column is named text" in error
    assert not list((tmp_path / "strict").glob("part-*"))


def test_a_csv_whose_records_cannot_be_told_apart_is_an_error(
    toy_artifact: Path, tmp_path: Path
) -> None:
    for content, why in (
        (b'id,text\n1,"open\n2,b\n3,c\n', "record 1: unexpected end of data"),
        ("编号,正文\n1,墨\n".encode("gb18030"), "not UTF-8"),
        (b"id,text,text\n1,a,b\n", "two columns are named"),
        (b"id,words\n1,a\n", "no column is named text"),
    ):
        (tmp_path / "a.csv").write_bytes(content)
        arguments = ("embed", tmp_path / "a.csv", "--out", tmp_path / "out")
        _, error = run(*arguments, "--model", toy_artifact, status=1)
        assert why in error and "a.csv cannot be read" in error
    # A quote that spoils its own line only costs that line.
    (tmp_path / "a.csv").write_bytes(b'id,text\n1,"in"side"\n2,b\n')
    assert embed(toy_artifact, tmp_path / "out", tmp_path / "a.csv") == (1, 1, 0, 1)


def test_values_that_python_has_not_cost_their_rows_only(
    toy_artifact: Path, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = pa.array([1, None], pa.timestamp("ns"))
    pq.write_table(pa.table({"id": ids, "text": ["a", "b"]}), tmp_path / "a.parquet")
    out = tmp_path / "out"
    assert embed(toy_artifact, out, tmp_path / "a.parquet") == (1, 1, 0, 1)
    assert "cannot be read" in rejects(out)[0]["why"]


def test_results_behind_a_link_are_no_input(toy_artifact: Path, tmp_path: Path) -> None:
    given = tmp_path / "in"
    (given / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to(given / "real")
    write_jsonl(given / "a.jsonl", corpus(20))
    for _ in range(2):
        arguments = ("embed", given, "--with-text", "--out", tmp_path / "link")
        run(*arguments, "--model", toy_artifact)
        assert manifest(tmp_path / "link")["files"] == [str(given / "a.jsonl")]


def test_damaged_vectors_are_computed_again(
    toy_artifact: Path, toy_model: Model, tmp_path: Path
) -> None:
    rows, more, out = corpus(200), corpus(5, 9), tmp_path / "out"
    given = write_jsonl(tmp_path / "a.jsonl", rows)
    embed(toy_artifact, out, given)
    (part,) = out.glob("part-*.parquet")
    damaged = bytearray(part.read_bytes())
    damaged[len(damaged) // 2] ^= 0x40
    part.write_bytes(damaged)
    write_jsonl(given, [*rows, *more])
    embed(toy_artifact, out, given)
    check_truth(out, [*rows, *more], toy_model)


def test_columns_are_named_typed_and_copied(toy_artifact: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"key": "a", "body": "墨池", "head": "文房", "year": 2024, "price": 1.5, "new": True},
        {"key": "b", "body": "笔纸砚", "head": None, "year": None, "price": None, "new": False},
    ]
    wrong = {"key": "c", "body": "砚台", "head": None, "year": "soon", "price": 1, "new": True}
    out = tmp_path / "out"
    columns = ("--text-column", "body", "--title-column", "head", "--id-column", "key")
    kept = ("--keep", "year:int", "--keep", "price:float", "--keep", "new:bool", "--with-text")
    arguments = ("--out", out, "--model", toy_artifact, *columns, *kept)
    run("embed", write_jsonl(tmp_path / "a.jsonl", [*rows, wrong]), *arguments)
    found = {id: row for (id, _), row in read(out).items()}
    for row in rows:
        written = found[str(row["key"])]
        assert (written["title"], written["text"]) == (row["head"], row["body"])
        assert [written[name] for name in ("year", "price", "new")] == list(row.values())[3:]
    assert [each["why"] for each in rejects(out)] == [
        '"year" is "soon", which is not a value of type int'
    ]
    (part,) = out.glob("*.parquet")
    schema = pq.read_schema(part)
    assert str(schema.field("vector").type) == "fixed_size_list<element: float>[32]"
    facts = json.loads(schema.metadata[b"inkwell"])
    assert (facts["model_id"], facts["dimension"], facts["normalized"]) == ("toy", 32, True)
    # The same from Parquet and CSV, whose cells are text.
    for path in (write_parquet(tmp_path / "a.parquet", rows), write_csv(tmp_path / "a.csv", rows)):
        again = tmp_path / f"out-{path.suffix}"
        run("embed", path, "--out", again, "--model", toy_artifact, *columns, *kept)
        others = {id: row for (id, _), row in read(again).items()}
        assert others.keys() == found.keys()
        for id, row in others.items():
            np.testing.assert_allclose(row.pop("vector"), found[id]["vector"], atol=1e-4)
            assert row == {key: value for key, value in found[id].items() if key != "vector"}


def test_what_would_lose_rows_is_refused(toy_artifact: Path, tmp_path: Path) -> None:
    a, b = (
        write_jsonl(tmp_path / f"{name}.jsonl", corpus(9, seed)) for seed, name in enumerate("ab")
    )
    out = tmp_path / "out"
    embed(toy_artifact, out, a)
    before = read(out)
    arguments = ("--out", out, "--model", toy_artifact)
    _, error = run("embed", b, *arguments, status=1)
    assert "has rows of 1 files that are not given now" in error
    assert read(out) == before
    run("embed", b, *arguments, "--forget")
    assert len(read(out)) == len(before)
    assert read(out).keys() != before.keys()
    (tmp_path / "cut.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00\x00\x00")
    for given, why in (
        (tmp_path / "missing", "is no file, folder or pattern"),
        (tmp_path / "cut.jsonl.gz", "cut.jsonl.gz cannot be read"),
    ):
        _, error = run("embed", given, "--out", tmp_path / "o", "--model", toy_artifact, status=1)
        assert why in error
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    _, error = run(
        "embed",
        tmp_path / "bad.parquet",
        "--out",
        tmp_path / "o",
        "--model",
        toy_artifact,
        status=1,
    )
    assert "bad.parquet cannot be read" in error
    for keep, why in (
        ("vector", "columns of the vectors themselves"),
        ("a:date", "none of the types"),
    ):
        _, error = run("embed", a, *arguments, "--keep", keep, status=1)
        assert why in error
