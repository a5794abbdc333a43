"""Downloads from a stand-in of ModelScope on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from export.errors import DownloadFailed, ExportError, NoSuchModel
from export.inspection import subject
from export.settings import Settings
from export.source.hubs.hub import fetch
from export.source.model import locate
from server.messages.message import Message
from tests.support.downloads import VARIABLES, files_in, looks_complete
from tests.support.stand_in_hub import MODEL, NEEDED, run
from tests.support.stand_in_modelscope import COMMIT, StandInModelScope
from tests.support.toys import write_toy_checkpoint

pytest.importorskip("requests", reason="needs the export extra")

SOURCE = f"modelscope:{MODEL}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInModelScope]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield from run(StandInModelScope())


@pytest.fixture
def other_host() -> Iterator[StandInModelScope]:
    yield from run(StandInModelScope())


def refused(kind: type[ExportError], hub: StandInModelScope, folder: Path, **options: Any) -> str:
    """Fetch, expect a refusal in both languages, and return the English one."""
    with pytest.raises(kind) as caught:
        fetch(SOURCE, folder, **{"endpoint": hub.url, **options})
    assert not looks_complete(folder)
    assert any("\u4e00" <= letter <= "\u9fff" for letter in caught.value.chinese)
    return caught.value.english


def test_fetches_what_the_exporter_reads_at_one_commit(
    hub: StandInModelScope, tmp_path: Path
) -> None:
    said: list[str] = []
    folder, commit = fetch(SOURCE, tmp_path / "tiny", endpoint=hub.url, progress=said.append)
    assert (files_in(folder), commit) == (NEEDED, COMMIT)
    assert sorted(hub.sent()) == sorted(NEEDED)
    revisions = {query["Revision"] for _, query, _ in hub.seen if "Revision" in query}
    assert revisions == {COMMIT}
    assert said[-1] == "someone/tiny-model 89abcdef: model.safetensors, 0.1 MB"


def test_second_download_asks_for_the_list_only(hub: StandInModelScope, tmp_path: Path) -> None:
    fetch(SOURCE, tmp_path, endpoint=hub.url)
    hub.seen.clear()
    fetch(SOURCE, tmp_path, endpoint=hub.url, revision=COMMIT)
    assert [path.rpartition("/")[2] for path, _, _ in hub.seen] == ["files"]


@pytest.mark.parametrize("variable", ["MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"])
def test_model_is_kept_apart_from_the_one_of_that_name_on_another_hub(
    hub: StandInModelScope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, hub.url)
    hub.files = files_in(write_toy_checkpoint(tmp_path / "toy"))
    said: list[Message] = []
    place = locate(Settings(SOURCE), said.append)
    assert place.folder == Path("models/.hub/modelscope:someone/tiny-model")
    assert (place.outputs, place.revision) == (Path("models/tiny-model"), COMMIT)
    assert (place.model_id, place.origin) == (MODEL, MODEL)
    assert files_in(place.folder) == hub.files
    assert "downloading someone/tiny-model 89abcdef: model.safetensors" in said[-1].english


def test_inspection_downloads_no_weights(
    hub: StandInModelScope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
    hub.files = files_in(write_toy_checkpoint(tmp_path / "toy"))
    for source in (SOURCE, f"{hub.url}/models/{MODEL}"):
        with subject(Settings(source)) as found:
            assert found.name == MODEL
            assert found.weight_bytes == len(hub.files["model.safetensors"])
    assert "config.json" in hub.sent() and "model.safetensors" not in hub.sent()


def test_truncated_file_is_resumed_from_a_part_with_status_200(
    hub: StandInModelScope, tmp_path: Path
) -> None:
    hub.cut = {"model.safetensors": 70_000}
    message = refused(DownloadFailed, hub, tmp_path)
    assert "kept and resumed" in message and "modelscope:someone/tiny-model" in message
    hub.cut = {}
    hub.seen.clear()
    fetch(SOURCE, tmp_path, endpoint=hub.url)
    assert files_in(tmp_path) == NEEDED
    assert [headers.get("range") for _, query, headers in hub.seen if "FilePath" in query] == [
        "bytes=70000-"
    ]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_content_that_does_not_have_the_listed_sha256_is_not_kept(
    hub: StandInModelScope, tmp_path: Path, name: str
) -> None:
    hub.spoilt = {name}
    assert "size or checksum" in refused(DownloadFailed, hub, tmp_path)
    hub.spoilt = set()
    fetch(SOURCE, tmp_path, endpoint=hub.url)
    assert files_in(tmp_path) == NEEDED


def test_token_goes_to_the_hub_and_not_where_it_keeps_large_files(
    hub: StandInModelScope,
    other_host: StandInModelScope,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms-secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.large_files_at = other_host.url
    fetch(SOURCE, tmp_path, endpoint=hub.url)
    assert files_in(tmp_path) == NEEDED
    sent = {(each.get("authorization"), each.get("cookie")) for _, _, each in hub.seen}
    assert sent == {("Bearer ms-secret", "m_session_id=ms-secret")}
    assert other_host.sent() == ["model.safetensors"]
    (_, _, headers), *_ = other_host.seen
    assert not {"authorization", "cookie"} & headers.keys()


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["v9", "a" * 40])
def test_unknown_revision_is_named(hub: StandInModelScope, tmp_path: Path, revision: str) -> None:
    message = refused(NoSuchModel, hub, tmp_path / "tiny", revision=revision)
    assert f'no revision "{revision}"' in message
    assert not (tmp_path / "tiny").exists()


def test_unknown_model_is_named(hub: StandInModelScope, tmp_path: Path) -> None:
    with pytest.raises(NoSuchModel, match="no model someone/missing on http://127"):
        fetch("modelscope:someone/missing", tmp_path / "tiny", endpoint=hub.url)


def test_private_model_names_the_token_variable(
    hub: StandInModelScope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms-secret")
    hub.code = 10010200001
    message = refused(DownloadFailed, hub, tmp_path)
    assert "MODELSCOPE_API_TOKEN" in message and "ms-secret" not in message


def test_listed_file_that_is_not_there_is_named(hub: StandInModelScope, tmp_path: Path) -> None:
    hub.absent = {"tokenizer.json"}
    assert "lists a file" in refused(DownloadFailed, hub, tmp_path)


def test_list_that_may_be_cut_off_is_refused(hub: StandInModelScope, tmp_path: Path) -> None:
    hub.files = NEEDED | {f"{number}.txt": b"" for number in range(3000)}
    assert "more files than the 3,000" in refused(DownloadFailed, hub, tmp_path)


ENTRY = {"Path": "config.json", "Type": "blob", "Size": 2, "Sha256": "0" * 64}
ODD: list[tuple[str, Any]] = [
    ("commits", None),
    ("commits", {"Commit": [{"Id": "../../master"}]}),
    ("commits", {"Commit": [{"Id": 7}]}),
    ("commits", {"Commit": {"Id": COMMIT}}),
    ("repo/files", None),
    ("repo/files", {"Files": None}),
    ("repo/files", {"Files": [1]}),
    ("repo/files", {"Files": [ENTRY | {"Path": None}]}),
    ("repo/files", {"Files": [ENTRY | {"Size": "2"}]}),
    ("repo/files", {"Files": [ENTRY | {"Size": -1}]}),
    ("repo/files", {"Files": [{"Path": "config.json"}]}),
]


@pytest.mark.parametrize(("place", "data"), ODD, ids=json.dumps)
def test_odd_answers_are_refused(
    hub: StandInModelScope, tmp_path: Path, place: str, data: Any
) -> None:
    hub.answers = {place: data}
    assert "does not answer as a model hub does" in refused(DownloadFailed, hub, tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_names_that_leave_the_folder_are_not_asked_for(
    hub: StandInModelScope, tmp_path: Path
) -> None:
    hub.files |= {"../evil.json": b"", "/etc/evil.json": b""}
    fetch(SOURCE, tmp_path / "tiny", endpoint=hub.url)
    assert files_in(tmp_path) == {f"tiny/{name}": NEEDED[name] for name in NEEDED}
