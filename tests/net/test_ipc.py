"""Messages between the processes of one server."""

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from server.net.ipc import Channel, Kind, Message, pair


def test_message_arrives_whole_however_large() -> None:
    async def run() -> None:
        one, other = pair()
        content = os.urandom(3 << 20)
        assert one.send(Kind.PAGE, content) and one.send(Kind.STOP)
        assert other.wait() == Message(Kind.PAGE, content)
        assert other.wait() == Message(Kind.STOP)
        one.close()
        other.close()

    asyncio.run(run())


def test_connection_arrives_with_the_bytes_read_and_outlives_its_sender() -> None:
    async def run() -> None:
        one, other = pair()
        client, served = socket.socketpair()
        assert one.send(Kind.CONNECTION, b"GET /", served.fileno())
        served.close()
        one.close()
        message = other.wait()
        assert (message.kind, message.content) == (Kind.CONNECTION, b"GET /")
        assert message.connection is not None and not message.connection.get_inheritable()
        message.connection.send(b"here")
        assert client.recv(4) == b"here"
        with pytest.raises(EOFError):
            other.wait()
        for each in (message.connection, client):
            each.close()
        other.close()

    asyncio.run(run())


def test_full_channel_says_so_and_leaves_no_descriptor_open() -> None:
    async def run() -> None:
        one, other = pair()
        sent = 0
        before = len(os.listdir("/proc/self/fd"))
        while one.send(Kind.PAGE, b"x"):
            sent += 1
        assert sent > 50
        assert len(os.listdir("/proc/self/fd")) == before
        waiting = asyncio.ensure_future(one.deliver(Kind.STOP))
        heard: list[Message | None] = []
        gone = asyncio.Event()

        def receive(message: Message | None) -> None:
            heard.append(message)
            if message is None:
                gone.set()

        other.listen(receive)
        await waiting
        one.close()
        await gone.wait()
        assert heard == [*[Message(Kind.PAGE, b"x")] * sent, Message(Kind.STOP), None]
        other.close()

    asyncio.run(run())


def test_sender_with_too_many_open_files_tries_again() -> None:
    async def run() -> None:
        one, other = pair()
        with no_more_files():
            assert not one.send(Kind.RELOAD, b"settings")
            waiting = asyncio.ensure_future(one.deliver(Kind.RELOAD, b"settings"))
            await asyncio.sleep(0)
            assert one.send(Kind.STOP), "which carries nothing"
        await waiting
        assert other.wait() == Message(Kind.STOP)
        assert other.wait() == Message(Kind.RELOAD, b"settings")
        one.close()
        other.close()

    asyncio.run(run())


def test_receiver_with_too_many_open_files_gets_all_or_nothing_of_a_message() -> None:
    async def run() -> None:
        one, other = pair()
        client, served = socket.socketpair()
        for room in (0, 1):
            assert one.send(Kind.CONNECTION, b"GET /", served.fileno())
            with no_more_files(room):
                assert other.wait() == Message(Kind.CONNECTION)
        served.close()
        assert client.recv(1) == b"", "no process holds the other end any more"
        for each in (client, one, other):
            each.close()

    asyncio.run(run())


@contextmanager
def no_more_files(room: int = 0) -> Iterator[None]:
    """Let this process open no more than `room` files meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(room + 1)]
    for descriptor in free:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[room], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_sender_learns_that_the_other_end_is_gone() -> None:
    async def run() -> None:
        one, other = pair()
        other.close()
        with pytest.raises(OSError):
            one.send(Kind.STOP)
        await one.deliver(Kind.STOP)
        one.close()

    asyncio.run(run())


def test_worker_finds_its_end_by_number() -> None:
    async def run() -> None:
        one, other = pair()
        inherited = Channel.of(os.dup(other.fileno()))
        assert one.send(Kind.CONFIG, b"all of them")
        assert inherited.wait().content == b"all of them"
        for each in (one, other, inherited):
            each.close()

    asyncio.run(run())
