"""A download from the stand-in hub, what it leaves, and how it is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from export.errors import ExportError
from export.source.hubs.hub import fetch
from tests.support.stand_in_hub import MODEL, StandInHub, run

VARIABLES = (
    *("HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"),
    *("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN", "MODELSCOPE_API_TOKEN"),
)


def lone_hub(patch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    """Yield a stand-in hub; no setting of this machine leads to another one, or away from it."""
    for name in VARIABLES:
        patch.delenv(name, raising=False)
    yield from run(StandInHub())


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def looks_complete(folder: Path) -> bool:
    return (folder / "model.safetensors").exists() or (
        folder / "model.safetensors.index.json"
    ).exists()


def refused(kind: type[ExportError], hub: StandInHub, folder: Path, **options: object) -> str:
    """Fetch, expect a refusal in both languages, and return the English one."""
    with pytest.raises(kind) as caught:
        fetch(MODEL, folder, **{"endpoint": hub.url, **options})  # type: ignore[arg-type]
    assert not looks_complete(folder)
    assert any("\u4e00" <= letter <= "\u9fff" for letter in caught.value.chinese)
    assert not caught.value.english.endswith(".")
    return caught.value.english
