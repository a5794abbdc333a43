"""Checks of port, Unix socket, and the open files that connections need."""

import ipaddress
from collections.abc import Iterator

from server.doctor.facts import Facts
from server.doctor.findings import Finding, Level, refusal
from server.messages.message import Message
from server.system.host import Listener, files_wanted

# The kernel's value for no limit.
UNLIMITED = -1


def of_open_files(facts: Facts) -> Iterator[Finding]:
    soft, hard = facts.machine.open_files
    connections = facts.config.max_connections
    need = files_wanted(connections)
    most = Message("no limit") if hard == UNLIMITED else hard
    found = Message(
        "{need} open files needed for {connections} connections; {soft} allowed, which a server "
        "raises up to the hard limit: {most}",
        need=need,
        connections=connections,
        soft=soft,
        most=most,
    )
    if hard == UNLIMITED or hard >= need:
        yield Finding("ok", "open_files", found)
        return
    advice = Message(
        "allow {need} (ulimit -Hn, LimitNOFILE=) or lower --max-connections: each connection needs "
        "one",
        need=need,
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
        found = Message("port {port}: the running server, process {pid}", port=port, pid=pid)
        yield Finding("ok", "port", found)
    elif surely:
        yield _taken("error", port, surely[0], Message("is taken"))
    elif met:
        said = Message("may be taken for {host}", host=host)
        yield _taken("warning", port, met[0][0], said)
    else:
        free = Message("port {port} is free", port=port)
        any_other = Message("the kernel chooses a free port")
        yield Finding("ok", "port", free if port else any_other)


def of_socket(facts: Facts) -> Iterator[Finding]:
    path, admission = facts.config.unix_socket, facts.admission
    if path is None:
        yield Finding("ok", "socket", Message("no Unix socket"))
    elif admission.socket_taken and facts.holder:
        said = Message("{path}: the running server's", path=path)
        yield Finding("ok", "socket", said)
    elif admission.socket is not None:
        yield refusal("socket", admission.socket)
    else:
        yield Finding("ok", "socket", Message("{path} is free", path=path))


def _is_holder(listener: Listener, holder: str | None, port: int) -> bool:
    """Return whether a listener is the process that uses the data folder.

    The id of another user's process is hidden; then the address in the lock decides.
    """
    pid, _, address = (holder or "").partition(" ")
    return str(listener.pid) == pid or (listener.pid is None and address.endswith(f":{port}"))


def _taken(level: Level, port: int, listener: Listener, said: Message) -> Finding:
    who = Message("a process of another user")
    if listener.pid is not None:
        who = Message("{name} ({pid})", name=listener.name, pid=listener.pid)
    return Finding(
        level,
        "port",
        Message(
            "port {port} {said} by {who}, which listens on {address}",
            port=port,
            said=said,
            who=who,
            address=listener.address,
        ),
        Message("stop it, or choose another --port"),
    )


def _conflict(host: str, address: str) -> Level:
    """Return error if a socket on `address` blocks a server on `host`, warning if it may, else ok."""
    there = _address(address)
    here = _address("127.0.0.1" if host == "localhost" else host)
    if here is None or there is None:
        # A name is resolved when the server starts.
        return "warning"
    if here.version == there.version:
        return "error" if here.is_unspecified or there.is_unspecified or here == there else "ok"
    # A socket on :: takes IPv4 too unless it is IPv6-only, which the kernel does not show. The
    # server's own is IPv6-only.
    if there.version == 6 and there.is_unspecified:
        return "warning"
    return "warning" if host == "localhost" and there.is_loopback else "ok"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an IP address, IPv4 for IPv4 within IPv6; None for a name."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (found.version == 6 and found.ipv4_mapped) or found
