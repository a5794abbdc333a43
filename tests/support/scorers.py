"""A toy model that scores pairs of texts, as an artifact: what a second task looks like."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper

from server.inference.encoder import INPUT_IDS
from server.inference.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    Agreement,
    Manifest,
    SelfTest,
    TextRules,
    file_sha256,
)
from server.inference.tokenizer import Tokenizer
from server.types import Ids, Vectors
from tests.support.toys import tokenizer

PAIRS = [("墨池", "笔纸砚书"), ("search", "server"), ("风", "花鸟鱼虫天地日月")]
RULES = TextRules(lower_case=True, max_tokens=16)
SCALE = 50.0


def scored(ids: Ids) -> float:
    """Return what the graph gives a pair, before the sigmoid: its mean token id, scaled."""
    return float((ids.mean() - SCALE) / SCALE)


def moved(logit: float, shift: float) -> float:
    """Return what has a score that is `shift` higher."""
    score = 1 / (1 + np.exp(-logit)) + shift
    return float(np.log(score / (1 - score)))


def write_toy_scorer(folder: Path, *, shift: float = 0.0, task: str = "score") -> Path:
    """Write an artifact that scores pairs; shift: of the scores that its manifest states."""
    folder.mkdir(parents=True)
    graph = _graph().SerializeToString()
    (folder / MODEL_FILE).write_bytes(graph)
    tokenizer().save(str(folder / TOKENIZER_FILE))
    reading = Tokenizer((folder / TOKENIZER_FILE).read_text("utf-8"), RULES)
    tests = [
        SelfTest(first, [moved(scored(reading.encode_pair(first, second)), shift)], second)
        for first, second in PAIRS
    ]
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        model_id="toy-scorer",
        revision="local",
        fingerprint="of the toy scorer",
        family="toy",
        pooling="",
        normalized=False,
        dimension=1,
        text=RULES,
        precision="fp32",
        groups=1,
        matryoshka_dimensions=[],
        files={name: file_sha256(folder / name) for name in (MODEL_FILE, TOKENIZER_FILE)},
        checkpoint_sha256="",
        quantization=None,
        agreement=Agreement(1.0, 1.0, len(PAIRS)),
        instruction_set="avx2",
        exported_with={},
        settings_sha256="",
        self_test=tests,
        task="score",
        activation="sigmoid",
    )
    written = {**msgspec.to_builtins(manifest), "task": task}
    (folder / MANIFEST_FILE).write_text(json.dumps(written), encoding="utf-8")
    return folder


def expected_scores(ids: list[Ids]) -> Vectors:
    """Return what the graph gives each pair, before the sigmoid: float32 (B, 1)."""
    return np.array([[scored(row)] for row in ids], dtype=np.float32)


def _graph() -> ModelProto:
    constants: dict[str, npt.NDArray[Any]] = {
        "scale": np.array(SCALE, np.float32),
        "axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", [INPUT_IDS], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axis"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["mean", "scale"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes,
        "scorer",
        [helper.make_tensor_value_info(INPUT_IDS, TensorProto.INT64, ["B", "T"])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B", 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
