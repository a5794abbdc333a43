"""Instruction sets, cores and lanes, and the huge pages that a short text gains from."""

from collections.abc import Iterator

from server.doctor.facts import Facts
from server.doctor.findings import Finding, Said
from server.system.cpu import EXACT_INT8_FEATURES, int8_instruction_set


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
    machine, lanes, workers = facts.machine, facts.lanes, facts.config.workers
    quota = "no" if machine.quota is None else f"{machine.quota:.2f}"
    english, chinese = f"{lanes} lanes", f"{lanes} 个计算线程"
    if workers > 1:
        english = f"{lanes * workers} lanes, {lanes} in each of {workers} processes,"
        chinese = f"{lanes * workers} 个计算线程（{workers} 个进程，各 {lanes} 个）"
    found = Said(
        f"{english} on {machine.cores} cores of the affinity mask, cgroup quota: {quota}",
        f"{chinese}，可用 {machine.cores} 核，cgroup 配额："
        + ("无" if machine.quota is None else f"{machine.quota:.2f}"),
    )
    if lanes * workers > machine.budget:
        yield Finding("warning", "lanes", found, _fewer_lanes(machine.budget, workers))
    elif machine.quota is not None and machine.quota < 1:
        advice = Said(
            "give the group at least one core: below that the kernel stops the process in every"
            " period of its quota",
            "请至少分配一个核：低于一个核时，内核会在每个配额周期内暂停进程",
        )
        yield Finding("warning", "lanes", found, advice)
    else:
        yield Finding("ok", "lanes", found)
    if machine.offline:
        yield _of_offline(machine.offline)


def _fewer_lanes(budget: int, workers: int) -> Said:
    """What to set so that there are no more lanes than `budget` cores."""
    most, rest = divmod(budget, workers)
    # What a server takes by itself is rounded up, and so not too many only without a rest.
    flags = Said(
        f"--lanes {most}" + ("" if rest else " or 0"), f"--lanes {most}" + ("" if rest else " 或 0")
    )
    if not most:
        flags = Said(
            f"at most --workers {budget}, with --lanes 1 or 0",
            f"最多 --workers {budget}，并设 --lanes 1 或 0",
        )
    elif workers > 1:
        flags = Said(f"{flags.english}, or fewer --workers", f"{flags.chinese}，或减少 --workers")
    return Said(
        f"{flags.english}: more lanes than cores bring nothing and make single requests wait",
        f"请设 {flags.chinese}：多于核数没有好处，且单个请求会等待",
    )


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
