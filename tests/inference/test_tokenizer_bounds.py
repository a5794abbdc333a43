"""An artifact from elsewhere whose tokenizer has no known bound is refused when it is opened."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from server.errors import BadArtifact
from server.inference.manifest import MANIFEST_FILE, TOKENIZER_FILE, file_sha256
from server.inference.model import Model
from server.inference.tokenization.tokenizer_bounds import check_bounds

HAN = re.compile(r"[\u4e00-\u9fff]")
CATASTROPHIC = {"Regex": "(a+)+$"}
SPLIT = {"type": "Split", "pattern": CATASTROPHIC, "behavior": "Isolated", "invert": False}
DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


def artifact(source: Path, folder: Path, changes: dict[str, Any]) -> Path:
    """Return a copy of an artifact with another tokenizer, whose hash the manifest states."""
    shutil.copytree(source, folder)
    description = json.loads((folder / TOKENIZER_FILE).read_bytes())
    (folder / TOKENIZER_FILE).write_text(json.dumps(description | changes), encoding="utf-8")
    manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
    manifest["files"][TOKENIZER_FILE] = file_sha256(folder / TOKENIZER_FILE)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pre_tokenizer": SPLIT}, "the pattern '(a+)+$', whose time for a text has no known"),
        ({"pre_tokenizer": ["Split", CATASTROPHIC, "Isolated", False]}, "the pattern '(a+)+$'"),
        ({"decoder": {"type": "Replace", "pattern": CATASTROPHIC, "content": ""}}, "the pattern"),
        ({"normalizer": {"type": "Sequence", "normalizers": [DOUBLING] * 7}}, "1e+02 times"),
        ({"normalizer": {**DOUBLING, "pattern": {"String": ""}}}, "an empty pattern"),
        # The library panics, which is no Exception.
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}}, "charsmap"),
    ],
    ids=["pattern", "pattern in a list", "decoder", "replacements", "empty", "panic"],
)
def test_artifact_whose_tokenizer_has_no_bound_is_refused(
    toy_artifact: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    folder = artifact(toy_artifact, tmp_path / "artifact", changes)
    with pytest.raises(BadArtifact) as refusal:
        Model(folder)
    assert said in refusal.value.english
    for language in (refusal.value.english, refusal.value.chinese):
        assert str(folder / TOKENIZER_FILE) in language
    assert HAN.search(refusal.value.chinese) and not HAN.search(refusal.value.english)


def test_words_of_the_vocabulary_are_no_patterns(toy_artifact: Path) -> None:
    description = json.loads((toy_artifact / TOKENIZER_FILE).read_bytes())
    description["model"]["vocab"].update(Regex=1, String=2)
    check_bounds(description)
    with pytest.raises(BadArtifact):
        check_bounds(description | {"pre_tokenizer": SPLIT})
