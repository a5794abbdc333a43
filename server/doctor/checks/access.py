"""Who may ask for what, and what is known of it: address, certificate, keys, audit."""

from collections.abc import Iterator

from server.config import on_loopback
from server.doctor.facts import Facts
from server.doctor.findings import Finding, refusal
from server.errors import BadSettings
from server.messages.message import Message

DAY_S = 86_400
# As long before an end as the alerts for Prometheus tell of it.
SOON_S = 14 * DAY_S


def of_address(facts: Facts) -> Iterator[Finding]:
    config = facts.config
    asked = Message("with keys") if config.keys else Message("without keys")
    if config.tls_client_ca:
        asked = Message(
            "{asked}, for holders of certificates only",
            asked=asked,
        )
    found = Message("listens on {host}, {asked}", host=config.host, asked=asked)
    if config.keys or config.tls_client_ca or on_loopback(config.host):
        yield Finding("ok", "address", found)
        return
    yield Finding(
        "warning",
        "address",
        found,
        Message(
            "whoever reaches this address can read and delete all documents: make keys with "
            "`python -m server key new` and name their file with --keys, or listen on 127.0.0.1",
        ),
    )


def of_tls(facts: Facts) -> Iterator[Finding]:
    ends_s, cert = facts.admission.certificate_s, facts.config.tls_cert
    if isinstance(ends_s, BadSettings):
        yield refusal("tls", ends_s)
        return
    if ends_s is None:
        yield Finding("ok", "tls", Message("the port speaks HTTP, without TLS"))
        return
    left_s = ends_s - facts.machine.wall_s
    days = int(left_s // DAY_S)
    found = Message("certificate {cert} ends in {days} days", cert=cert, days=days)
    if left_s <= 0:
        found = Message("clients will refuse the certificate {cert}", cert=cert)
    if left_s >= SOON_S:
        yield Finding("ok", "tls", found)
        return
    advice = Message(
        "renew it; a running server reads it at SIGHUP",
    )
    yield Finding("warning", "tls", found, advice)


def of_keys(facts: Facts) -> Iterator[Finding]:
    keys, place = facts.admission.keys, facts.config.keys
    if isinstance(keys, BadSettings):
        yield refusal("keys", keys)
        return
    if place is None:
        yield Finding("ok", "keys", Message("no keys are asked for"))
        return
    ending = [key for key in keys if key.ends_s - facts.machine.wall_s < SOON_S]
    found = Message("{place}: {n_keys} keys", place=place, n_keys=len(keys))
    if not keys:
        advice = Message(
            "nobody is let in: make one with `python -m server key new`",
        )
        yield Finding("warning", "keys", found, advice)
    elif ending:
        named = ", ".join(f"{key.name} ({key.expires})" for key in ending)
        found = Message(
            "{found}, of which these have ended or end within two weeks: {named}",
            found=found,
            named=named,
        )
        advice = Message(
            "make others with `python -m server key new` and remove these",
        )
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
