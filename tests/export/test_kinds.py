"""What a model is, judged by its settings and the names of its files, and the refusals that follow."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from export.errors import UnsupportedModel
from export.kinds import kind_of
from export.kinds.kind import Kind
from export.kinds.own_code import check_code
from export.kinds.sighting import Sighting, see
from export.settings import Settings
from export.source.folder import ModelFolder
from export.source.model import locate, read_model
from tests.support.checkpoints import change_json, refusal
from tests.support.toys import write_json, write_modules, write_toy_checkpoint

FILES = ("config.json", "model.safetensors", "tokenizer.json")
SPLADE = (
    "sentence_transformers.sparse_encoder.models.MLMTransformer",
    "sentence_transformers.sparse_encoder.models.SpladePooling",
)
TRANSFORMER = (
    "sentence_transformers.models.Transformer",
    "sentence_transformers.models.Pooling",
)


def kind(*names: str, modules: tuple[str, ...] | None = None, **config: Any) -> Kind:
    """Return the kind of a BERT with these files besides the usual ones, and these keys."""
    return kind_of(
        Sighting(
            "here", {"model_type": "bert", **config}, modules, {*FILES, *names}, "", "org/base"
        )
    )


def without_config(*names: str, modules: tuple[str, ...] | None = None) -> Kind:
    return kind_of(Sighting("here", None, modules, {*names}, "", "org/base"))


def head(name: str, **config: Any) -> Kind:
    return kind(architectures=[name], **config)


# What it is -> a model of that kind, and a part of what its refusal says.
REFUSED = {
    "classifier": (
        head("BertForSequenceClassification", id2label={"0": "bad", "1": "good"}),
        "classifier (BertForSequenceClassification) with 2 labels (bad, good)",
    ),
    "classifier with default labels": (head("RobertaForSequenceClassification"), "2 labels"),
    "many labels": (
        head("BertForSequenceClassification", id2label={str(i): f"L{i}" for i in range(9)}),
        "9 labels (L0, L1, L2, L3, L4, ...)",
    ),
    "masked language model": (head("BertForMaskedLM"), "SPLADE"),
    "sparse without a network for queries": (
        kind(modules=("sentence_transformers.models.Router",)),
        "by other modules than documents (Router)",
    ),
    "sparse by other modules": (
        kind(modules=(*SPLADE[:1], *TRANSFORMER[1:])),
        "only MLMTransformer, SpladePooling",
    ),
    "language model": (head("Qwen3ForCausalLM", model_type="qwen3"), "Qwen3-Reranker"),
    "question answering": (head("BertForQuestionAnswering"), "BertForQuestionAnswering"),
    "ColBERT": (head("HF_ColBERT"), "ColBERT"),
    "ColBERT of Stanford": (kind("artifact.metadata"), "ColBERT"),
    "ColBERT of PyLate": (kind(modules=(*TRANSFORMER[:1], "pylate.models.Dense.Dense")), "ColBERT"),
    "CLIP": (head("CLIPModel", model_type="clip"), "images and texts"),
    "CLIP of sentence-transformers": (
        without_config("0_CLIPModel/config.json", modules=(f"{TRANSFORMER[0][:-11]}CLIPModel",)),
        "images and texts",
    ),
    "vision": (head("Qwen2VLForConditionalGeneration", vision_config={}), "images and texts"),
    "GGUF": (without_config("bge-m3-q8_0.gguf", "README.md"), "bge-m3-q8_0.gguf is a GGUF file"),
    "LoRA": (
        without_config("adapter_config.json", "adapter_model.safetensors", "tokenizer.json"),
        "LoRA adapter of org/base, not a whole model; merge it",
    ),
    "LoRA beside a model": (kind("adapter_model.safetensors"), "adapter_model.safetensors"),
    "words": (
        without_config(modules=("sentence_transformers.models.WordEmbeddings",)),
        "word vectors (WordEmbeddings)",
    ),
    "old module": (
        kind(modules=("sentence_transformers.models.BERT", TRANSFORMER[1])),
        "write sentence_transformers.models.Transformer in its place",
    ),
    "TensorFlow 1": (without_config("bert_config.json", "bert_model.ckpt.index"), "TensorFlow 1"),
    "lost modules.json": (without_config("0_Transformer/config.json"), "no modules.json"),
    "TensorFlow 2": (
        kind_of(Sighting("here", {"model_type": "bert"}, None, {"config.json", "tf_model.h5"})),
        "tf_model.h5 (TensorFlow)",
    ),
    "ONNX": (
        kind_of(Sighting("here", {"model_type": "bert"}, None, {"config.json", "onnx/model.onnx"})),
        "onnx/model.onnx (ONNX)",
    ),
    "slow tokenizer": (
        kind_of(
            Sighting(
                "here",
                {"model_type": "xlm-roberta"},
                TRANSFORMER,
                {"config.json", "model.safetensors", "sentencepiece.bpe.model"},
            )
        ),
        "sentencepiece.bpe.model but no tokenizer.json",
    ),
    "artifact": (without_config("manifest.json", "model.onnx"), "exported already"),
}


@pytest.mark.parametrize(("found", "part"), REFUSED.values(), ids=REFUSED)
def test_refusal_names_the_cause_in_both_languages(found: Kind, part: str) -> None:
    assert found.task is None and found.refusal is not None
    assert part in found.refusal.english
    for message in (found.refusal, found.name):
        assert any("\u4e00" <= character <= "\u9fff" for character in message.chinese), message
    assert not found.refusal.english.endswith(".")


def test_refusal_of_a_slow_tokenizer_or_an_adapter_shows_the_command() -> None:
    for name in ("slow tokenizer", "LoRA", "LoRA beside a model", "masked language model"):
        refused = REFUSED[name][0].refusal
        assert refused is not None
        command = refused.english.partition('python -c "')[2].rpartition('"')[0]
        compile(command, name, "exec")
        assert "'here'" in command
    assert "'org/base'" in str(REFUSED["LoRA"][0].refusal)


@pytest.mark.parametrize("place", ["a'); import os #", 'a"b', "$(touch x)", "a`b`"])
def test_command_in_a_refusal_runs_no_name_of_a_model(place: str) -> None:
    seen = Sighting(place, None, None, {"adapter_config.json"}, "", place)
    refused = kind_of(seen).refusal
    assert refused is not None
    assert place not in refused.english.partition("python -c")[2]


@pytest.mark.parametrize(
    "found",
    [
        kind(),
        head("BertModel"),
        head("NomicBertModel", model_type="nomic_bert"),
        # In a folder with modules.json sentence-transformers drops the head.
        kind(modules=TRANSFORMER, architectures=["JinaBertForMaskedLM"]),
        kind(modules=TRANSFORMER, architectures=["Qwen3ForCausalLM"], model_type="qwen3"),
        kind("vocab.txt", "model.gguf", "tf_model.h5", "onnx/model.onnx", "pytorch_model.bin"),
        kind("onnx-int8/manifest.json", "onnx-int8/model.onnx"),
        kind(architectures="BertForMaskedLM"),
    ],
)
def test_embedding_model_is_one(found: Kind) -> None:
    assert (found.task, found.refusal, found.notes) == ("dense", None, ())


def test_splade_gives_sparse_weights() -> None:
    found = kind(modules=SPLADE, architectures=["BertForMaskedLM"])
    assert (found.task, found.refusal, found.notes) == ("sparse", None, ())


def test_one_label_makes_a_cross_encoder() -> None:
    for config in ({"id2label": {"0": "LABEL_0"}}, {"num_labels": 1}):
        found = head("XLMRobertaForSequenceClassification", **config)
        assert (found.task, found.refusal) == ("score", None)


def test_what_an_export_leaves_out_is_noted() -> None:
    (note,) = kind("sparse_linear.pt", "colbert_linear.pt").notes
    assert "only the dense vectors are exported" in note.english
    (note,) = kind("lora/adapter_config.json").notes
    assert "lora/adapter_config.json" in note.english


def test_code_of_a_model_is_refused_where_no_family_replaces_it() -> None:
    config = {"model_type": "qwen2", "auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}}
    for family in (None, "qwen2"):
        with pytest.raises(UnsupportedModel, match=r"'modeling_qwen.Qwen2Model' in auto_map"):
            check_code(config, family)
    check_code(config, "a family written for this code")
    check_code({"model_type": "bert", "auto_map": {"AutoConfig": "x.Y"}}, "bert")
    check_code({"model_type": "bert", "auto_map": None}, "bert")


# --- folders --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_toy_checkpoint(tmp_path / "toy")


@pytest.mark.parametrize("model_type", [None, ...])
def test_config_without_a_type_is_refused_with_what_to_add(model_type: Any, folder: Path) -> None:
    change_json(folder / "config.json", model_type=model_type)
    refusal(folder, UnsupportedModel, "no model_type", 'add "model_type": "bert"')


def test_adapter_names_its_base_and_where_it_is(folder: Path) -> None:
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": "BAAI/bge-m3"})
    refusal(folder, UnsupportedModel, str(folder), "beside those of a model (adapter_config.json)")
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    refusal(folder, UnsupportedModel, "LoRA adapter of BAAI/bge-m3", "'BAAI/bge-m3'")


def test_network_in_a_folder_of_its_own_is_judged_there(folder: Path) -> None:
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
        (folder / name).rename(inner / name)
    (folder / "tokenizer.json").rename(inner / "spiece.model")
    modules = [
        {"path": f"{index}_{name}", "type": f"sentence_transformers.models.{name}"}
        for index, name in enumerate(("Transformer", "Pooling"))
    ]
    write_json(folder / "modules.json", modules)
    assert see(ModelFolder(folder)).transformer == "0_Transformer"
    refusal(folder, UnsupportedModel, "spiece.model but no tokenizer.json")


@pytest.mark.parametrize("listed", [{}, [], [7], [{"path": "../x"}], [{"type": 7, "path": []}]])
def test_modules_that_are_malformed_do_not_stop_the_judgement(listed: Any, folder: Path) -> None:
    write_json(folder / "modules.json", listed)
    assert see(ModelFolder(folder)).transformer == ""


@pytest.mark.parametrize("via", ["graph", "optimum"])
def test_both_routes_judge_the_kind(via: Any, folder: Path) -> None:
    write_modules(folder, ["Transformer", "WeightedLayerPooling"])
    shutil.rmtree(folder / "1_Pooling")
    change_json(folder / "config.json", architectures=["HF_ColBERT"])
    settings = Settings(source=str(folder), via=via)
    with pytest.raises(UnsupportedModel, match="ColBERT"):
        read_model(locate(settings), settings)


@pytest.mark.parametrize("name", ["A" * 3000 + "ForX", "ForA" * 300_000 + "-", "\x1b[2JForX"])
def test_text_that_names_no_class_is_no_architecture(name: str, tmp_path: Path) -> None:
    seen = Sighting(tmp_path, {"architectures": [name, "BertModel"]}, None, ())
    assert seen.architectures == ["BertModel"]
    assert kind_of(seen).refusal is None
