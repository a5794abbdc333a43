"""Damage: every file of a data folder, with bits flipped, pages lost, truncated, emptied or removed.

ROUNDS times one file of a copy is damaged, and the copy opened, read, searched and checked. SEED repeats a run. Damage
counts as noticed where a collection is not served, a reading raises StoreError, or `check` reports a fault. Bytes do
not matter if all documents and answers are those of the sound folder.
"""

import asyncio
import json
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from server.auth.keys import add_key, new_key, read_keys
from server.errors import BadSettings, StoreError
from server.store.collection import DATABASE_FILE, SNAPSHOT_FILE, Collection
from server.store.filters.tree import parse
from server.store.folder import INDEX, DataFolder
from server.store.records import ChunkRules, Document, Info, Span
from server.store.search import Query, search
from server.store.upkeep.integrity import faults_of
from tests.support.damage import damage
from tests.support.power_workload import audited
from tests.support.processes import serving

pytestmark = [pytest.mark.slow, pytest.mark.stress]
ROUNDS = int(os.environ.get("ROUNDS", "500"))
SERVED = max(1, ROUNDS // 40)
SEED = int(os.environ.get("SEED", "1"))
D = 32
LOG_FILE = f"{DATABASE_FILE}-wal"
WORDS = ("墨池", "云雨", "search", "server", "index", "花鸟", "ink", "13800")
GROUPS = 4


# --- the folder -------------------------------------------------------------------------------------


class Truth:
    """What a collection answered: after each write, oldest first, and every document it ever held."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.documents: dict[str, list[Document]] = {}

    def note(self, collection: Collection) -> None:
        self.answers.append(answers_of(collection))
        for id, document in collection.documents.get(collection.documents.ids()).items():
            self.documents.setdefault(id, []).append(document)


def documents(generator: random.Random, ids: Sequence[int]) -> list[Document]:
    made = []
    for number in ids:
        words = " ".join(generator.choices(WORDS, k=generator.choice((3, 40, 400))))
        metadata = {
            "group": number % GROUPS,
            "tags": [words[:2], number],
            "deep": {"x": number / 4},
        }
        made.append(Document(f"d{number}", f"{number} {words}", f"t{number}", metadata))
    return made


def write(collection: Collection, generator: random.Random, ids: Sequence[int]) -> None:
    made = documents(generator, ids)
    spans = [_spans(len(each.text)) for each in made]
    n_chunks = sum(map(len, spans))
    seed = generator.randrange(1 << 30)
    vectors = np.random.default_rng(seed).standard_normal((n_chunks, D), dtype=np.float32)
    collection.add(made, vectors, spans)


def _spans(length: int) -> list[Span]:
    return [Span(begin, min(begin + 500, length)) for begin in range(0, length, 400)]


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, toy_artifact: Path
) -> tuple[Path, dict[str, Truth]]:
    """A data folder as a kill leaves it, with a keys file and an audit, and what its collections answer.

    "closed" was closed before, so its file has everything. Of "killed" a part is in the log.
    """
    manifest = json.loads((toy_artifact / "manifest.json").read_text(encoding="utf-8"))
    generator, truths = random.Random(SEED), {"closed": Truth(), "killed": Truth()}
    home = tmp_path_factory.mktemp("damage") / "sound"
    data = home / "data"
    with closing(DataFolder(data)) as opened:
        for name in truths:
            info = Info(name, manifest["fingerprint"], D, ChunkRules(60, 5))
            write(opened.create(info), generator, range(60))
    opened = DataFolder(data)
    truths["closed"].note(opened.collections["closed"])
    killed = opened.collections["killed"]
    killed.documents.database.writer.execute("PRAGMA wal_autocheckpoint = 60")
    truths["killed"].note(killed)
    for number in range(12):
        write(killed, generator, generator.sample(range(80), 4))
        truths["killed"].note(killed)
        killed.delete([f"d{generator.randrange(80)}"])
        truths["killed"].note(killed)
        if number == 6:
            killed.save()
    for number in range(4):
        _, key = new_key(f"key{number}", "embed,search")
        add_key(home / "keys", key)
    for number in range(20):
        asyncio.run(audited(home / "audit", b'{"request":"%d"}' % number))
    shutil.copytree(home, target := home.with_name("copy"))
    opened.close()
    return target, truths


# --- what is answered ---------------------------------------------------------------------------------


def answers_of(collection: Collection) -> dict[str, Any]:
    """Return documents and answers of all kinds; raises StoreError where one is refused."""
    stored = collection.documents
    groups = [{"group": number} for number in range(GROUPS)]
    filters = [*groups, {"tags": "墨池"}, {"deep.x": {"$gt": 3}}]
    vectors = np.random.default_rng(0).standard_normal((6, D), dtype=np.float32)
    queries = [Query("dense", 200, vector) for vector in vectors]
    queries += [Query("dense", 20, vectors[0], filter=parse(each)) for each in groups]
    queries += [Query("lexical", 200, words=word) for word in WORDS]
    queries += [Query("hybrid", 20, vectors[1], word, filter=parse(groups[1])) for word in WORDS]
    return {
        "count": collection.count,
        "documents": {id: each for id, each in stored.get(stored.ids()).items()},
        "pages": [document.id for _, document in stored.page(0, 1000)],
        "counts": [stored.count(parse(each)) for each in filters],
        "ids": [sorted(stored.ids(parse(each))) for each in filters],
        "hits": [
            [(hit.id, round(hit.score, 3), hit.span, hit.text, hit.title) for hit in hits]
            for query in queries
            for hits in search(collection, [query])
        ],
    }


def check_documents(answers: Mapping[str, Any], truth: Truth) -> None:
    """Check that every document and every text of a hit was once stored like this."""
    for id, document in answers["documents"].items():
        assert document in truth.documents.get(id, []), f"{id} is {document}"
    for hits in answers["hits"]:
        for id, _, span, text, title in hits:
            known = [
                (each.text[span.begin : span.end], each.title)
                for each in truth.documents.get(id, [])
            ]
            assert (text, title) in known, f"the hit {id} {span} is {text!r}"


# --- rounds -----------------------------------------------------------------------------------------


def test_damage_of_any_file_is_noticed_and_removes_nothing(
    folder: tuple[Path, dict[str, Truth]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound, truths = folder
    choose = random.Random(SEED)
    files = [path.relative_to(sound) for path in sorted(sound.rglob("*")) if path.is_file()]
    weights = [
        8 if path.name == DATABASE_FILE else 5 if path.name == LOG_FILE else 2 for path in files
    ]
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    for number in range(ROUNDS):
        (file,) = choose.choices(files, weights)
        shutil.copytree(sound, home := tmp_path / "damaged")
        how = damage(home / file, choose)
        try:
            outcome = outcome_of(home, sound, file, truths)
        except Exception as error:
            outcome = f"WRONG: {type(error).__name__}: {str(error)[:600]}"
            wrong.append(f"round {number}, {file}, {how}: {outcome}")
            if keep := os.environ.get("KEEP"):
                shutil.copytree(home, Path(keep) / f"{number}")
            outcome = "WRONG"
        seen[f"{file.name}: {outcome}"] += 1
        shutil.rmtree(home)
    with capsys.disabled():
        figures = {"rounds": ROUNDS, "outcomes": dict(sorted(seen.items())), "wrong": len(wrong)}
        sys.stdout.write(f"\n{json.dumps({'case': 'damage', **figures})}\n")
    assert not wrong, "\n".join(wrong)


def test_server_with_a_damaged_file_serves_the_others_and_says_what_is_wrong(
    folder: tuple[Path, dict[str, Truth]],
    toy_artifact: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sound, truths = folder
    choose = random.Random(SEED)
    homes = sound / "data" / "collections"
    files = [
        path for path in sorted(homes.rglob(f"{DATABASE_FILE}*")) if not path.name.endswith("-shm")
    ]
    seen: Counter[str] = Counter()
    for _ in range(SERVED):
        file = choose.choice(files)
        shutil.copytree(sound, home := tmp_path / "damaged")
        how = damage(home / file.relative_to(sound), choose)
        with serving(toy_artifact, home) as server, server.client() as client:
            for name, truth in truths.items():
                statuses = {answered(each) for each in asked(client, name)}
                if name != file.parent.name:
                    count = client.post(f"/collections/{name}/documents/count", json={}).json()
                    assert (statuses, count) == ({"200"}, {"count": truth.answers[-1]["count"]})
                else:
                    assert statuses <= {"200", "500 store_damaged"}, f"{file}, {how}: {statuses}"
                    seen["served whole" if statuses == {"200"} else "refused"] += 1
            assert "Traceback" not in server.log.read_text(), f"{file}, {how}"
        shutil.rmtree(home)
    with capsys.disabled():
        figures = {"rounds": SERVED, "outcomes": dict(seen)}
        sys.stdout.write(f"\n{json.dumps({'case': 'damage served', **figures})}\n")


def asked(client: httpx.Client, name: str) -> Iterator[httpx.Response]:
    """Read, count and search a collection in all ways."""
    path = f"/collections/{name}"
    yield client.get(f"{path}/documents", params={"limit": 1000})
    yield client.get(f"{path}/documents", params={"filter": '{"group": 1}'})
    yield client.get(f"{path}/stats")
    yield client.post(f"{path}/documents/count", json={"filter": {"group": 2}})
    for mode in ("dense", "lexical", "hybrid"):
        for filter in ({}, {"filter": {"group": 3}}):
            body = {"query": "墨池 search", "mode": mode, "top_k": 200, "highlight": True, **filter}
            yield client.post(f"{path}/search", json=body)


def answered(response: httpx.Response) -> str:
    if response.status_code == 200:
        return "200"
    return f"{response.status_code} {response.json()['error']['code']}"


def outcome_of(home: Path, sound: Path, file: Path, truths: Mapping[str, Truth]) -> str:
    """Return what becomes of the damage of one file; raises AssertionError where a promise is broken."""
    if file.name == "keys":
        return outcome_of_keys(home / file, sound / file)
    if file.name == "audit":
        asyncio.run(audited(home / file, b"next"))
        assert (home / file).read_bytes().split(b"\n")[-2] == b"next"
        return "goes on"
    name = file.parent.name if file.parent.parent.name == "collections" else None
    before = files_of(home / "data" / "collections")
    checked = [] if name is None else faults_in_copy(home, name, before, file)
    with closing(DataFolder(home / "data")) as opened:
        for each in truths:
            if each != name:
                assert answers_of(opened.collections[each]) == truths[each].answers[-1], (
                    f"{each} is changed"
                )
        outcome = "no effect" if name is None else in_use(opened, name, file, truths[name])
    if name is not None:
        check_kept(home, name, before, outcome)
        if outcome in ("not served", "refused"):
            assert checked, "check finds nothing"
        elif outcome == "other answers":
            assert checked, "other answers, and neither a reading nor check says so"
            outcome = "other answers, found by check"
        elif outcome == "no effect" and checked:
            outcome = "no effect, found by check"
    return outcome


def outcome_of_keys(path: Path, sound: Path) -> str:
    try:
        found, known = read_keys(path), read_keys(sound)
    except BadSettings:
        return "refused"
    # A line has no checksum, for people may edit it. A changed digest fits no secret.
    changed = sum(key not in known for key in found)
    return f"read, {len(found)} of {len(known)} keys, {changed} of them changed"


def in_use(opened: DataFolder, name: str, file: Path, truth: Truth) -> str:
    if name in opened.damaged:
        return "not served"
    try:
        answers = answers_of(opened.collections[name])
    except StoreError:
        return "refused"
    check_documents(answers, truth)
    if answers == truth.answers[-1]:
        return "no effect"
    if file.name == LOG_FILE and answers in truth.answers:
        # SQLite ends its log at the first frame that is not sound; it cannot know that more was written.
        return "an older state"
    return "other answers"


def faults_in_copy(home: Path, name: str, before: Mapping[str, bytes], file: Path) -> list[str]:
    """Return what `check` says of the folder before a server opens it; it must not change damaged files."""
    copies = home / "check"
    shutil.copytree(home / "data" / "collections" / name, copies / name)
    found = [fault.english for fault in faults_of(copies / name, INDEX)]
    if found and file.name != SNAPSHOT_FILE:
        check_unchanged(name, before, files_of(copies))
    shutil.rmtree(copies)
    return found


def files_of(collections: Path) -> dict[str, bytes]:
    """Return all files by their paths; an empty log is none, and the memory beside a log is not kept."""
    found = {
        str(path.relative_to(collections)): path.read_bytes()
        for path in sorted(collections.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm")
    }
    return {path: each for path, each in found.items() if each or not path.endswith("-wal")}


def check_kept(home: Path, name: str, before: Mapping[str, bytes], outcome: str) -> None:
    """Check that a start and a stop have removed no file, and changed none of what is not served."""
    after = files_of(home / "data" / "collections")
    own = [path for path in before if path.startswith(f"{name}/")]
    if outcome == "not served":
        check_unchanged(name, before, after)
    else:
        gone = [path for path in own if path not in after and not path.endswith("-wal")]
        assert not gone or gone == [f"{name}/{SNAPSHOT_FILE}"], f"{gone} were removed"


def check_unchanged(name: str, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
    for path in before:
        if path.startswith(f"{name}/") and not path.endswith(SNAPSHOT_FILE):
            assert path in after, f"{path} was removed"
            assert after[path] == before[path], f"{path} was changed"
