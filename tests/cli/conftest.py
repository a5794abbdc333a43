"""Commands on a data folder in this process, and on one that a running server uses."""

from pathlib import Path

import pytest

from tests.support.commands import Commands, commands


@pytest.fixture(params=["here", "by a server"])
def either(
    request: pytest.FixtureRequest,
    run: Commands,
    served: Path,
    toy_artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Commands:
    """Return commands on a new folder, and then on `served`, the folder of the module's server."""
    if request.param == "here":
        return run
    return commands(toy_artifact, served, monkeypatch, capsys)
