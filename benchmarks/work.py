"""How many operations a batch needs, from the model's shape: what an encoder's speed is judged by.

Counted are the products of matrices, a multiply-add being two operations: those with weights, which
an int8 artifact computes in int8, and those of attention, which it computes in float32. Not counted is
what costs time but no such products: normalisation, activation, softmax, quantising.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peak import Peak
from export.checkpoint import read_json
from server.inference.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Work:
    """Operations; int8_attention: those of attention whose numbers are int8."""

    weights: float
    attention: float
    int8_attention: float = 0.0

    def bound_s(self, peak: Peak, *, int8: bool) -> float:
        """Seconds that the products alone take at the CPU's peak: no encoder can need less."""
        weights_gops = peak.int8_gops if int8 else peak.fp32_gflops
        in_int8 = self.weights / weights_gops + self.int8_attention / peak.int8_gops
        return (in_int8 + self.attention / peak.fp32_gflops) / 1e9


@dataclass(frozen=True, slots=True)
class Network:
    """A BERT encoder's shape.

    first_row: of the last layer only that is computed after the keys. int8_above: texts of more tokens have
    their attention in int8, except from a first row; None for none.
    """

    layers: int
    hidden: int
    intermediate: int
    first_row: bool
    int8_above: int | None = None

    def work(self, lengths: Iterable[int]) -> Work:
        """lengths: tokens of each text of the batch."""
        square = 2.0 * self.hidden * self.hidden
        wide = 2.0 * 2 * self.hidden * self.intermediate
        weights = attention = int8_attention = 0.0
        for tokens in lengths:
            for layer in range(self.layers):
                only_first = self.first_row and layer == self.layers - 1
                rows = 1 if only_first else tokens
                # Keys and values of all tokens; query, output and feed-forward of `rows`.
                weights += 2 * square * tokens + (2 * square + wide) * rows
                products = 2.0 * 2 * rows * tokens * self.hidden
                if self.int8_above is not None and tokens > self.int8_above and not only_first:
                    int8_attention += products
                else:
                    attention += products
        return Work(weights, attention, int8_attention)


def network(artifact: Path, manifest: Manifest) -> Network | None:
    """From the checkpoint's folder, which holds the artifact's; None where it is not as expected."""
    path = artifact.parent / "config.json"
    if manifest.family != "bert" or not path.exists():
        return None
    config, longest = read_json(path), manifest.packing.longest
    return Network(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        first_row=manifest.pooling == "cls",
        int8_above=longest if longest < manifest.text.max_tokens else None,
    )
