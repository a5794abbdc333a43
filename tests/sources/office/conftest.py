"""Fixtures of the tests of office files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from server.sources.office.given import Given
from server.sources.source import Options, Source

Give = Callable[[str, bytes], Given]


@pytest.fixture
def give() -> Give:
    """Return a file as a reader gets it."""

    def given(name: str, data: bytes, options: Options | None = None) -> Given:
        source = Source(name, (Path(name),), Path(), len(data), options or Options())
        return Given(name, name, data, source)

    return given
