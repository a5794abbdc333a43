"""The options of an export, as a value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.verify import DEFAULTS, Thresholds
from server.types import Task


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of one export; see `python -m export --help`."""

    source: str
    out: Path | None = None
    precision: Literal["int8", "fp32"] = "int8"
    weight_bits: int = 8
    calibration: Path | None = None
    verify_texts: Path | None = None
    thresholds: Thresholds | None = None
    model_id: str | None = None
    revision: str = "main"
    query_instruction: str | None = None
    document_instruction: str | None = None
    # None: those that are known of the model.
    matryoshka: tuple[int, ...] | None = None
    # What texts are cut to; None: what the model reads.
    max_tokens: int | None = None
    via: Literal["graph", "optimum"] = "graph"
    allow_pickle: bool = False
    force: bool = False

    def thresholds_of(self, task: Task) -> Thresholds:
        """Return the agreement that is needed, by default that of the task."""
        return self.thresholds or DEFAULTS[task]
