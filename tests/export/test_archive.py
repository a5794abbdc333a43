"""Models from tar archives: what is unpacked, where, and what is refused."""

import fcntl
import gzip
import io
import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from export.errors import CannotWrite, CorruptFile, ExportError, NoSuchModel, UnsupportedModel
from export.settings import Settings
from export.source import archive
from export.source.archive import unpack
from export.source.model import locate, read_model
from server.messages.message import Message
from tests.support.artifacts import names
from tests.support.downloads import files_in
from tests.support.toys import write_toy_checkpoint

FILES = {
    "config.json": b"{}",
    "1_Pooling/config.json": b"{ }",
    "model.safetensors": bytes(range(256)) * 600,
}
HIDDEN = {".git/config.json": b"{}", "._config.json": b"of a Mac", "a/.cache/b": b""}


def tar(path: Path, files: Mapping[str, bytes], *, mode: str = "w", prefix: str = "") -> Path:
    with tarfile.open(path, mode) as out:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(prefix + name)
            entry.size = len(content)
            out.addfile(entry, io.BytesIO(content))
    return path


def of_one(path: Path, entry: tarfile.TarInfo, content: bytes = b"") -> Path:
    with tarfile.open(path, "w") as out:
        out.addfile(entry, io.BytesIO(content))
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type = kind
    for key, value in more.items():
        setattr(found, key, value)
    return found


def refused(kind: type[ExportError], path: Path, downloads: Path) -> str:
    """Unpack, expect a refusal in both languages that leaves nothing, and return the English one."""
    with pytest.raises(kind) as caught:
        unpack(path, downloads)
    assert not downloads.exists() or names(downloads) == set()
    assert any("\u4e00" <= letter <= "\u9fff" for letter in caught.value.chinese)
    return caught.value.english


# --- what is unpacked ----------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "./", "bge-m3/", "./models/bge-m3/"])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_files_that_are_not_hidden_are_unpacked(tmp_path: Path, mode: str, prefix: str) -> None:
    path = tar(tmp_path / "bge-m3.tar", FILES | HIDDEN, mode=mode, prefix=prefix)
    folder = unpack(path, tmp_path / "downloads")
    assert files_in(folder) == FILES
    assert folder.is_relative_to(tmp_path / "downloads")


def test_archive_of_the_tar_command_is_read(tmp_path: Path) -> None:
    long_name = "a" * 120 + ".json"
    (tmp_path / "model" / "1_Pooling").mkdir(parents=True)
    for name, content in (FILES | {long_name: b"{}", "中文.txt": b""}).items():
        (tmp_path / "model" / name).write_bytes(content)
    for style in ("gnu", "pax"):
        path = tmp_path / f"{style}.tgz"
        subprocess.run(
            ["tar", "-C", str(tmp_path), f"--format={style}", "-czf", str(path), "model"],
            check=True,
        )
        found = files_in(unpack(path, tmp_path / "downloads"))
        assert found == FILES | {long_name: b"{}", "中文.txt": b""}


def test_model_of_an_archive_is_read_and_its_artifact_is_made_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = write_toy_checkpoint(tmp_path / "toy")
    path = tar(tmp_path / "My-Model.tar.gz", files_in(toy), mode="w:gz", prefix="toy/")
    monkeypatch.chdir(tmp_path)
    place = locate(Settings(str(path)))
    assert (place.outputs, place.model_id) == (Path("models/My-Model"), "My-Model")
    assert place.downloaded and not place.outputs.exists()
    assert place.folder.parent.parent == Path("models/.hub")
    from_folder = locate(Settings(str(toy)))
    read, expected = (read_model(each, Settings("")) for each in (place, from_folder))
    assert read.sha256 == expected.sha256


def test_same_archive_is_unpacked_once_and_a_changed_one_again(tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    first = unpack(tar(tmp_path / "a.tar", FILES), downloads)
    (first / "mark").touch()
    assert unpack((tmp_path / "a.tar").rename(tmp_path / "b.tar"), downloads) == first
    assert (first / "mark").exists()
    second = unpack(tar(tmp_path / "a.tar", FILES | {"config.json": b"{ }"}), downloads)
    assert second != first and first.exists()


def test_what_a_killed_export_left_is_removed(tmp_path: Path) -> None:
    downloads = tmp_path / "downloads"
    left = downloads / archive.SCRATCH
    left.mkdir(parents=True)
    (left / "extra.json").touch()
    assert files_in(unpack(tar(tmp_path / "a.tar", FILES), downloads)) == FILES


def test_second_export_of_an_archive_says_that_it_waits(tmp_path: Path) -> None:
    first = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    said: list[Message] = []

    def waiting(message: Message) -> None:
        said.append(message)
        os.close(first)

    unpack(tar(tmp_path / "a.tar", FILES), tmp_path, waiting)
    assert len(said) == 1


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../config.json",
        "a/../../config.json",
        "/etc/config.json",
        "a/b/c/d/e/f/g/h/config.json",
        "a\nb.json",
        "\x1b[2J.json",
        "a" * 300 + ".json",
        os.fsdecode(b"a\xff.json"),
    ],
)
def test_names_that_are_not_plain_are_refused(tmp_path: Path, name: str) -> None:
    path = of_one(tmp_path / "a.tar", entry(name))
    assert "holds the name" in refused(CorruptFile, path, tmp_path / "downloads")
    assert names(tmp_path) == {"a.tar", "downloads"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_refused_with_the_way_to_pack_files(tmp_path: Path, kind: bytes) -> None:
    path = of_one(tmp_path / "a.tar", entry("config.json", kind, linkname="../../etc/passwd"))
    assert "--dereference" in refused(UnsupportedModel, path, tmp_path / "downloads")


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"Z"])
def test_anything_but_files_and_folders_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = of_one(tmp_path / "a.tar", entry("config.json", kind))
    message = refused(UnsupportedModel, path, tmp_path / "downloads")
    assert "neither a plain file nor a folder" in message


def test_sparse_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"a")
    subprocess.run(
        ["tar", "--format=gnu", "-Scf", "a.tar", "weights.bin"], cwd=tmp_path, check=True
    )
    (tmp_path / "weights.bin").unlink()
    message = refused(UnsupportedModel, tmp_path / "a.tar", tmp_path / "downloads")
    assert "neither a plain file nor a folder" in message


@pytest.mark.parametrize(
    "files",
    [[("a.json", b"1"), ("a.json", b"2")], [("a.json", b""), ("a.json/b.json", b"")]],
    ids=["file twice", "file and folder"],
)
def test_names_that_stand_in_each_others_way_are_refused(
    tmp_path: Path, files: list[tuple[str, bytes]]
) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as out:
        for name, content in files:
            out.addfile(entry(name, size=len(content)), io.BytesIO(content))
    assert "twice" in refused(CorruptFile, path, tmp_path / "downloads")


def test_number_of_entries_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_ENTRIES", 3)
    path = tar(tmp_path / "a.tar", {f"{number}.py": b"" for number in range(4)})
    message = refused(UnsupportedModel, path, tmp_path / "downloads")
    assert "more than 3 entries" in message


@pytest.mark.parametrize("name", ["weights.bin", "film.mp4"])
def test_bytes_are_bounded_before_they_are_unpacked(tmp_path: Path, name: str) -> None:
    """A header may promise 100 GB that follow compressed a thousand times."""
    header = entry(name, size=100 * 1024**3).tobuf()
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(header + bytes(1 << 20)))
    assert "bytes" in refused(UnsupportedModel, path, tmp_path / "downloads")


def test_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    path = tar(tmp_path / "a.tar", FILES)
    assert "no room for config.json" in refused(CannotWrite, path, tmp_path / "downloads")


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="cannot write"):
        unpack(tar(tmp_path / "a.tar", FILES), tmp_path / "file" / "downloads")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 1.0])
def test_archive_that_ends_early_is_refused(tmp_path: Path, kept: float, packed: bool) -> None:
    """Also between two files, where it could be taken for a whole one."""
    path = tar(tmp_path / "a.tar", FILES | {"end.json": b""})
    whole = path.read_bytes().rstrip(b"\0")
    whole += bytes(-len(whole) % tarfile.BLOCKSIZE)
    part = whole[: int(len(whole) * kept)]
    path.write_bytes(gzip.compress(part) if packed else part)
    assert "cannot be unpacked" in refused(CorruptFile, path, tmp_path / "downloads")


def long_header(kind: bytes, size: int, content: bytes = b"") -> bytes:
    return entry("x", kind, size=size).tobuf() + content


DAMAGED = {
    "empty": b"",
    "noise": bytes(range(256)) * 8,
    "zip": b"PK\3\4" + bytes(2000),
    "gzip of noise": gzip.compress(bytes(range(256)) * 8),
    "cut gzip": gzip.compress(bytes(range(256)) * 8)[:60],
    "huge long name": long_header(tarfile.GNUTYPE_LONGNAME, 1 << 40),
    "huge pax header": long_header(tarfile.XHDTYPE, 1 << 40),
    "negative size": long_header(tarfile.GNUTYPE_LONGNAME, -512),
    "endless chain of headers": long_header(tarfile.XHDTYPE, 0) * 5000,
    "pax header of nonsense": long_header(tarfile.XHDTYPE, 512, b"7 =\n0 a=b\n".ljust(512, b"\0")),
    "damaged second header": tarfile.TarInfo("a.json").tobuf() + b"\1" * 1024,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_archives_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    assert "a.tar cannot be unpacked: " in refused(CorruptFile, path, tmp_path / "downloads")


def test_archive_of_hidden_files_is_refused(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", HIDDEN)
    assert "holds no files" in refused(NoSuchModel, path, tmp_path / "d")


def test_anything_but_an_archive_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(CorruptFile, match=r"a\.tar cannot be read"):
        locate(Settings(str(tmp_path / "a.tar")))
    with pytest.raises(NoSuchModel, match=r"b\.tgz does not exist"):
        locate(Settings(str(tmp_path / "b.tgz")))
    (tmp_path / "c.zip").touch()
    with pytest.raises(UnsupportedModel, match=r"c\.zip is a file; .*\.tar, \.tar\.gz, \.tgz"):
        locate(Settings(str(tmp_path / "c.zip")))
    (tmp_path / "..tar").touch()
    with pytest.raises(UnsupportedModel, match="rename the archive"):
        locate(Settings(str(tmp_path / "..tar")))
