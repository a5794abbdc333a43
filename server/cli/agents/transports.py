"""The two ways in which agents reach the MCP server: standard input and output, or HTTP.

On standard input it is a child of one agent, and uses one key: that of --key-file or the variable. Over HTTP
it has many callers and no key of its own: it passes on the one that each caller sends, so a caller can do
what its own key allows.
"""

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings

from server.cli.agents.tools import Open, mcp_server
from server.cli.connection import Server
from server.cli.remote import Remote
from server.config import on_loopback
from server.errors import BadSettings, StartupError

ANY_HOST = "*"
PATH = "/mcp"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def serve_stdio(server: Server, *, allow_add: bool) -> None:
    """Serve the agent that started this process, until it closes standard input."""

    def open(_: Any, collection: str) -> Remote:
        return Remote(server, collection)

    asyncio.run(mcp_server(open, allow_add=allow_add).run_stdio_async())


def serve_http(
    server: Server, host: str, port: int, allowed_hosts: Sequence[str], *, allow_add: bool
) -> None:
    """Serve HTTP at /mcp until a signal stops it; raises BadSettings where that would open the server.

    allowed_hosts: names besides its own by which it is reached.
    """
    # A server without keys trusts this machine; behind this door it would trust every other one too.
    if not on_loopback(host) and asyncio.run(_answers_without_key(server)):
        raise BadSettings(
            "{url} asks for no key, so everyone who reaches {host} could read its documents; give it keys"
            " (serve --keys), or listen on 127.0.0.1",
            url=server.url,
            host=host,
        )
    asyncio.run(
        mcp_server(_with_key_of_caller(server), allow_add=allow_add).run_streamable_http_async(
            host=host,
            port=port,
            streamable_http_path=PATH,
            # Every request stands alone: nothing is kept between them, and any proxy can pass them on.
            stateless_http=True,
            json_response=True,
            transport_security=security(host, allowed_hosts),
        )
    )


def security(host: str, allowed_hosts: Sequence[str]) -> TransportSecuritySettings:
    """Return the checks of Host and Origin, by which no web page reaches the tools (DNS rebinding).

    A browser sends an Origin and other clients send none, so only the origins of `allowed_hosts` are taken.
    """
    if ANY_HOST in allowed_hosts:
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    named = {*LOOPBACK, _in_url(host), *allowed_hosts}
    origins = [f"{scheme}://{name}" for scheme in ("http", "https") for name in allowed_hosts]
    return TransportSecuritySettings(
        allowed_hosts=_with_ports(sorted(named)), allowed_origins=_with_ports(origins)
    )


def _with_ports(names: Sequence[str]) -> list[str]:
    return [*names, *(f"{name}:*" for name in names)]


def _in_url(host: str) -> str:
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host


def _with_key_of_caller(server: Server) -> Open:
    def open(ctx: Any, collection: str) -> Remote:
        scheme, _, key = (ctx.headers or {}).get("authorization", "").partition(" ")
        sent = key.strip() if scheme.lower() == "bearer" else ""
        return Remote(server.with_key(sent or None), collection)

    return open


async def _answers_without_key(server: Server) -> bool:
    """Return whether the server lists its collections for everyone; raises StartupError if it is not there."""
    reply = await server.with_key(None).ask("GET", "/collections", None)
    if reply.ok:
        return True
    if reply.error_code in ("unauthorized", "forbidden"):
        return False
    raise StartupError("{url} answered {status}", url=server.url, status=reply.status)
