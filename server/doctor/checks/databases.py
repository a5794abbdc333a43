"""Checks of collections in vector databases: whether each is named, and what waits for it. None is connected to."""

from collections.abc import Iterator

from server.config import databases_in
from server.databases.outbox_look import Look
from server.doctor.facts import Facts
from server.doctor.findings import Finding, refusal
from server.messages.message import Message


def of_databases(facts: Facts) -> Iterator[Finding]:
    named = databases_in(facts.config.vector_database)
    found = Message("none is named, and the server connects to none")
    if named:
        found = Message("{names}; not connected to by this check", names=tuple(named))
    yield Finding("ok", "databases", found)
    for outbox in facts.outboxes:
        yield _of_outbox(outbox, set(named))


def _of_outbox(outbox: Look, named: set[str]) -> Finding:
    if outbox.error is not None:
        return refusal("databases", outbox.error)
    found = Message(
        "collection {name} in {database}: {writes} writes wait, {aside} are set aside",
        name=outbox.name,
        database=outbox.database,
        writes=outbox.writes,
        aside=outbox.set_aside,
    )
    if outbox.database not in named:
        advice = Message(
            "no --vector-database has this name, so the collection is not served; give "
            "--vector-database {database}=URI",
            database=outbox.database,
        )
        return Finding("warning", "databases", found, advice)
    if outbox.refused is not None:
        advice = Message(
            "the database refused the first of them ({reason}), and the others wait behind it: mend it and "
            "retry, or set it aside, see docs/en/how-to/vector-database.md",
            reason=outbox.refused,
        )
        return Finding("warning", "databases", found, advice)
    return Finding("ok", "databases", found)
