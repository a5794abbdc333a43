"""The ModelScope hub, by its public HTTP form."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from export.errors import NoSuchModel
from export.source.hubs.dialects.dialect import COMMIT, NO_ACCESS, NO_REVISION, Listing, Page
from export.source.hubs.errors import by_hand
from export.source.hubs.remote_file import RemoteFile, listed_file
from export.source.json_file import decode

# A longer list of files ends here, and nothing in the answer says so.
MOST_LISTED = 3000
# The hub's own codes, which come with HTTP status 404.
CAUSES = {10990101004: NO_REVISION, 10010200001: NO_ACCESS}


class ModelScope:
    """See Dialect.

    Every file is listed with its sha256, so that HEAD requests are not needed.
    """

    prefix = "modelscope:"
    hosts: tuple[str, ...] = ("www.modelscope.cn", "modelscope.cn")
    mirrors: tuple[str, ...] = ("www.modelscope.ai", "modelscope.ai")
    default_revision = "master"
    # Its own tools call the second one the old name.
    endpoint_variables: tuple[str, ...] = ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN")
    token_variable = "MODELSCOPE_API_TOKEN"

    def credentials(self, token: str) -> dict[str, str]:
        # Files of private models are given for the cookie, the rest for either.
        return {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"}

    def listing(self, model_id: str, revision: str) -> Listing:
        commit = revision
        if not COMMIT.fullmatch(revision):
            commit = yield from self._commit(model_id, revision)
        query = urlencode({"Revision": commit, "Recursive": "true"})
        found = (yield f"/api/v1/models/{model_id}/repo/files?{query}")["Data"]
        entries = found["Files"] if isinstance(found, dict) else found
        if len(entries) >= MOST_LISTED:
            raise by_hand(
                "{model_id} has more files than the {most:,} that ModelScope lists",
                model_id=model_id,
                most=MOST_LISTED,
            )
        return commit, [_entry(entry) for entry in entries if entry["Type"] != "tree"]

    def _commit(self, model_id: str, revision: str) -> Generator[str, Any, str]:
        """Return the commit that a branch or tag names.

        A list of files has no commit, and a branch may change between the list and the files.
        """
        query = urlencode({"Ref": revision, "PageNumber": 1, "PageSize": 1})
        commits = (yield f"/api/v1/models/{model_id}/commits?{query}")["Data"]["Commit"]
        if not commits:
            raise NoSuchModel(
                '{model_id} has no revision "{revision}" on {shown}',
                model_id=model_id,
                revision=revision,
                shown="ModelScope",
            )
        commit = commits[0]["Id"]
        if not COMMIT.fullmatch(commit):
            raise ValueError
        return str(commit)

    def place(self, model_id: str, commit: str, name: str) -> str:
        query = urlencode({"Revision": commit, "FilePath": name}, quote_via=quote)
        return f"/api/v1/models/{model_id}/repo?{query}"

    def examined(self, file: RemoteFile, answers: Sequence[Mapping[str, str]]) -> RemoteFile:
        return file

    def cause(self, headers: Mapping[str, str], content: bytes) -> str:
        try:
            return CAUSES.get(decode(content)["Code"], "")
        except (ValueError, TypeError, KeyError):
            return ""

    def page(self, parts: Sequence[str]) -> Page | None:
        match parts:
            case ["models", owner, name] | ["models", owner, name, "summary" | "files"]:
                return Page(f"{owner}/{name}")
            case ["models", owner, name, "tree", revision]:
                return Page(f"{owner}/{name}", revision)
        return None


def _entry(entry: dict[str, Any]) -> RemoteFile:
    return listed_file(entry["Path"], entry["Size"], entry.get("Sha256"))
