"""Who may ask for what, and what is known of it: address, certificate, keys, audit."""

from collections.abc import Iterator

from server.config import on_loopback
from server.doctor.facts import Facts
from server.doctor.findings import Finding, Said, refusal
from server.errors import BadSettings

DAY_S = 86_400
# As long before an end as the alerts for Prometheus tell of it.
SOON_S = 14 * DAY_S


def of_address(facts: Facts) -> Iterator[Finding]:
    config = facts.config
    asked = Said("with keys", "需要密钥") if config.keys else Said("without keys", "不需要密钥")
    if config.tls_client_ca:
        asked = Said(
            f"{asked.english}, for holders of certificates only",
            f"{asked.chinese}，仅限持有客户端证书者",
        )
    found = Said(
        f"listens on {config.host}, {asked.english}", f"监听 {config.host}，{asked.chinese}"
    )
    if config.keys or config.tls_client_ca or on_loopback(config.host):
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


def of_tls(facts: Facts) -> Iterator[Finding]:
    ends_s, cert = facts.admission.certificate_s, facts.config.tls_cert
    if isinstance(ends_s, BadSettings):
        yield refusal("tls", ends_s)
        return
    if ends_s is None:
        yield Finding(
            "ok", "tls", Said("the port speaks HTTP, without TLS", "端口使用 HTTP，无 TLS")
        )
        return
    left_s = ends_s - facts.machine.wall_s
    days = int(left_s // DAY_S)
    found = Said(f"certificate {cert} ends in {days} days", f"证书 {cert} 将在 {days} 天后到期")
    if left_s <= 0:
        found = Said(f"clients will refuse the certificate {cert}", f"客户端将拒绝证书 {cert}")
    if left_s >= SOON_S:
        yield Finding("ok", "tls", found)
        return
    advice = Said(
        "renew it; a running server reads it at SIGHUP",
        "请更新证书；运行中的服务收到 SIGHUP 后重新读取",
    )
    yield Finding("warning", "tls", found, advice)


def of_keys(facts: Facts) -> Iterator[Finding]:
    keys, place = facts.admission.keys, facts.config.keys
    if isinstance(keys, BadSettings):
        yield refusal("keys", keys)
        return
    if place is None:
        yield Finding("ok", "keys", Said("no keys are asked for", "不需要密钥"))
        return
    ending = [key for key in keys if key.ends_s - facts.machine.wall_s < SOON_S]
    found = Said(f"{place}: {len(keys)} keys", f"{place}：{len(keys)} 个密钥")
    if not keys:
        advice = Said(
            "nobody is let in: make one with `python -m server key new`",
            "任何人都无法访问：请用 python -m server key new 创建密钥",
        )
        yield Finding("warning", "keys", found, advice)
    elif ending:
        named = ", ".join(f"{key.name} ({key.expires})" for key in ending)
        found = Said(
            f"{found.english}, of which these have ended or end within two weeks: {named}",
            f"{found.chinese}，其中已到期或两周内到期：{named}",
        )
        advice = Said(
            "make others with `python -m server key new` and remove these",
            "请用 python -m server key new 创建新密钥，并删除这些密钥",
        )
        yield Finding("warning", "keys", found, advice)
    else:
        yield Finding("ok", "keys", found)


def of_audit(facts: Facts) -> Iterator[Finding]:
    place, error = facts.config.audit, facts.admission.audit
    if error is not None:
        yield refusal("audit", error)
    elif place is None:
        yield Finding("ok", "audit", Said("no audit is written", "不写审计日志"))
    else:
        yield Finding("ok", "audit", Said(f"audit to {place}", f"审计日志写入 {place}"))
