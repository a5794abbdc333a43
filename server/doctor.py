"""Says of this machine and these settings what is well, what is not, and what to do.

Pure functions from facts to findings: `facts` and `machine` read, and nothing here asks the machine
anything. Each check yields at least one finding, so that a reader sees what was looked at.
"""

import ipaddress
from collections.abc import Iterator

from server import BUILT
from server.config import on_loopback
from server.cpu import EXACT_INT8_FEATURES, int8_instruction_set
from server.encoder import SAME_VECTORS
from server.errors import StartupError
from server.facts import Artifact, Facts, Held
from server.findings import Finding, Level, Said
from server.machine import Listener

MB = 1 << 20
# A server with bge-small-zh-v1.5 (24.9 MB of weights, held once for the lanes and once for the wide
# session) has 181 MB idle and 214 MB after a minute of load on two lanes (2026-11-24, AVX512-VNNI).
BASE_BYTES, LANE_BYTES = 131 * MB, 17 * MB
# With less of a limit than half as much again a long request or a compaction may meet it.
ROOM = 1.5
# A part takes 2 KB of vector, its text and its words: some 100,000 parts.
LITTLE_DISK = 1024 * MB
# SQLite's log beside a write of 2,048 texts, and room for the database's next pages.
LEAST_DISK = 64 * MB
# Files of the process itself and of each collection (database, log, readers), and some clients.
OWN_FILES, COLLECTION_FILES, CLIENT_FILES = 64, 16, 512
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
EVERY_ADDRESS = ("0.0.0.0", "::")
MOST_NAMED = 5


def examine(facts: Facts) -> list[Finding]:
    return [finding for check in CHECKS.values() for finding in check(facts)]


# --- the processor ------------------------------------------------------------------------------------


def of_cpu(facts: Facts) -> Iterator[Finding]:
    machine = facts.machine
    best = int8_instruction_set(machine.features)
    if best in EXACT_INT8_FEATURES:
        untested = " (aarch64 is untested)" if machine.architecture == "aarch64" else ""
        yield Finding(
            "ok",
            "cpu",
            Said(
                f"{machine.architecture} with {best}: int8 products are exact{untested}",
                f"{machine.architecture}，支持 {best}：int8 乘积精确",
            ),
        )
    elif best in ("avx2", "avx512bw"):
        yield Finding(
            "ok",
            "cpu",
            Said(
                f"{best} without VNNI: int8 products may saturate, see `model` for what that does",
                f"{best}，无 VNNI：int8 乘积可能饱和，影响见 model 项",
            ),
        )
    else:
        yield Finding(
            "warning",
            "cpu",
            Said(
                f"{machine.architecture} tells of no fast int8 arithmetic (AVX2 or asimddp)",
                f"{machine.architecture} 未报告快速 int8 指令（AVX2 或 asimddp）",
            ),
            Said(
                "expect it to be many times slower; if this is a virtual machine, pass the host's CPU"
                " through to it",
                "速度会慢很多倍；如为虚拟机，请直通宿主机的 CPU 特性",
            ),
        )


def of_lanes(facts: Facts) -> Iterator[Finding]:
    machine, lanes = facts.machine, facts.lanes
    quota = "no" if machine.quota is None else f"{machine.quota:.2f}"
    found = Said(
        f"{lanes} lanes on {machine.cores} cores of the affinity mask, cgroup quota: {quota}",
        f"{lanes} 个计算线程，可用 {machine.cores} 核，cgroup 配额："
        + ("无" if machine.quota is None else f"{machine.quota:.2f}"),
    )
    if lanes > machine.budget:
        yield Finding(
            "warning",
            "lanes",
            found,
            Said(
                f"--lanes {machine.budget} or 0: more lanes than cores bring nothing and make single"
                " requests wait",
                f"请设 --lanes {machine.budget} 或 0：多于核数没有好处，且单个请求会等待",
            ),
        )
    elif machine.quota is not None and machine.quota < 1:
        yield Finding(
            "warning",
            "lanes",
            found,
            Said(
                "give the group at least one core: below that the kernel stops the process in every"
                " period of its quota",
                "请至少分配一个核：低于一个核时，内核会在每个配额周期内暂停进程",
            ),
        )
    else:
        yield Finding("ok", "lanes", found)
    if machine.offline:
        yield _of_offline(machine.offline)


def _of_offline(cores: str) -> Finding:
    return Finding(
        "warning",
        "lanes",
        Said(f"cores {cores} are offline", f"核 {cores} 已离线"),
        Said(
            "if they are to compute, switch them on before the server starts: it counts once",
            "如需使用，请在启动服务前上线：服务只在启动时计数",
        ),
    )


def of_huge_pages(facts: Facts) -> Iterator[Finding]:
    chosen = facts.machine.huge_pages
    if chosen in ("always", "madvise"):
        found = Said(f"transparent huge pages: {chosen}", f"透明大页：{chosen}")
        yield Finding("ok", "huge_pages", found)
        return
    yield Finding(
        "warning",
        "huge_pages",
        Said(
            f"transparent huge pages: {chosen or 'not told'}; a short query takes up to a seventh longer",
            f"透明大页：{chosen or '未知'}；短查询最多慢七分之一",
        ),
        Said(
            "write madvise into /sys/kernel/mm/transparent_hugepage/enabled",
            "请将 madvise 写入 /sys/kernel/mm/transparent_hugepage/enabled",
        ),
    )


# --- models and packages ------------------------------------------------------------------------------


def of_models(facts: Facts) -> Iterator[Finding]:
    seen: set[str] = set()
    for artifact in facts.artifacts:
        if artifact.error is not None:
            yield _of_error("model", artifact.error)
        elif artifact.fingerprint in seen:
            yield Finding(
                "error",
                "model",
                Said(f"{artifact.place} is given twice", f"{artifact.place} 重复给出"),
                Said("leave out one --model", "请去掉一个 --model"),
            )
        else:
            seen.add(artifact.fingerprint)
            yield _of_model(artifact)


def _of_model(artifact: Artifact) -> Finding:
    bits = "float32"
    if artifact.quantization is not None:
        bits = f"{artifact.quantization.weight_bits}-bit"
    found = Said(
        f"{artifact.place}: hashes agree; {bits} weights, self-test cosine {artifact.cosine:.6f} to"
        f" the exporting machine ({artifact.exported_on})",
        f"{artifact.place}：哈希一致；{bits} 权重，与导出机器（{artifact.exported_on}）自检余弦"
        f" {artifact.cosine:.6f}",
    )
    if artifact.cosine >= SAME_VECTORS:
        return Finding("ok", "model", found)
    return Finding(
        "warning",
        "model",
        found,
        Said(
            "its vectors are nearly as close to float32 as the exporting machine's, and not the same: export"
            " here if all of them are made here, or with --weight-bits 7 for machines of both kinds",
            "其向量与 float32 的接近程度和导出机器几乎相同，但两者的向量并不一致：若向量都在本机计算，请在本机导出；"
            "若有两类机器，请用 --weight-bits 7 导出",
        ),
    )


def of_python(facts: Facts) -> Iterator[Finding]:
    version = ".".join(map(str, facts.machine.python))
    if facts.packages is None:
        yield Finding(
            "ok",
            "python",
            Said(
                f"Python {version}; no lock beside the program to compare packages with",
                f"Python {version}；程序旁没有锁定文件，未比较软件包版本",
            ),
        )
    elif not facts.packages:
        found = Said(
            f"Python {version}, packages as locked", f"Python {version}，软件包与锁定版本一致"
        )
        yield Finding("ok", "python", found)
    else:
        shown = [
            f"{each.name} {each.found} ({each.locked})" for each in facts.packages[:MOST_NAMED]
        ]
        number, listed = len(facts.packages), ", ".join(shown)
        yield Finding(
            "warning",
            "python",
            Said(
                f"Python {version}; {number} packages are not of the locked version: {listed}",
                f"Python {version}；{number} 个软件包与锁定版本不同：{listed}",
            ),
            Said(
                "install what was tested: pip install --no-deps --require-hashes -r locks/run.txt",
                "请安装经过测试的版本：pip install --no-deps --require-hashes -r locks/run.txt",
            ),
        )


# --- memory, files and disk ---------------------------------------------------------------------------


def memory_needed(facts: Facts) -> int:
    """Bytes of a server with these settings and collections under load; an estimate."""
    copies = 2 if facts.wide_threads > 1 else 1
    models = sum(artifact.bytes for artifact in facts.artifacts) * copies
    indexes = sum(held.index_bytes for held in facts.collections)
    return BASE_BYTES + LANE_BYTES * facts.lanes + models + indexes + facts.config.query_cache_bytes


def of_memory(facts: Facts) -> Iterator[Finding]:
    need, limit = memory_needed(facts), facts.machine.memory_limit
    # What a running server has is not available any more, and counts within its own limit.
    available = None if facts.holder else facts.machine.memory_available
    bounds = [bound for bound in (limit, available) if bound is not None]
    least = min(bounds, default=None)
    found = Said(
        f"about {need // MB} MB needed; cgroup limit {_mb(limit, 'none')}, available"
        f" {_mb(facts.machine.memory_available, 'not told')}",
        f"约需 {need // MB} MB；cgroup 上限 {_mb(limit, '无')}，可用"
        f" {_mb(facts.machine.memory_available, '未知')}",
    )
    level: Level = "ok"
    if least is not None and least < need * ROOM:
        level = "error" if least < need else "warning"
    advice = Said(
        f"allow {int(need * ROOM) // MB} MB, or serve fewer models, with fewer --lanes",
        f"请允许使用 {int(need * ROOM) // MB} MB，或减少模型数与 --lanes",
    )
    yield Finding(level, "memory", found, None if level == "ok" else advice)


def _mb(bytes: int | None, otherwise: str) -> str:
    return otherwise if bytes is None else f"{bytes // MB} MB"


def of_open_files(facts: Facts) -> Iterator[Finding]:
    soft, hard = facts.machine.open_files
    need = OWN_FILES + COLLECTION_FILES * len(facts.collections) + CLIENT_FILES
    found = Said(
        f"{soft} open files allowed (hard limit {hard})", f"最多打开 {soft} 个文件（硬上限 {hard}）"
    )
    if soft < 0 or soft >= need:  # -1 is no limit
        yield Finding("ok", "open_files", found)
        return
    yield Finding(
        "warning",
        "open_files",
        found,
        Said(
            f"allow {need} (ulimit -n, LimitNOFILE=): each client's connection takes one",
            f"请提高到 {need}（ulimit -n、LimitNOFILE=）：每个客户端连接占用一个",
        ),
    )


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
        return _of_error("data", held.error)
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


def _of_error(subject: str, error: StartupError) -> Finding:
    """What a server would say and end with; it has its advice in itself."""
    return Finding("error", subject, Said(error.english, error.chinese))


# --- clock and network --------------------------------------------------------------------------------


def of_clock(facts: Facts) -> Iterator[Finding]:
    day = facts.machine.day
    found = Said(f"today is {day} (UTC)", f"今天是 {day}（UTC）")
    if day >= BUILT:  # as text, which orders as the days do
        yield Finding("ok", "clock", found)
        return
    yield Finding(
        "warning",
        "clock",
        Said(
            f"{found.english}, before this version was made ({BUILT})",
            f"{found.chinese}，早于本版本的制作日期（{BUILT}）",
        ),
        Said(
            "set the clock: nothing stored depends on it, but logs and certificates do",
            "请校准时钟：存储的数据不受影响，但日志与证书依赖它",
        ),
    )


def of_port(facts: Facts) -> Iterator[Finding]:
    port, host = facts.config.port, facts.config.host
    pid, _, address = (facts.holder or "").partition(" ")
    taken = [each for each in facts.listeners if _overlap(host, each.address)]
    own = [
        each
        for each in taken
        if str(each.pid) == pid or (each.pid is None and address.endswith(f":{port}"))
    ]
    if own:
        found = Said(
            f"port {port}: the running server, process {pid}",
            f"端口 {port}：运行中的服务，进程 {pid}",
        )
        yield Finding("ok", "port", found)
    elif taken:
        yield Finding(
            "error",
            "port",
            Said(
                f"port {port} is taken by {_who(taken[0], 'a process of another user')}",
                f"端口 {port} 已被占用：{_who(taken[0], '其他用户的进程')}",
            ),
            Said("stop it, or choose another --port", "请停止该进程，或用 --port 指定其他端口"),
        )
    else:
        free = Said(f"port {port} is free", f"端口 {port} 空闲")
        any_other = Said("the kernel chooses a free port", "由系统选择空闲端口")
        yield Finding("ok", "port", free if port else any_other)


def _who(listener: Listener, otherwise: str) -> str:
    return otherwise if listener.pid is None else f"{listener.name} ({listener.pid})"


def _overlap(host: str, address: str) -> bool:
    """Whether a socket on `address` keeps another from `host`; of a name, to be careful, it does."""
    wanted = "127.0.0.1" if host == "localhost" else host
    if wanted in EVERY_ADDRESS or address in EVERY_ADDRESS or not _is_address(wanted):
        return True
    return wanted == address


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def of_address(facts: Facts) -> Iterator[Finding]:
    host, keys = facts.config.host, facts.config.keys
    asked = Said("with keys", "需要密钥") if keys else Said("without keys", "不需要密钥")
    found = Said(f"listens on {host}, {asked.english}", f"监听 {host}，{asked.chinese}")
    if keys or on_loopback(host):
        yield Finding("ok", "address", found)
        return
    yield Finding(
        "warning",
        "address",
        found,
        Said(
            "whoever reaches this address can read and delete all documents: make keys with"
            " `python -m server key new` and name their file with --keys, or listen on 127.0.0.1",
            "能访问该地址的任何人都可以读取和删除所有文档：请用 python -m server key new 创建密钥"
            "并以 --keys 指定密钥文件，或监听 127.0.0.1",
        ),
    )


# By subject, in the order in which they are told.
CHECKS = {
    "cpu": of_cpu,
    "lanes": of_lanes,
    "memory": of_memory,
    "huge_pages": of_huge_pages,
    "open_files": of_open_files,
    "python": of_python,
    "clock": of_clock,
    "model": of_models,
    "disk": of_disk,
    "data": of_collections,
    "port": of_port,
    "address": of_address,
}
