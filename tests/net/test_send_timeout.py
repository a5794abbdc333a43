"""A client that takes its reply too slowly is dropped, though it never stops."""

import asyncio
import socket

import pytest

from server.net import send_timeout
from server.net.send_timeout import SendTimeout
from tests.support.fakes import PATIENCE_S

REPLY = bytes(8 << 20)


@pytest.mark.parametrize(("least", "dropped"), [(1 << 26, True), (1 << 10, False)])
def test_a_reply_has_a_least_rate(
    least: int, dropped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_timeout, "CHECK_S", 0.02)
    monkeypatch.setattr(send_timeout, "MIN_BYTES_PER_S", least)

    async def test() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        lost = loop.create_future()

        class Sender(asyncio.Protocol):
            def connection_lost(self, exc: Exception | None) -> None:
                lost.set_result(None)

        transport, _ = await loop.create_connection(Sender, sock=ours)
        transport.write(REPLY)
        timeout = SendTimeout(transport, transport, 0.5)
        timeout.start()
        theirs.setblocking(False)
        for _ in range(90):
            await asyncio.sleep(0.01)
            if lost.done():
                break
            await loop.sock_recv(theirs, 4096)
        assert lost.done() is dropped
        timeout.stop()
        transport.abort()
        theirs.close()
        await lost

    asyncio.run(asyncio.wait_for(test(), PATIENCE_S))
