"""Dense layers behind the pooling come from a hub with the network, their weights before its own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from export.errors import CannotWrite, DownloadFailed, NoSuchModel, UnsupportedModel
from export.source.hubs.hub import fetch
from tests.support.downloads import files_in, lone_hub, looks_complete, refused
from tests.support.stand_in_hub import MODEL, MODULES, NEEDED, StandInHub

pytest.importorskip("requests", reason="needs the export extra")

TYPE = "sentence_transformers.models."
LAYER = {
    "2_Dense/config.json": b'{"in_features": 8}',
    "2_Dense/model.safetensors": b"weights of the layer",
}
NORM = {"3_Normalize/config.json": b"{}"}


def list_modules(hub: StandInHub, place: str = "2_Dense") -> None:
    """Let modules.json list a Dense layer in `place`, and a Normalize."""
    tail = [("Dense", place), ("Normalize", "3_Normalize")]
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": TYPE + kind}
        for index, (kind, path) in enumerate(tail, 2)
    ]
    hub.files["modules.json"] = json.dumps([*MODULES, *listed]).encode()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    for each in lone_hub(monkeypatch):
        each.files |= LAYER | NORM | {"2_Dense_512/model.safetensors": b"of another width"}
        list_modules(each)
        yield each


def test_files_of_a_layer_come_with_the_network(hub: StandInHub, tmp_path: Path) -> None:
    hub.cut = {"model.safetensors": 3}
    refused(DownloadFailed, hub, tmp_path)
    hub.cut = {}
    fetch(MODEL, tmp_path, endpoint=hub.url)
    expected = NEEDED | LAYER | NORM | {"modules.json": hub.files["modules.json"]}
    assert files_in(tmp_path) == expected
    hub.seen.clear()
    fetch(MODEL, tmp_path, endpoint=hub.url)
    assert hub.sent() == []


def test_layer_without_weights_is_refused_before_any_weights_come(
    hub: StandInHub, tmp_path: Path
) -> None:
    del hub.files["2_Dense/model.safetensors"]
    assert "has no 2_Dense/model.safetensors" in refused(NoSuchModel, hub, tmp_path)
    hub.files["2_Dense/pytorch_model.bin"] = b"pickle"
    message = refused(NoSuchModel, hub, tmp_path)
    assert "has only 2_Dense/pytorch_model.bin; add --allow-pickle" in message
    assert "model.safetensors" not in hub.sent()
    fetch(MODEL, tmp_path, endpoint=hub.url, allow_pickle=True)
    assert looks_complete(tmp_path)
    assert (tmp_path / "2_Dense" / "pytorch_model.bin").read_bytes() == b"pickle"


@pytest.mark.parametrize("name", ["2_Dense/model.safetensors", "2_Dense/config.json"])
def test_own_file_in_the_place_of_a_layers_is_not_overwritten_or_read(
    hub: StandInHub, tmp_path: Path, name: str
) -> None:
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / name).write_bytes(b"mine")
    assert "is not overwritten" in refused(CannotWrite, hub, tmp_path)
    # The hub has a pickle alone, beside which the other file would be preferred.
    hub.files["2_Dense/pytorch_model.bin"] = hub.files.pop(name)
    if name.endswith("safetensors"):
        with pytest.raises(CannotWrite, match="is not overwritten"):
            fetch(MODEL, tmp_path, endpoint=hub.url, allow_pickle=True)
    assert (tmp_path / name).read_bytes() == b"mine"


@pytest.mark.parametrize("place", ["..", "../2_Dense", "/etc", ".hidden", "onnx-int8", "a\n"])
def test_layer_outside_of_the_model_is_refused(hub: StandInHub, tmp_path: Path, place: str) -> None:
    list_modules(hub, place)
    assert "no plain folder name" in refused(UnsupportedModel, hub, tmp_path)
