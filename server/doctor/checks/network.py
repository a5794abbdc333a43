"""Where clients connect: the port, the Unix socket, and the files that their connections take."""

import ipaddress
from collections.abc import Iterator

from server.doctor.facts import Facts
from server.doctor.findings import Finding, Level, Said, refusal
from server.system.host import Listener, files_wanted

# How the kernel tells that there is no limit.
UNLIMITED = -1


def of_open_files(facts: Facts) -> Iterator[Finding]:
    soft, hard = facts.machine.open_files
    connections = facts.config.max_connections
    need = files_wanted(connections)
    most = Said(*(("no limit", "不限") if hard == UNLIMITED else (str(hard), str(hard))))
    found = Said(
        f"{need} open files wanted for {connections} connections; {soft} allowed, which a server raises as"
        f" far as the hard limit: {most.english}",
        f"{connections} 个连接需要打开 {need} 个文件；当前允许 {soft}，服务可自行提高到硬上限：{most.chinese}",
    )
    if hard == UNLIMITED or hard >= need:
        yield Finding("ok", "open_files", found)
        return
    advice = Said(
        f"allow {need} (ulimit -Hn, LimitNOFILE=) or set --max-connections lower: each connection takes one",
        f"请将硬上限提高到 {need}（ulimit -Hn、LimitNOFILE=），或降低 --max-connections：每个连接占用一个",
    )
    yield Finding("warning", "open_files", found, advice)


def of_port(facts: Facts) -> Iterator[Finding]:
    port, host = facts.config.port, facts.config.host
    met = [
        (each, level)
        for each in facts.listeners
        if (level := _conflict(host, each.address)) != "ok"
    ]
    surely = [each for each, level in met if level == "error"]
    own = [each for each, _ in met if _is_holder(each, facts.holder, port)]
    if own:
        pid = str(facts.holder).partition(" ")[0]
        found = Said(
            f"port {port}: the running server, process {pid}",
            f"端口 {port}：运行中的服务，进程 {pid}",
        )
        yield Finding("ok", "port", found)
    elif surely:
        yield _taken("error", port, surely[0], Said("is taken", "已被占用"))
    elif met:
        said = Said(f"may be taken for {host}", f"对 {host} 可能已被占用")
        yield _taken("warning", port, met[0][0], said)
    else:
        free = Said(f"port {port} is free", f"端口 {port} 空闲")
        any_other = Said("the kernel chooses a free port", "由系统选择空闲端口")
        yield Finding("ok", "port", free if port else any_other)


def of_socket(facts: Facts) -> Iterator[Finding]:
    path, admission = facts.config.unix_socket, facts.admission
    if path is None:
        yield Finding("ok", "socket", Said("no Unix socket", "不监听 Unix 套接字"))
    elif admission.socket_taken and facts.holder:
        said = Said(f"{path}: the running server's", f"{path}：由运行中的服务监听")
        yield Finding("ok", "socket", said)
    elif admission.socket is not None:
        yield refusal("socket", admission.socket)
    else:
        yield Finding("ok", "socket", Said(f"{path} can be had", f"{path} 可用"))


def _is_holder(listener: Listener, holder: str | None, port: int) -> bool:
    """Whether it is who uses the data folder; of another user's process, by the address that it gave."""
    pid, _, address = (holder or "").partition(" ")
    return str(listener.pid) == pid or (listener.pid is None and address.endswith(f":{port}"))


def _taken(level: Level, port: int, listener: Listener, said: Said) -> Finding:
    who = Said("a process of another user", "其他用户的进程")
    if listener.pid is not None:
        who = Said(*(f"{listener.name} ({listener.pid})",) * 2)
    return Finding(
        level,
        "port",
        Said(
            f"port {port} {said.english} by {who.english}, which listens on {listener.address}",
            f"端口 {port} {said.chinese}：{who.chinese} 正在监听 {listener.address}",
        ),
        Said("stop it, or choose another --port", "请停止该进程，或用 --port 指定其他端口"),
    )


def _conflict(host: str, address: str) -> Level:
    """error: a socket on `address` keeps a server from `host`. warning: it may. ok: it does not."""
    there = _address(address)
    here = _address("127.0.0.1" if host == "localhost" else host)
    if here is None or there is None:
        # What a name stands for is known when the server starts.
        return "warning"
    if here.version == there.version:
        return "error" if here.is_unspecified or there.is_unspecified or here == there else "ok"
    # A socket on :: takes IPv4 too where it was not told otherwise, which the kernel does not tell. The
    # server's own does not.
    if there.version == 6 and there.is_unspecified:
        return "warning"
    return "warning" if host == "localhost" and there.is_loopback else "ok"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None where it is a name. IPv4 within IPv6 is IPv4."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (found.version == 6 and found.ipv4_mapped) or found
