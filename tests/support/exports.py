"""Settings of an export of a toy checkpoint, and what such an export leaves."""

import dataclasses
from pathlib import Path
from typing import Any

from export.settings import Settings
from export.verification.verify import Thresholds
from tests.support.toys import write_toy_checkpoint, write_toy_texts


def toy_settings(folder: Path) -> Settings:
    """Return an int8 export of a checkpoint that the test may change, beside its texts."""
    return Settings(
        source=str(write_toy_checkpoint(folder / "toy")),
        calibration=write_toy_texts(folder / "calibration.txt", 40),
        verify_texts=write_toy_texts(folder / "verification.txt", 20, seed=1),
        thresholds=Thresholds(mean=0.99, minimum=0.9),
    )


def change(settings: Settings, **values: Any) -> Settings:
    """Return the settings with other values."""
    return dataclasses.replace(settings, **values)


def artifact_files(folder: Path) -> dict[str, bytes]:
    """Return the content of each file by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
