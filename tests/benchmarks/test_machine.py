"""Result lines name the texts, the recipe and the commit they come from."""

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import machine
from server.inference.manifest import MANIFEST_FILE


def test_texts_are_named_by_their_content(tmp_path: Path) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    file = folder / "laws.json"
    found = []
    for text in ("[]", '["a"]', "[]"):
        file.write_text(text, encoding="utf-8")
        machine.fingerprint.cache_clear()
        found.append(machine.inputs(argparse.Namespace(texts=folder))["texts"])
    assert found[0] == found[2] != found[1]
    assert found[0].startswith("real ")


def test_generated_texts_and_the_recipe_are_named(toy_artifact: Path) -> None:
    manifest = json.loads((toy_artifact / MANIFEST_FILE).read_text(encoding="utf-8"))
    recipe = f"{manifest['quantization']['recipe']}, {manifest['quantization']['weight_bits']} bits"
    given = argparse.Namespace(texts=None, sts=None, model=toy_artifact)
    assert machine.inputs(given) == {"texts": "generated", "recipe": recipe}
    assert machine.inputs(argparse.Namespace(turns=3)) == {}


def test_a_line_carries_inputs_and_commit(
    toy_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.show({"case": "x"}, argparse.Namespace(model=None), toy_artifact)
    line = json.loads(capsys.readouterr().out)
    assert line["inputs"] == {"recipe": machine.recipe(toy_artifact)}
    assert line["machine"]["commit"]
