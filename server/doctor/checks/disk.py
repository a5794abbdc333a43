"""The data folder: what kind of disk it is on, how much room it has, and the collections in it."""

from collections.abc import Iterator

from server.doctor.facts import Facts, Held
from server.doctor.findings import MB, Finding, Said, refusal
from server.inference.encoder import SAME_VECTORS

# A part takes 2 KB of vector, its text and its words: some 100,000 parts.
LITTLE_DISK = 1024 * MB
# SQLite's log beside a write of 2,048 texts, and room for the database's next pages.
LEAST_DISK = 64 * MB
# Locks and fsync there end at another machine, and SQLite's log needs shared memory.
NETWORK = frozenset(
    """nfs nfs4 cifs smb3 smbfs ncpfs afs ceph lustre 9p beegfs gfs2 ocfs2
    fuse.sshfs fuse.glusterfs fuse.cephfs fuse.s3fs fuse.rclone fuse.davfs""".split()
)
PASSING = {
    "tmpfs": ("memory, which a restart empties", "内存，重启后清空"),
    "ramfs": ("memory, which a restart empties", "内存，重启后清空"),
    "overlay": ("a container's layer, which goes with it", "容器层，随容器一起删除"),
}


def of_disk(facts: Facts) -> Iterator[Finding]:
    disk = facts.disk
    if isinstance(disk, OSError):
        yield Finding(
            "error",
            "disk",
            Said(f"{facts.config.data}: {disk.strerror}", f"{facts.config.data}：{disk.strerror}"),
            Said("check the folder's permissions", "请检查文件夹权限"),
        )
        return
    kind, place = disk.file_system or "unknown", disk.folder
    found = Said(
        f"{place} on {kind}, {disk.free_bytes // MB} MB free",
        f"{place}，文件系统 {kind}，剩余 {disk.free_bytes // MB} MB",
    )
    if disk.read_only or not disk.writable:
        advice = Said(
            "this user cannot write there: mount the disk for writing, change the owner, or give"
            " another --data folder",
            "当前用户无法写入：请以读写方式挂载、更改所有者，或用 --data 指定其他文件夹",
        )
        yield Finding("error", "disk", found, advice)
    elif kind in NETWORK:
        advice = Said(
            "a network file system: locks, fsync and SQLite's shared memory cannot be relied on there,"
            " so acknowledged writes may be lost; give a --data folder on a local disk",
            "网络文件系统：锁、fsync 与 SQLite 的共享内存在其上不可靠，已确认的写入可能丢失；"
            "请用 --data 指定本地磁盘",
        )
        yield Finding("error", "disk", found, advice)
    else:
        yield from _of_space(facts, found, kind, disk.free_bytes)


def _of_space(facts: Facts, found: Said, kind: str, free: int) -> Iterator[Finding]:
    # A snapshot is written whole beside the one that it replaces.
    least = LEAST_DISK + max((held.index_bytes for held in facts.collections), default=0)
    if free < least + LITTLE_DISK:
        advice = Said(
            f"free some space: under {least // MB} MB the next snapshot or write may not fit, and is"
            " then refused with 507",
            f"请释放空间：低于 {least // MB} MB 时，下一次快照或写入可能无法完成，届时返回 507",
        )
        yield Finding("error" if free < least else "warning", "disk", found, advice)
    elif kind in PASSING:
        english, chinese = PASSING[kind]
        advice = Said(
            f"documents there are in {english}: give --data a disk or a volume",
            f"该处的文档位于{chinese}：请用 --data 指定磁盘或卷",
        )
        yield Finding("warning", "disk", found, advice)
    else:
        yield Finding("ok", "disk", found)


def of_collections(facts: Facts) -> Iterator[Finding]:
    pid, _, address = (facts.holder or "").partition(" ")
    if facts.holder:
        at = f" ({address})" if address else ""
        user = Said(f"in use by process {pid}{at}", f"正被进程 {pid} 使用{at}")
    else:
        user = Said("not in use", "未被使用")
    number = len(facts.collections)
    yield Finding(
        "ok",
        "data",
        Said(
            f"{facts.config.data}: {number} collections, {user.english}",
            f"{facts.config.data}：{number} 个集合，{user.chinese}",
        ),
    )
    served = {artifact.fingerprint for artifact in facts.artifacts if artifact.error is None}
    for held in facts.collections:
        yield _of_collection(held, served)


def _of_collection(held: Held, served: set[str]) -> Finding:
    name = held.name
    if held.error is not None:
        return refusal("data", held.error)
    if held.fingerprint not in served:
        return Finding(
            "warning",
            "data",
            Said(
                f"collection {name} holds vectors of model {held.fingerprint}, which is not served",
                f"集合 {name} 的向量由模型 {held.fingerprint} 生成，而该模型未提供",
            ),
            Said(
                f"serve that model too, or reindex --collection {name}; until then only words are found",
                f"请同时提供该模型，或运行 reindex --collection {name}；在此之前只能按词检索",
            ),
        )
    if held.agreement is None:
        found = Said(f"collection {name}: of a served model", f"集合 {name}：模型匹配")
        return Finding("ok", "data", found)
    found = Said(
        f"collection {name}: cosine {held.agreement:.6f} between the CPUs that wrote it and this one",
        f"集合 {name}：写入它的 CPU 与本机的余弦为 {held.agreement:.6f}",
    )
    if held.agreement >= SAME_VECTORS:
        return Finding("ok", "data", found)
    return Finding(
        "warning",
        "data",
        found,
        Said(
            f"it is served all the same, see docs/cpu.md; reindex --collection {name} computes it here",
            f"仍可使用，见 docs/cpu.md；可运行 reindex --collection {name} 在本机重新计算",
        ),
    )
