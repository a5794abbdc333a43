"""Operations that a batch needs, from the model's shape: the measure of an encoder's speed.

Counted are matrix products, a multiply-add as two operations: those with weights, which an int8
artifact computes in int8, and those of attention, which it computes in float32. Normalisation,
activation, softmax and quantising cost time but are not counted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peak import Peak
from export.source.json_file import read_json
from server.inference.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Work:
    """Operations of a batch; int8_attention: those of attention that are computed in int8."""

    weights: float
    attention: float
    int8_attention: float = 0.0

    def bound_s(self, peak: Peak, *, int8: bool) -> float:
        """Return the seconds the products take at the CPU's peak: no encoder needs fewer."""
        weights_gops = peak.int8_gops if int8 else peak.fp32_gflops
        in_int8 = self.weights / weights_gops + self.int8_attention / peak.int8_gops
        return (in_int8 + self.attention / peak.fp32_gflops) / 1e9


@dataclass(frozen=True, slots=True)
class Network:
    """The shape of a BERT encoder.

    first_row: the last layer computes only the first row after the keys and values. int8_above: texts
    with more tokens have int8 attention, except for a lone first row; None if no text has.
    """

    layers: int
    hidden: int
    intermediate: int
    first_row: bool
    int8_above: int | None = None

    def work(self, lengths: Iterable[int]) -> Work:
        """Return the operations of a batch; lengths: tokens of each text."""
        square = 2.0 * self.hidden * self.hidden
        wide = 2.0 * 2 * self.hidden * self.intermediate
        weights = attention = int8_attention = 0.0
        for tokens in lengths:
            for layer in range(self.layers):
                only_first = self.first_row and layer == self.layers - 1
                rows = 1 if only_first else tokens
                # Keys and values for all tokens; query, output and feed-forward for `rows`.
                weights += 2 * square * tokens + (2 * square + wide) * rows
                products = 2.0 * 2 * rows * tokens * self.hidden
                if self.int8_above is not None and tokens > self.int8_above and not only_first:
                    int8_attention += products
                else:
                    attention += products
        return Work(weights, attention, int8_attention)


def network(artifact: Path, manifest: Manifest) -> Network | None:
    """Return the shape from the checkpoint folder around the artifact; None if it is not known."""
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
