"""Writes what follows the pooling, the same for every family: Dense layers and normalisations.

Dense layers stay in float32 in every artifact. They read one row a text where the network reads one a token,
so int8 would save little. Their errors would reach the vector directly, with no norm or average behind them.
"""

from export.graph import GraphWriter
from export.source.sentence_settings import SentenceSettings
from export.source.tail import Dense, Normalize
from export.source.tensors import Tensors


def write_tail(
    graph: GraphWriter, row: str, settings: SentenceSettings, tensors: Tensors, output: str
) -> None:
    """Write the vectors of the pooled rows (B, D) under the name `output`, float32 (B, tail_width)."""
    steps = [*settings.tail, *([Normalize()] if settings.normalize else [])]
    for place, step in enumerate(steps, 1):
        name = output if place == len(steps) else f"tail.{place}"
        if isinstance(step, Dense):
            row = _dense(graph, row, step, tensors, name)
        else:
            row = graph.node("LpNormalization", [row], name, axis=-1, p=2)
    if not steps:
        graph.node("Identity", [row], output)


def _dense(graph: GraphWriter, row: str, dense: Dense, tensors: Tensors, output: str) -> str:
    weight, bias = dense.tensor("linear.weight"), dense.tensor("linear.bias")
    operations = [("MatMul", [graph.floats(weight, tensors[weight].T)])]
    if dense.bias:
        operations.append(("Add", [graph.floats(bias, tensors[bias])]))
    if dense.activation:
        operations.append((dense.activation, []))
    for place, (operator, constants) in enumerate(operations, 1):
        name = output if place == len(operations) else f"{output}.{operator}"
        row = graph.node(operator, [row, *constants], name)
    return row
