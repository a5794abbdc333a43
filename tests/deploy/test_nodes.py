"""Several nodes behind nginx and HAProxy, with the examples of deploy/nodes: what is shared, retried and lost."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.proxies import Proxy, haproxy, nginx
from tests.deploy.nodes import TEXT, Node, Nodes, Sent, ask
from tests.support.fakes import PATIENCE_S, eventually

# Two minutes: each test starts two nodes with the shipped model.
pytestmark = pytest.mark.slow

PROXIES = {"nginx": nginx, "haproxy": haproxy}
# Some 0.3 s of a lane, in a body that fits HAProxy's buffer.
LONG = tuple(f"{TEXT}{number}" for number in range(500))
DRAIN_S = 4

Start = Callable[..., Nodes]


@pytest.fixture(params=PROXIES)
def proxy(request: pytest.FixtureRequest) -> Proxy:
    return PROXIES[request.param]


@pytest.fixture
def start(proxy: Proxy, shipped_artifact: Path, certificate: Path, tmp_path: Path) -> Start:
    """Make two nodes behind the proxy, whose settings are flags."""

    def two(*flags: str) -> Nodes:
        several = [Node(shipped_artifact, tmp_path / name, flags) for name in ("one", "other")]
        return Nodes(proxy, several, tmp_path / "proxy", certificate)

    return two


def test_both_nodes_answer_and_each_request_is_served_once_under_its_id(start: Start) -> None:
    with start() as behind:
        with behind.load() as load:
            load.goes_on(400)
        assert not load.failed
        ids = Counter(each.id for each in load.sent)
        one, other = behind.nodes
        eventually(lambda: Counter(one.served() + other.served()) == ids)
        shares = len(one.served()) / len(ids), len(other.served()) / len(ids)
        assert min(shares) > 0.25, shares
        assert one.server is not None
        with one.server.client() as direct, behind.client() as client:
            texts = {"texts": [TEXT]}
            assert (
                client.post("/embed", json=texts).content
                == direct.post("/embed", json=texts).content
            )
            without_id = client.post("/embed", json=texts)
            assert len(without_id.headers["x-request-id"]) >= 32, "the proxy gives one"


def test_a_node_with_a_long_request_gets_no_other_while_one_is_free(start: Start) -> None:
    with start() as behind, behind.client() as client:
        busy = threading.Thread(target=ask, args=(client, "long-0", LONG * 4))
        busy.start()
        servers = [each.server for each in behind.nodes if each.server is not None]
        eventually(lambda: any(each.metric("queue_tokens", kind="bulk") for each in servers))
        with behind.client() as another:
            small = [ask(another, f"small-{number}") for number in range(10)]
        busy.join(PATIENCE_S)
        assert {each.status for each in small} == {200}
        eventually(lambda: sum(len(each.served()) for each in behind.nodes) == 11)
        ids = [set(each.served()) for each in behind.nodes]
        assert {"long-0"} in ids, ids


def test_a_node_that_drains_costs_no_request_and_is_used_again_when_it_is_back(
    start: Start,
) -> None:
    with start("--drain-s", str(DRAIN_S)) as behind:
        leaving, staying = behind.nodes
        with behind.load() as load:
            load.goes_on()
            assert leaving.server is not None
            leaving.server.process.send_signal(signal.SIGTERM)
            assert leaving.server.wait() == 0
            served = len(leaving.served())
            load.goes_on()
            assert len(leaving.served()) == served, "it is gone"
            behind.start(leaving)
            eventually(lambda: len(leaving.served()) > served)
            load.goes_on()
        assert not load.failed
        ids = Counter(each.id for each in load.sent)
        eventually(lambda: Counter(leaving.served() + staying.served()) == ids)


def test_a_killed_node_costs_what_was_in_flight_on_it_and_nothing_is_sent_twice(
    start: Start, proxy: Proxy
) -> None:
    with start() as behind:
        killed, staying = behind.nodes
        with behind.load() as load:
            load.goes_on()
            assert killed.server is not None
            at = time.monotonic()
            os.killpg(killed.server.process.pid, signal.SIGKILL)
            killed.server.process.wait(PATIENCE_S)
            gone = time.monotonic()
            load.goes_on()
            served = len(killed.served())
            behind.start(killed)
            eventually(lambda: len(killed.served()) > served)
            load.goes_on()
        assert len(load.failed) <= 8, "each client had one request under way"
        for each in load.failed:
            # HAProxy closes a client's connection that has had answers without one more, as the node did.
            assert each.code == "not_ready" or (proxy is haproxy and each.status == 0), each
            assert each.began <= gone and each.ended >= at, (each, at, gone)
        later = {each.id for each in load.sent if each.began > gone}
        # The last lines of the killed node's audit may be missing.
        eventually(lambda: later <= {*killed.served(), *staying.served()})
        times = Counter(killed.served() + staying.served())
        assert max(times.values()) == 1, "a request that was handed over is not sent again"
        assert not {each.id for each in load.failed} & set(staying.served())


def test_without_nodes_the_answer_says_so_and_when_to_try_again(start: Start) -> None:
    with start() as behind, behind.client() as client:
        for node in behind.nodes:
            assert node.server is not None
            node.server.process.send_signal(signal.SIGTERM)
            assert node.server.wait() == 0
        refused = client.post("/embed", json={"texts": [TEXT]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert refused.headers["retry-after"] == "5"
        behind.start(behind.nodes[1])
        eventually(lambda: client.post("/embed", json={"texts": [TEXT]}).status_code == 200)


def test_a_body_over_the_limit_is_refused_in_the_nodes_form(start: Start) -> None:
    with start() as behind, behind.client() as client:
        head = {"content-type": "application/json"}
        refused = client.post("/embed", content=b" " * (33 << 20), headers=head)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")
        large = client.post("/embed", content=b'{"texts":["a"]}'.ljust(8 << 20), headers=head)
        assert large.status_code == 200


def test_a_node_that_is_full_answers_the_client_and_no_other_node_is_asked(start: Start) -> None:
    # A lane computes one, one waits, and the others find no room.
    with start("--bulk-queue-tokens", "8000") as behind:
        answers = at_once(behind, 8)
        refused = [each for each in answers if each.status == 429]
        assert refused and {each.code for each in refused} == {"overloaded"}
        eventually(lambda: sum(len(each.served()) for each in behind.nodes) == len(answers))


def test_haproxy_asks_another_node_where_one_stops_before_the_answer_and_nginx_does_not(
    start: Start, proxy: Proxy
) -> None:
    with start("--shutdown-s", "0") as behind:
        stopping = behind.nodes[0].server
        assert stopping is not None

        def stop() -> None:
            eventually(lambda: stopping.metric("queue_tokens", kind="bulk") > 0)
            stopping.process.send_signal(signal.SIGTERM)

        answers = at_once(behind, 8, meanwhile=stop)
    statuses = Counter(each.status for each in answers)
    if proxy is haproxy:
        assert statuses == {200: 8}
    else:
        assert statuses.keys() == {200, 503}
        assert {each.code for each in answers if each.status == 503} == {"shutting_down"}


def at_once(behind: Nodes, number: int, meanwhile: Callable[[], None] = lambda: None) -> list[Sent]:
    """Send long requests at the same time, each over a connection of its own."""
    answers: list[Sent] = []

    def send(id: str) -> None:
        with behind.client() as client:
            answers.append(ask(client, id, LONG))

    threads = [threading.Thread(target=send, args=(f"long-{each}",)) for each in range(number)]
    for thread in threads:
        thread.start()
    meanwhile()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(answers) == number
    return answers
