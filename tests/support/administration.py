"""What the stress oracle does to a whole collection: renaming, aliases, restoring, and setting words.

None of it changes what the collection holds, so no ledger knows of it.
"""

import random
from contextlib import ExitStack
from typing import Any, Protocol

import httpx

from tests.support.oracle import Ledger, Verdicts

OCTETS = {"content-type": "application/octet-stream"}


class Asks(Protocol):
    """The collection: it asks the server, again after each kill, until it answers."""

    name: str
    ledgers: list[Ledger]

    def asked(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Ask about the collection."""

    def whole(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Ask with a whole path."""


class Administration:
    """What one thread does to one collection."""

    def __init__(self, asks: Asks, verdicts: Verdicts) -> None:
        self._asks, self._verdicts = asks, verdicts

    def act(self, choose: random.Random) -> None:
        """Do one of the four."""
        choose.choice((self._restore, self._rename, self._alias, self._set_words))(choose)

    def take_name_back(self) -> None:
        """Undo a renaming that a kill came after."""
        aliases = {
            each["alias"]: each for each in self._asks.whole("GET", "/aliases").json()["aliases"]
        }
        if found := aliases.get(self._asks.name):
            path = f"/collections/{found['collection']}/rename"
            self._check(
                self._asks.whole("POST", path, json={"name": self._asks.name}), 200, "rename back"
            )

    def _rename(self, choose: random.Random) -> None:
        """Rename the collection and back; the old name leads to it meanwhile."""
        body = {"name": f"{self._asks.name}-x", "keep_alias": True}
        self._check(self._asks.asked("POST", "rename", json=body), 200, "renames")
        self.take_name_back()

    def _alias(self, choose: random.Random) -> None:
        """Set an alias and delete it; in between it leads to the collection, whatever is killed."""
        alias = f"{self._asks.name}-live"
        answer = self._asks.whole("PUT", f"/aliases/{alias}", json={"collection": self._asks.name})
        self._check(answer, 200, "aliases set")
        if answer.status_code == 200:
            found = self._asks.whole("GET", f"/collections/{alias}/stats")
            if found.status_code != 200 or found.json()["name"] != self._asks.name:
                self._verdicts.fail("losses", f"alias {alias}: {found.text[:200]}")
        self._check(self._asks.whole("DELETE", f"/aliases/{alias}"), 200, "aliases deleted")

    def _restore(self, choose: random.Random) -> None:
        """Replace the collection by its own backup while its owners write nothing."""
        with ExitStack() as stack:
            for ledger in self._asks.ledgers:
                stack.enter_context(ledger.writing)
            copy = self._asks.asked("POST", "backup", json={})
            self._check(copy, 200, "backups")
            if copy.status_code == 200:
                given: dict[str, Any] = {"content": copy.content, "headers": OCTETS}
                answer = self._asks.asked("POST", "restore", params={"replace": "true"}, **given)
                self._check(answer, 201, "restores")

    def _set_words(self, choose: random.Random) -> None:
        """Set synonyms and stop words that no query has; what was acknowledged is there afterwards."""
        body = {"synonyms": [["qqq", f"qqq{choose.random()}"]], "stop_words": ["zzz"]}
        answer = self._asks.asked("PUT", "words", json=body)
        self._check(answer, 200, "words set")
        if answer.status_code == 200 and self._asks.asked("GET", "words").json() != body:
            self._verdicts.fail("losses", f"{self._asks.name}: {body} is lost")

    def _check(self, response: httpx.Response, status: int, what: str) -> None:
        if response.status_code == status:
            self._verdicts.count(what)
        # A request that a kill cut off is sent again, and may have been done already.
        elif response.status_code not in (404, 409, 429, 503, 507):
            self._verdicts.fail("others", f"{what}: {response.status_code} {response.text}")
