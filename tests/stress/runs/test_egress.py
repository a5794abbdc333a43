"""The addresses that count as leaving the machine; every operation is called."""

from pathlib import Path

import pytest

from server.app import every_operation
from server.config import Config
from server.telemetry.metrics import Metrics
from tests.stress.runs.egress import STAYS, addresses, round_of_requests

TRACE = """\
101 bind(6, {sa_family=AF_INET, sin_port=htons(8000), sin_addr=inet_addr("127.0.0.1")}, 16) = 0
102 sendto(9, "x", 1, MSG_NOSIGNAL, NULL, 0) = 1
103 connect(7, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("192.0.2.1")}, 16) = 0
103 openat(AT_FDCWD, "sa_family=AF_INET", O_RDONLY) = 3
104 sendmsg(7, {msg_name={sa_family=AF_INET6, sin6_port=htons(1), inet_pton(AF_INET6, "2001:db8::1", &to)}}, 0) = 1
"""


def test_addresses_are_those_of_the_calls_that_name_one(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text(TRACE)
    found = addresses(trace)
    assert len(found) == 3
    assert [bool(STAYS.search(address)) for address in found] == [True, False, False]


@pytest.mark.parametrize(
    ("address", "stays"),
    [
        ('sa_family=AF_INET6, sin6_port=htons(1), inet_pton(AF_INET6, "::1", &sin6_addr)', True),
        ('sa_family=AF_INET6, sin6_port=htons(1), inet_pton(AF_INET6, "::", &sin6_addr)', False),
        ('sa_family=AF_UNIX, sun_path="/run/nscd"', True),
        ("sa_family=AF_NETLINK, nl_pid=0", True),
        ('sa_family=AF_INET, sin_port=htons(8000), sin_addr=inet_addr("0.0.0.0")', False),
    ],
)
def test_only_the_loopback_and_sockets_without_a_network_stay(address: str, stays: bool) -> None:
    assert bool(STAYS.search(address)) == stays


def test_a_round_asks_for_every_operation() -> None:
    asked = [(ask.method, ask.path) for ask in round_of_requests()]
    for each in every_operation(Config(), Metrics()):
        prefix = each.path.split("{")[0].removesuffix("/") if "{" in each.path else each.path
        assert any(method == each.method and path.startswith(prefix) for method, path in asked), (
            each.path
        )
