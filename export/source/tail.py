"""Reads what follows the pooling: Dense layers and normalisations, in the order of modules.json.

Everything here comes from elsewhere: sizes, names and tensors are checked before they are used.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from export.errors import CorruptFile, ShapeMismatch, UnsupportedModel
from export.source.folder import ModelFolder
from export.source.json_file import Json, boolean, check_known, shown, whole_number
from export.source.modules import DENSE, Module, Modules
from export.source.tensors import Shapes, StoredTensors, read_tensors, weight_file
from server.inference.manifest import MOST_DIMENSIONS
from server.messages.message import Message

# Activations of torch, by the last part of their names, and ONNX's operator; empty where there is none.
ACTIVATIONS = {"Identity": "", "Tanh": "Tanh", "ReLU": "Relu", "GELU": "Gelu", "Sigmoid": "Sigmoid"}
ACTIVATION = re.compile(r"torch\.nn\.(?:modules\.(?:activation\.|linear\.)?)?(\w{1,40})", re.ASCII)
# Any other key may change what the layer computes.
KEYS = ("in_features", "out_features", "bias", "activation_function")
# Of newer versions; only what they mean when they are missing is supported.
NEW_KEYS = ("module_input_name", "module_output_name", "use_residual")
# What all these modules read, and write their result to.
ROW = "sentence_embedding"


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer with an activation, from `inputs` numbers to `outputs`.

    folder: of its files, and the beginning of its tensors' names. activation: ONNX's operator, empty for none.
    """

    folder: str
    inputs: int
    outputs: int
    bias: bool
    activation: str

    @property
    def stated(self) -> Message:
        """The layer for people."""
        return Message(
            "Dense {inputs} to {outputs} ({activation})",
            inputs=self.inputs,
            outputs=self.outputs,
            activation=self.activation or Message("no activation"),
        )

    def tensor(self, name: str) -> str:
        """Return the name of a tensor; no tensor of a network has a slash in its name."""
        return f"{self.folder}/{name}"

    def tensors(self) -> Shapes:
        """Return name -> shape of its tensors."""
        weight = {self.tensor("linear.weight"): (self.outputs, self.inputs)}
        return weight | ({self.tensor("linear.bias"): (self.outputs,)} if self.bias else {})


@dataclass(frozen=True, slots=True)
class Normalize:
    """Scales a row to unit L2 norm."""

    @property
    def stated(self) -> Message:
        """The step for people."""
        return Message("normalised")


Step = Dense | Normalize


def read_tail(folder: ModelFolder, modules: Modules) -> tuple[Step, ...]:
    """Return the steps behind the pooling; raises an ExportError for what cannot be honoured exactly."""
    return tuple(
        _dense(folder, module) if module.kind == DENSE else _normalize(folder, module)
        for module in modules.tail
    )


def _normalize(folder: ModelFolder, module: Module) -> Normalize:
    file = module.file("config.json")
    _check_row(file, folder.optional_json(file))
    return Normalize()


def _dense(folder: ModelFolder, module: Module) -> Dense:
    file = module.file("config.json")
    config = folder.json(file)
    check_known(file, config, (*KEYS, *NEW_KEYS))
    _check_row(file, config)
    if boolean(file, config, "use_residual", default=False):
        raise UnsupportedModel(
            "{file}: use_residual adds the layer's input to its result, which is not written",
            file=file,
        )
    return Dense(
        module.folder,
        _width(file, config, "in_features"),
        _width(file, config, "out_features"),
        boolean(file, config, "bias", default=True),
        _activation(file, config),
    )


def _check_row(file: str, config: Json) -> None:
    """Refuse a module that reads or writes something else than the pooled row."""
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, ROW):
            raise UnsupportedModel(
                "{file}: {key} is {shown}; only {row} is supported, the result of the pooling",
                file=file,
                key=key,
                shown=shown(config[key]),
                row=ROW,
            )


def _width(file: str, config: Json, key: str) -> int:
    found = whole_number(file, config, key, None)
    if not 1 <= found <= MOST_DIMENSIONS:
        raise CorruptFile(
            "{file}: {key} {shown} is outside 1 to {most}",
            file=file,
            key=key,
            shown=shown(found),
            most=MOST_DIMENSIONS,
        )
    return found


def _activation(file: str, config: Json) -> str:
    named = config.get("activation_function")
    known = ACTIVATION.fullmatch(named) if isinstance(named, str) else None
    if known is None or known[1] not in ACTIVATIONS:
        raise UnsupportedModel(
            "{file}: activation_function is {shown}; only {known} of torch.nn are supported",
            file=file,
            shown=shown(named),
            known=tuple(ACTIVATIONS),
        )
    return ACTIVATIONS[known[1]]


def dense_of(tail: Sequence[Step]) -> list[Dense]:
    """Return the layers among the steps, in their order."""
    return [step for step in tail if isinstance(step, Dense)]


def tail_tensors(tail: Sequence[Step]) -> Shapes:
    """Return name -> shape of the tensors of all layers."""
    return {name: shape for dense in dense_of(tail) for name, shape in dense.tensors().items()}


def tail_width(tail: Sequence[Step], width: int) -> int:
    """Return how many numbers the steps make of a row of `width`; raises ShapeMismatch."""
    for dense in dense_of(tail):
        if dense.inputs != width:
            raise ShapeMismatch(
                "{folder}/config.json: in_features is {inputs}, but the layer reads rows of {width}",
                folder=dense.folder,
                inputs=dense.inputs,
                width=width,
            )
        width = dense.outputs
    return width


def read_tail_tensors(
    folder: ModelFolder, tail: Sequence[Step], *, allow_pickle: bool
) -> StoredTensors:
    """Return the tensors of all layers, not yet compared with `tail_tensors`; raises an ExportError."""
    tensors = StoredTensors()
    for dense in dense_of(tail):
        path = weight_file(folder, dense.folder, allow_pickle=allow_pickle)
        found = read_tensors([path], dense.tensor)
        if unknown := sorted(found.keys() - dense.tensors().keys()):
            raise ShapeMismatch(
                "{path} holds the tensor {shown}, which a Dense layer with these settings does not have",
                path=path,
                shown=shown(unknown[0].removeprefix(dense.tensor(""))),
            )
        tensors.update(found)
    return tensors
