"""What differs between the kinds of hubs; the client does the rest for all of them.

A dialect opens no connection: it says which places to ask for, and reads the answers. A place is what stands
behind the hub's address in a URL. A dialect trusts nothing in an answer: it raises
ValueError, TypeError, KeyError or AttributeError for anything but what its hub documents.
"""

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from export.source.hubs.remote_file import RemoteFile

COMMIT = re.compile("[0-9a-f]{40}")
# Why a hub refuses: other causes are known by the status of the answer.
NO_REVISION, NO_ENTRY, NO_ACCESS = "RevisionNotFound", "EntryNotFound", "NoAccess"
# Yields places, is sent the JSON at each, and returns a commit and its files.
Listing = Generator[str, Any, tuple[str, Sequence[RemoteFile]]]


@dataclass(frozen=True, slots=True)
class Page:
    """The model that a page of a hub shows. revision: empty where the page names none."""

    model_id: str
    revision: str = ""


class Dialect(Protocol):
    """One kind of hub.

    prefix: of a model's id on the command line. hosts: names of the public hub, the first one its address.
    mirrors: other public hubs that are asked in the same way. endpoint_variables: of the environment, the
    first one to be recommended.
    """

    prefix: str
    hosts: tuple[str, ...]
    mirrors: tuple[str, ...]
    default_revision: str
    endpoint_variables: tuple[str, ...]
    token_variable: str

    def credentials(self, token: str) -> dict[str, str]:
        """Return the headers that show a user's token."""

    def listing(self, model_id: str, revision: str) -> Listing:
        """Find the commit that `revision` names, and its files."""

    def place(self, model_id: str, commit: str, name: str) -> str:
        """Return the place of a file."""

    def examined(self, file: RemoteFile, answers: Sequence[Mapping[str, str]]) -> RemoteFile:
        """Return the file as the headers of the answers to a HEAD request describe it, redirects first."""

    def cause(self, headers: Mapping[str, str], content: bytes) -> str:
        """Return why the hub refuses, empty where the answer does not say it."""

    def page(self, parts: Sequence[str]) -> Page | None:
        """Return the model that a pasted address shows. parts: of its path, between the slashes."""
