"""How fast do other servers and libraries answer the same requests, and with which quality?

    python -m benchmarks.comparison.compare [--texts FOLDER] [--sts FILE.tsv] [--only NAME,...]
        [--contender NAME=URL,FORMAT]

Contenders: the server itself; the tutorials' FastAPI and sentence-transformers on PyTorch, written as
usual; a careful user's small server around sentence-transformers on PyTorch, its ONNX and OpenVINO
backends in int8, and fastembed; infinity. Each runs in an environment of its own, made once under
--environments, at the best setting found, which contenders/README.md lists and each line shows.
Servers that run already are named by URL, in the format native, tei, openai or ollama.

All are ready at once and take turns, another first each turn, after one second that does not count,
each when the one before it has become idle; one text per request, every text unique, 16 clients. The
ratio is the median over turns of the server's rate to the contender's. cores: how many a contender
kept busy; where some are idle, its setting limits it. One JSON line per result; a contender that cannot
run is listed with the reason. Last, for each workload, the contender that came nearest: of those with
equal quality, which needs --sts and is defined in task_quality.py, and of all.
"""

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from benchmarks import closedloop, machine, usage, workloads
from benchmarks.arguments import names_among, parser
from benchmarks.comparison import recipes, task_quality
from benchmarks.comparison.environments import ENVIRONMENTS, Failed
from benchmarks.comparison.recipes import FORMATS, RECIPES, Contender
from benchmarks.comparison.task_quality import Quality
from benchmarks.comparison.turns import OURS, rotated
from benchmarks.machine import Line
from benchmarks.serve import server
from server.config import Config
from server.system.cpu import cpu_budget
from server.system.output import until_reader_leaves

WORKLOADS = ("queries", "laws", "mixed")
CLIENTS = 16
# A contender is idle below this part of a core. It is checked every LOOK_S, for REST_S at most.
RESTING, LOOK_S, REST_S = 0.2, 0.2, 5.0
Turn = Mapping[str, Mapping[str, float]]


def main() -> None:
    arguments = _arguments()
    with contextlib.ExitStack() as stack:
        url, pid, scratch = stack.enter_context(server(arguments.model))
        setting = our_setting(arguments.model)
        ours = Contender(OURS, url, FORMATS["native"], setting=setting, pid=pid)
        qualities: dict[str, Quality] = {}
        ready = []
        for contender in chain([ours], _others(arguments, stack, scratch)):
            try:
                found = task_quality.measure(contender.embed, arguments.sts)
            except (OSError, ValueError, LookupError, TypeError) as error:
                _absent(contender.name, str(error), arguments)
                continue
            line = {"case": "compare quality", "contender": contender.name, **found.line()}
            line |= {"setting": contender.setting, "versions": contender.versions}
            machine.show(line, arguments)
            ready.append(contender)
            qualities[contender.name] = found
        nearest_lines = []
        for workload in WORKLOADS:
            asked = {"workload": workload, "clients": CLIENTS}
            lines = list(summary(_turns(arguments, ready, workload, scratch)))
            for contender, line in zip(ready, lines, strict=True):
                line |= {"setting": contender.setting}
                machine.show({"case": "compare", **asked, **line}, arguments)
            found_nearest = nearest(lines, qualities)
            nearest_lines += [{"case": "compare best", **asked, **line} for line in found_nearest]
        for line in nearest_lines:
            machine.show(line, arguments)


def _others(
    arguments: argparse.Namespace, stack: contextlib.ExitStack, scratch: Path
) -> Iterator[Contender]:
    """Start the other contenders in turn; all run until the stack is closed."""
    for name in arguments.only:
        starting = recipes.running(name, arguments.model, arguments.environments, scratch)
        try:
            yield stack.enter_context(starting)
        except Failed as error:
            _absent(name, str(error), arguments)
    yield from arguments.contender


def our_setting(artifact: Path) -> str:
    """Return the server's own setting: its defaults."""
    cores, config = cpu_budget(), Config()
    lanes = f"1 process, {cores} lanes of 1 thread and a session of {cores}"
    return f"{lanes}, batches to {config.batch_tokens} tokens, {machine.recipe(artifact)}"


def _absent(name: str, reason: str, arguments: argparse.Namespace) -> None:
    machine.show({"case": "compare absent", "contender": name, "reason": reason}, arguments)


def _turns(
    arguments: argparse.Namespace, contenders: Sequence[Contender], workload: str, scratch: Path
) -> list[Turn]:
    texts = workloads.load(workload, 2000, arguments.texts)
    bodies = {}
    for each in contenders:
        path = scratch / f"{each.name}-{workload}.jsonl"
        asked = (each.body(workloads.UNIQUE + text) for text in texts)
        bodies[each.name] = workloads.write_bodies(path, asked)
    for each in contenders:  # Caches fill, and every process of a contender is up.
        _loaded(each, bodies[each.name], 1, arguments.turns)
    turns: list[Turn] = []
    for number in range(arguments.turns):
        turn: dict[str, dict[str, float]] = {}
        for each in rotated(contenders, number):
            turn[each.name] = _loaded(each, bodies[each.name], arguments.seconds, number)
            if not turn[each.name]["per_s"]:
                sys.exit(f"{each.name} answered nothing in {arguments.seconds} s: more --seconds")
        turns.append(turn)
    return turns


def _loaded(contender: Contender, bodies: Path, seconds: int, turn: int) -> dict[str, float]:
    """Return the closed loop's figures, once the contender is idle again.

    With `cores` if it was started here.
    """
    pid = contender.pid
    before = usage.family_cpu_s(pid) if pid else 0.0
    found = closedloop.run(contender.address, bodies, CLIENTS, seconds, turn)
    if pid:
        found["cores"] = (usage.family_cpu_s(pid) - before) / found["seconds"]
    _rest(pid)
    return found


def _rest(pid: int | None) -> None:
    """Wait until a contender is idle, or REST_S where that cannot be seen.

    Requests that are under way at the end of its turn, for some a second's work, would slow the next.
    """
    if pid is None:
        time.sleep(REST_S)
        return
    for _ in range(round(REST_S / LOOK_S)):
        before = usage.family_cpu_s(pid)
        time.sleep(LOOK_S)
        if usage.family_cpu_s(pid) - before < RESTING * LOOK_S:
            break


def summary(turns: Sequence[Turn]) -> Iterator[Line]:
    """Yield for each contender the medians, and the median of the ratios of our rate to its own."""
    for name in turns[0]:
        keys = [key for key in ("per_s", "p50_ms", "p99_ms", "cores") if key in turns[0][name]]
        medians = machine.medians([turn[name] for turn in turns], keys, 2)
        ratios = [turn[OURS]["per_s"] / turn[name]["per_s"] for turn in turns]
        yield {"contender": name, **medians, "ours_to_it": round(statistics.median(ratios), 3)}


def nearest(lines: Sequence[Line], qualities: Mapping[str, Quality]) -> Iterator[Line]:
    """Yield the contender that comes nearest to our rate: of those with equal quality, and of all.

    lines: of one workload, as `summary` yields them. No line if there is no such contender.
    """
    others = [line for line in lines if line["contender"] != OURS]
    ours = qualities[OURS]
    as_good = [line for line in others if task_quality.equal(qualities[line["contender"]], ours)]
    for quality, among in (("equal on STS-B", as_good), ("any", others)):
        if among:
            first = min(among, key=lambda line: float(line["ours_to_it"]))
            name = first["contender"]
            yield {
                "quality": quality,
                "contender": name,
                **qualities[name].line(),
                "ours_to_it": first["ours_to_it"],
            }


def contender(text: str) -> Contender:
    """Read name=url,format or name=url,format,model."""
    name, _, rest = text.partition("=")
    url, format, model = [*rest.split(","), "", ""][:3]
    if not name or name == OURS or not url.startswith("http") or format not in FORMATS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not name=url,format with a format of {', '.join(FORMATS)}"
        )
    return Contender(name, url.rstrip("/"), FORMATS[format], model)


def _arguments() -> argparse.Namespace:
    files = "queries.json, laws.json, mixed.json"
    options = parser(__doc__, texts=files, seconds=4, turns=5)
    options.add_argument(
        "--sts", type=Path, metavar="FILE.tsv", help="pairs, as quality reads them"
    )
    options.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    options.add_argument(
        "--only", type=names_among(RECIPES), default=list(RECIPES), metavar="NAME,..."
    )
    options.add_argument(
        "--contender",
        type=contender,
        action="append",
        default=[],
        metavar="NAME=URL,FORMAT[,MODEL]",
        help="a server that runs already; repeatable",
    )
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
