"""The head of a BERT that scores pairs: from the first row of the last layer to one number."""

from dataclasses import dataclass

from export.families.affine import affine_shapes, write_affine
from export.graph import GraphWriter
from export.source.tensors import Shapes, Tensors


@dataclass(frozen=True, slots=True)
class Head:
    """A dense layer, an activation, and a layer with one output, by the names of their tensors."""

    dense: str
    output: str
    activation: str = "Tanh"

    def tensors(self, hidden: int) -> Shapes:
        """Return name -> shape of the tensors."""
        dense = affine_shapes(self.dense, hidden, hidden)
        return dense | affine_shapes(self.output, 1, hidden)

    def write(self, graph: GraphWriter, rows: str, tensors: Tensors, output: str) -> None:
        """Write the scores of `rows` (B, D) under the name `output`, float32 (B, 1), not activated.

        In float32: it is one row a pair, and what it loses nothing after it would bring back.
        """
        dense = write_affine(graph, rows, self.dense, tensors)
        active = graph.node(self.activation, [dense], f"{self.dense}.active")
        write_affine(graph, active, self.output, tensors, output)


# Pooler and classifier of BertForSequenceClassification.
BERT_HEAD = Head("pooler.dense", "classifier")
# RobertaClassificationHead, which XLM-R and CamemBERT have too.
ROBERTA_HEAD = Head("classifier.dense", "classifier.out_proj")
DISTILBERT_HEAD = Head("pre_classifier", "classifier", "Relu")
