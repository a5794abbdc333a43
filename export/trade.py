"""What an artifact costs and gives beside float32, for each precision that was tried: a table."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from server.inference.manifest import Agreement
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.types import Encoder, Ids

# Texts that are timed, and how often: the least time of each text counts, as the machine does other work.
TIMED_TEXTS, ROUNDS = 24, 5


@dataclass(frozen=True, slots=True)
class Trade:
    """One precision that was tried. speed: how many times as fast as float32."""

    precision: str
    megabytes: float
    speed: float
    agreement: Agreement
    refused: bool


def measure_speed(reference: Encoder, served: Encoder, token_ids: Sequence[Ids]) -> float:
    """Return how many times as fast as the reference an encoder reads single texts."""
    order = sorted(token_ids, key=len)
    chosen = order[:: max(1, len(order) // TIMED_TEXTS)]
    least = np.full((2, len(chosen)), np.inf)
    for _ in range(ROUNDS):
        for text, ids in enumerate(chosen):
            for row, encoder in enumerate((reference, served)):
                started = time.perf_counter()
                encoder.encode([ids])
                least[row, text] = min(least[row, text], time.perf_counter() - started)
    exact, found = least.sum(axis=1)
    return float(exact / found)


def show(trades: Sequence[Trade], terminal: Terminal) -> None:
    """Print one line a precision."""
    for trade in trades:
        terminal.say(
            "{precision:<10} {megabytes:>8.1f} MB, {speed:.1f} times as fast as float32; mean {mean:.5f}, "
            "minimum {minimum:.4f}; {verdict}",
            precision=trade.precision,
            megabytes=trade.megabytes,
            speed=trade.speed,
            mean=trade.agreement.mean,
            minimum=trade.agreement.minimum,
            verdict=Message("refused") if trade.refused else Message("taken"),
        )
