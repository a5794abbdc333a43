"""Who may ask for what, how much of it, and what is written down of each request.

How it works: an `Endpoint` opens a `Visit` for a request before it reads the body, and the visit admits
it: the key must be known, hold today, have the operation's scope, and owe nothing. When the answer is
known the visit charges the key for the tokens that were computed, and hands the audit its line. Where
neither keys nor an audit are configured there are no visits at all; `hosts` then is all that is looked at.

Keys and their quotas are read by `reload`, which changes all of them at once or none.
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
from server.telemetry import usage
from server.telemetry.metrics import Metrics
from server.telemetry.usage import Usage

# What an operation asks for: a scope, any key at all, or nothing.
Needs = KeyScope | Literal["key", "nothing"]
# An id that is written into logs must not be able to forge a line, nor be a text of its own.
SAFE_ID = re.compile(rb"[\w.:/+=@-]{1,128}")
BEARER = b"bearer "
# Characters of what a path says, which may be anything, in a line of the audit or the log.
LONGEST = 256
WRITABLE_BY_OTHERS = 0o022
# Ids of a process begin alike, and not like those of the process before.
_begin, _numbers = token_hex(6).encode(), count(1)

log = logging.getLogger(__name__)


def request_id(given: bytes | None) -> bytes:
    """The client's own if it is safe to write down, else a new one."""
    if given is not None and SAFE_ID.fullmatch(given):
        return given
    return b"%b-%x" % (_begin, next(_numbers))


def secret_in(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key that a request brings, if any.

    subtle: x-api-key first. Clients of OpenAI always send an authorization, if only "Bearer none", and a
    proxy may have one of its own; x-api-key is there because somebody meant it.
    """
    given = headers.get(b"x-api-key")
    if given is None:
        authorization = headers.get(b"authorization", b"")
        if authorization[: len(BEARER)].lower() != BEARER:
            return None
        given = authorization[len(BEARER) :]
    return given.strip() or None


def beginning(body: bytes, characters: int) -> str:
    """The first of them; what is no UTF-8 is replaced."""
    # None takes more than four bytes, so a last one that is cut here is not among them.
    return body[: 4 * characters].decode("utf-8", "replace")[:characters]


class Holder(NamedTuple):
    """A key and what it has had."""

    key: Key
    account: Account


class Access:
    """Lives on the event loop; `close` it."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        """Raises BadSettings where keys cannot be read or the audit cannot be opened."""
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
        """Whether there is nothing to do for any request but to look at its host."""
        return self._keys is None and self.audit is None

    @property
    def has_quotas(self) -> bool:
        """Whether any key has one."""
        return any(holder.key.quota != ANY for holder in self._holders.values())

    def _load(self, path: Path) -> None:
        keys = Keys(read_keys(path))
        if path.stat().st_mode & WRITABLE_BY_OTHERS:
            log.warning(
                "others than its owner may write to the keys file %s, and so let themselves in: chmod go-w"
                " 除所有者外还有人可写密钥文件，可借此自行添加密钥：请执行 chmod go-w",
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
        """Open the audit's file anew and read the keys again, all or none of them.

        Raises BadSettings where the keys cannot be read: then they stay as they were.
        """
        if self.audit is not None:
            self.audit.reopen()
        if self._path is not None:
            self._load(self._path)
            log.info("%d keys read 已读取 %d 个密钥", len(self._holders), len(self._holders))

    async def close(self) -> None:
        if self.audit is not None:
            await self.audit.close()

    def holder(self, secret: bytes | None, needs: Needs, title: str) -> Holder | None:
        """Whose request this is, None where anybody may ask; raises what refuses it.

        title: method and route, for the refusal's sentence. The request counts for the key's quota.
        """
        if self._keys is None or needs == "nothing":
            return None
        return self._admit(self._known(secret), needs, title)

    def name_of(self, secret: bytes | None) -> str | None:
        """Of the key behind a secret, for the audit of what was refused."""
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
                f"key {key.name!r} may have {refused.limit} {refused.what} a minute and has had them;"
                f" try again in {refused.wait_s} s",
                retry_after_s=refused.wait_s,
            )
        return holder


class Visit:
    """One request from its head to its answer; leaving it charges the key and writes the audit.

    body: as it was sent, where the audit wants it. status: None for a client that left before its answer.
    """

    def __init__(self, access: Access, scope: Scope, id: bytes, secret: bytes | None) -> None:
        self._access = access
        self._scope = scope
        self._id = id
        self._secret = secret
        self._holder: Holder | None = None
        self._title = f"{scope['method']} {scope['path'][:LONGEST]}"
        self._usage = Usage()
        self.body = b""
        self.status: int | None = None

    def __enter__(self) -> "Visit":
        self._began, self._began_wall = now(), wall_s()
        self._token: Token[Usage | None] = usage.CURRENT.set(self._usage)
        return self

    def admit(self, needs: Needs, route: str) -> None:
        """Raises Unauthorized, Forbidden or QuotaExceeded."""
        self._title = f"{self._scope['method']} {route}"
        self._holder = self._access.holder(self._secret, needs, self._title)

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
        collection = self._scope.get("path_params", {}).get("collection")
        if collection is not None:
            line["collection"] = collection[:LONGEST]
        if self._access.audit_texts:
            line["body"] = beginning(self.body, self._access.audit_texts)
        return line
