"""Runs uvicorn until a signal. The first lets accepted requests finish, a second one does not wait.

uvicorn itself would end by the signal that stopped it, and would ignore a second SIGTERM.
"""

import contextlib
import os
import signal
import sys
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from server.config import Config
from server.errors import BadSettings


def listen(app: ASGIApp, config: Config) -> None:
    """Serve until stopped; raises BadSettings where the address cannot be had."""
    server = _Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            log_level=config.log_level,
            log_config=None,
            loop="uvloop",
            http="server.wire:Protocol",
            ws="none",
            lifespan="on",
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=config.shutdown_s,
        )
    )
    # uvicorn puts its own handlers in place while it runs, then raises what had stopped it again.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
    except SystemExit as end:
        if server.started or not end.code:
            raise
        raise BadSettings(
            f"cannot listen on {config.host}:{config.port}, the line above says why; if another"
            " server is running there, stop it or choose another --port",
            f"无法监听 {config.host}:{config.port}，原因见上一行；如该端口已被占用，"
            "请停止占用它的服务或用 --port 指定其他端口",
        ) from None


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, and end at once if stopping already: nothing that was acknowledged can be lost."""
        if self.should_exit:
            os._exit(128 + sig)
        super().handle_exit(sig, frame)
