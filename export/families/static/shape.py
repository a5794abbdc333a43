"""The tables of static embeddings: what their files hold, and what must fit together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from export.errors import CorruptFile, ShapeMismatch, UnsupportedModel
from export.source.json_file import Json, size
from export.source.tensors import FloatArray, Tensors
from server.inference.manifest import MOST_DIMENSIONS
from server.messages.message import Message

# The vectors; what each token's vector is multiplied by; the row of each token's vector, where tokens share rows.
ROWS, WEIGHTS, MAPPING = "embeddings", "weights", "mapping"


@dataclass(frozen=True, slots=True)
class StaticShape:
    """The sizes of the tables.

    vocabulary: the ids that the tokenizer gives are below it. rows, hidden: of the table, 0 where only the
    weights say it. positions: the tokens of the longest text. alone: the vectors are all that is read.
    """

    vocabulary: int
    positions: int
    rows: int = 0
    hidden: int = 0
    weights: int = 0
    alone: bool = False

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of the tables of float32 numbers."""
        if not self.hidden:
            return {}
        weights = {WEIGHTS: (self.weights,)} if self.weights else {}
        return {ROWS: (self.rows, self.hidden), **weights}


def read_shape(config: Json, vocabulary: int, max_tokens: int) -> StaticShape:
    """Return what is known before the weights are.

    config: of model2vec, or empty for a model of sentence-transformers, which reads the vectors alone.
    """
    hidden = size(config, "hidden_dim", 0, most=MOST_DIMENSIONS, least=0)
    rows = size(config, "vocabulary_quantization", vocabulary)
    return StaticShape(vocabulary, max_tokens, rows if hidden else 0, hidden, alone=not config)


def complete(shape: StaticShape, stored: Tensors) -> tuple[StaticShape, Tensors]:
    """Return the shape as the tables say it, and the tables; raises ShapeMismatch or CorruptFile."""
    tables = StaticTables(stored, (ROWS,) if shape.alone else (ROWS, WEIGHTS, MAPPING))
    if ROWS not in tables:
        raise ShapeMismatch(
            "tensor {name} {what}; config.json asks for {expected}",
            name=ROWS,
            what=Message("is missing"),
            expected=Message("a vector for each token"),
        )
    sizes = {name: tables[name].shape for name in tables}
    if len(sizes[ROWS]) != 2 or not 1 <= sizes[ROWS][1] <= MOST_DIMENSIONS:
        raise _wrong(ROWS, sizes[ROWS])
    for name in {WEIGHTS, MAPPING} & sizes.keys():
        if len(sizes[name]) != 1:
            raise _wrong(name, sizes[name])
    rows, hidden = sizes[ROWS]
    for name in (MAPPING if MAPPING in sizes else ROWS, WEIGHTS):
        if name in sizes and sizes[name][0] < shape.vocabulary:
            raise ShapeMismatch(
                "{name} has {rows} rows, and the tokenizer gives ids up to {last}",
                name=name,
                rows=sizes[name][0],
                last=shape.vocabulary - 1,
            )
    if MAPPING in sizes:
        _check_mapping(tables[MAPPING], rows)
    weights = sizes[WEIGHTS][0] if WEIGHTS in sizes else 0
    return replace(shape, rows=rows, hidden=hidden, weights=weights), tables


def _wrong(name: str, shape: tuple[int, ...]) -> ShapeMismatch:
    return ShapeMismatch(
        "tensor {name} {what}; config.json asks for {expected}",
        name=name,
        what=Message("has shape {shape}", shape=str(shape)),
        expected=Message("a vector for each token")
        if name == ROWS
        else Message("a number for each token"),
    )


def _check_mapping(mapping: FloatArray, rows: int) -> None:
    if mapping.dtype.kind not in "iu":
        raise UnsupportedModel(
            "tensor {name} holds numbers of the type {kind}, not whole numbers",
            name=MAPPING,
            kind=str(mapping.dtype),
        )
    if mapping.size and not (0 <= int(mapping.min()) and int(mapping.max()) < rows):
        raise CorruptFile(
            "tensor {name} names rows from {least} to {most}, and there are {rows}",
            name=MAPPING,
            least=int(mapping.min()),
            most=int(mapping.max()),
            rows=rows,
        )


class StaticTables(Mapping[str, FloatArray]):
    """The tables of a file; vectors of whole numbers in 8 bits mean these numbers, as model2vec reads them."""

    def __init__(self, stored: Tensors, names: tuple[str, ...]) -> None:
        self._stored = stored
        self._names = [name for name in names if name in stored]

    def __getitem__(self, name: str) -> FloatArray:
        if name not in self._names:
            raise KeyError(name)
        table = self._stored[name]
        if name != MAPPING and table.dtype == np.int8:
            return table.astype(np.float32)
        return table

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def tensor_name(stored: str) -> str:
    """Return model2vec's name of a table, which sentence-transformers calls otherwise."""
    return {"embedding.weight": ROWS}.get(stored, stored)
