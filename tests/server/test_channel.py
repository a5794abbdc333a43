"""Messages between the processes of one server."""

import asyncio
import os
import socket

import pytest

from server.channel import Channel, Kind, Message, pair


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


def test_connection_arrives_with_what_was_read_of_it_and_outlives_the_one_who_sent_it() -> None:
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
