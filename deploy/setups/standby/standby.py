"""Copies every collection and alias of a server to a warm standby, over HTTP; it runs on a timer, on the standby.

Its settings are variables. PRIMARY, STANDBY: addresses of the two servers. KEY_FILE: a file with a key that both know,
of the scopes search and admin; empty where they have no keys. FOLDER: where the last copy of each collection is kept.

A standby is of use when the primary has lost something, so what is lost there is not taken over: a collection that the
primary no longer has stays, and one that has shrunk to less than half is not replaced. Both are reported, and a person
decides. docs/en/how-to/beyond-one-machine.md explains it.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

Json = Mapping[str, Any]
SECONDS = 30.0
# What is read of one answer: 1,000 aliases are 200 KB.
MAX_ANSWER_BYTES = 8 << 20
# Collections of fewer documents may shrink as they like.
FEW = 10
COPY, UNCHANGED, ELSEWHERE, SHRUNK = "copy", "unchanged", "elsewhere", "shrunk"

log = logging.getLogger("standby")


class Failed(Exception):
    """Raised when a server or a command refuses something; the message says what and why."""


@dataclass(frozen=True, slots=True)
class Server:
    """One of the two servers. url: without a path."""

    url: str
    key: str

    def get(self, path: str) -> Json:
        return self._ask("GET", path)

    def put(self, path: str, body: Json) -> Json:
        return self._ask("PUT", path, json.dumps(body).encode())

    def stats(self, name: str) -> Json:
        """Return the stats of a collection; raises Failed."""
        return self.get(f"/collections/{quote(name)}")

    def names(self) -> list[str]:
        return [each["name"] for each in self.get("/collections")["collections"]]

    def aliases(self) -> dict[str, str]:
        return {each["alias"]: each["collection"] for each in self.get("/aliases")["aliases"]}

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Json:
        head = {"content-type": "application/json"}
        if self.key:
            head["authorization"] = f"Bearer {self.key}"
        request = Request(self.url.rstrip("/") + path, body, head, method=method)
        try:
            # Not over a proxy of the environment: the key and the names are nobody else's.
            with build_opener(ProxyHandler({})).open(request, timeout=SECONDS) as answer:
                found: Json = json.loads(answer.read(MAX_ANSWER_BYTES))
                return found
        except HTTPError as error:
            said = error.read(1000).decode("utf-8", "replace")
            raise Failed(
                f"{method} {path} of {self.url}: {HTTPStatus(error.code)} {said}"
            ) from None
        except (URLError, OSError, ValueError) as error:
            raise Failed(f"{method} {path} of {self.url}: {error}") from None


def decide(here: Json, there: Json | None, last: Json | None) -> str:
    """Return what to do with a collection.

    here, there: its stats on the primary, and on the standby where it has it. last: those of the primary when it was
    copied the last time.
    """
    if here.get("database") is not None:
        return ELSEWHERE
    if there is None:
        return COPY
    if there["documents"] >= FEW and here["documents"] * 2 < there["documents"]:
        return SHRUNK
    same = last is not None and here["changed"] is not None and mark(here) == last
    return UNCHANGED if same and here["documents"] == there["documents"] else COPY


def mark(stats: Json) -> Json:
    """Return what of the stats tells one state of a collection from another."""
    return {key: stats[key] for key in ("changed", "documents", "fingerprint")}


def copy_all(primary: Server, standby: Server, folder: Path, key_file: str) -> bool:
    """Copy what has changed; return whether everything could be copied."""
    well, there = True, set(standby.names())
    names = primary.names()
    for name in names:
        try:
            well &= _copy(name, name in there, primary, standby, folder, key_file)
        except Failed as error:
            log.error("%s: %s", name, error)
            well = False
    for name in sorted(there - set(names)):
        log.warning("%s: the primary does not have it any more; it stays on the standby", name)
    known = standby.aliases()
    for alias, name in primary.aliases().items():
        if known.get(alias) != name:
            try:
                standby.put(f"/aliases/{quote(alias)}", {"collection": name})
                log.info("%s leads to %s", alias, name)
            except Failed as error:
                log.error("alias %s: %s", alias, error)
                well = False
    return well


def _copy(
    name: str, is_there: bool, primary: Server, standby: Server, folder: Path, key_file: str
) -> bool:
    here = primary.stats(name)
    file, note = folder / f"{name}.backup", folder / f"{name}.json"
    last = json.loads(note.read_text(encoding="utf-8")) if note.exists() else None
    there = standby.stats(name) if is_there else None
    decision = decide(here, there, last)
    if decision == SHRUNK:
        log.error(
            "%s: the primary has %d documents, the standby %d: not replaced; if that is right, remove it there",
            name,
            here["documents"],
            (there or here)["documents"],
        )
        return False
    if decision == COPY:
        keyed = ["--key-file", key_file] if key_file else []
        # The file has its name only when all of it has come.
        _run("backup", name, str(file), "--url", primary.url, *keyed)
        told = ("--collection", name, "--force", "--url", standby.url, *keyed)
        _run("restore", str(file), *told)
        note.write_text(json.dumps(mark(here)), encoding="utf-8")
    log.info("%s: %s, %d documents", name, decision, here["documents"])
    return True


def _run(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "server", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        raise Failed(done.stderr.strip())


def main() -> int:
    """Return 0 if the standby has everything that the primary has."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    environ = os.environ
    folder, key_file = Path(environ["FOLDER"]), environ.get("KEY_FILE", "")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = Path(key_file).read_text(encoding="ascii").strip() if key_file else ""
    primary, standby = Server(environ["PRIMARY"], key), Server(environ["STANDBY"], key)
    try:
        return 0 if copy_all(primary, standby, folder, key_file) else 1
    except Failed as error:
        log.error("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
