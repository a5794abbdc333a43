"""What the server's tests share: the toy artifact, opened once."""

from pathlib import Path

import pytest

from server.encoder import Model


@pytest.fixture(scope="session")
def toy_model(toy_artifact: Path) -> Model:
    """Not to be changed: `with_parts` makes a copy with other parts."""
    return Model(toy_artifact)
