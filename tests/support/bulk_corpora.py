"""Small corpora in all formats, commands that embed them, and the truth to compare the results with."""

import csv
import gzip
import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from server.inference.model import Model
from server.inference.offline import embed
from server.store.records import titled
from server.types import Vectors
from tests.support.processes import ROOT, command, environment
from tests.support.toys import toy_texts

Rows = Sequence[Mapping[str, Any]]


def corpus(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows of which every fifth has the text of another one, under an id of its own."""
    rows = [
        {"id": f"{seed}-{place}", "title": f"第{place}条" if place % 3 else None, "text": text}
        for place, text in enumerate(toy_texts(number, seed=seed))
    ]
    copies = [{**row, "id": f"{row['id']}-copy"} for row in rows[::5]]
    return rows + copies


def write_jsonl(path: Path, rows: Rows) -> Path:
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_csv(path: Path, rows: Rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Rows, row_group_size: int = 7) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=row_group_size)
    return path


def bulk(*arguments: str | Path) -> list[str]:
    return command("bulk", *arguments)


def run(*arguments: str | Path, status: int = 0, **variables: str) -> tuple[str, str]:
    """Run the command to its end; return what it says and reports."""
    # Dask's own deprecations are not ours to fix.
    variables = {"PYTHONWARNINGS": "default", **variables}
    done = subprocess.run(
        bulk(*arguments),
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def manifest(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "_manifest.json").read_bytes())
    return found


def rejects(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "_rejects.jsonl").read_text().splitlines()]


def read(out: Path) -> dict[tuple[str, bytes], dict[str, Any]]:
    """Return the rows of all parts by id and digest, after checking that none comes twice."""
    import pyarrow.parquet as pq

    rows = pq.read_table(out).to_pylist()
    found = {(row["id"], row["digest"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def digest(row: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(titled(row["title"] or None, row["text"]).encode()).digest()


def check_truth(out: Path, rows: Rows, model: Model) -> None:
    """Every row is there once, with the vector that `offline.embed` computes."""
    found = read(out)
    wanted = {(row["id"], digest(row)): titled(row["title"] or None, row["text"]) for row in rows}
    assert found.keys() == wanted.keys()
    given: Vectors = np.array([found[key]["vector"] for key in wanted], np.float32)
    made = embed(model, list(wanted.values()))
    # Other neighbours in a batch change the last bits.
    assert np.abs(given - made).max() < 1e-4
    facts = manifest(out)
    assert (facts["rows"], facts["dimension"]) == (len(rows), model.manifest.dimension)
    assert facts["fingerprint"] == model.manifest.fingerprint
    assert facts["normalized"] is model.manifest.normalized
    assert not (out / ".work").exists()
    assert not list(out.glob(".*.tmp"))
