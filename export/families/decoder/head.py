"""Heads of decoders that score pairs: from the last token's row to one number.

A language model that answers yes or no has a head with a row for every word. Its score is the probability of
yes beside no: the sigmoid of the difference of two numbers, and so of what one row gives, that of yes
less that of no. No other row becomes a part of the artifact.
"""

from dataclasses import dataclass

from export.graph import GraphWriter
from export.source.tensors import FloatArray, Shapes, Tensors

SCORE = "score.weight"


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """The head of a ForSequenceClassification with one label, which has no bias."""

    def tensors(self, vocabulary: int, hidden: int) -> Shapes:
        """Return name -> shape of the tensors."""
        del vocabulary
        return {SCORE: (1, hidden)}

    def write(self, graph: GraphWriter, rows: str, tensors: Tensors, output: str) -> None:
        (row,) = tensors[SCORE]
        _write(graph, rows, row, output)


@dataclass(frozen=True, slots=True)
class AnswerRows:
    """Two rows of a language model's head.

    table: the name of the head's tensor. yes, no: token ids; no is None where the number of yes alone counts.
    """

    table: str
    yes: int
    no: int | None

    def tensors(self, vocabulary: int, hidden: int) -> Shapes:
        """Return name -> shape of the tensors."""
        return {self.table: (vocabulary, hidden)}

    def write(self, graph: GraphWriter, rows: str, tensors: Tensors, output: str) -> None:
        table = tensors[self.table]
        row = table[self.yes] - (0 if self.no is None else table[self.no])
        _write(graph, rows, row, output)


def _write(graph: GraphWriter, rows: str, row: FloatArray, output: str) -> None:
    """Write the products of `rows` (B, D), of the last tokens, with one row, float32 (D,)."""
    graph.node("MatMul", [rows, graph.floats(SCORE, row[:, None])], output)
