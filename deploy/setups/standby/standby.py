"""Copies every collection and alias of a server to a warm standby, over HTTP; it runs on a timer, on the standby.

Its settings are variables. PRIMARY, STANDBY: addresses of the two servers. KEY_FILE: a file with a key that both know,
of the scopes search and admin; empty where they have no keys. FOLDER: for a copy until it is restored, and for what
was copied when.

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
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

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


class _Staying(HTTPRedirectHandler):
    """Follows no redirect: the key is for the named server only."""

    def redirect_request(self, *_: Any) -> None:
        return None


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
        """Return the names of its collections; raises Failed for one that could lead out of a folder."""
        found = [str(each["name"]) for each in self.get("/collections")["collections"]]
        for name in found:
            if "/" in name or name.startswith(".") or not name.isprintable():
                raise Failed(f"{self.url} has a collection {name!r}, which no server gives to one")
        return found

    def aliases(self) -> dict[str, str]:
        return {each["alias"]: each["collection"] for each in self.get("/aliases")["aliases"]}

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Json:
        head = {"content-type": "application/json"}
        if self.key:
            head["authorization"] = f"Bearer {self.key}"
        request = Request(self.url.rstrip("/") + path, body, head, method=method)
        try:
            # Not over a proxy of the environment: the key and the names are nobody else's.
            with build_opener(ProxyHandler({}), _Staying).open(request, timeout=SECONDS) as answer:
                found: Json = json.loads(answer.read(MAX_ANSWER_BYTES))
                return found
        except HTTPError as error:
            said = error.read(1000).decode("utf-8", "replace")
            raise Failed(f"{method} {path} of {self.url}: {error.code} {said}") from None
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
    last = _last(note)
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
        # The file has its name only when all of it has come. A name may begin with a hyphen.
        _run("backup", "--url", primary.url, *keyed, "--", name, str(file))
        try:
            told = (f"--collection={name}", "--force", "--url", standby.url)
            _run("restore", *told, *keyed, "--", str(file))
        finally:
            file.unlink()
        note.write_text(json.dumps(mark(here)), encoding="utf-8")
    log.info("%s: %s, %d documents", name, decision, here["documents"])
    return True


def _last(note: Path) -> Json | None:
    """Return what was noted at the last copy; None where nothing was, or a kill cut it off."""
    try:
        found: Json = json.loads(note.read_text(encoding="utf-8"))
        return found
    except (FileNotFoundError, ValueError):
        return None


def _run(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "server", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        raise Failed(done.stderr.strip())


def main(environ: Mapping[str, str]) -> int:
    """Return 0 if the standby has everything that the primary has."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        for name in ("PRIMARY", "STANDBY", "FOLDER"):
            if not environ.get(name):
                raise Failed(f"{name} is not set; see standby.env")
        folder, key_file = Path(environ["FOLDER"]), environ.get("KEY_FILE", "")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = Path(key_file).read_text(encoding="ascii").strip() if key_file else ""
        for name in ("PRIMARY", "STANDBY"):
            if not environ[name].startswith(("http://", "https://")):
                raise Failed(
                    f"{name} {environ[name]!r} is not an address such as http://10.0.0.21:8000"
                )
        primary, standby = Server(environ["PRIMARY"], key), Server(environ["STANDBY"], key)
        return 0 if copy_all(primary, standby, folder, key_file) else 1
    except (Failed, OSError, UnicodeDecodeError) as error:
        log.error("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main(os.environ))
