"""The options of an export, as a value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.verify import Thresholds


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of one export; see `python -m export --help`."""

    source: str
    out: Path | None = None
    precision: Literal["int8", "fp32"] = "int8"
    weight_bits: int = 8
    calibration: Path | None = None
    verify_texts: Path | None = None
    thresholds: Thresholds = Thresholds()
    model_id: str | None = None
    revision: str = "main"
    query_instruction: str | None = None
    document_instruction: str | None = None
    matryoshka: tuple[int, ...] = ()
    max_tokens: int | None = None
    via: Literal["graph", "optimum"] = "graph"
    allow_pickle: bool = False
    force: bool = False
