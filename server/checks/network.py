"""Where clients connect: the port, and how many connections there may be."""

import ipaddress
from collections.abc import Iterator

from server.facts import Facts
from server.findings import Finding, Said
from server.machine import Listener

# Files of the process itself and of each collection (database, log, readers), and some clients.
OWN_FILES, COLLECTION_FILES, CLIENT_FILES = 64, 16, 512
EVERY_ADDRESS = ("0.0.0.0", "::")


def of_port(facts: Facts) -> Iterator[Finding]:
    port, host = facts.config.port, facts.config.host
    pid, _, address = (facts.holder or "").partition(" ")
    taken = [each for each in facts.listeners if _overlap(host, each.address)]
    own = [
        each
        for each in taken
        if str(each.pid) == pid or (each.pid is None and address.endswith(f":{port}"))
    ]
    if own:
        found = Said(
            f"port {port}: the running server, process {pid}",
            f"端口 {port}：运行中的服务，进程 {pid}",
        )
        yield Finding("ok", "port", found)
    elif taken:
        yield Finding(
            "error",
            "port",
            Said(
                f"port {port} is taken by {_who(taken[0], 'a process of another user')}",
                f"端口 {port} 已被占用：{_who(taken[0], '其他用户的进程')}",
            ),
            Said("stop it, or choose another --port", "请停止该进程，或用 --port 指定其他端口"),
        )
    else:
        free = Said(f"port {port} is free", f"端口 {port} 空闲")
        any_other = Said("the kernel chooses a free port", "由系统选择空闲端口")
        yield Finding("ok", "port", free if port else any_other)


def _who(listener: Listener, otherwise: str) -> str:
    return otherwise if listener.pid is None else f"{listener.name} ({listener.pid})"


def _overlap(host: str, address: str) -> bool:
    """Whether a socket on `address` keeps another from `host`; of a name, to be careful, it does."""
    wanted = "127.0.0.1" if host == "localhost" else host
    if wanted in EVERY_ADDRESS or address in EVERY_ADDRESS or not _is_address(wanted):
        return True
    return wanted == address


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def of_open_files(facts: Facts) -> Iterator[Finding]:
    soft, hard = facts.machine.open_files
    need = OWN_FILES + COLLECTION_FILES * len(facts.collections) + CLIENT_FILES
    found = Said(
        f"{soft} open files allowed (hard limit {hard})", f"最多打开 {soft} 个文件（硬上限 {hard}）"
    )
    if soft < 0 or soft >= need:  # -1 is no limit
        yield Finding("ok", "open_files", found)
        return
    yield Finding(
        "warning",
        "open_files",
        found,
        Said(
            f"allow {need} (ulimit -n, LimitNOFILE=): each client's connection takes one",
            f"请提高到 {need}（ulimit -n、LimitNOFILE=）：每个客户端连接占用一个",
        ),
    )
