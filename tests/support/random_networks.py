"""Networks of random sizes and weights as the kernels read them, without an export.

python -m tests.support.random_networks LIBRARY SECONDS SEED computes batches with a library, such as one that was
compiled with AddressSanitizer, and prints how many.
"""

import sys
import time
from pathlib import Path

import numpy as np

from server.inference.kernels.library import Network, open_library
from server.inference.kernels.plan import (
    BlockLinear,
    FirstRows,
    Layer,
    Linear,
    Norm,
    Plan,
    Quantiser,
)

BLOCK = 128


class RandomPlan:
    """Draws the parts of a network; width: of a row."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.heads = int(self.random.integers(1, 5))
        self.width = self.heads * 32 * int(self.random.integers(1, 4))
        self.feed = BLOCK * int(self.random.integers(1, 5))
        self.vocabulary = int(self.random.integers(1, 200))
        self.positions = int(self.random.integers(1, 300))

    def plan(self) -> Plan:
        random, layers = self.random, int(self.random.integers(1, 4))
        cls = bool(random.integers(2))
        last = layers - 1
        return Plan(
            words=random.integers(-128, 128, (self.vocabulary, self.width)).astype(np.int8),
            word_scale=self.floats(self.vocabulary),
            positions=self.floats(self.positions, self.width),
            embedded=self.norm(read=layers > 1 or not cls),
            layers=[
                self.layer(first_rows=cls and place == last, read=place + (2 if cls else 1) <= last)
                for place in range(layers)
            ],
            heads=self.heads,
            long_from=int(random.integers(1, 200)),
            normalised=bool(random.integers(2)),
        )

    def floats(self, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return self.random.standard_normal(shape).astype(np.float32)

    def linear(self, inputs: int, outputs: int) -> Linear:
        weight = self.random.integers(-128, 128, (inputs, outputs)).astype(np.int8)
        return Linear(weight, self.floats(outputs) / 1e4, self.floats(outputs))

    def block_linear(self) -> BlockLinear:
        weight = self.random.integers(-128, 128, (self.feed, self.width)).astype(np.int8)
        return BlockLinear(
            weight, self.floats(self.feed // BLOCK, self.width) / 1e2, self.floats(self.width)
        )

    def quantiser(self, width: int) -> Quantiser:
        return Quantiser(np.abs(self.floats(width)) * 30, float(self.random.integers(0, 256)))

    def norm(self, *, read: bool) -> Norm:
        quantiser = self.quantiser(self.width) if read else None
        return Norm(self.floats(self.width), self.floats(self.width), 1e-12, quantiser)

    def layer(self, *, first_rows: bool, read: bool) -> Layer:
        width, by_block = self.width, first_rows and bool(self.random.integers(2))
        steps = tuple(float(each) for each in self.random.uniform(0.01, 0.1, 3))
        in_bytes = not first_rows and bool(self.random.integers(2))
        return Layer(
            qkv=self.first_rows() if first_rows else self.linear(width, 3 * width),
            steps=(steps[0], steps[1], steps[2]) if in_bytes else None,
            context=self.quantiser(width),
            out=self.linear(width, width),
            after_attention=self.norm(read=True),
            up=self.linear(width, self.feed),
            active=None if by_block else self.quantiser(self.feed),
            down=self.block_linear() if by_block else self.linear(self.feed, width),
            after_feed=self.norm(read=read),
        )

    def first_rows(self) -> FirstRows:
        width, of_head = self.width, self.width // self.heads
        return FirstRows(
            self.quantiser(width),
            self.linear(width, width),
            self.quantiser(width),
            [self.linear(of_head, width) for _ in range(self.heads)],
            self.quantiser(width),
            [self.linear(width, of_head) for _ in range(self.heads)],
        )


def run(library: Path, seconds: float, seed: int) -> int:
    """Compute batches of random networks and return how many; raises where vectors differ by company or threads."""
    loaded, deadline, batches = open_library(library), time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        drawn = RandomPlan(seed)
        network = Network(drawn.plan(), loaded)
        for _ in range(4):
            lengths = drawn.random.integers(1, drawn.positions + 1, drawn.random.integers(1, 20))
            texts = [drawn.random.integers(0, drawn.vocabulary, length) for length in lengths]
            found = network.encode(texts, int(drawn.random.integers(1, 4)))
            one = int(drawn.random.integers(len(texts)))
            if network.encode([texts[one]]).tobytes() != found[one].tobytes():
                raise SystemExit(f"a vector depends on its company, seed {seed}")
            batches += 2
        seed += 1
    return batches


if __name__ == "__main__":
    sys.stdout.write(f"{run(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))}\n")
