"""Who may ask for what: the address, keys, certificates, and the audit."""

from collections.abc import Iterator

from server.config import on_loopback
from server.facts import Facts
from server.findings import Finding, Said


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
