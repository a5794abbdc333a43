"""Checks of the data folder: the kind of its disk, the free space, and the collections in it."""

from collections.abc import Iterator

from server.doctor.facts import Facts, Held
from server.doctor.findings import MB, Finding, refusal
from server.inference.comparison import SAME_VECTORS
from server.messages.message import Message
from server.store.folder_lock import Holder
from server.store.records import GIVEN

# A part takes 1 KB of vector twice, its text and its words: some 100,000 parts.
LITTLE_DISK = 1024 * MB
# SQLite's log beside a write of 2,048 texts, and room for the database's next pages.
LEAST_DISK = 64 * MB
# Locks and fsync there end at another machine, and SQLite's log needs shared memory.
NETWORK = frozenset(
    """nfs nfs4 cifs smb3 smbfs ncpfs afs ceph lustre 9p beegfs gfs2 ocfs2
    fuse.sshfs fuse.glusterfs fuse.cephfs fuse.s3fs fuse.rclone fuse.davfs""".split()
)
PASSING = {
    "tmpfs": Message("memory, which a restart clears"),
    "ramfs": Message("memory, which a restart clears"),
    "overlay": Message("a container's layer, which is removed with it"),
}

# Of a server that only computes.
OFF = Message("the setting collections is off: no data folder is used")


def of_disk(facts: Facts) -> Iterator[Finding]:
    disk = facts.disk
    if not facts.config.keeps_collections:
        yield Finding("ok", "disk", OFF)
        return
    if isinstance(disk, OSError):
        yield Finding(
            "error",
            "disk",
            Message("{data}: {strerror}", data=facts.config.data, strerror=disk.strerror),
            Message("check the folder's permissions"),
        )
        return
    kind, place = disk.file_system or "unknown", disk.folder
    found = Message(
        "{place} on {kind}, {free_bytes} MB free",
        place=place,
        kind=disk.file_system or Message("unknown"),
        free_bytes=disk.free_bytes // MB,
    )
    if disk.read_only or not disk.writable:
        advice = Message(
            "this user cannot write there: mount the disk for writing, change the owner, or give "
            "another --data folder"
        )
        yield Finding("error", "disk", found, advice)
    elif kind in NETWORK:
        advice = Message(
            "this is a network file system, where locks, fsync and SQLite's shared memory are not "
            "reliable, so acknowledged writes may be lost; give a --data folder on a local disk"
        )
        yield Finding("error", "disk", found, advice)
    else:
        yield from _of_space(facts, found, kind, disk.free_bytes)


def _of_space(facts: Facts, found: Message, kind: str, free: int) -> Iterator[Finding]:
    # A snapshot is written whole beside the one that it replaces.
    least = LEAST_DISK + max((held.index_bytes for held in facts.collections), default=0)
    if free < least + LITTLE_DISK:
        advice = Message(
            "free some space: below {least} MB the next snapshot or write may not fit, and the "
            "request is refused with 507",
            least=least // MB,
        )
        yield Finding("error" if free < least else "warning", "disk", found, advice)
    elif kind in PASSING:
        advice = Message(
            "documents there are in {place}: give --data a disk or a volume", place=PASSING[kind]
        )
        yield Finding("warning", "disk", found, advice)
    else:
        yield Finding("ok", "disk", found)


def of_collections(facts: Facts) -> Iterator[Finding]:
    if not facts.config.keeps_collections:
        yield Finding("ok", "data", OFF)
        return
    if facts.holder:
        holder = Holder.of(facts.holder)
        at = f" ({holder.addresses[0]})" if holder.addresses else ""
        user = Message("in use by process {pid}{at}", pid=holder.pid, at=at)
    else:
        user = Message("not in use")
    number = len(facts.collections)
    yield Finding(
        "ok",
        "data",
        Message(
            "{data}: {number} collections, {user}", data=facts.config.data, number=number, user=user
        ),
    )
    served = {artifact.fingerprint for artifact in facts.artifacts if artifact.error is None}
    for held in facts.collections:
        yield _of_collection(held, served)


def _of_collection(held: Held, served: set[str]) -> Finding:
    name = held.name
    if held.error is not None:
        return refusal("data", held.error)
    if held.fingerprint.startswith(GIVEN):
        embedder = held.fingerprint.removeprefix(GIVEN)
        found = Message(
            "collection {name} holds given vectors of {embedder}", name=name, embedder=embedder
        )
        return Finding("ok", "data", found)
    if held.fingerprint not in served:
        return Finding(
            "warning",
            "data",
            Message(
                "collection {name} holds vectors of model {fingerprint}, which is not served",
                name=name,
                fingerprint=held.fingerprint,
            ),
            Message(
                "serve that model too, or reindex --collection {name}; until then only lexical search "
                "works",
                name=name,
            ),
        )
    if held.agreement is None:
        found = Message("collection {name}: its model is served", name=name)
        return Finding("ok", "data", found)
    found = Message(
        "collection {name}: cosine {agreement:.6f} between the CPUs that wrote it and this one",
        name=name,
        agreement=held.agreement,
    )
    if held.agreement >= SAME_VECTORS:
        return Finding("ok", "data", found)
    return Finding(
        "warning",
        "data",
        found,
        Message(
            "it can be used as it is, see docs/en/explanation/cpu.md; reindex --collection {name} computes its "
            "vectors here",
            name=name,
        ),
    )
