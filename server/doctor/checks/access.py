"""Checks of address, certificate, keys and audit: which clients have access, and what is recorded."""

from collections.abc import Iterator

from server.config import on_loopback
from server.doctor.facts import Facts
from server.doctor.findings import Finding, refusal
from server.errors import BadSettings
from server.messages.message import Message

DAY_S = 86_400
# The alerts for Prometheus warn at the same time before an end.
SOON_S = 14 * DAY_S


def of_address(facts: Facts) -> Iterator[Finding]:
    config = facts.config
    asked = Message("with keys") if config.keys else Message("without keys")
    if config.tls_client_ca:
        asked = Message("{asked}, only for clients with a certificate", asked=asked)
    found = Message("listens on {host}, {asked}", host=config.host, asked=asked)
    if config.keys or config.tls_client_ca or on_loopback(config.host):
        yield Finding("ok", "address", found)
        return
    yield Finding(
        "warning",
        "address",
        found,
        Message(
            "every client that reaches this address can read and delete all documents: create keys "
            "with `python -m server key new` and name their file with --keys, or listen on 127.0.0.1"
        ),
    )


def of_tls(facts: Facts) -> Iterator[Finding]:
    ends_s, cert = facts.admission.certificate_s, facts.config.tls_cert
    if isinstance(ends_s, BadSettings):
        yield refusal("tls", ends_s)
        return
    if ends_s is None:
        yield Finding("ok", "tls", Message("the port serves HTTP, without TLS"))
        return
    left_s = ends_s - facts.machine.wall_s
    days = int(left_s // DAY_S)
    found = Message("certificate {cert} expires in {days} days", cert=cert, days=days)
    if left_s <= 0:
        found = Message("clients will refuse the certificate {cert}", cert=cert)
    if left_s >= SOON_S:
        yield Finding("ok", "tls", found)
        return
    advice = Message("renew it; a running server reads it again at SIGHUP")
    yield Finding("warning", "tls", found, advice)


def of_keys(facts: Facts) -> Iterator[Finding]:
    keys, place = facts.admission.keys, facts.config.keys
    if isinstance(keys, BadSettings):
        yield refusal("keys", keys)
        return
    if place is None:
        yield Finding("ok", "keys", Message("keys are not required"))
        return
    ending = [key for key in keys if key.ends_s - facts.machine.wall_s < SOON_S]
    found = Message("{place}: {number} keys", place=place, number=len(keys))
    if not keys:
        advice = Message("no client has access: create a key with `python -m server key new`")
        yield Finding("warning", "keys", found, advice)
    elif ending:
        named = tuple(f"{key.name} ({key.expires})" for key in ending)
        found = Message(
            "{found}; these have expired or expire within two weeks: {named}",
            found=found,
            named=named,
        )
        advice = Message("create new ones with `python -m server key new` and remove these")
        yield Finding("warning", "keys", found, advice)
    else:
        yield Finding("ok", "keys", found)


def of_audit(facts: Facts) -> Iterator[Finding]:
    place, error = facts.config.audit, facts.admission.audit
    if error is not None:
        yield refusal("audit", error)
    elif place is None:
        yield Finding("ok", "audit", Message("no audit is written"))
    else:
        yield Finding("ok", "audit", Message("audit to {place}", place=place))
