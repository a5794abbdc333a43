"""A family that the exporter does not know by name goes through the whole export.

The toy is one linear layer over word embeddings, then ReLU and the mean of the tokens: nothing of a BERT.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto
from safetensors.numpy import load_file, save_file

from export import families
from export.checkpoint import read_checkpoint
from export.errors import CorruptFile, ShapeMismatch, UnsupportedModel
from export.families.bert.family import BERT
from export.families.embeddings import write_words
from export.families.family import HIDDEN, OUTPUT, Family, Layer
from export.families.linears import FloatLinear, Int8Linear, Linears, LinearWriter, Site
from export.graph import GraphWriter
from export.pipeline import export
from export.quantisation.quantise import quantize
from export.settings import Settings
from export.source.json_file import Json, size
from export.source.sentence_settings import SentenceSettings
from export.source.tensors import Tensors
from export.verification.verify import Thresholds
from server.inference.comparison import row_cosines
from server.inference.encoder import INPUT_IDS
from server.inference.manifest import read_manifest
from server.inference.model import Model
from server.types import Ids, Packing
from tests.support.toys import (
    VOCABULARY,
    toy_texts,
    write_json,
    write_toy_checkpoint,
    write_toy_texts,
)

WORDS, DENSE = "words.weight", "dense"
WIDTH, DIMENSION = 24, 40
DENSE_SITE = Site(DENSE, (DENSE,))


@dataclass(frozen=True, slots=True)
class BagShape:
    vocabulary: int
    positions: int
    width: int
    dimension: int

    @property
    def hidden(self) -> int:
        return self.dimension

    def tensors(self) -> dict[str, tuple[int, ...]]:
        return {
            WORDS: (self.vocabulary, self.width),
            f"{DENSE}.weight": (self.dimension, self.width),
            f"{DENSE}.bias": (self.dimension,),
        }


class Bag:
    """A network: the mean over tokens of relu(dense(word)), with unit norm if the settings say so."""

    def __init__(self, shape: BagShape, settings: SentenceSettings, tensors: Tensors) -> None:
        self._shape = shape
        self._settings = settings
        self._tensors = tensors
        self.layers = (Layer((DENSE_SITE,)),)

    @property
    def dimension(self) -> int:
        return self._shape.dimension

    def float_linears(self) -> dict[str, FloatLinear]:
        weight = np.ascontiguousarray(self._tensors[f"{DENSE}.weight"].T)
        return {DENSE: FloatLinear(weight, self._tensors[f"{DENSE}.bias"])}

    def packing(self, linears: Linears) -> Packing:
        return Packing(groups=1, longest=self._settings.max_tokens)

    def whole(self, linears: Linears, *, int8_embeddings: bool) -> onnx.ModelProto:
        graph = GraphWriter()
        graph.input(INPUT_IDS, TensorProto.INT64, ["texts", "tokens"])
        words = write_words(graph, self._tensors[WORDS], "bag.words", int8=int8_embeddings)
        hidden = self._relu(graph, linears, words)
        axis = graph.integers("axis", [1])
        pooled = graph.node("ReduceMean", [hidden, axis], "pooled", keepdims=0)
        if self._settings.normalize:
            graph.node("LpNormalization", [pooled], OUTPUT, axis=-1, p=2)
        else:
            graph.node("Identity", [pooled], OUTPUT)
        return graph.model("bag", {OUTPUT: ["texts", self.dimension]})

    def embeddings(self, *, int8: bool) -> tuple[onnx.ModelProto, str]:
        graph = GraphWriter()
        graph.input(INPUT_IDS, TensorProto.INT64, ["texts", "tokens"])
        words = write_words(graph, self._tensors[WORDS], "bag.words", int8=int8)
        return graph.model("words", {words: ["texts", "tokens", self._shape.width]}), words

    def layer(
        self, linears: Linears, index: int, *, until: str | None = None
    ) -> tuple[onnx.ModelProto, str]:
        assert index == 0
        graph = GraphWriter()
        graph.input(HIDDEN, TensorProto.FLOAT, ["texts", "tokens", self._shape.width])
        output = HIDDEN if until == DENSE_SITE.name else self._relu(graph, linears, HIDDEN)
        return graph.model("layer", {output: None}), output

    def _relu(self, graph: GraphWriter, linears: Linears, hidden: str) -> str:
        dense = LinearWriter(graph, linears).read_and_apply(hidden, DENSE_SITE)
        return graph.node("Relu", [dense], "relu")


def read_bag(config: Json) -> BagShape:
    return BagShape(
        vocabulary=size(config, "vocab_size"),
        positions=size(config, "longest_text"),
        width=size(config, "word_width"),
        dimension=size(config, "vector_width"),
    )


BAG = Family(
    name="bag",
    claims=lambda config: config.get("architectures") == ["BagModel"],
    read_shape=read_bag,
    tensor_name=lambda stored: stored.removeprefix("bag."),
    network=Bag,
    poolings=("mean",),
)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, BAG))


def write_bag(folder: Path, *, pooling: str = "mean", normalize: bool = True) -> Path:
    """Write a random one, with the tokenizer and the module files of the toy BERT."""
    write_toy_checkpoint(folder, pooling=pooling, normalize=normalize, positions=64)
    config = {
        "architectures": ["BagModel"],
        "vocab_size": len(VOCABULARY),
        "longest_text": 64,
        "word_width": WIDTH,
        "vector_width": DIMENSION,
    }
    write_json(folder / "config.json", config)
    generator = np.random.default_rng(0)
    shapes = read_bag(config).tensors()
    tensors = {
        f"bag.{name}": generator.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    save_file(tensors, folder / "model.safetensors")
    return folder


def reference(folder: Path, texts: list[Ids], *, normalize: bool) -> npt.NDArray[np.float64]:
    """Compute the vectors in numpy, from the files alone: float64 (B, D)."""
    stored: Mapping[str, Any] = load_file(folder / "model.safetensors")
    words, weight, bias = (
        stored[f"bag.{name}"].astype(np.float64)
        for name in (WORDS, f"{DENSE}.weight", f"{DENSE}.bias")
    )
    vectors = np.stack([np.maximum(words[ids] @ weight.T + bias, 0).mean(axis=0) for ids in texts])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalize else vectors


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999999), ("int8", 0.9995)])
@pytest.mark.parametrize("normalize", [True, False])
def test_toy_family_is_exported_verified_and_served(
    precision: Any, least: float, normalize: bool, tmp_path: Path
) -> None:
    folder = write_bag(tmp_path / "bag", normalize=normalize)
    settings = Settings(
        source=str(folder),
        precision=precision,
        calibration=write_toy_texts(tmp_path / "calibration.txt", 40),
        verify_texts=write_toy_texts(tmp_path / "verification.txt", 20, seed=1),
        thresholds=Thresholds(mean=0.99, minimum=0.98),
    )
    artifact = export(settings)
    manifest = read_manifest(artifact)
    assert (manifest.family, manifest.dimension, manifest.groups) == ("bag", DIMENSION, 1)
    assert (manifest.quantization is None) == (precision == "fp32")
    model = Model(artifact)
    texts = toy_texts(30, seed=9)
    expected = reference(folder, list(model.tokenizer.encode(texts).ids), normalize=normalize)
    found = model.embed(texts)
    assert row_cosines(found, expected.astype(np.float32)).min() > least
    if precision == "fp32":
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    else:
        assert np.abs(found - expected).max() > 1e-6, "the int8 graph computes in float32"


def test_quantiser_takes_every_linear_layer_of_the_toy_family(tmp_path: Path) -> None:
    network = read_checkpoint(write_bag(tmp_path)).network()
    generator = np.random.default_rng(0)
    texts = [generator.integers(0, len(VOCABULARY), n, dtype=np.int64) for n in range(3, 40)]
    seen: list[str] = []
    quantized = quantize(network, texts, weight_bits=8, threads=1, progress=seen.append)
    assert seen == [DENSE]
    assert quantized.linears.keys() == network.float_linears().keys()
    assert isinstance(quantized.linears[DENSE], Int8Linear)


def test_family_reads_its_own_names_of_tensors_and_refuses_wrong_shapes(tmp_path: Path) -> None:
    folder = write_bag(tmp_path)
    assert read_checkpoint(folder).tensors.keys() == {WORDS, f"{DENSE}.weight", f"{DENSE}.bias"}
    tensors = load_file(folder / "model.safetensors")
    tensors[f"bag.{DENSE}.bias"] = np.zeros(3, np.float32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ShapeMismatch, match="tensor dense.bias has shape"):
        read_checkpoint(folder)


def test_pooling_that_a_family_does_not_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="pooling cls is not supported; one of mean"):
        read_checkpoint(write_bag(tmp_path, pooling="cls"))


def test_config_that_a_family_cannot_read_is_refused(tmp_path: Path) -> None:
    folder = write_bag(tmp_path)
    write_json(folder / "config.json", {"architectures": ["BagModel"]})
    with pytest.raises(CorruptFile, match="config.json lacks vocab_size"):
        read_checkpoint(folder)


def test_family_is_chosen_by_its_config() -> None:
    assert families.of({"model_type": "bert", "architectures": ["BertModel"]}) is BERT
    assert families.of({"architectures": ["BagModel"]}) is BAG
    with pytest.raises(UnsupportedModel, match='model_type "gpt2" is not written directly'):
        families.of({"model_type": "gpt2"})


@pytest.mark.parametrize(
    "name",
    [
        "build",
        "checkpoint",
        "manifest",
        "pipeline",
        "quantisation/quantise",
        "quantisation/ranges",
        "quantisation/rowwise",
        "verification/verify",
    ],
)
def test_steps_of_an_export_import_no_family_by_name(name: str) -> None:
    source = Path(families.__file__).parents[1] / f"{name}.py"
    imported = re.findall(r"^\s*(?:from|import) (\S+)", source.read_text(encoding="utf-8"), re.M)
    assert imported
    assert not [module for module in imported if module.startswith("export.families.bert")]
