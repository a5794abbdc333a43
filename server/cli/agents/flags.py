"""Flags of `mcp`."""

from server.cli.flags import Parser, key_file_flag
from server.config import add_flags
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
    key_file_flag(parser, terminal)
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
