"""milvus-lite in this process, behind a socket that only this user can reach.

The client by itself would let it listen on a port of 127.0.0.1, where every user of the machine could read all
documents. So the socket is a file in the folder of the database, which gets no rights for others.
"""

import logging
from pathlib import Path
from typing import Any

from server.errors import DatabaseRefused

# It logs every refusal with a traceback, and gRPC what the client asks for and it does not have.
for _name in ("milvus_lite", "grpc._server"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

SOCKET = "socket"
# Bytes of a socket's path in Linux, with the port that milvus-lite puts behind it.
LONGEST = 100
GRACE_S = 2


class Embedded:
    """milvus-lite on a folder; it listens as soon as this is made.

    address: what the client connects to. Raises DatabaseRefused for a path that cannot be one.
    """

    def __init__(self, target: str) -> None:
        from milvus_lite.adapter.grpc.server import start_server_in_thread

        folder = Path(target).absolute()
        if len(str(folder / SOCKET).encode()) > LONGEST:
            raise DatabaseRefused(
                f"the path {folder} has more than {LONGEST - len(SOCKET) - 1} bytes, the most for a"
                " database of milvus-lite; choose a shorter one"
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        started: tuple[Any, Any, int] = start_server_in_thread(
            str(folder), host=f"unix:{folder / SOCKET}", port=0
        )
        self._server, self._engine, _ = started
        self.address = f"unix:{folder / SOCKET}:0"

    def close(self) -> None:
        self._server.stop(grace=GRACE_S).wait()
        self._engine.close()
