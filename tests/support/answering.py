"""A server that answers load generators as a test asks: late, with a refusal, or by hanging up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
# After this one the connection is closed.
LAST = OK.replace(b"OK", b"Last")
BUSY = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"


class Server:
    """Keeps the bodies it was sent, and answers each when and as the test asks."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.connections = 0
        self.answer: Callable[[int], bytes] = lambda number: OK
        self.open = asyncio.Event()
        self.open.set()
        self.url = ""

    async def speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                self.bodies.append(await reader.readexactly(length))
                reply = self.answer(len(self.bodies) - 1)
                await self.open.wait()
                if not reply:
                    break
                writer.write(reply)
                if reply == LAST:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def stall(self, seconds: float) -> None:
        self.open.clear()
        asyncio.get_running_loop().call_later(seconds, self.open.set)


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    listener = await asyncio.start_server(server.speak, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/embed"
    async with listener:
        yield server
