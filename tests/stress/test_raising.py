"""A computation that raises, for real: a token that the model's table does not have."""

import json
import shutil
from pathlib import Path

import httpx
import pytest

from server.inference.manifest import MANIFEST_FILE, TOKENIZER_FILE, file_sha256
from tests.support.processes import serving
from tests.support.toys import VOCABULARY

pytestmark = [pytest.mark.slow, pytest.mark.stress]
STRANGE = "龘"


@pytest.fixture
def artifact_that_raises(toy_artifact: Path, tmp_path: Path) -> Path:
    """The toy artifact, whose tokenizer knows one character more than its graph."""
    folder = shutil.copytree(toy_artifact, tmp_path / "onnx-int8")
    path = folder / TOKENIZER_FILE
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"][STRANGE] = 10 * len(VOCABULARY)
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    manifest["files"][TOKENIZER_FILE] = file_sha256(path)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def embed(client: httpx.Client, *texts: str) -> httpx.Response:
    return client.post("/embed", json={"texts": texts})


def test_computation_that_raises_is_a_500_and_the_lane_goes_on(
    artifact_that_raises: Path, tmp_path: Path
) -> None:
    with serving(artifact_that_raises, tmp_path) as server, server.client() as client:
        usual = embed(client, "墨池").json()["vectors"]
        for count in range(1, 21):
            # One text runs on the event loop, several on a lane.
            answer = embed(client, *["墨" + STRANGE] * (1 + count % 2))
            assert answer.status_code == 500
            assert answer.json()["error"]["code"] == "inference_failed"
            assert embed(client, "墨池").json()["vectors"] == usual
            assert server.metric("failed_batches_total") == count
        documents = [{"id": "a", "text": "墨池"}, {"id": "b", "text": STRANGE}]
        assert client.post("/documents", json={"documents": documents}).status_code == 500
        # A write is whole or not at all.
        assert client.post("/documents/count", json={}).json() == {"count": 0}
        assert "Traceback" in server.log.read_text()
        assert STRANGE not in server.log.read_text()
