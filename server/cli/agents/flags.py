"""Flags of `mcp`."""

from pathlib import Path

from server.cli.flags import Parser
from server.config import add_flags
from server.config_sources import API_KEY
from server.messages.terminal import Terminal

SERVER = "http://127.0.0.1:8000"
# Where --http listens if it names no address; 8000 is the server's own.
ADDRESS = "127.0.0.1:8001"


def mcp_flags(parser: Parser, terminal: Terminal) -> None:
    words, add = terminal.words, parser.add_argument
    add(
        "--url",
        default=SERVER,
        help=words("address of the running server, also unix:PATH (default: {url})", url=SERVER),
    )
    add(
        "--key-file",
        type=Path,
        metavar="FILE",
        help=words("file with the key of the server (default: the variable {name})", name=API_KEY),
    )
    add(
        "--http",
        nargs="?",
        const=ADDRESS,
        metavar="HOST:PORT",
        help=words(
            "serve over HTTP instead of standard input and output (without an address: {address})",
            address=ADDRESS,
        ),
    )
    add("--allow-add", action="store_true", help=words("let agents store new documents"))
    add_flags(parser, terminal, "allowed_hosts", "log_level")
