"""Findings of `doctor`: from invented facts, and from this machine with real models and folders."""

import json
import os
import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server import BUILT
from server.auth.keys import Key, new_key
from server.config import Config, ModelPlace, effective
from server.databases.outbox_look import Look
from server.doctor.checks.disk import LEAST_DISK, LITTLE_DISK, NETWORK
from server.doctor.checks.memory import ROOM, memory_needed
from server.doctor.checks.software import ONLY_RERANKERS
from server.doctor.examine import CHECKS, examine
from server.doctor.facts import Admission, Artifact, Facts, Held, Package, gather
from server.doctor.findings import MB, Finding, as_json, as_text, healthy
from server.errors import BadArtifact, BadSettings, StoreDamaged
from server.inference.manifest import Quantization
from server.messages.message import Message
from server.store.folder import DataFolder
from server.store.folder_lock import LOCK_FILE
from server.system.cpu import INT8_FEATURES, cpu_budget
from server.system.host import Disk, Listener, Machine
from tests.net.test_socket import refused_start
from tests.net.test_tls import OPENSSL, certificate, expired, flags_of
from tests.net.test_unix_socket import left_behind, opened
from tests.support.commands import Commands, write_lines
from tests.support.processes import serving
from tests.support.scorers import write_toy_scorer

HAN = re.compile(r"[\u4e00-\u9fff]")
WALL_S = 1_798_761_600.0  # The first second of 2027.
MACHINE = Machine(
    architecture="x86_64",
    features=frozenset({"avx2", "avx512_vnni"}),
    cores=4,
    budget=4,
    quota=None,
    offline="",
    memory_available=8192 * MB,
    memory_limit=None,
    huge_pages="madvise",
    open_files=(65536, 65536),
    wall_s=WALL_S,
    python=(3, 11, 9),
)
DISK = Disk(Path("/data"), "ext4", 100_000 * MB, read_only=False, writable=True)
ARTIFACT = Artifact(
    ModelPlace(Path("toy")),
    model_id="toy",
    fingerprint="f",
    bytes=25 * MB,
    agreement=0.9999995,
    quantization=Quantization("r", 8, "c", 1),
    exported_on="avx512_vnni",
)
SOUND = Facts(
    config=Config(),
    machine=MACHINE,
    lanes=4,
    wide_threads=4,
    disk=DISK,
    holder=None,
    artifacts=(ARTIFACT,),
    collections=(Held("laws", "f", 0.9999995, 10 * MB),),
    listeners=(),
    packages=(),
    admission=Admission(),
)


GONE = BadSettings("gone")
WITH_KEYS = Config(host="0.0.0.0", keys=Path("keys"))
WITH_TLS = Config(tls_cert=Path("cert.pem"))
ON_SOCKET = Config(unix_socket=Path("inkwell.sock"))


def on(**parts: Any) -> Facts:
    return replace(SOUND, machine=replace(MACHINE, **parts))


def of(lanes: int, **settings: Any) -> Facts:
    return replace(SOUND, lanes=lanes, config=Config(**settings))


def admitting(config: Config, **parts: Any) -> Facts:
    return replace(SOUND, config=config, admission=Admission(**parts))


def elsewhere(outbox: Look) -> Facts:
    config = Config(vector_database="main=qdrant+http://127.0.0.1:6333")
    return replace(SOUND, config=config, outboxes=(outbox,))


def key(name: str, expires: str | None = None) -> Key:
    return new_key(name, "embed", expires)[1]


def found(facts: Facts, subject: str) -> list[Finding]:
    """Return the warnings and errors of a subject; every finding must exist in both languages."""
    findings = examine(facts)
    for each in findings:
        for said in filter(None, (each.found, each.advice)):
            assert not HAN.search(said.english) and said.chinese
        assert each.advice is None or HAN.search(each.advice.chinese)
    return [each for each in findings if each.subject == subject and each.level != "ok"]


def test_sound_machine_has_nothing_to_be_done() -> None:
    findings = examine(SOUND)
    assert {finding.level for finding in findings} == {"ok"}
    assert {finding.advice for finding in findings} == {None}
    assert {finding.subject for finding in findings} == set(CHECKS)
    assert healthy(findings)


CASES: list[tuple[str, Facts, str, str]] = [
    ("cpu", on(features=frozenset({"sse2"})), "warning", "AVX2"),
    ("cpu", on(architecture="riscv64", features=frozenset()), "warning", "riscv64"),
    ("lanes", replace(SOUND, lanes=9), "warning", "9 lanes"),
    ("lanes", of(lanes=4, workers=4), "warning", "16 lanes, 4 in each of 4 processes"),
    ("lanes", of(lanes=2, workers=3), "warning", "--lanes 1, or fewer --workers"),
    ("lanes", of(lanes=1, workers=8), "warning", "at most --workers 4"),
    ("lanes", on(quota=0.5, budget=4), "warning", "0.50"),
    ("lanes", on(offline="2-3"), "warning", "2-3"),
    ("huge_pages", on(huge_pages="never"), "warning", "never"),
    ("huge_pages", on(huge_pages=""), "warning", "unknown"),
    ("open_files", on(open_files=(1024, 1024)), "warning", "allow 5120"),
    ("open_files", on(open_files=(4096, 5119)), "warning", "5119"),
    ("memory", on(memory_limit=64 * MB), "error", "64 MB"),
    ("memory", on(memory_available=64 * MB), "error", "64 MB"),
    ("python", replace(SOUND, packages=(Package("faiss-cpu", "1", "2"),)), "warning", "faiss-cpu"),
    ("clock", on(wall_s=0.0), "warning", BUILT),
    (
        "model",
        replace(SOUND, artifacts=(replace(ARTIFACT, agreement=0.9966),)),
        "warning",
        "0.9966",
    ),
    ("model", replace(SOUND, artifacts=(ARTIFACT, ARTIFACT)), "error", "twice"),
    (
        "model",
        replace(SOUND, artifacts=(Artifact(ARTIFACT.place, BadArtifact("gone")),)),
        "error",
        "gone",
    ),
    ("disk", replace(SOUND, disk=OSError(13, "Permission denied")), "error", "denied"),
    ("disk", replace(SOUND, disk=replace(DISK, read_only=True)), "error", "cannot write"),
    ("disk", replace(SOUND, disk=replace(DISK, writable=False)), "error", "cannot write"),
    ("disk", replace(SOUND, disk=replace(DISK, file_system="tmpfs")), "warning", "restart"),
    ("disk", replace(SOUND, disk=replace(DISK, file_system="overlay")), "warning", "container"),
    ("disk", replace(SOUND, disk=replace(DISK, free_bytes=LEAST_DISK)), "error", "507"),
    ("disk", replace(SOUND, disk=replace(DISK, free_bytes=LITTLE_DISK)), "warning", "507"),
    ("data", replace(SOUND, collections=(Held("laws", "other"),)), "warning", "reindex"),
    (
        "data",
        replace(SOUND, collections=(Held("laws", "f", 0.9966),)),
        "warning",
        "docs/en/explanation/cpu.md",
    ),
    (
        "data",
        replace(SOUND, collections=(Held("laws", error=StoreDamaged("bad")),)),
        "error",
        "bad",
    ),
    ("databases", elsewhere(Look("far", "other", 3)), "warning", "--vector-database other=URI"),
    ("databases", elsewhere(Look("far", "main", 3, 1, "too long")), "warning", "(too long)"),
    ("databases", elsewhere(Look("far", error=StoreDamaged("bad"))), "error", "bad"),
    ("port", replace(SOUND, listeners=(Listener("127.0.0.1", 7, "nginx"),)), "error", "nginx (7)"),
    ("port", replace(SOUND, listeners=(Listener("0.0.0.0", None, ""),)), "error", "another user"),
    ("port", replace(SOUND, listeners=(Listener("::", 7, "nginx"),)), "warning", "may be taken"),
    ("address", replace(SOUND, config=Config(host="0.0.0.0")), "warning", "key new"),
    ("address", replace(SOUND, config=Config(host="inkwell.lan")), "warning", "inkwell.lan"),
    ("socket", admitting(ON_SOCKET, socket=GONE), "error", "gone"),
    ("tls", admitting(WITH_TLS, certificate_s=GONE), "error", "gone"),
    ("tls", admitting(WITH_TLS, certificate_s=0.0), "warning", "clients will refuse"),
    ("tls", admitting(WITH_TLS, certificate_s=WALL_S + 13.5 * 86400), "warning", "13 days"),
    ("keys", admitting(WITH_KEYS, keys=GONE), "error", "gone"),
    ("keys", admitting(WITH_KEYS, keys=()), "warning", "key new"),
    ("keys", admitting(WITH_KEYS, keys=(key("a"), key("b", "2027-01-05"))), "warning", "b (2027"),
    ("keys", admitting(WITH_KEYS, keys=(key("old", "2026-12-31"),)), "warning", "old (2026"),
    ("audit", admitting(Config(audit=Path("a")), audit=GONE), "error", "gone"),
]


@pytest.mark.parametrize("subject, facts, level, word", CASES)
def test_what_is_wrong_is_found_and_told(subject: str, facts: Facts, level: str, word: str) -> None:
    (finding,) = found(facts, subject)
    assert finding.level == level
    said = f"{finding.found.english} {finding.advice.english if finding.advice else ''}"
    assert word in said
    assert healthy(examine(facts)) == (level == "warning")
    # Nothing else is the matter, but for errors that hide a model from its collection.
    others = {each.subject for each in examine(facts) if each.level != "ok"} - {subject}
    assert others <= ({"data"} if subject == "model" else set())


def test_what_computes_a_model_is_told_in_both_languages() -> None:
    computed = Message("computed by the kernels")
    said = examine(replace(SOUND, artifacts=(replace(ARTIFACT, computed_by=computed),)))
    (finding,) = [each for each in said if "kernels" in each.found.english]
    assert (finding.level, finding.subject) == ("ok", "model")
    assert finding.found.english == "toy: computed by the kernels"
    assert finding.found.chinese == "toy：由计算内核计算"


@pytest.mark.parametrize("place", [ModelPlace(Path("toy")), ModelPlace(Path("toy"), "law")])
def test_model_is_named_as_its_setting_names_it(place: ModelPlace) -> None:
    artifact = replace(ARTIFACT, place=place)
    for facts in (artifact,), (artifact, artifact):
        said = [each.found for each in examine(replace(SOUND, artifacts=facts))]
        assert any(each.english.startswith(f"{place}: hashes match") for each in said)
        assert any(each.chinese.startswith(f"{place}：哈希一致") for each in said)
    assert Message("{place} is given twice", place=str(place)) in said


def test_every_check_can_find_something() -> None:
    assert {case[0] for case in CASES} == set(CHECKS)


@pytest.mark.parametrize("kind", sorted(NETWORK))
def test_network_file_system_is_an_error(kind: str) -> None:
    facts = replace(SOUND, disk=replace(DISK, file_system=kind))
    assert [each.level for each in found(facts, "disk")] == ["error"]


@pytest.mark.parametrize("name", INT8_FEATURES)
def test_every_instruction_set_that_is_known_will_do(name: str) -> None:
    assert found(on(features=frozenset({name})), "cpu") == []


def test_memory_that_is_just_enough_is_a_warning() -> None:
    need = memory_needed(SOUND)
    assert [each.level for each in found(on(memory_limit=need + MB), "memory")] == ["warning"]
    assert found(on(memory_limit=int(need * ROOM) + MB), "memory") == []


def test_every_process_needs_memory_for_its_models_and_lanes() -> None:
    alone, four = memory_needed(SOUND), memory_needed(of(lanes=4, workers=4))
    # The first has the collections and caches besides, and the code of libraries is there once.
    assert 3 * (alone - 102 * MB) < four - alone < 3 * alone


@pytest.mark.parametrize("lanes, workers", [(1, 4), (2, 2), (4, 1), (1, 3)])
def test_lanes_of_all_processes_are_as_many_as_the_cores_at_most(lanes: int, workers: int) -> None:
    assert found(of(lanes=lanes, workers=workers), "lanes") == []


@pytest.mark.parametrize("limits", [(1024, 524288), (256, 5120), (1024, -1), (-1, -1)])
def test_soft_limit_of_files_does_not_matter(limits: tuple[int, int]) -> None:
    assert found(on(open_files=limits), "open_files") == []


def test_more_connections_take_more_files() -> None:
    facts = replace(on(open_files=(1024, 4096)), config=Config(max_connections=3072))
    assert found(facts, "open_files") == []
    (few,) = found(replace(facts, config=Config(max_connections=3073)), "open_files")
    assert "4097" in few.found.english


def test_memory_of_a_running_server_is_not_missed() -> None:
    facts = replace(on(memory_available=64 * MB), holder="7 http://127.0.0.1:8000")
    assert found(facts, "memory") == []


def test_port_of_the_running_server_is_its_own() -> None:
    holder = "7 http://127.0.0.1:8000"
    for pid in (7, None):
        facts = replace(SOUND, holder=holder, listeners=(Listener("127.0.0.1", pid, "python"),))
        assert found(facts, "port") == []


@pytest.mark.parametrize(
    "host, address, level",
    [
        ("127.0.0.1", "127.0.0.1", "error"),
        ("localhost", "127.0.0.1", "error"),
        ("localhost", "::1", "warning"),
        ("127.0.0.1", "10.0.0.5", "ok"),
        ("127.0.0.1", "::1", "ok"),
        ("127.0.0.1", "::ffff:7f00:1", "error"),
        ("127.0.0.1", "::", "warning"),
        ("0.0.0.0", "10.0.0.5", "error"),
        ("0.0.0.0", "::1", "ok"),
        ("0.0.0.0", "::", "warning"),
        ("::1", "0.0.0.0", "ok"),
        ("::1", "::", "error"),
        ("::", "127.0.0.1", "ok"),
        ("::", "::1", "error"),
        ("inkwell.lan", "10.0.0.5", "warning"),
    ],
)
def test_port_is_taken_where_addresses_of_one_family_overlap(
    host: str, address: str, level: str
) -> None:
    facts = replace(SOUND, config=Config(host=host), listeners=(Listener(address, 7, "x"),))
    assert [each.level for each in found(facts, "port")] == ([] if level == "ok" else [level])


def test_one_listener_that_surely_is_in_the_way_outweighs_one_that_may_be() -> None:
    both = Listener("::", 7, "one"), Listener("127.0.0.1", 8, "other")
    (error,) = found(replace(SOUND, listeners=both), "port")
    assert error.level == "error" and "other (8)" in error.found.english


@pytest.mark.parametrize(
    "facts",
    [
        admitting(WITH_KEYS, keys=(key("a"), key("b", "2027-03-01"))),
        admitting(
            replace(WITH_TLS, host="0.0.0.0", tls_client_ca=Path("ca.pem")), certificate_s=2e9
        ),
        admitting(replace(ON_SOCKET, audit=Path("-"))),
        replace(admitting(ON_SOCKET, socket=GONE, socket_taken=True), holder="7"),
    ],
    ids=["keys", "certificates", "audit and socket", "running server's socket"],
)
def test_address_of_others_and_its_files_are_sound(facts: Facts) -> None:
    assert [each for each in examine(facts) if each.level != "ok"] == []


def test_who_reaches_an_address_with_client_certificates_is_told() -> None:
    facts = admitting(replace(WITH_TLS, host="0.0.0.0", tls_client_ca=Path("ca.pem")))
    (address,) = (each for each in examine(facts) if each.subject == "address")
    assert (address.level, address.advice) == ("ok", None)
    assert "only for clients with a certificate" in address.found.english


def test_text_is_in_one_language_and_counts() -> None:
    findings = examine(on(offline="2-3"))
    english, chinese = as_text(findings, "en"), as_text(findings, "zh")
    assert "ERROR: 0" in english and "WARNING: 1" in english and not HAN.search(english)
    assert "错误：0" in chinese and "警告：1" in chinese
    assert english.count("    -> ") == chinese.count("    -> ") == 1


def test_json_is_whole() -> None:
    findings = examine(on(offline="2-3"))
    reported = json.loads(json.dumps(as_json(findings)))
    assert reported["healthy"] is True
    assert [each["subject"] for each in reported["findings"]] == [each.subject for each in findings]
    (warning,) = [each for each in reported["findings"] if each["level"] == "warning"]
    assert set(warning["advice"]) == {"english", "chinese"}


# --- with real models and folders -----------------------------------------------------------------


def reported(
    run: Commands, *arguments: str | Path, status: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Return findings by subject, as the command prints them."""
    out = json.loads(run("doctor", "--json", *arguments, status=status).out)
    by_subject: dict[str, list[dict[str, Any]]] = {}
    for each in out["findings"]:
        by_subject.setdefault(each["subject"], []).append(each)
    return by_subject


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_doctor_makes_nothing_where_nothing_is(run: Commands) -> None:
    findings = reported(run, "--port", "0")
    assert findings["model"][0]["level"] == "ok"
    assert "0 collections, not in use" in findings["data"][0]["found"]["english"]
    assert not run.data.exists()


def test_doctor_changes_nothing_in_a_folder_with_collections(run: Commands, tmp_path: Path) -> None:
    run("index", write_lines(tmp_path / "docs.txt", ["墨池笔纸", "风花雪鸟"]))
    before = contents(run.data)
    findings = reported(run, "--port", "0")
    assert contents(run.data) == before
    summary, collection = findings["data"]
    assert "1 collections, not in use" in summary["found"]["english"]
    assert collection["level"] == "ok" and "cosine 1.000" in collection["found"]["english"]


def test_doctor_says_who_holds_the_folder_and_leaves_the_lock(
    run: Commands, tmp_path: Path
) -> None:
    folder = DataFolder(run.data, holder="http://127.0.0.1:8000")
    try:
        findings = reported(run, "--port", "0")
        lock = (run.data / LOCK_FILE).read_text()
    finally:
        folder.close()
    assert lock.endswith(" http://127.0.0.1:8000")
    assert f"in use by process {lock.split()[0]}" in findings["data"][0]["found"]["english"]


def test_doctor_looks_at_a_running_server_without_disturbing_it(
    run: Commands, toy_artifact: Path, tmp_path: Path
) -> None:
    document = {"documents": [{"id": "a", "text": "墨池笔纸"}]}
    with serving(toy_artifact, tmp_path) as server, server.client() as client:
        assert client.post("/documents", json=document).is_success
        findings = reported(run, "--port", str(server.port), "--data", tmp_path / "data")
        assert client.post("/search", json={"query": "墨池笔纸"}).json()["hits"]
    pid = str(server.process.pid)
    assert pid in findings["data"][0]["found"]["english"]
    assert findings["data"][1]["level"] == "ok"
    assert findings["port"][0]["level"] == "ok" and pid in findings["port"][0]["found"]["english"]


def test_missing_model_is_an_error_and_the_rest_is_told(run: Commands, tmp_path: Path) -> None:
    findings = reported(run, "--model", tmp_path / "none", "--port", "0", status=1)
    assert findings["model"][0]["level"] == "error"
    assert set(findings) == set(CHECKS)


def test_models_of_which_none_gives_vectors_are_a_warning(run: Commands, tmp_path: Path) -> None:
    scorer = write_toy_scorer(tmp_path / "scorer")
    said = reported(run, "--model", scorer, "--port", "0")["model"]
    assert [each["level"] for each in said] == ["ok", "ok", "warning"]
    assert "computed by ONNX Runtime, not by the kernels" in said[1]["found"]["english"]
    assert said[2]["found"]["english"] == ONLY_RERANKERS[0].english
    both = (ARTIFACT, replace(ARTIFACT, fingerprint="s", task="score"))
    assert not found(replace(SOUND, artifacts=both), "model")


def test_file_that_is_no_database_is_an_error(run: Commands) -> None:
    home = run.data / "collections" / "laws"
    home.mkdir(parents=True)
    (home / "documents.sqlite3").write_bytes(b"no database" * 100)
    findings = reported(run, "--port", "0", status=1)
    assert findings["data"][1]["level"] == "error"


def test_database_of_another_program_is_an_error_that_names_it(run: Commands) -> None:
    home = run.data / "collections" / "laws"
    home.mkdir(parents=True)
    with closing(sqlite3.connect(home / "documents.sqlite3")) as connection:
        connection.execute("CREATE TABLE other (a)")
    findings = reported(run, "--port", "0", status=1)
    assert "laws" in findings["data"][1]["found"]["english"]


def test_emptied_collection_is_named_as_damaged(run: Commands) -> None:
    home = run.data / "collections" / "laws"
    home.mkdir(parents=True)
    (home / "documents.sqlite3").write_bytes(b"")
    findings = reported(run, "--port", "0", status=1)["data"]
    assert any("documents.sqlite3 is empty" in str(finding) for finding in findings)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_folder_of_another_user_is_an_error(run: Commands) -> None:
    run.data.mkdir(mode=0o700)
    for parent in run.data.parents[:3]:
        parent.chmod(0o755)
    os.seteuid(65534)
    try:
        findings = reported(run, "--port", "0", status=1)
    finally:
        os.seteuid(0)
    assert "Permission denied" in findings["disk"][0]["found"]["english"]


def test_text_for_people_is_the_default(run: Commands) -> None:
    out = run("doctor", "--port", "0").out
    assert "OK  model" in out and "self-test cosine 1.000000" in out


def test_packages_are_compared_with_the_lock(toy_artifact: Path, tmp_path: Path) -> None:
    config = effective({}, {"model": str(toy_artifact), "data": str(tmp_path), "port": "0"}).config
    lock = write_lines(
        tmp_path / "run.txt",
        ["numpy==0.1 ; python_version < '3' \\", "    --hash=sha256:00", "no-such-package==1"],
    )
    (package,) = gather(config, lock=lock).packages or ()
    assert (package.name, package.locked) == ("numpy", "0.1")
    assert gather(config, lock=tmp_path / "none").packages is None


FILES = [
    ("keys", ("--keys", "none")),
    ("keys", ("--keys", "text")),
    ("tls", ("--tls-cert", "none")),
    ("tls", ("--tls-cert", "text")),
    ("audit", ("--audit", "none/audit")),
    ("audit", ("--audit", ".")),
    ("socket", ("--unix-socket", "none/socket")),
    ("socket", ("--unix-socket", "text")),
]


@pytest.mark.parametrize("subject, flags", FILES, ids=[" ".join(flags) for _, flags in FILES])
def test_file_with_which_a_server_does_not_start_is_an_error_in_its_words(
    run: Commands, toy_artifact: Path, tmp_path: Path, subject: str, flags: tuple[str, str]
) -> None:
    write_lines(tmp_path / "text", ["neither keys nor a certificate"])
    flag, place = flags[0], tmp_path / flags[1]
    findings = reported(run, "--port", "0", flag, place, status=1)
    (error,) = findings[subject]
    assert error["level"] == "error"
    settings = ("--port", "0", "--model", toy_artifact, "--data", tmp_path / "served")
    said = refused_start("serve", *settings, flag, place)
    assert error["found"]["english"] in said and error["found"]["chinese"] in said


def test_files_are_looked_at_and_left_as_they_are(run: Commands, tmp_path: Path) -> None:
    run("key", "new", "a", "--scopes", "embed", "--keys", tmp_path / "keys")
    left_behind(tmp_path / "socket")
    before = sorted(tmp_path.iterdir())
    flags = ("--keys", "keys", "--audit", "audit", "--unix-socket", "socket")
    places = [each if each.startswith("--") else tmp_path / each for each in flags]
    findings = reported(run, "--port", "0", *places)
    assert sorted(tmp_path.iterdir()) == before
    for subject in ("keys", "audit", "socket"):
        assert [each["level"] for each in findings[subject]] == ["ok"], subject
    assert "1 keys" in findings["keys"][0]["found"]["english"]


@pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
def test_certificate_is_tried_and_its_end_told(run: Commands, tmp_path: Path) -> None:
    for days, level, words in (
        (2, "warning", "expires in 1 days"),
        (100, "ok", "expires in 99 days"),
    ):
        cert = certificate(tmp_path, "server", days=days)
        (tls,) = reported(run, "--port", "0", *flags_of(cert))["tls"]
        assert tls["level"] == level and words in tls["found"]["english"]
    (tls,) = reported(run, "--port", "0", *flags_of(expired(tmp_path)))["tls"]
    assert tls["level"] == "warning" and "will refuse" in tls["found"]["english"]


def test_socket_of_the_running_server_is_its_own(
    run: Commands, toy_artifact: Path, tmp_path: Path
) -> None:
    flags = ("--unix-socket", str(tmp_path / "socket"))
    with serving(toy_artifact, tmp_path, *flags) as server:
        opened(server)
        port = ("--port", str(server.port))
        (own,) = reported(run, *port, *flags, "--data", tmp_path / "data")["socket"]
        (other,) = reported(run, "--port", "0", *flags, "--data", tmp_path / "other", status=1)[
            "socket"
        ]
    assert own["level"] == "ok"
    assert other["level"] == "error" and "another process" in other["found"]["english"]


def test_processes_divide_the_cores_as_they_do_when_they_serve(
    run: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INKWELL_LANES", "0")
    findings = reported(run, "--port", "0", "--workers", str(cpu_budget()))
    (lanes, *_) = findings["lanes"]
    assert lanes["level"] == "ok"
    assert f"{cpu_budget()} lanes" in lanes["found"]["english"]
