"""Facts about machine and settings, read before a server runs or while it does.

Nothing is written or locked: a running server keeps its data folder and its port. Models are loaded as
a server loads them, so this needs as much memory as a server for a moment.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import server
from server.auth import audit
from server.auth.keys import Key, read_keys
from server.config import Config, ModelPlace
from server.databases.outbox_look import Look, outboxes_in
from server.errors import BadArtifact, BadSettings, StartupError, StoreDamaged
from server.inference.capacity import lane_count, wide_threads
from server.inference.cpu_provenance import (
    NOTE,
    CpuProvenance,
    agreement,
    provenance_here,
    read_provenances,
)
from server.inference.manifest import TOKENIZER_FILE, Quantization
from server.inference.model import Model
from server.messages.message import Message
from server.net import unix_socket
from server.net.certificates import Tls
from server.store.collection import DATABASE_FILE, SNAPSHOT_FILE
from server.store.folder_lock import holder_of
from server.store.upkeep.database_file import peek
from server.store.upkeep.maintenance import names
from server.system.cpu import PROC
from server.system.host import Disk, Listener, Machine, listeners, read_disk, read_machine
from server.types import Task

T = TypeVar("T")

# Where a clone has the exact packages; an installed copy has none.
LOCK = Path(server.__file__).parents[1] / "locks" / "run.txt"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model that opened, so its hashes and vectors are right, or the error that prevented it.

    bytes: of its weights. agreement: the least one of its self-test. computed_by, reason: see `kernels.choice`.
    """

    place: ModelPlace
    error: StartupError | None = None
    model_id: str = ""
    fingerprint: str = ""
    bytes: int = 0
    agreement: float = 0.0
    quantization: Quantization | None = None
    exported_on: str = ""
    provenance: CpuProvenance | None = None
    task: Task = "dense"
    computed_by: Message | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A collection, or the error that prevented reading it.

    agreement: cosine of vectors of the machines that wrote it to those of this one, None if unknown.
    """

    name: str
    fingerprint: str = ""
    agreement: float | None = None
    index_bytes: int = 0
    error: StartupError | None = None


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package whose version is not the locked one."""

    name: str
    locked: str
    found: str


@dataclass(frozen=True, slots=True)
class Admission:
    """Keys, certificate, audit and Unix socket: each as a server would use it, or the error.

    keys: empty also if no file is named. certificate_s: when it ends, in seconds since 1970, 0 if
    clients refuse it; None without TLS. audit, socket: None if a server could open it. socket_taken:
    whether a process listens there.
    """

    keys: tuple[Key, ...] | BadSettings = ()
    certificate_s: float | BadSettings | None = None
    audit: BadSettings | None = None
    socket: BadSettings | None = None
    socket_taken: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the checks judge.

    config, lanes, wide_threads: of each process of a server. disk: the error if it cannot be read.
    holder: process id and address of the process that uses the data folder, None if there is none.
    packages: None without a lock file. outboxes: of collections in vector databases.
    """

    config: Config
    machine: Machine
    lanes: int
    wide_threads: int
    disk: Disk | OSError
    holder: str | None
    artifacts: tuple[Artifact, ...]
    collections: tuple[Held, ...]
    listeners: tuple[Listener, ...]
    packages: tuple[Package, ...] | None
    admission: Admission
    outboxes: tuple[Look, ...] = ()


def gather(config: Config, proc: Path = PROC, lock: Path = LOCK) -> Facts:
    """Read all facts; proc and lock are replaced in tests."""
    machine = read_machine(proc)  # before models are in its memory
    artifacts = tuple(_artifact(place, kernels=config.kernels != "off") for place in config.model)
    homes: list[Path] = []
    try:
        disk: Disk | OSError = read_disk(config.data, proc)
        if config.keeps_collections:
            homes = [config.data / "collections" / name for name in names(config.data)]
    except OSError as error:
        disk = error
    here = {each.fingerprint: each.provenance for each in artifacts if each.provenance is not None}
    return Facts(
        config=config,
        machine=machine,
        lanes=lane_count(config),
        wide_threads=wide_threads(config),
        disk=disk,
        holder=holder_of(config.data),
        artifacts=artifacts,
        collections=tuple(held for home in homes if (held := _held(home, here)) is not None),
        listeners=tuple(listeners(config.port, proc)) if config.port else (),
        packages=tuple(_other_packages(lock)) if lock.exists() else None,
        admission=_admission(config),
        outboxes=() if isinstance(disk, OSError) else tuple(outboxes_in(config.data)),
    )


def _admission(config: Config) -> Admission:
    keys, written, socket = config.keys, config.audit, config.unix_socket
    tls = _tried(lambda: Tls.of(config))
    return Admission(
        keys=() if keys is None else _tried(lambda: tuple(read_keys(keys))),
        certificate_s=tls.expires_s if isinstance(tls, Tls) else tls,
        audit=None if written is None else _tried(lambda: audit.check(written)),
        socket=None if socket is None else _refused(lambda: unix_socket.check_path(socket)),
        socket_taken=socket is not None and unix_socket.is_listening(socket),
    )


def _refused(ask: Callable[[], object]) -> BadSettings | None:
    found = _tried(ask)
    return found if isinstance(found, BadSettings) else None


def _tried(ask: Callable[[], T]) -> T | BadSettings:
    try:
        return ask()
    except BadSettings as error:
        return error


def _artifact(place: ModelPlace, *, kernels: bool) -> Artifact:
    try:
        model = Model(place.folder, name=place.name, kernels=kernels)
    except BadArtifact as error:
        return Artifact(place, error)
    manifest = model.manifest
    return Artifact(
        place,
        model_id=manifest.model_id,
        fingerprint=manifest.fingerprint,
        bytes=sum(
            (place.folder / file).stat().st_size
            for file in manifest.files
            if file != TOKENIZER_FILE
        ),
        agreement=model.self_test_agreement,
        quantization=manifest.quantization,
        exported_on=manifest.instruction_set,
        provenance=provenance_here(model.self_test_results),
        task=manifest.task,
        computed_by=model.computed_by_words,
    )


def _held(home: Path, provenances: Mapping[str, CpuProvenance]) -> Held | None:
    """Return a folder's collection, None if nothing was ever stored: the next start removes it.

    provenances: this machine's, by the model's fingerprint.
    """
    database, name = home / DATABASE_FILE, home.name
    try:
        if not peek(database, "SELECT name FROM sqlite_master LIMIT 1"):
            return None
        meta: dict[str, str] = dict(peek(database, "SELECT key, value FROM meta"))
        snapshot = home / SNAPSHOT_FILE
        index_bytes = snapshot.stat().st_size if snapshot.exists() else 0
    except StartupError as error:
        return Held(name, error=error)
    except Exception as error:
        # A file that does not belong to a collection may hold anything.
        said = f"{home}: {type(error).__name__}: {error}"
        return Held(name, error=StoreDamaged("{said} (cannot be read)", said=said))
    fingerprint = str(meta.get("fingerprint", ""))
    here = provenances.get(fingerprint)
    found = None if here is None else agreement(read_provenances(meta.get(NOTE)), here)
    return Held(name, fingerprint, found, index_bytes)


def _other_packages(lock: Path) -> Iterator[Package]:
    """Yield packages of another version; a missing package is reported by the import that needs it."""
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([\w.!+-]+)", lock.read_text("utf-8"), re.M):
        # A package is listed twice if no single release runs on every Python.
        locked.setdefault(name, []).append(version)
    for name, versions in locked.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if found not in versions:
            yield Package(name, " / ".join(versions), found)
