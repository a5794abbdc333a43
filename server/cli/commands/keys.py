"""Commands that create, list and remove the keys of clients."""

from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.invocation import Invocation
from server.clock import wall_s
from server.errors import BadSettings
from server.messages.message import Message

if TYPE_CHECKING:
    from server.auth.keys import Key

OLD_KEYS = Message(
    "a running server uses the old file until it reads its keys again (SIGHUP) or is restarted"
)


def new(given: Invocation) -> int:
    """Create a key, which goes to standard output alone; words about it go to standard error."""
    from server.auth.keys import add_key, new_key
    from server.auth.quota import Quota

    arguments, terminal = given.arguments, given.terminal
    quota = Quota(arguments.requests_per_minute, arguments.tokens_per_minute)
    secret, key = new_key(
        arguments.name, arguments.scopes, arguments.expires, quota, arguments.allowed
    )
    add_key(_file(given), key)
    terminal.out.write(f"{secret}\n")
    terminal.inform("keep it: it is shown only once")
    terminal.inform(OLD_KEYS)
    return 0


def list_(given: Invocation) -> int:
    """List names, scopes, last days, quotas and collections."""
    from server.auth.keys import read_keys

    keys = read_keys(_file(given))
    for key in keys:
        said = [key.name, ",".join(key.scopes), *map(given.terminal.words, _limits(key))]
        given.terminal.out.write("  ".join(said) + "\n")
    if not keys:
        given.terminal.say("no keys")
    return 0


def _limits(key: "Key") -> list[Message]:
    """Return what bounds a key: its last day, its quotas and its collections."""
    found = []
    if key.expires:
        expired = key.expired(wall_s())
        found.append(
            Message("until {day} (expired)" if expired else "until {day}", day=key.expires)
        )
    if key.requests_per_minute is not None:
        found.append(Message("{number:,} requests/min", number=key.requests_per_minute))
    if key.tokens_per_minute is not None:
        found.append(Message("{number:,} tokens/min", number=key.tokens_per_minute))
    if key.collections is not None:
        names = ", ".join(key.collections) or Message("none")
        found.append(Message("collections {names}", names=names))
    return found


def remove(given: Invocation) -> int:
    """Remove a key from the file."""
    from server.auth.keys import remove_key

    remove_key(_file(given), given.arguments.name)
    given.terminal.say("removed {name}", name=given.arguments.name)
    given.terminal.inform(OLD_KEYS)
    return 0


def _file(given: Invocation) -> Path:
    if given.config.keys is None:
        raise BadSettings(
            "no keys file is named: give --keys FILE, INKWELL_KEYS or `keys` in the config file"
        )
    return given.config.keys
