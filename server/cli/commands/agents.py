"""The MCP server for agents: `mcp`."""

from server.cli.agents.flags import ADDRESS
from server.cli.commands import opening
from server.cli.invocation import Invocation
from server.config import names_in
from server.errors import BadSettings


def mcp(given: Invocation) -> int:
    """Serve agents on standard input and output, or over HTTP with --http."""
    from server.cli.connection import Server

    asked = given.arguments
    if asked.http is not None and asked.key_file is not None:
        raise BadSettings(
            "--key-file does not go with --http: each caller sends a key of its own, as"
            " `authorization: Bearer KEY`"
        )
    # Before the package is looked for: wrong flags are reported first.
    listen = None if asked.http is None else _address(asked.http)
    server = Server(asked.url, None if listen else opening.secret(given))
    try:
        from server.cli.agents import transports
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "server":
            raise
        raise BadSettings(
            "the package {name} is missing; install it with `make install-mcp`, or with"
            ' pip install "inkwell-embeddings[mcp]"',
            name=error.name,
        ) from None
    if listen is None:
        transports.serve_stdio(server, allow_add=asked.allow_add)
        return 0
    host, port = listen
    given.terminal.inform(
        "agents reach {url} at http://{address}/mcp", url=asked.url, address=asked.http
    )
    names = names_in(given.config.allowed_hosts)
    transports.serve_http(server, host, port, names, allow_add=asked.allow_add)
    return 0


def _address(text: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT; raises BadSettings."""
    host, _, port = text.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    if not host or not 1 <= number <= 65535:
        raise BadSettings(
            "--http {text!r} is not an address such as {example}", text=text, example=ADDRESS
        )
    return host.strip("[]"), number
