"""Texts of a file for benchmarks that store documents."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import disk, ingest, writes

ROWS = [{"text": "墨池"}, {"text": "砚台"}]


@pytest.mark.parametrize("script", [disk, ingest, writes])
@pytest.mark.parametrize("name", ["texts.jsonl", "texts.jsonl.gz", "texts.json"])
def test_file_of_texts_is_read(
    script: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    written: dict[str, Callable[[], bytes]] = {
        ".jsonl": lambda: lines,
        ".gz": lambda: gzip.compress(lines),
        ".json": lambda: json.dumps([row["text"] for row in ROWS]).encode(),
    }
    path.write_bytes(written[path.suffix]())
    monkeypatch.setattr("sys.argv", ["script", "--texts", str(path)])
    assert ingest.texts_of(script._arguments().texts, 2) == ["墨池", "砚台"]
