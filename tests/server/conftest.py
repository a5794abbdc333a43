"""What the server's tests share: the toy artifact, opened once."""

from pathlib import Path

import pytest

from server import engine
from server.encoder import Model


@pytest.fixture(autouse=True)
def lanes_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is computed on the loop, so that encoders may be stopped; tests of that undo it."""
    monkeypatch.setattr(engine, "LONE_TOKENS", 0)


@pytest.fixture(scope="session")
def toy_model(toy_artifact: Path) -> Model:
    """Not to be changed: `with_parts` makes a copy with other parts."""
    return Model(toy_artifact)
