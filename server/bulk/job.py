"""A corpus to vectors: units are read into sorted runs, then every range of digests becomes a part.

Exactly once: equal texts have equal digests and so meet in one part, which computes each digest once. All
that is kept between two runs is in files that are whole or absent: the runs of a unit with its note, a part,
and the records of a journal. So a run that was killed is continued by the same command, whichever process
was killed, and what is done is not computed again.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from server.bulk.cluster import Workers, workers
from server.bulk.filling import Fill, Filled
from server.bulk.inputs import Unit, find_files, units_of
from server.bulk.layout import Layout
from server.bulk.manifest import (
    REJECTS_FILE,
    WORK_FOLDER,
    Output,
    check_continues,
    locked,
    set_aside,
    write_output,
)
from server.bulk.parts import Range, Space, facts_of, number_of_parts, range_of
from server.bulk.scanning import Scan, Scanned
from server.bulk.work_file import forget_scratch
from server.errors import BadSettings, StoreError
from server.inference.manifest import read_manifest
from server.system.atomic_file import replacing

RUNS = "runs"
# Called with the stage, and how much of it is done: units or parts, and then texts.
Show = Callable[["Progress"], None]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. done, total: units while it reads, else rows. computed: texts embedded by now."""

    is_reading: bool
    done: int
    total: int
    computed: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """What to embed, and where. address: of a cluster's scheduler, None for `threads` of this machine."""

    inputs: Sequence[str]
    out: Path
    artifact: Path
    layout: Layout = field(default_factory=Layout)
    address: str | None = None
    threads: int = 1
    is_strict: bool = False
    forget: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What a job has made, and what it has cost. computed, reused: texts; repeated: rows that came twice."""

    output: Output
    computed: int
    reused: int

    @property
    def repeated(self) -> int:
        return self.output.given - self.output.rows


def run(job: Job, show: Show) -> Done:
    """Embed a corpus; raises BadSettings."""
    space = space_of(job.artifact)
    files = find_files(job.inputs, job.out)
    with locked(job.out):
        check_continues(job.out, space, files, forget=job.forget)
        work = job.out / WORK_FOLDER
        forget_scratch(job.out, work / RUNS)
        units = list(units_of(files))
        with workers(job.address, job.threads, work / "dask", job.artifact, space) as some:
            scans = [Scan(unit, job.layout, work / RUNS, job.is_strict) for unit in units]
            notes = _scan(some, scans, show)
            set_aside(job.out)
            filled = _fill(job, some, space, scans, notes, show)
        output = _finish(job, space, files, scans, notes, filled)
        # A task that a killed run has left on a cluster may still write there.
        shutil.rmtree(work, ignore_errors=True)
    computed, reused = (
        sum(getattr(each, name) for each in filled) for name in ("computed", "reused")
    )
    return Done(output, computed, reused)


def space_of(artifact: Path) -> Space:
    """Return what the vectors of an artifact are; raises BadSettings for a model of another task."""
    found = read_manifest(artifact)
    if found.task != "dense":
        raise BadSettings(
            "{model} gives {task}; vectors of a corpus need a model of the task dense",
            model=found.model_id,
            task=found.task,
        )
    return Space(found.model_id, found.fingerprint, found.dimension, found.normalized)


def _scan(some: Workers, scans: Sequence[Scan], show: Show) -> list[Scanned]:
    todo = [each for each in scans if each.done() is None]
    show(Progress(True, len(scans) - len(todo), len(scans)))
    for count, _ in enumerate(some.scan(todo), len(scans) - len(todo) + 1):
        show(Progress(True, count, len(scans)))
    notes = [each.done() for each in scans]
    if None in notes:
        raise StoreError("{folder} lost files while the run used it", folder=scans[0].folder)
    return [each for each in notes if each is not None]


def _fill(
    job: Job,
    some: Workers,
    space: Space,
    scans: Sequence[Scan],
    notes: Sequence[Scanned],
    show: Show,
) -> list[Filled]:
    given = sum(each.rows for each in notes)
    number = number_of_parts(given, sum(each.characters for each in notes))
    runs = tuple(
        scan.run(place)
        for scan, note in zip(scans, notes, strict=True)
        for place in range(note.runs)
    )
    journals = job.out / WORK_FOLDER / "journals"

    def tasks() -> Iterator[Fill]:
        for index in range(number):
            part = Range(index, number)
            yield Fill(part, job.out, journals, runs, job.layout, space, job.is_strict)

    filled: list[Filled] = []
    done = computed = 0
    show(Progress(False, 0, given))
    for each in some.fill(tasks()):
        filled.append(each)
        done, computed = done + each.given, computed + each.computed
        show(Progress(False, done, given, computed))
    if done != given:
        raise StoreError(
            "the parts were made of {done:,} rows, and the input has {given:,}: files of {out} changed while"
            " the run used them; run it again",
            done=done,
            given=given,
            out=job.out,
        )
    return sorted(filled, key=lambda each: each.name)


def _finish(
    job: Job,
    space: Space,
    files: Sequence[str],
    scans: Sequence[Scan],
    notes: Sequence[Scanned],
    filled: Sequence[Filled],
) -> Output:
    """Write rejects, delete parts of another division of the digests, and write the manifest."""
    _check_parts(job.out, space, filled)
    rejected = _write_rejects(job, scans, notes, filled)
    output = Output(
        *(space.model_id, space.fingerprint, space.dimension, space.normalized),
        with_text=job.layout.with_text,
        kept={each.name: each.type for each in job.layout.kept},
        files=list(files),
        parts={each.name: each.rows for each in filled},
        given=sum(each.given for each in filled),
        rows=sum(each.rows for each in filled),
        rejected=rejected,
    )
    # Before the manifest: with it, every part that is there counts.
    for path in job.out.glob("part-*.parquet"):
        if range_of(path) and path.name not in output.parts:
            path.unlink()
    write_output(job.out, output)
    return output


def _check_parts(out: Path, space: Space, filled: Sequence[Filled]) -> None:
    """Raise StoreError where a part is another one than this run has made or found.

    A task of a killed run with other inputs may have gone on for a while on a cluster.
    """
    for each in filled:
        facts = facts_of(out / each.name)
        if facts is None or (facts.made_of, facts.fingerprint) != (each.made_of, space.fingerprint):
            raise StoreError(
                "{file} was changed while the run used it; run it again", file=out / each.name
            )


def _write_rejects(
    job: Job, scans: Sequence[Scan], notes: Sequence[Scanned], filled: Sequence[Filled]
) -> int:
    """Write the rows without a vector, with their numbers in their files; return how many."""
    before = _rows_before([each.unit for each in scans], notes)
    number = 0
    with replacing(job.out / REJECTS_FILE) as file:
        for line in _reject_lines(job.out, scans, filled):
            found = msgspec.json.decode(line)
            place = before[found["file"], found.pop("begin")] + found.pop("row")
            file.write(msgspec.json.encode({"file": found["file"], "row": place, **found}) + b"\n")
            number += 1
    return number


def _reject_lines(
    out: Path, scans: Sequence[Scan], filled: Sequence[Filled]
) -> Iterator[bytes | str]:
    for scan in scans:
        with scan.rejects.open("rb") as lines:
            yield from lines
    for each in filled:
        facts = facts_of(out / each.name) if each.rejected else None
        yield from facts.rejects if facts else ()


def _rows_before(units: Sequence[Unit], notes: Sequence[Scanned]) -> dict[tuple[str, int], int]:
    """Return how many rows of its file are before each unit, by file and begin."""
    found: dict[tuple[str, int], int] = {}
    passed = 0
    for unit, note in zip(units, notes, strict=True):
        passed = passed if unit.base is None else unit.base
        found[unit.file, unit.begin] = passed
        passed += note.lines
    return found
