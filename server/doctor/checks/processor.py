"""Checks of instruction sets, cores and lanes, and huge pages."""

from collections.abc import Iterator

from server.doctor.facts import Facts
from server.doctor.findings import Finding
from server.messages.message import Message
from server.system.cpu import EXACT_INT8_FEATURES, int8_instruction_set


def of_cpu(facts: Facts) -> Iterator[Finding]:
    machine = facts.machine
    best = int8_instruction_set(machine.features)
    if best in EXACT_INT8_FEATURES:
        yield Finding(
            "ok",
            "cpu",
            Message(
                "{architecture} with {best}: int8 products are exact",
                architecture=machine.architecture,
                best=best,
            ),
        )
    elif best in ("avx2", "avx512bw"):
        yield Finding(
            "ok",
            "cpu",
            Message(
                "{best} without VNNI: int8 products may saturate, see `model` for the effect",
                best=best,
            ),
        )
    else:
        yield Finding(
            "warning",
            "cpu",
            Message(
                "{architecture} has no fast int8 arithmetic (AVX2 or asimddp)",
                architecture=machine.architecture,
            ),
            Message(
                "expect a server to be many times slower; in a virtual machine, pass the host's CPU "
                "through"
            ),
        )


def of_lanes(facts: Facts) -> Iterator[Finding]:
    machine, lanes, workers = facts.machine, facts.lanes, facts.config.workers
    running = Message("{lanes} lanes", lanes=lanes)
    if workers > 1:
        running = Message(
            "{total} lanes, {lanes} in each of {workers} processes,",
            total=lanes * workers,
            lanes=lanes,
            workers=workers,
        )
    found = Message(
        "{running} on {cores} cores of the affinity mask, cgroup quota: {quota}",
        running=running,
        cores=machine.cores,
        quota=Message("none") if machine.quota is None else f"{machine.quota:.2f}",
    )
    if lanes * workers > machine.budget:
        yield Finding("warning", "lanes", found, _fewer_lanes(machine.budget, workers))
    elif machine.quota is not None and machine.quota < 1:
        advice = Message(
            "give the cgroup at least one core: with less, the kernel pauses the process in every "
            "period of its quota"
        )
        yield Finding("warning", "lanes", found, advice)
    else:
        yield Finding("ok", "lanes", found)
    if machine.offline:
        yield _of_offline(machine.offline)


def _fewer_lanes(budget: int, workers: int) -> Message:
    """Return the settings with which there are no more lanes than `budget` cores."""
    most, rest = divmod(budget, workers)
    # A server's own choice, 0, is rounded up: it is not too high only if nothing is left over.
    flags = Message("--lanes {most}" if rest else "--lanes {most} or 0", most=most)
    if not most:
        flags = Message("at most --workers {budget}, with --lanes 1 or 0", budget=budget)
    elif workers > 1:
        flags = Message("{flags}, or fewer --workers", flags=flags)
    return Message(
        "set {flags}: more lanes than cores gain nothing and make single requests wait", flags=flags
    )


def _of_offline(cores: str) -> Finding:
    return Finding(
        "warning",
        "lanes",
        Message("cores {cores} are offline", cores=cores),
        Message("to use them, switch them on before the server starts: it counts cores once"),
    )


def of_huge_pages(facts: Facts) -> Iterator[Finding]:
    chosen = facts.machine.huge_pages
    if chosen in ("always", "madvise"):
        found = Message("transparent huge pages: {chosen}", chosen=chosen)
        yield Finding("ok", "huge_pages", found)
        return
    yield Finding(
        "warning",
        "huge_pages",
        Message(
            "transparent huge pages: {chosen}; a short query takes up to one seventh longer",
            chosen=chosen or Message("unknown"),
        ),
        Message("write madvise to /sys/kernel/mm/transparent_hugepage/enabled"),
    )
