"""What an artifact costs and gives beside float32, for each precision that was tried: a table and a plot."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from server.inference.manifest import Agreement
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.types import Encoder, Ids

# Texts that are timed, and how often: the least time of each text counts, as the machine does other work.
TIMED_TEXTS, ROUNDS = 24, 5
# ASCII: a terminal that lacks a character shows an escape of several instead.
BAR, LONGEST_BAR = "#", 40


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
    """Print a table with a line for each precision that was tried, if any, and a plot of the same numbers."""
    if not trades:
        return
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
    _plot(
        Message("size in MB"), ".1f", {each.precision: each.megabytes for each in trades}, terminal
    )
    _plot(
        Message("speed, where float32 has 1"),
        ".2f",
        {each.precision: each.speed for each in trades},
        terminal,
    )
    distances = {each.precision: 1 - each.agreement.mean for each in trades}
    _plot(Message("distance to float32, 1 - mean"), ".5f", distances, terminal)


def _plot(title: Message, form: str, values: Mapping[str, float], terminal: Terminal) -> None:
    """Print a bar for each precision, the longest for the largest value."""
    terminal.say(title)
    most = max(values.values())
    for precision, value in values.items():
        # A value of 0 has no bar, and a cosine may round to a little more than 1.
        bar = BAR * round(LONGEST_BAR * max(0.0, value) / most) if most > 0 else ""
        terminal.say(
            "  {precision:<10} {bar} {value}",
            precision=precision,
            bar=bar.ljust(LONGEST_BAR),
            value=format(value, form),
        )
