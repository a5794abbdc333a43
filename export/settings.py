"""The options of an export, as a value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.verification.verify import DEFAULTS, Thresholds
from server.types import Task

# int8-rows: activations are scaled by row where they are quantised. int4: 4-bit weights in the feed-forward layers of
# a decoder, which lose much. fp16: float32 with 16-bit weights.
Precision = Literal["auto", "int8", "int8-rows", "int4", "fp16", "fp32"]
# What "auto" tries, the fastest first, until verification accepts one.
TRIED: tuple[Precision, ...] = ("int8", "int8-rows", "fp16")


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of one export; see `python -m export --help`.

    revision: on a hub; None for its default.
    """

    source: str
    out: Path | None = None
    precision: Precision = "int8"
    weight_bits: int = 8
    calibration: Path | None = None
    verify_texts: Path | None = None
    thresholds: Thresholds | None = None
    model_id: str | None = None
    revision: str | None = None
    query_instruction: str | None = None
    document_instruction: str | None = None
    # None: those that are known of the model.
    matryoshka: tuple[int, ...] | None = None
    # What texts are cut to; None: what the model reads.
    max_tokens: int | None = None
    # What the artifact gives; None: what the model was made for.
    task: Task | None = None
    # The prompt in which the model reads pairs; None: what its files show.
    pair_prompt: str | None = None
    # The original tokenizer of a GGUF file: tokenizer.json, or a folder with it.
    tokenizer: Path | None = None
    via: Literal["graph", "optimum"] = "graph"
    allow_pickle: bool = False
    force: bool = False

    @property
    def in_whole_numbers(self) -> bool:
        """Return whether weights become whole numbers."""
        return self.precision.startswith("int")

    def thresholds_of(self, task: Task) -> Thresholds:
        """Return the agreement that is needed, by default that of the task."""
        return self.thresholds or DEFAULTS[task]
