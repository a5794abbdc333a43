"""Collections backed up, restored, checked and reindexed, on real files."""

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from server.store.collection import DATABASE_FILE, SNAPSHOT_FILE, Collection
from server.store.folder import DataFolder
from server.store.local_index.index import LocalIndex
from server.store.records import ChunkRules, Document, Info
from server.store.sqlite.database import PAGE_BYTES
from server.store.sqlite.stored_text import stored
from tests.support.commands import Commands, write_lines
from tests.support.toys import toy_texts, write_toy_texts


@pytest.fixture
def filled(run: Commands, tmp_path: Path) -> Commands:
    """Commands on a folder with 60 documents in "default"."""
    run("index", write_toy_texts(tmp_path / "texts.txt", 60))
    return run


def home(run: Commands, name: str = "default") -> Path:
    return run.data / "collections" / name


def texts_in(run: Commands, name: str = "default") -> list[str]:
    lines = run("export", "-", "--collection", name).out.splitlines()
    return sorted(json.loads(line)["text"] for line in lines)


@contextmanager
def opened(run: Commands, name: str = "default") -> Iterator[sqlite3.Connection]:
    """Open the database, for changes that the server would not make."""
    with closing(sqlite3.connect(home(run, name) / DATABASE_FILE)) as database, database:
        yield database


# --- copies ---------------------------------------------------------------------------------------


def test_backup_is_one_file_that_brings_the_collection_back(
    filled: Commands, tmp_path: Path
) -> None:
    said = filled("backup", "default", tmp_path / "backup").out
    assert "backed up default" in said
    assert (tmp_path / "backup").stat().st_size == int(said.split()[-2].replace(",", ""))
    filled("index", write_lines(tmp_path / "more.txt", ["后来的"]))
    said = filled.refused("restore", tmp_path / "backup")
    assert said.count("--force") == 2 and "already" in said
    assert "后来的" in texts_in(filled)
    said = filled("restore", tmp_path / "backup", "--force").out
    assert "restored default: 60" in said
    assert texts_in(filled) == sorted(toy_texts(60))
    assert "sound" in filled("check").out
    assert {path.name for path in home(filled).parent.iterdir()} == {"default"}


def test_backup_can_come_back_under_another_name(filled: Commands, tmp_path: Path) -> None:
    filled("backup", "default", tmp_path / "backup")
    filled("restore", tmp_path / "backup", "--collection", "copy")
    assert texts_in(filled, "copy") == texts_in(filled)
    found = json.loads(filled("search", "墨", "--collection", "copy", "--json").out)
    assert found["hits"] == json.loads(filled("search", "墨", "--json").out)["hits"]
    said = filled("collections").out
    assert said.splitlines() == [f"{name}  60 documents  model toy" for name in ("copy", "default")]


def test_restored_collection_gives_labels_again_without_the_old_vectors(
    filled: Commands, tmp_path: Path
) -> None:
    filled("backup", "default", tmp_path / "backup")
    filled("index", write_lines(tmp_path / "a.txt", ["墨"]))
    snapshot = (home(filled) / SNAPSHOT_FILE).read_bytes()
    filled("restore", tmp_path / "backup", "--force")
    assert not (home(filled) / SNAPSHOT_FILE).exists()
    filled("index", write_lines(tmp_path / "b.txt", ["砚台书画"]))
    # The very snapshot of before, which knows the label that was given twice.
    (home(filled) / SNAPSHOT_FILE).write_bytes(snapshot)
    filled("search", "墨")
    assert "sound" in filled("check").out


def test_restore_needs_no_readable_collection_in_its_place(
    filled: Commands, tmp_path: Path
) -> None:
    filled("backup", "default", tmp_path / "backup")
    (home(filled) / DATABASE_FILE).write_bytes(b"damaged" * 10_000)
    assert "damaged" in filled.refused("search", "墨")
    filled("restore", tmp_path / "backup", "--force")
    assert len(texts_in(filled)) == 60


def test_damaged_collection_does_not_hide_the_others(filled: Commands, tmp_path: Path) -> None:
    filled("index", write_lines(tmp_path / "one.txt", ["墨"]), "--collection", "other")
    (home(filled) / DATABASE_FILE).write_bytes(b"damaged" * 10_000)
    said = filled("collections", status=1)
    assert said.out == "other  1 documents  model toy\n"
    assert said.err.startswith("default: ") and "restore it" in said.err


def test_collection_whose_replacement_was_interrupted_is_listed_and_examined(
    filled: Commands,
) -> None:
    home(filled).rename(home(filled, ".replaced-default"))
    assert filled("check").out == "default: sound\n"
    home(filled).rename(home(filled, ".replaced-default"))
    assert filled("collections").out == "default  60 documents  model toy\n"


def test_restore_ends_a_reindex_of_what_was_there(filled: Commands, tmp_path: Path) -> None:
    filled("backup", "default", tmp_path / "backup")
    successor = home(filled, f".next-{'0' * 32}-default")
    shutil.copytree(home(filled), successor)
    filled("restore", tmp_path / "backup", "--force")
    assert not successor.exists()


def test_what_an_interrupted_restore_leaves_is_swept_away(filled: Commands) -> None:
    left = [home(filled, f".{kind}-{'0' * 32}") for kind in ("new", "removed")]
    for each in left:
        shutil.copytree(home(filled), each)
    assert [line.split()[0] for line in filled("collections").out.splitlines()] == ["default"]
    filled("search", "墨")
    assert not any(each.exists() for each in left)


def test_what_is_no_backup_is_refused(filled: Commands, tmp_path: Path) -> None:
    text, other, empty = (tmp_path / name for name in ("text", "other", "empty"))
    text.write_text("no database" * 1000)
    with closing(sqlite3.connect(other)) as database:
        database.execute("CREATE TABLE t (x)")
        database.execute("PRAGMA user_version = 1")
    empty.touch()
    for file in (text, other, empty, tmp_path, tmp_path / "missing"):
        assert filled.refused("restore", file, "--force").count(str(file)) >= 2
    assert "cannot name" in filled("restore", text, "--collection", "../x", status=1).err
    assert {path.name for path in home(filled).parent.iterdir()} == {"default"}
    assert len(texts_in(filled)) == 60


def test_damaged_backup_is_refused(filled: Commands, tmp_path: Path) -> None:
    filled("backup", "default", tmp_path / "backup")
    damage(tmp_path / "backup", bytes_of(max(toy_texts(60), key=len)))
    said = filled.refused("restore", tmp_path / "backup", "--force")
    assert said.count(str(tmp_path / "backup")) == 2 and "is damaged" in said
    assert "sound" in filled("check").out


def test_backup_goes_to_a_place_that_can_be(filled: Commands, tmp_path: Path) -> None:
    assert filled.refused("backup", "missing", tmp_path / "backup").count("default") == 2
    for bad in (tmp_path / "none" / "backup", tmp_path, home(filled) / DATABASE_FILE):
        assert filled.refused("backup", "default", bad).count(str(bad)) == 2
    long = tmp_path / ("x" * 253)
    assert "File name too long" in filled.refused("backup", "default", long)
    link = tmp_path / ".backup.tmp"
    link.symlink_to("elsewhere")
    assert filled.refused("backup", "default", tmp_path / "backup").count("backup") >= 2
    link.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "texts.txt"]
    assert "sound" in filled("check").out


def test_backup_is_on_the_disk_before_it_takes_its_name(
    filled: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last backup is whole until the new one is."""
    target = tmp_path / "backup"
    target.write_bytes(b"the last one")
    steps: list[tuple[str, bytes]] = []

    def fsync(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        steps.append((path.name, path.read_bytes() if path.is_file() else target.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    filled("backup", "default", target)
    new = target.read_bytes()
    assert steps == [(".backup.tmp", new), (tmp_path.name, new)]
    # The version numbers of the format: 1 where SQLite needs to write no log beside it to read it.
    assert new[18:20] == b"\1\1"


def test_what_killed_backups_left_is_not_taken_for_a_part_of_the_next(
    filled: Commands, tmp_path: Path
) -> None:
    """A journal that SQLite finds beside a file is played back into it."""
    with closing(sqlite3.connect(tmp_path / ".backup.tmp")) as database:
        database.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (x);")
        shutil.copy(tmp_path / ".backup.tmp", tmp_path / "kept")
        shutil.copy(tmp_path / ".backup.tmp-wal", tmp_path / "kept-wal")
    shutil.move(tmp_path / "kept", tmp_path / ".backup.tmp")
    shutil.move(tmp_path / "kept-wal", tmp_path / ".backup.tmp-wal")
    for left in ("journal", "shm"):
        (tmp_path / f".backup.tmp-{left}").write_bytes(b"left")
    filled("backup", "default", tmp_path / "backup")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "data", "texts.txt"]
    filled("restore", tmp_path / "backup", "--collection", "copy")
    assert texts_in(filled, "copy") == texts_in(filled)


def test_backup_beside_a_writer_is_a_moment_of_the_collection(
    run: Commands, tmp_path: Path
) -> None:
    """Each write adds ten documents at once; a copy never has some of them."""
    folder = DataFolder(run.data)
    collection = folder.create(Info("default", "model", 32, None))
    stop, under_way = threading.Event(), threading.Event()

    def write() -> None:
        random, number = np.random.default_rng(0), 0
        while not stop.is_set():
            documents = [Document(f"{number}-{place}", f"第{number}批") for place in range(10)]
            collection.add(documents, random.standard_normal((10, 32), dtype=np.float32))
            number += 1
            under_way.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert under_way.wait(30)
        for place in range(5):
            run("backup", "default", tmp_path / f"backup-{place}")
    finally:
        stop.set()
        writer.join()
        folder.close()
    sizes = []
    for place in range(5):
        run("restore", tmp_path / f"backup-{place}", "--collection", f"copy-{place}")
        with opened(run, f"copy-{place}") as database:
            sizes.append(database.execute("SELECT count(*) FROM documents").fetchone()[0])
    assert "faults" not in run("check").out
    assert sizes == sorted(sizes) and all(size and size % 10 == 0 for size in sizes)


# --- examining ------------------------------------------------------------------------------------


def bytes_of(text: str) -> bytes:
    """Return bytes that stand in the database where a text is stored."""
    kept = stored(text)
    return kept[9:30] if isinstance(kept, bytes) else kept.encode()[:9]


def damage(path: Path, mark: bytes, *, beyond: int = 0) -> None:
    """Turn a byte round, where `mark` stands after the first `beyond` bytes, or in every page there."""
    content = bytearray(path.read_bytes())
    place = content.find(mark, beyond)
    if place < 0:
        for page in range(beyond, len(content), PAGE_BYTES):
            content[page] ^= 0xFF
    else:
        content[place] ^= 0xFF
    path.write_bytes(content)


def faults(run: Commands, *words: str) -> str:
    """Return what `check` finds, in English and then in Chinese."""
    # A copy for the second run: the first one repairs what it can.
    copied = shutil.copytree(run.data, run.data.with_name("copied"), dirs_exist_ok=True)
    said = run("check", status=1).out
    said += run("check", "--data", copied, status=1, locale="zh_CN.UTF-8").out
    assert "处问题" in said and "faults" in said
    for word in words:
        assert word in said
    return said


def test_sound_collections_are_said_to_be(filled: Commands, tmp_path: Path) -> None:
    long = ["".join(f"{place}是一句话。" for place in range(40)), "NUL\0 and 😀"]
    filled("index", write_lines(tmp_path / "long.txt", long), "--collection", "long")
    said = filled("check").out
    assert said.splitlines() == ["default: sound", "long: sound"]
    assert filled("check", "--collection", "long").out == "long: sound\n"
    assert "long" in filled.refused("check", "--collection", "missing")


@pytest.mark.parametrize(
    "command",
    [
        "check",
        "check --collection a",
        "collections",
        "backup a b",
        "search x",
        "export -",
        "reindex",
    ],
)
def test_command_that_only_reads_creates_no_data_folder(
    run: Commands, tmp_path: Path, command: str
) -> None:
    for there in (False, True):
        if there:
            run.data.mkdir()
        said = run(*command.split(), status=2).err
        said += run(*command.split(), status=2, locale="zh_CN.UTF-8").err
        assert said.count(str(run.data)) == 2 and "check --data" in said and "数据文件夹" in said
        assert list(tmp_path.rglob("*")) == [run.data] * there


def test_data_folder_without_collections_has_nothing_wrong(run: Commands) -> None:
    DataFolder(run.data).close()
    assert run("check").out == "no collections\n"
    assert run("collections").out == "no collections\n"


@pytest.mark.parametrize("content", [None, b""])
def test_database_that_is_missing_or_empty_is_found_and_not_removed(
    filled: Commands, content: bytes | None
) -> None:
    home(filled, "begun").mkdir()
    database = home(filled, "begun") / DATABASE_FILE
    if content is not None:
        database.write_bytes(content)
    filled("search", "墨")
    lines = faults(filled, str(database), "restore", "备份").splitlines()
    assert lines[0] == "begun: 1 faults" and lines[2] == "default: sound"
    assert home(filled, "begun").exists() and database.exists() == (content is not None)


def test_damaged_document_is_named(filled: Commands) -> None:
    with opened(filled) as database:
        database.execute("UPDATE documents SET text = text || '。' WHERE number = 7")
        (id,) = database.execute("SELECT id FROM documents WHERE number = 7").fetchone()
    assert f"document '{id}' is not what was written" in faults(filled)


def test_damaged_text_is_found(filled: Commands) -> None:
    text = max(toy_texts(60), key=len)
    damage(home(filled) / DATABASE_FILE, bytes_of(text))
    faults(filled)


def test_damaged_vector_is_found(filled: Commands) -> None:
    with opened(filled) as database:
        vector = database.execute("SELECT vector FROM parts WHERE label = 7").fetchone()[0]
    (home(filled) / SNAPSHOT_FILE).unlink()
    damage(home(filled) / DATABASE_FILE, vector[40:60])
    said = faults(filled, "the vector of part 7 is not what was written", "与写入时不一致")
    assert said.startswith("default: 1 faults")


def test_damaged_pages_are_found(filled: Commands) -> None:
    damage(home(filled) / DATABASE_FILE, b"nowhere in it", beyond=PAGE_BYTES)
    faults(filled)


def test_damaged_header_is_found_and_the_other_collection_examined(
    filled: Commands, tmp_path: Path
) -> None:
    filled("index", write_lines(tmp_path / "one.txt", ["墨"]), "--collection", "a")
    filled("index", write_lines(tmp_path / "one.txt", ["墨"]), "--collection", "z")
    (home(filled) / DATABASE_FILE).write_bytes(b"\0" * 4096)
    lines = faults(filled).splitlines()
    assert lines[0] == "a: sound" and "z: sound" in lines
    assert lines[-1] == "z：完好"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DELETE FROM parts WHERE label = 7", ("has no part", "没有任何片段", "index of words")),
        ("UPDATE parts SET end = 9999 WHERE label = 7", ("outside its", "9999")),
        ("UPDATE sqlite_sequence SET seq = 3 WHERE name = 'parts'", ("3 is less than 60",)),
        ("DELETE FROM sqlite_sequence", ("documents would get", "parts would get", "已使用的编号")),
        ("DELETE FROM meta WHERE key = 'fingerprint'", ("KeyError", "fingerprint")),
        ("UPDATE documents SET text = CAST(x'ff' AS TEXT) WHERE number = 7", ("damaged", "已损坏")),
    ],
)
def test_changes_by_another_hand_are_found(
    filled: Commands, change: str, words: tuple[str, ...]
) -> None:
    with opened(filled) as database:
        database.execute(change)
    faults(filled, *words)


def test_words_that_are_no_parts_are_found(filled: Commands) -> None:
    with opened(filled) as database:
        database.execute("INSERT INTO words (rowid, text) VALUES (999, 'stray')")
    faults(filled, "part 999 is in the index of words only", "片段 999 仅存在于词索引中")


def test_index_of_words_that_does_not_fit_together_is_found(filled: Commands) -> None:
    with opened(filled) as database:
        found = database.execute("SELECT max(length(block)), id FROM words_data").fetchone()
        database.execute("DELETE FROM words_data WHERE id = ?", (found[1],))
    faults(filled)


def test_snapshot_that_is_damaged_is_found_and_rebuilt(filled: Commands) -> None:
    snapshot = home(filled) / SNAPSHOT_FILE
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 0xFF
    snapshot.write_bytes(content)
    faults(filled, "no document is lost", "文档没有丢失")
    assert "sound" in filled("check").out


def test_vector_in_the_index_that_is_not_the_stored_one_is_found(filled: Commands) -> None:
    collection = Collection(home(filled), LocalIndex)
    label = collection.documents.labels()[:1]
    other = np.random.default_rng(0).standard_normal((1, 32), dtype=np.float32)
    collection.index = collection.index.minus(label).plus(label, other)
    collection.close()
    faults(filled, f"part {label[0]} is not found by its own vector", "自身的向量")


# --- reindexing -----------------------------------------------------------------------------------


def test_reindex_cuts_as_asked_and_else_as_before(filled: Commands, tmp_path: Path) -> None:
    long = write_lines(tmp_path / "long.txt", ["".join(f"{n}是一句话。" for n in range(40))])
    filled("index", long)
    assert "reindexed 61/61" in filled("reindex", "--chunk-tokens", "20").err
    assert rules(filled) == ChunkRules(20, 2)
    filled("reindex")
    assert rules(filled) == ChunkRules(20, 2)
    filled("reindex", "--chunk-tokens", "0")
    assert rules(filled) is None
    assert len(texts_in(filled)) == 61
    assert "sound" in filled("check").out


def rules(run: Commands) -> ChunkRules | None:
    with closing(Collection(home(run), LocalIndex)) as collection:
        return collection.info.chunks


def test_reindex_of_what_cannot_be_is_refused(filled: Commands) -> None:
    assert "99 is outside 8 to 62" in filled.refused("reindex", "--chunk-tokens", "99")
    assert "missing" in filled.refused("reindex", "--collection", "missing")
