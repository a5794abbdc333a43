"""The Hugging Face hub and its mirrors."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from export.source.hubs.dialects.dialect import COMMIT, Listing, Page
from export.source.hubs.remote_file import RemoteFile, digest_of, listed_file, size_of


class HuggingFace:
    """See Dialect."""

    prefix = ""
    hosts: tuple[str, ...] = ("huggingface.co", "www.huggingface.co", "hf.co")
    mirrors: tuple[str, ...] = ("hf-mirror.com",)
    default_revision = "main"
    endpoint_variables: tuple[str, ...] = ("HF_ENDPOINT",)
    token_variable = "HF_TOKEN"

    def credentials(self, token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    def listing(self, model_id: str, revision: str) -> Listing:
        listed = yield f"/api/models/{model_id}/revision/{quote(revision, safe='')}?blobs=True"
        commit, siblings = listed["sha"], listed["siblings"]
        if not COMMIT.fullmatch(commit):
            raise ValueError
        return commit, [_sibling(sibling) for sibling in siblings]

    def place(self, model_id: str, commit: str, name: str) -> str:
        return f"/{model_id}/resolve/{commit}/{quote(name)}"

    def examined(self, file: RemoteFile, answers: Sequence[Mapping[str, str]]) -> RemoteFile:
        # Before a redirect to a store of large files the hub itself states both.
        for headers in answers:
            if "X-Linked-Etag" in headers:
                size = size_of(headers.get("X-Linked-Size"))
                return replace(file, size=size, digest=digest_of(headers["X-Linked-Etag"]))
        headers = answers[-1]
        size = size_of(headers.get("Content-Length"))
        return replace(file, size=size, digest=digest_of(headers.get("ETag")))

    def cause(self, headers: Mapping[str, str], content: bytes) -> str:
        return str(headers.get("X-Error-Code", ""))

    def page(self, parts: Sequence[str]) -> Page | None:
        match parts:
            case [owner, name] if owner not in ("datasets", "spaces", "collections"):
                return Page(f"{owner}/{name}")
            case [owner, name, "tree", revision] if owner not in ("datasets", "spaces"):
                return Page(f"{owner}/{name}", revision)
        return None


def _sibling(sibling: dict[str, Any]) -> RemoteFile:
    large = sibling.get("lfs")
    if not isinstance(large, dict | None):
        raise TypeError
    if large:
        size = large.get("size", sibling.get("size"))
        return listed_file(sibling["rfilename"], size, large.get("sha256"))
    return listed_file(sibling["rfilename"], sibling.get("size"), sibling.get("blobId"))
