"""Models of a hub that are refused by what they are: before their weights are downloaded."""

import json
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from typing import Literal

import pytest

from export.checkpoint import read_checkpoint
from export.errors import NoSuchModel, ShapeMismatch, UnsupportedModel
from export.settings import Settings
from export.source import model
from export.source.hubs.hub import fetch
from export.source.model import locate
from tests.support.artifacts import names
from tests.support.downloads import files_in, lone_hub, refused
from tests.support.reranker_toys import KNOWN, write_reranker
from tests.support.stand_in_hub import MODEL, NEEDED, StandInHub
from tests.support.toys import write_toy_checkpoint

pytest.importorskip("requests", reason="needs the export extra")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    yield from lone_hub(monkeypatch)


def test_only_gguf_files(hub: StandInHub, tmp_path: Path) -> None:
    hub.files = {"README.md": b"", "tiny-q8_0.gguf": b"GGUF"}
    assert "tiny-q8_0.gguf is a GGUF file" in refused(UnsupportedModel, hub, tmp_path / "tiny")
    assert hub.sent() == []


def test_adapter_is_refused_with_its_base(hub: StandInHub, tmp_path: Path) -> None:
    adapter = {"base_model_name_or_path": "BAAI/bge-m3"}
    hub.files = {
        "adapter_config.json": json.dumps(adapter).encode(),
        "adapter_model.safetensors": b"weights",
    }
    said = refused(UnsupportedModel, hub, tmp_path / "tiny")
    assert f"{MODEL} is a LoRA adapter of BAAI/bge-m3" in said and f"'{MODEL}'" in said
    assert hub.sent() == ["adapter_config.json"]
    assert files_in(tmp_path) == {}


def test_head_is_downloaded_for_the_task_that_needs_it(hub: StandInHub, tmp_path: Path) -> None:
    hub.files |= {"sparse_linear.safetensors": b"safe", "colbert_linear.pt": b"pickle"}
    dense = fetch(MODEL, tmp_path / "dense", endpoint=hub.url)[0]
    assert not files_in(dense).keys() & hub.files.keys() - NEEDED.keys()
    sparse = fetch(MODEL, tmp_path / "sparse", endpoint=hub.url, task="sparse")[0]
    assert files_in(sparse).keys() == {*NEEDED, "sparse_linear.safetensors"}
    said = refused(NoSuchModel, hub, tmp_path / "no", task="token_vectors")
    assert f"{MODEL} has only colbert_linear.pt; add --allow-pickle" in said
    tokens = fetch(
        MODEL, tmp_path / "all", endpoint=hub.url, task="token_vectors", allow_pickle=True
    )[0]
    assert files_in(tokens).keys() == {*NEEDED, "colbert_linear.pt"}


def test_network_with_another_head_is_refused_by_config_json(
    hub: StandInHub, tmp_path: Path
) -> None:
    del hub.files["modules.json"]
    config = {"model_type": "bert", "architectures": ["BertForTokenClassification"]}
    hub.files["config.json"] = json.dumps(config).encode()
    assert f"{MODEL} is a BertForToken" in refused(UnsupportedModel, hub, tmp_path / "tiny")
    assert hub.sent() == ["config.json"]
    assert files_in(tmp_path) == {}


def test_slow_tokenizer_is_refused_by_the_list_of_files(hub: StandInHub, tmp_path: Path) -> None:
    del hub.files["tokenizer.json"], hub.files["vocab.txt"]
    hub.files["sentencepiece.bpe.model"] = b"pieces"
    assert "no tokenizer.json" in refused(UnsupportedModel, hub, tmp_path / "tiny")
    assert sorted(hub.sent()) == ["config.json", "modules.json"]


@pytest.mark.parametrize("via", ["graph", "optimum"])
def test_settings_that_cannot_be_honoured_are_refused_without_the_weights(
    via: str, hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = write_toy_checkpoint(tmp_path / "toy")
    hub.files = {name: content for name, content in files_in(toy).items()}
    hub.files["1_Pooling/config.json"] = b'{"pooling_mode": "weightedmean"}'
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr(model, "DOWNLOADS", tmp_path / "hub")
    with pytest.raises(UnsupportedModel, match="pooling weightedmean"):
        locate(Settings(source=MODEL, via=via))  # type: ignore[arg-type]
    assert "model.safetensors" not in hub.sent()
    assert files_in(tmp_path / "hub") == {}
    assert names(tmp_path) == {"toy", "hub"}


@pytest.mark.parametrize("via", ["graph", "optimum"])
def test_too_many_tokens_are_refused_without_the_weights(
    via: Literal["graph", "optimum"],
    hub: StandInHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.files = files_in(write_toy_checkpoint(tmp_path / "toy"))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr(model, "DOWNLOADS", tmp_path / "hub")
    with pytest.raises(ShapeMismatch, match="--max-tokens 100000 is outside 3 to"):
        locate(Settings(source=MODEL, max_tokens=100_000, via=via))
    assert "model.safetensors" not in hub.sent()


def test_refusal_keeps_what_was_downloaded_before(hub: StandInHub, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_bytes(NEEDED["config.json"])
    hub.files["modules.json"] = json.dumps(
        [{"path": "", "type": "sentence_transformers.models.CLIPModel"}]
    ).encode()
    assert "images and texts" in refused(UnsupportedModel, hub, folder)
    assert files_in(folder) == {"config.json": NEEDED["config.json"]}


@pytest.mark.parametrize("kind", ["causal", "listed"])
def test_reranker_is_known_by_what_its_card_says_it_was_made_from(
    kind: str, hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = write_reranker(tmp_path / "toy", kind, known=False)
    hub.files = {name: content for name, content in files_in(toy).items()}
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr(model, "DOWNLOADS", tmp_path / "hub")
    with pytest.raises(UnsupportedModel, match="--pair-prompt qwen3"):
        locate(Settings(source=MODEL))
    assert "model.safetensors" not in hub.sent()
    assert locate(Settings(source=MODEL, pair_prompt="qwen3")).downloaded
    rmtree(tmp_path / "hub")
    hub.files["README.md"] = f"---\nbase_model: {KNOWN}\n---\n".encode()
    place = locate(Settings(source=MODEL))
    scoring = read_checkpoint(place.folder).scoring
    assert scoring is not None and scoring.pair_prompt is not None


def test_converted_reranker_gets_the_prompt_of_what_its_card_says_it_was_made_from(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files = files_in(write_reranker(tmp_path / "toy", "score", known=False))
    hub.files["README.md"] = f"---\nbase_model: {KNOWN}\n---\n".encode()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr(model, "DOWNLOADS", tmp_path / "hub")
    scoring = read_checkpoint(locate(Settings(source=MODEL)).folder).scoring
    assert scoring is not None and scoring.pair_prompt is not None
