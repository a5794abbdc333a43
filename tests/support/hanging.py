"""An artifact whose computation never ends on one character: the real runtime, turning for ever."""

import json
import shutil
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from server.inference.manifest import MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE, file_sha256
from tests.support.toys import VOCABULARY

# A text with it hangs. One alone is computed on the event loop, two of them in a lane.
ENDLESS = "龘"
TOKEN = 10 * len(VOCABULARY)


def artifact_that_hangs(toy_artifact: Path, folder: Path) -> Path:
    """A copy of the toy artifact that knows ENDLESS."""
    copied = Path(shutil.copytree(toy_artifact, folder / "onnx-int8"))
    _add_token(copied / TOKENIZER_FILE)
    _add_loop(copied / MODEL_FILE)
    path = copied / MANIFEST_FILE
    manifest = json.loads(path.read_bytes())
    for name in (TOKENIZER_FILE, MODEL_FILE):
        manifest["files"][name] = file_sha256(copied / name)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return copied


def _add_token(path: Path) -> None:
    tokenizer = json.loads(path.read_bytes())
    tokenizer["model"]["vocab"][ENDLESS] = TOKEN
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def _add_loop(path: Path) -> None:
    """Hand the ids on through a loop that turns as often as the highest of them says: not at all, or
    2^62 times.
    """
    model = onnx.load(path)
    graph = model.graph
    constants = {"no_axes": [], "endless": [TOKEN], "turns": [1 << 62]}
    for name, values in constants.items():
        tensor = helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        graph.initializer.append(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in attribute.g.node:
                inner.input[:] = ["ids" if name == "input_ids" else name for name in inner.input]
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"]) for name in ("in", "out")
    ]
    flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "on")]
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["in"], ["out"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "endless_loop",
        [turn, flags[0], ids[0]],
        [flags[1], ids[1]],
    )
    before = [
        helper.make_node("ReduceMax", ["input_ids", "no_axes"], ["highest"], keepdims=0),
        helper.make_node("Div", ["highest", "endless"], ["is_endless"]),
        helper.make_node("Mul", ["is_endless", "turns"], ["count"]),
        helper.make_node("Loop", ["count", "", "input_ids"], ["ids"], body=body),
    ]
    for node in reversed(before):
        graph.node.insert(0, node)
    onnx.checker.check_model(model)
    onnx.save(model, path)
