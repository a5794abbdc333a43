"""Downloads from a stand-in hub on this machine: what is fetched, what is refused, and how."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from export.errors import (
    CannotWrite,
    CorruptFile,
    DownloadFailed,
    MissingPackage,
    NoSuchModel,
    UnsupportedModel,
)
from export.source.hubs.hub import fetch
from tests.support.artifacts import names
from tests.support.downloads import files_in, lone_hub, refused
from tests.support.stand_in_hub import COMMIT, MODEL, MODULES, NEEDED, WEIGHTS, StandInHub, run

pytest.importorskip("requests", reason="needs the export extra")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    yield from lone_hub(monkeypatch)


@pytest.fixture
def other_host() -> Iterator[StandInHub]:
    yield from run(StandInHub())


# --- what comes ----------------------------------------------------------------------------------


def test_fetches_what_the_exporter_reads_and_nothing_else(hub: StandInHub, tmp_path: Path) -> None:
    said: list[str] = []
    folder, commit = fetch(MODEL, tmp_path / "tiny", endpoint=hub.url, progress=said.append)
    assert (folder, commit) == (tmp_path / "tiny", COMMIT)
    assert files_in(folder) == NEEDED
    assert sorted(hub.sent()) == sorted(NEEDED)
    assert len(said) == len(NEEDED)
    assert said[-1] == "someone/tiny-model 01234567: model.safetensors, 0.1 MB"


def test_download_of_a_large_file_says_every_few_seconds_how_much_is_there(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.source.hubs.hub.LINE_EVERY_S", 0.0)
    said: list[str] = []
    fetch(MODEL, tmp_path / "tiny", endpoint=hub.url, progress=said.append)
    lines = [line for line in said if line.startswith("model.safetensors: ")]
    assert lines and all(re.fullmatch(r"model\.safetensors: \d+ / \d+ MB", each) for each in lines)


def test_pasted_address_of_a_page_and_its_revision_are_read(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    for page in (hub.url, "https://huggingface.co"):
        fetch(f"{page}/{MODEL}/tree/main", tmp_path)
        assert files_in(tmp_path) == NEEDED
    with pytest.raises(NoSuchModel, match='no revision "v9"'):
        fetch(f"{hub.url}/{MODEL}/tree/v9", tmp_path)


def test_the_endpoint_comes_from_the_variable_of_hub_mirrors(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url + "/")
    fetch(MODEL, tmp_path / "tiny")
    assert files_in(tmp_path / "tiny") == NEEDED


def test_a_mirror_that_lists_no_hashes_is_asked_for_each_file(
    hub: StandInHub, tmp_path: Path
) -> None:
    hub.lists_digests = False
    fetch(MODEL, tmp_path, endpoint=hub.url)
    assert files_in(tmp_path) == NEEDED
    hub.spoilt = {"config.json"}
    (tmp_path / "config.json").unlink()
    with pytest.raises(DownloadFailed, match=r"config\.json of someone/tiny-model is not the file"):
        fetch(MODEL, tmp_path, endpoint=hub.url)


def test_shards_come_with_their_index_which_is_placed_last(hub: StandInHub, tmp_path: Path) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": shards[0], "b": shards[1], "c": shards[0]}}
    del hub.files["model.safetensors"]
    hub.files |= {name: name.encode() for name in shards}
    hub.files["model.safetensors.index.json"] = json.dumps(index).encode()
    hub.cut = {shards[1]: 3}
    refused(DownloadFailed, hub, tmp_path)
    hub.cut = {}
    fetch(MODEL, tmp_path, endpoint=hub.url)
    assert {name for name in files_in(tmp_path) if "safetensors" in name} == {
        *shards,
        "model.safetensors.index.json",
    }
    del hub.files[shards[1]]
    assert shards[1] in refused(NoSuchModel, hub, tmp_path / "again")


def test_a_pickle_comes_only_when_allowed(hub: StandInHub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    assert "--allow-pickle" in refused(NoSuchModel, hub, tmp_path)
    assert hub.sent() == []
    fetch(MODEL, tmp_path, endpoint=hub.url, allow_pickle=True)
    assert (tmp_path / "pytorch_model.bin").read_bytes() == b"pickle"


def test_a_safetensors_file_is_preferred_to_an_allowed_pickle(
    hub: StandInHub, tmp_path: Path
) -> None:
    fetch(MODEL, tmp_path, endpoint=hub.url, allow_pickle=True)
    assert files_in(tmp_path) == NEEDED


@pytest.mark.parametrize("path", ["../outside", "/outside", "1_Pooling/../..", "a\0b", "a\nb"])
def test_modules_that_leave_the_folder_are_refused(
    hub: StandInHub, tmp_path: Path, path: str
) -> None:
    hub.files["modules.json"] = json.dumps([MODULES[0], {**MODULES[1], "path": path}]).encode()
    hub.files |= {f"{path}/config.json": b"{}", "outside/config.json": b"{}"}
    assert "plain folder name" in refused(UnsupportedModel, hub, tmp_path / "tiny")
    assert hub.sent() == ["modules.json"]
    assert names(tmp_path) == {"tiny"}


@pytest.mark.parametrize(
    "name",
    [
        "../evil.safetensors",
        "onnx-fp32/model.onnx",
        "onnx-int8/a.safetensors",
        "/etc/a.safetensors",
    ],
)
def test_shards_that_are_no_plain_names_are_refused(
    hub: StandInHub, tmp_path: Path, name: str
) -> None:
    del hub.files["model.safetensors"]
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": name}}
    hub.files |= {name: b"planted", "model-00001-of-00002.safetensors": b"good"}
    hub.files["model.safetensors.index.json"] = json.dumps(index).encode()
    assert name in refused(CorruptFile, hub, tmp_path / "tiny")
    assert name not in hub.sent()
    assert not any(b"planted" in content for content in files_in(tmp_path).values())


def test_network_in_a_folder_of_its_own_is_fetched_with_its_settings(
    hub: StandInHub, tmp_path: Path
) -> None:
    inside = ("config.json", "sentence_bert_config.json", "tokenizer.json", "model.safetensors")
    moved = {f"0_Transformer/{name}": hub.files[name] for name in inside}
    hub.files["modules.json"] = json.dumps(
        [{**MODULES[0], "path": "0_Transformer"}, MODULES[1]]
    ).encode()
    hub.files |= moved
    fetch(MODEL, tmp_path, endpoint=hub.url)
    expected = {*moved, "modules.json", "1_Pooling/config.json"}
    assert set(files_in(tmp_path)) == expected
    del hub.files["0_Transformer/model.safetensors"]
    message = refused(NoSuchModel, hub, tmp_path / "again")
    assert "has no 0_Transformer/model.safetensors" in message


# --- what is already there -----------------------------------------------------------------------


def test_a_complete_folder_is_compared_and_not_downloaded_again(
    hub: StandInHub, tmp_path: Path
) -> None:
    fetch(MODEL, tmp_path, endpoint=hub.url)
    artifact = tmp_path / "onnx-int8" / "manifest.json"
    artifact.parent.mkdir()
    artifact.write_text("{}")
    hub.seen.clear()
    assert fetch(MODEL, tmp_path, endpoint=hub.url) == (tmp_path, COMMIT)
    assert hub.sent() == [] and hub.sent("HEAD") == []
    assert artifact.exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_of_another_model_is_not_overwritten(
    hub: StandInHub, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(CannotWrite, match="is not overwritten"):
        fetch(MODEL, tmp_path, endpoint=hub.url)
    assert (tmp_path / name).read_bytes() == b"mine"


def test_settings_that_the_model_lacks_are_not_mixed_in(hub: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "config_sentence_transformers.json").write_bytes(b"{}")
    message = refused(CannotWrite, hub, tmp_path)
    assert "config_sentence_transformers.json" in message


# --- what goes wrong -----------------------------------------------------------------------------


def test_an_unknown_model_or_revision_is_named(hub: StandInHub, tmp_path: Path) -> None:
    with pytest.raises(NoSuchModel, match="no model someone/missing on http://127"):
        fetch("someone/missing", tmp_path / "tiny", endpoint=hub.url)
    assert 'no revision "v9"' in refused(NoSuchModel, hub, tmp_path / "tiny", revision="v9")
    with pytest.raises(NoSuchModel, match="neither a folder nor the id of a model"):
        fetch("no/such/id", tmp_path / "tiny", endpoint=hub.url)
    assert not (tmp_path / "tiny").exists()


def test_a_model_without_settings_or_weights_is_refused(hub: StandInHub, tmp_path: Path) -> None:
    hub.files = {"model.safetensors": WEIGHTS}
    assert "has no config.json" in refused(NoSuchModel, hub, tmp_path)
    hub.files = {"config.json": b"{}"}
    assert "has no model.safetensors" in refused(NoSuchModel, hub, tmp_path)


def test_a_truncated_file_is_refused_and_resumed(hub: StandInHub, tmp_path: Path) -> None:
    hub.cut = {"model.safetensors": 70_000}
    message = refused(DownloadFailed, hub, tmp_path)
    assert "by hand" in message and "kept and resumed" in message
    assert [name for name in files_in(tmp_path) if not name.startswith(".download/")] == []
    hub.cut = {}
    hub.seen.clear()
    fetch(MODEL, tmp_path, endpoint=hub.url)
    assert files_in(tmp_path) == NEEDED
    assert hub.sent() == ["model.safetensors"]
    ranges = [headers.get("range") for _, name, headers in hub.seen if name in hub.sent()]
    assert ranges == ["bytes=70000-"]


def test_other_content_of_the_same_size_is_refused_and_not_kept(
    hub: StandInHub, tmp_path: Path
) -> None:
    hub.spoilt = {"model.safetensors"}
    assert "size or checksum" in refused(DownloadFailed, hub, tmp_path)
    hub.spoilt = set()
    fetch(MODEL, tmp_path, endpoint=hub.url)
    assert files_in(tmp_path) == NEEDED


@pytest.mark.parametrize("part", [WEIGHTS + b"too long", b"of another file", bytes(len(WEIGHTS))])
@pytest.mark.parametrize("checks_ranges", [True, False])
def test_a_part_that_belongs_to_no_file_is_thrown_away(
    hub: StandInHub, tmp_path: Path, checks_ranges: bool, part: bytes
) -> None:
    hub.checks_ranges = checks_ranges
    hub.cut = {"model.safetensors": 70_000}
    refused(DownloadFailed, hub, tmp_path)
    (place,) = tmp_path.rglob("*.part")
    place.write_bytes(part)
    hub.cut = {}
    if len(part) <= len(WEIGHTS):
        assert "size or checksum" in refused(DownloadFailed, hub, tmp_path)
    fetch(MODEL, tmp_path, endpoint=hub.url)
    assert files_in(tmp_path) == NEEDED


def test_without_a_server_the_way_by_hand_is_told(hub: StandInHub, tmp_path: Path) -> None:
    hub.shutdown()
    hub.server_close()
    message = refused(DownloadFailed, hub, tmp_path / "tiny")
    assert "ConnectionError" in message and "by hand" in message
    for other in ("HF_ENDPOINT=https://hf-mirror.com", f"modelscope:{MODEL}"):
        assert other in message
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize(
    "answer", [b"<html>Please log in</html>", b"[]", b'{"id": "a/b"}', b'{"id": "a/b", "sha": "1"}']
)
def test_a_server_that_is_no_hub_is_said_to_be_none(
    hub: StandInHub, tmp_path: Path, answer: bytes
) -> None:
    hub.answer = answer
    assert "does not answer as a model hub does" in refused(DownloadFailed, hub, tmp_path)


def test_a_broken_server_is_named_with_its_status(hub: StandInHub, tmp_path: Path) -> None:
    hub.refusal = (500, {})
    assert "HTTP 500" in refused(DownloadFailed, hub, tmp_path)


def test_a_file_that_is_listed_and_not_there_is_said(hub: StandInHub, tmp_path: Path) -> None:
    hub.absent = {"tokenizer.json"}
    assert "lists a file" in refused(DownloadFailed, hub, tmp_path)


@pytest.mark.parametrize("file", ["modules.json", "model.safetensors.index.json"])
def test_a_list_that_cannot_be_read_is_named(hub: StandInHub, tmp_path: Path, file: str) -> None:
    del hub.files["model.safetensors"]
    hub.files["model.safetensors.index.json"] = b'{"weight_map": {}}'
    hub.files[file] = b"[1]"
    assert file in refused(CorruptFile, hub, tmp_path)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (401, {}),
        (403, {}),
        (401, {"X-Error-Code": "GatedRepo"}),
        (403, {"X-Error-Code": "GatedRepo"}),
    ],
)
def test_a_refusal_names_the_token_variable_and_never_the_token(
    hub: StandInHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    status: int,
    headers: dict[str, str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.refusal = (status, headers)
    with pytest.raises(DownloadFailed) as caught:
        fetch(MODEL, tmp_path, endpoint=hub.url.replace("http://", "http://me:password@"))
    assert "HF_TOKEN" in caught.value.english and "HF_TOKEN" in caught.value.chinese
    printed = "".join((caught.value.english, caught.value.chinese, *capfd.readouterr()))
    assert "hf_secret" not in printed and "password" not in printed


def test_the_token_goes_to_the_hub_and_not_where_it_keeps_large_files(
    hub: StandInHub, other_host: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.large_files_at = other_host.url
    fetch(MODEL, tmp_path, endpoint=hub.url)
    assert files_in(tmp_path) == NEEDED
    assert {headers.get("authorization") for _, _, headers in hub.seen} == {"Bearer hf_secret"}
    assert other_host.sent() == ["model.safetensors"]
    assert {headers.get("authorization") for _, _, headers in other_host.seen} == {None}


def test_a_full_disk_is_said_before_the_weights_are_downloaded(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    assert "0 MB free" in refused(CannotWrite, hub, tmp_path)
    assert "model.safetensors" not in hub.sent()


def test_a_folder_that_cannot_be_made_is_named(hub: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot write" in refused(CannotWrite, hub, tmp_path / "file" / "tiny")


def test_what_the_operating_system_says_is_passed_on(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "part")

    monkeypatch.setattr("export.source.hubs.client.Hub.download", fail)
    assert "cannot write part: the disk is full" in refused(CannotWrite, hub, tmp_path)


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(MissingPackage, match="install the export extra"):
        fetch(MODEL, tmp_path)


# --- privacy, in a process of its own ------------------------------------------------------------


def python(code: str, *arguments: str, home: Path) -> None:
    variables = {
        key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))
    }
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=variables | {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=60,
    )


def test_nothing_is_written_under_the_users_home_and_no_packages_are_told(
    hub: StandInHub, tmp_path: Path
) -> None:
    home, folder = tmp_path / "home", tmp_path / "tiny"
    home.mkdir()
    code = (
        "import sys; from pathlib import Path; from export.source.hubs.hub import fetch\n"
        "fetch(sys.argv[1], Path(sys.argv[2]), endpoint=sys.argv[3])"
    )
    python(code, MODEL, str(folder), hub.url, home=home)
    assert list(home.iterdir()) == []
    assert files_in(folder) == NEEDED
    assert {headers["user-agent"] for _, _, headers in hub.seen} == {"inkwell"}


def test_offline_mode_is_named(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.environ['HF_HUB_OFFLINE'] = '1'\n"
        "from pathlib import Path; from export.errors import DownloadFailed; import export.source.hubs.hub\n"
        "try:\n    export.source.hubs.hub.fetch('a/b', Path(sys.argv[1]), endpoint='http://127.0.0.1:9')\n"
        "except DownloadFailed as error:\n    assert 'HF_HUB_OFFLINE is set' in error.english\n"
        "else:\n    raise SystemExit('not refused')"
    )
    python(code, str(tmp_path / "tiny"), home=tmp_path)


def test_local_exports_do_not_import_the_library(tmp_path: Path) -> None:
    code = "import sys, export.source.hubs.hub\nassert not {'huggingface_hub', 'requests'} & set(sys.modules)"
    python(code, home=tmp_path)
