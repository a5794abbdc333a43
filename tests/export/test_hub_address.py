"""Ids and pasted addresses: which model on which hub is meant, and which server gets a token."""

from pathlib import Path

import pytest

from export.errors import DownloadFailed, NoSuchModel
from export.settings import Settings
from export.source.hubs.address import hub_address
from export.source.model import locate

PUBLIC, MIRROR, CHINA = (
    "https://huggingface.co",
    "https://hf-mirror.com",
    "https://www.modelscope.cn",
)
TOKENS = {"HF_TOKEN": "hf", "MODELSCOPE_API_TOKEN": "ms"}
OWN = {"HF_ENDPOINT": "http://hub.example:8080/hf/", "MODELSCOPE_DOMAIN": "scope.example"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("BAAI/bge-m3", ("BAAI/bge-m3", PUBLIC, "main", "hf")),
        ("modelscope:BAAI/bge-m3", ("modelscope:BAAI/bge-m3", CHINA, "master", "ms")),
        (f"{PUBLIC}/BAAI/bge-m3", ("BAAI/bge-m3", PUBLIC, "main", "hf")),
        (f"{PUBLIC}/BAAI/bge-m3/", ("BAAI/bge-m3", PUBLIC, "main", "hf")),
        (f"{PUBLIC}/BAAI/bge-m3/tree/main", ("BAAI/bge-m3", PUBLIC, "main", "hf")),
        (f"{PUBLIC}/BAAI/bge-m3/tree/refs%2Fpr%2F1", ("BAAI/bge-m3", PUBLIC, "refs/pr/1", "hf")),
        (f"{PUBLIC}/BAAI/bge-m3?library=x#usage", ("BAAI/bge-m3", PUBLIC, "main", "hf")),
        ("http://me:word@HF.co/BAAI/bge-m3", ("BAAI/bge-m3", PUBLIC, "main", "hf")),
        (f"{MIRROR}/BAAI/bge-m3/tree/v1", ("BAAI/bge-m3", MIRROR, "v1", "")),
        (
            "https://modelscope.cn/models/BAAI/bge-m3",
            ("modelscope:BAAI/bge-m3", CHINA, "master", "ms"),
        ),
        (f"{CHINA}/models/BAAI/bge-m3/summary", ("modelscope:BAAI/bge-m3", CHINA, "master", "ms")),
        (f"{CHINA}/models/BAAI/bge-m3/tree/v1", ("modelscope:BAAI/bge-m3", CHINA, "v1", "ms")),
        (
            "https://modelscope.ai/models/BAAI/bge-m3",
            ("modelscope:BAAI/bge-m3", "https://modelscope.ai", "master", ""),
        ),
    ],
)
def test_ids_and_pasted_addresses_are_read(source: str, expected: tuple[str, ...]) -> None:
    found = hub_address(source, environ=TOKENS)
    assert (found.name, found.endpoint, found.revision, found.token) == expected


@pytest.mark.parametrize(
    ("source", "endpoint", "token"),
    [
        ("BAAI/bge-m3", "http://hub.example:8080/hf", "hf"),
        # A network that does not reach the public hub reaches the chosen mirror.
        (f"{PUBLIC}/BAAI/bge-m3", "http://hub.example:8080/hf", "hf"),
        ("http://hub.example:8080/BAAI/bge-m3", "http://hub.example:8080/hf", "hf"),
        (f"{MIRROR}/BAAI/bge-m3", MIRROR, ""),
        ("modelscope:BAAI/bge-m3", "https://scope.example", "ms"),
        ("https://scope.example/models/BAAI/bge-m3", "https://scope.example", "ms"),
    ],
)
def test_a_hub_of_ones_own_is_used_and_recognised(source: str, endpoint: str, token: str) -> None:
    found = hub_address(source, environ=TOKENS | OWN)
    assert (found.endpoint, found.token) == (endpoint, token)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (f"{PUBLIC}/datasets/a/b", "is not the page of a model"),
        (f"{PUBLIC}/spaces/a/b", "is not the page of a model"),
        (f"{PUBLIC}/bert-base-uncased", "is not the page of a model"),
        (f"{PUBLIC}/a/b/tree/main/onnx", "is not the page of a model"),
        (f"{PUBLIC}/a/b/blob/main/config.json", "is not the page of a model"),
        (f"{CHINA}/datasets/a/b", "is not the page of a model"),
        (f"{CHINA}/a/b", "is not the page of a model"),
        (PUBLIC, "is not the page of a model"),
        (f"{PUBLIC}/..%2F..%2Fetc/passwd", "neither a folder nor the id"),
        (f"{PUBLIC}/a/%2e%2e", "neither a folder nor the id"),
        ("modelscope:", "neither a folder nor the id"),
        ("modelscope:../b", "neither a folder nor the id"),
        ("modelscope:a/b/c", "neither a folder nor the id"),
        ("https://evil.example/BAAI/bge-m3", "evil.example is not a known model hub"),
        ("https://huggingface.co.evil.example/a/b", "is not a known model hub"),
        ("https://huggingface.co@evil.example/a/b", "evil.example is not a known model hub"),
        ("https://[", "is not a known model hub"),
        ("https://", "is not a known model hub"),
    ],
)
def test_other_addresses_are_refused(source: str, reason: str) -> None:
    with pytest.raises(NoSuchModel) as caught:
        hub_address(source, environ=TOKENS)
    assert reason in caught.value.english
    assert any("\u4e00" <= letter <= "\u9fff" for letter in caught.value.chinese)


def test_revisions_of_page_and_option_must_agree() -> None:
    page = f"{PUBLIC}/a/b/tree/v1"
    assert hub_address(page, "v1", environ={}).revision == "v1"
    with pytest.raises(NoSuchModel, match="names the revision v1, and --revision names v2"):
        hub_address(page, "v2", environ={})


def test_address_of_a_hub_that_is_none_names_its_variable() -> None:
    with pytest.raises(DownloadFailed, match="check MODELSCOPE_ENDPOINT"):
        hub_address("modelscope:a/b", environ={"MODELSCOPE_ENDPOINT": "ftp://scope.example"})


@pytest.mark.parametrize("source", ["models/none", "./a/b", "/a/b", "~/b", "a", "a/b/c"])
def test_mistyped_path_is_not_taken_for_a_model_on_a_hub(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoSuchModel, match="no model folder at"):
        locate(Settings(source))
