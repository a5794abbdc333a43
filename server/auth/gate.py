"""Access control: which key may do what, how much, and what the audit records of each request.

How it works: an `Endpoint` opens a `Visit` for a request before it reads the body, and the visit admits it.
The key must be known, not expired, and have the operation's scope and quota left. When the answer is known,
the visit charges the key for the tokens that were computed, and gives the audit its line. Without keys and
audit there are no visits; then only the host is checked.

`reload` reads the keys and their quotas again, and changes all of them or none.
"""

import logging
import math
import re
from collections.abc import Mapping
from contextvars import Token
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal, NamedTuple

import orjson
from starlette.types import Scope

from server.auth.audit import Audit
from server.auth.host_check import Hosts
from server.auth.keys import Key, Keys, read_keys
from server.auth.keys import Scope as KeyScope
from server.auth.quota import ANY, Account
from server.clock import now, utc, wall_s
from server.config import Config
from server.errors import Forbidden, QuotaExceeded, Unauthorized
from server.store.collection_name import normal
from server.telemetry import usage
from server.telemetry.metrics import Metrics
from server.telemetry.usage import Usage

# What an operation requires: a scope, any key, or nothing.
Needs = KeyScope | Literal["key", "nothing"]
# An id is written into logs, so it must neither forge a line nor be long.
SAFE_ID = re.compile(rb"[\w.:/+=@-]{1,128}")
BEARER = b"bearer "
# Headers with a key and nothing else. Azure's clients send the second.
KEY_HEADERS = (b"x-api-key", b"api-key")
# Characters of a path, which may contain anything, in a line of the audit or the log.
LONGEST = 256
WRITABLE_BY_OTHERS = 0o022
# Key in a request's scope: the holder of its key, where the server asks for keys.
HOLDER = "inkwell.holder"
# Key in a request's scope: names of the collections that the request uses, in their order. And how many
# of them a line of the audit has at most.
REACHED = "inkwell.reached"
MOST_REACHED = 20
# Ids of one process begin alike, and differ from those of the process before.
_begin, _numbers = token_hex(6).encode(), count(1)

log = logging.getLogger(__name__)


def request_id(given: bytes | None) -> bytes:
    """Return the client's own id if it is safe to log, else a new one."""
    if given is not None and SAFE_ID.fullmatch(given):
        return given
    return b"%b-%x" % (_begin, next(_numbers))


def secret_in(headers: Mapping[bytes, bytes]) -> bytes | None:
    """Return the secret in a request's headers, if any.

    subtle: authorization comes last. Clients of OpenAI always send one, if only "Bearer none", and a proxy may
    add its own; the others are never there by accident, unless they are empty.
    """
    for name in KEY_HEADERS:
        if given := headers.get(name, b"").strip():
            return given
    authorization = headers.get(b"authorization", b"")
    if authorization[: len(BEARER)].lower() != BEARER:
        return None
    return authorization[len(BEARER) :].strip() or None


def beginning(body: bytes, characters: int) -> str:
    """Return the first characters of a body; bytes that are not UTF-8 are replaced."""
    # A character has four bytes at most, so one that this cuts is not among the first.
    return body[: 4 * characters].decode("utf-8", "replace")[:characters]


class Holder(NamedTuple):
    """A key and the account of its use."""

    key: Key
    account: Account


class Access:
    """The keys, quotas and audit of one process. It belongs to the event loop; `close` it."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        """Read the keys and open the audit; raise BadSettings where that fails."""
        self.metrics = metrics
        self.audit_texts = config.audit_texts
        self._path = config.keys
        self._holders: dict[str, Holder] = {}
        self._keys: Keys | None = None
        if config.keys is not None:
            self._load(config.keys)
        self.audit = None if config.audit is None else Audit(config.audit, metrics)
        self.hosts = Hosts.of(config, metrics)

    @property
    def idle(self) -> bool:
        """Return whether requests need neither a key nor a line of the audit."""
        return self._keys is None and self.audit is None

    @property
    def has_quotas(self) -> bool:
        """Return whether any key has a quota."""
        return any(holder.key.quota != ANY for holder in self._holders.values())

    def _load(self, path: Path) -> None:
        keys = Keys(read_keys(path))
        if path.stat().st_mode & WRITABLE_BY_OTHERS:
            log.warning(
                "users other than the owner may write to the keys file %s, and could add keys of their own;"
                " run chmod go-w",
                path,
            )
        holders = {}
        for key in keys:
            known = self._holders.get(key.name)
            same = known is not None and known.account.quota == key.quota
            account = known.account if known and same else Account(key.quota, now())
            holders[key.name] = Holder(key, account)
        self._keys, self._holders = keys, holders
        self.metrics.key_expiry.set(min((key.ends_s for key in keys), default=math.inf))

    def reload(self) -> None:
        """Reopen the audit's file and read the keys again.

        Raises BadSettings where the keys cannot be read; then all of them stay as they were.
        """
        if self.audit is not None:
            self.audit.reopen()
        if self._path is not None:
            self._load(self._path)
            log.info("%d keys read", len(self._holders))

    async def close(self) -> None:
        if self.audit is not None:
            await self.audit.close()

    def holder(self, secret: bytes | None, needs: Needs, title: str) -> Holder | None:
        """Return the holder of a request's key, None where no key is needed; raise the refusal.

        title: method and route, for the refusal's message. The request counts for the key's quota.
        """
        if self._keys is None or needs == "nothing":
            return None
        return self._admit(self._known(secret), needs, title)

    def name_of(self, secret: bytes | None) -> str | None:
        """Return the name of a secret's key, for the audit of a refused request."""
        key = None if self._keys is None or secret is None else self._keys.find(secret)
        return None if key is None else key.name

    def _known(self, secret: bytes | None) -> Holder:
        if secret is None:
            self.metrics.denied.labels("missing").inc()
            raise Unauthorized(
                "this server asks for a key; send it as authorization: Bearer KEY or x-api-key: KEY"
            )
        key = self._keys.find(secret) if self._keys is not None else None
        if key is None:
            self.metrics.denied.labels("unknown").inc()
            raise Unauthorized("the key is not one of this server's; ask its administrator for one")
        if key.expired(wall_s()):
            self.metrics.denied.labels("expired").inc()
            raise Unauthorized(f"key {key.name!r} expired on {key.expires}; ask for a new one")
        return self._holders[key.name]

    def _admit(self, holder: Holder, needs: Needs, title: str) -> Holder:
        key = holder.key
        if needs not in ("key", *key.scopes):
            self.metrics.denied.labels("scope").inc()
            scopes = ", ".join(key.scopes) or "none"
            raise Forbidden(f"{title} needs the scope {needs}; key {key.name!r} has {scopes}")
        refused = holder.account.take(now())
        if refused is not None:
            self.metrics.denied.labels(refused.what).inc()
            raise QuotaExceeded(
                f"key {key.name!r} has used up its {refused.limit} {refused.what} a minute;"
                f" try again in {refused.wait_s} s",
                retry_after_s=refused.wait_s,
            )
        return holder


class Visit:
    """One request from its head to its answer; its exit charges the key and writes the audit.

    body: as it was sent, for the audit. status: None for a client that left before its answer.
    """

    def __init__(self, access: Access, scope: Scope, id: bytes, secret: bytes | None) -> None:
        self._access = access
        self._scope = scope
        self._id = id
        self._secret = secret
        self._holder: Holder | None = None
        self._title = f"{scope['method']} {scope['path'][:LONGEST]}"
        self._usage = Usage()
        self._reached: dict[str, None] = {}
        scope[REACHED] = self._reached
        self.body = b""
        self.status: int | None = None

    def __enter__(self) -> "Visit":
        self._began, self._began_wall = now(), wall_s()
        self._token: Token[Usage | None] = usage.CURRENT.set(self._usage)
        return self

    def admit(self, needs: Needs, route: str) -> None:
        """Check the key; raise Unauthorized, Forbidden or QuotaExceeded."""
        self._title = f"{self._scope['method']} {route}"
        self._holder = self._scope[HOLDER] = self._access.holder(self._secret, needs, self._title)

    def __exit__(self, *_: object) -> None:
        usage.CURRENT.reset(self._token)
        if self._holder is not None and self._usage.tokens:
            self._holder.account.charge(self._usage.tokens, now())
        if self._access.audit is not None:
            self._access.audit.write(orjson.dumps(self._line()))

    def _line(self) -> dict[str, Any]:
        holder, client = self._holder, self._scope.get("client")
        line = {
            "time": utc(self._began_wall),
            "request": self._id.decode(),
            "key": holder.key.name if holder else self._access.name_of(self._secret),
            "route": self._title,
            "status": self.status,
            "texts": self._usage.texts,
            "tokens": self._usage.tokens,
            "milliseconds": round((now() - self._began) * 1000, 1),
            "client": client[0] if client else None,
        }
        line |= self._collections()
        if self._access.audit_texts:
            line["body"] = beginning(self.body, self._access.audit_texts)
        return line

    def _collections(self) -> dict[str, str | list[str]]:
        """Return the collections of the request, for the audit: by their own names where it used them."""
        given = self._scope.get("path_params", {}).get("collection")
        named = None if given is None else normal(given[:LONGEST])
        used = list(self._reached)[:MOST_REACHED]
        if len(used) > 1:
            return {"collections": used}
        own = used[0] if used else named
        if own is None:
            return {}
        return (
            {"collection": own}
            if named in (own, None)
            else {"collection": own, "alias": str(named)}
        )
