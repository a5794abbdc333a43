"""Checks of models, installed packages and the clock."""

from collections.abc import Iterator, Mapping

from server import BUILT
from server.doctor.facts import Artifact, Facts
from server.doctor.findings import Finding, refusal
from server.inference.comparison import COMPARISONS
from server.messages.message import Message
from server.types import Task

MOST_NAMED = 5
ONLY_RERANKERS = (
    Message("no embedding model is served: pairs are scored, but there are no vectors"),
    Message("collections and search by meaning need one; add it with --model"),
)


def of_models(facts: Facts) -> Iterator[Finding]:
    seen: set[str] = set()
    for artifact in facts.artifacts:
        if artifact.error is not None:
            yield refusal("model", artifact.error)
        elif artifact.fingerprint in seen:
            yield Finding(
                "error",
                "model",
                Message("{place} is given twice", place=str(artifact.place)),
                Message("leave out one --model"),
            )
        else:
            seen.add(artifact.fingerprint)
            yield _of_model(artifact)
            if artifact.computed_by is not None:
                found = Message(
                    "{place}: {computed_by}",
                    place=str(artifact.place),
                    computed_by=artifact.computed_by,
                )
                yield Finding("ok", "model", found)
    # One that does not open may be the one that gives vectors.
    if all(each.error is None and each.task != "dense" for each in facts.artifacts):
        yield Finding("warning", "model", *ONLY_RERANKERS)


GIVES: Mapping[Task, Message] = {
    "dense": Message("vectors"),
    "score": Message("scores of pairs"),
    "sparse": Message("sparse weights"),
    "token_vectors": Message("one vector per token"),
}


def _of_model(artifact: Artifact) -> Finding:
    bits = "float32"
    if artifact.quantization is not None:
        bits = f"{artifact.quantization.weight_bits}-bit"
    comparison = COMPARISONS[artifact.task]
    found = Message(
        "{place}: hashes match; gives {task}, {bits} weights, self-test {measure} {agreement:.6f} "
        "to the exporting machine ({exported_on})",
        place=str(artifact.place),
        task=GIVES[artifact.task],
        bits=bits,
        measure=comparison.measure,
        agreement=artifact.agreement,
        exported_on=artifact.exported_on,
    )
    if artifact.agreement >= comparison.same:
        return Finding("ok", "model", found)
    return Finding(
        "warning",
        "model",
        found,
        Message(
            "its results are almost as close to float32 as those of the exporting machine, but "
            "not the same: export on this machine if it computes all of them, or with "
            "--weight-bits 7 for machines of both kinds"
        ),
    )


def of_python(facts: Facts) -> Iterator[Finding]:
    version = ".".join(map(str, facts.machine.python))
    if facts.packages is None:
        yield Finding(
            "ok",
            "python",
            Message(
                "Python {version}; no lock file beside the program, so packages were not compared",
                version=version,
            ),
        )
    elif not facts.packages:
        found = Message("Python {version}, packages as locked", version=version)
        yield Finding("ok", "python", found)
    else:
        shown = [
            f"{each.name} {each.found} ({each.locked})" for each in facts.packages[:MOST_NAMED]
        ]
        number, listed = len(facts.packages), tuple(shown)
        yield Finding(
            "warning",
            "python",
            Message(
                "Python {version}; {number} packages differ from the locked version: {listed}",
                version=version,
                number=number,
                listed=listed,
            ),
            Message(
                "install the tested versions: pip install --no-deps --require-hashes -r locks/run.txt"
            ),
        )


def of_clock(facts: Facts) -> Iterator[Finding]:
    day = facts.machine.day
    found = Message("today is {day} (UTC)", day=day)
    if day >= BUILT:  # text in the order of the days
        yield Finding("ok", "clock", found)
        return
    yield Finding(
        "warning",
        "clock",
        Message("{found}, before this version was built ({built})", found=found, built=BUILT),
        Message("set the clock: logs and certificates depend on it, stored data does not"),
    )
