"""Named keys in a file: one JSON object a line, which holds a key's SHA-256 and never the key.

A key has 256 random bits, so a plain hash of it cannot be reversed and needs neither salt nor stretching.
`gate` decides what a key may do.
"""

import hashlib
import hmac
import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec

from server.auth.quota import ANY, Quota
from server.errors import BadSettings
from server.messages.message import Message
from server.store.collection_name import normal
from server.system.atomic_file import replacing

Scope = Literal["embed", "search", "write", "admin", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "ink_"
SECRET_BYTES = 32
NAME = re.compile(r"[\w.-]{1,64}")
DAY_S = 86_400
EPOCH = date(1970, 1, 1)

# Collections that a key may use: a name, or the beginning of names before a star.
PATTERN = re.compile(r"[^*\s/]{0,64}\*?")
MOST_PATTERNS = 100
Pattern = Annotated[str, msgspec.Meta(pattern=rf"^{PATTERN.pattern}\Z", min_length=1)]
PerMinute = Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line of the file.

    expires: the last day on which the key is valid, in UTC. collections: names of the collections that it
    may use, or beginnings of names with a star behind; None for all of them.
    """

    name: Annotated[str, msgspec.Meta(pattern=f"^{NAME.pattern}$")]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    scopes: Sequence[Scope]
    expires: date | None = None
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    collections: Annotated[Sequence[Pattern], msgspec.Meta(max_length=MOST_PATTERNS)] | None = None

    def may_use(self, collection: str) -> bool:
        """Return whether the key may use the collection of this name."""
        return self.collections is None or any(
            collection.startswith(normal(each[:-1]))
            if each[-1] == "*"
            else collection == normal(each)
            for each in self.collections
        )

    @property
    def quota(self) -> Quota:
        return Quota(self.requests_per_minute, self.tokens_per_minute)

    def expired(self, wall_s: float) -> bool:
        """Return whether the key is no longer valid at `wall_s`, in seconds since 1970."""
        return wall_s >= self.ends_s

    @property
    def ends_s(self) -> float:
        """The first second in which the key is no longer valid, since 1970."""
        if self.expires is None:
            return math.inf
        return DAY_S * ((self.expires - EPOCH).days + 1)


class Keys:
    """The keys of a file as they were when it was read, found by the digest of a secret."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = tuple(keys)
        self._by_digest = {bytes.fromhex(key.sha256): key for key in self._keys}

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def find(self, secret: bytes) -> Key | None:
        """Return the key with this secret; the time does not grow with the number of keys."""
        digest = hashlib.sha256(secret).digest()
        # subtle: the look-up takes longer for some digests, but its time depends on the digest only, never on
        # the secret's own bytes. A client cannot steer a digest towards a stored one: a secret that is nearly
        # right has a digest that is entirely different, so there is nothing to learn step by step.
        key = self._by_digest.get(digest)
        if key is None or not hmac.compare_digest(bytes.fromhex(key.sha256), digest):
            return None
        return key


def new_key(
    name: str,
    scopes: str,
    expires: str | None = None,
    quota: Quota = ANY,
    collections: str | None = None,
) -> tuple[str, Key]:
    """Return a secret, which is stored nowhere, and its entry; raise BadSettings.

    scopes, collections: separated by commas; collections: None for all. expires: YYYY-MM-DD.
    """
    secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    if not NAME.fullmatch(name):
        raise BadSettings("name {name!r} is not 1 to 64 letters, digits, dots, - and _", name=name)
    day = None if expires is None else _day(expires)
    patterns = None if collections is None else _patterns(collections)
    limits = (day, quota.requests, quota.tokens, patterns)
    return secret, Key(name, digest, _scopes(scopes), *limits)


def _patterns(text: str) -> list[str]:
    asked = [each.strip() for each in text.split(",")]
    for each in asked:
        if not each or not PATTERN.fullmatch(each):
            raise BadSettings(
                "{pattern!r} names no collections: give a name, or the beginning of names with a star"
                " behind, such as laws-*",
                pattern=each,
            )
    if len(asked) > MOST_PATTERNS:
        raise BadSettings(
            "{number} names of collections, at most {most} are possible; use a star",
            number=len(asked),
            most=MOST_PATTERNS,
        )
    return asked


def _scopes(text: str) -> list[Scope]:
    asked = [each.strip() for each in text.split(",")]
    for each in asked:
        if each not in SCOPES:
            raise BadSettings("scope {scope!r} is not one of {scopes}", scope=each, scopes=SCOPES)
    return [each for each in SCOPES if each in asked]


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadSettings("expires {text!r} is not a day written YYYY-MM-DD", text=text) from None


# --- the file -------------------------------------------------------------------------------------


def read_keys(path: Path) -> list[Key]:
    """Return the keys of a file; raise BadSettings where it cannot be read or a line is not a key."""
    keys: dict[str, Key] = {}
    for number, line in enumerate(_lines(path), 1):
        if (key := _parse(path, number, line)) is None:
            continue
        if key.name in keys:
            raise BadSettings(
                "keys file {path}, line {number}: there is a key {name!r} already; remove one of them",
                path=path,
                number=number,
                name=key.name,
            )
        keys[key.name] = key
    return list(keys.values())


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise BadSettings(
            "keys file {path} cannot be read: {why}; `python -m server key new` makes one",
            path=path,
            why=why,
        ) from None
    except UnicodeDecodeError:
        raise BadSettings("keys file {path} is not UTF-8 text", path=path) from None


def _parse(path: Path, number: int, line: str) -> Key | None:
    """Return the key of a line; None for an empty line or a comment."""
    if not line.strip() or line.startswith("#"):
        return None
    try:
        return msgspec.json.decode(line, type=Key)
    except msgspec.DecodeError as error:
        said: Message | msgspec.DecodeError = error
        if "`$.collections[" in str(error):
            # Written by hand, and msgspec would show a regular expression.
            said = Message(
                "an entry of collections is none of them: give a name, or the beginning of names with a star"
                " behind, such as laws-*"
            )
        raise BadSettings(
            "keys file {path}, line {number}: {error}", path=path, number=number, error=said
        ) from None


def add_key(path: Path, key: Key) -> None:
    """Append a key, to a new file if there is none; raise BadSettings."""
    lines = _lines(path) if path.exists() else []
    if lines and any(known.name == key.name for known in read_keys(path)):
        raise BadSettings(
            "there is a key {name!r} in {path} already; remove it first, or choose another name",
            name=key.name,
            path=path,
        )
    _write(path, [*lines, msgspec.json.encode(key).decode()])


def remove_key(path: Path, name: str) -> None:
    """Remove a key's line and leave the others unchanged; raise BadSettings."""
    keys = read_keys(path)
    if name not in (key.name for key in keys):
        names = tuple(key.name for key in keys) or Message("none")
        raise BadSettings(
            "there is no key {name!r} in {path}; it has {names}", name=name, path=path, names=names
        )
    kept = []
    for number, line in enumerate(_lines(path), 1):
        key = _parse(path, number, line)
        if key is None or key.name != name:
            kept.append(line)
    _write(path, kept)


def _write(path: Path, lines: Sequence[str]) -> None:
    """Replace the file whole or not at all; an existing file keeps its owner and its mode."""
    # A link stays a link.
    path = path.resolve()
    try:
        with replacing(path, mode=0o600) as file:
            if path.exists():
                found = path.stat()
                os.fchmod(file.fileno(), found.st_mode & 0o777)
                # So the server's user can read a key that root has made.
                with suppress(PermissionError):
                    os.fchown(file.fileno(), found.st_uid, found.st_gid)
            file.write("".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise BadSettings("keys file {path} cannot be written: {why}", path=path, why=why) from None
