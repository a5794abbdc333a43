"""A file on a model hub, as the hub lists it, and how a local file is compared with it."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from server.system.regular_file import open_regular

# What is read of a file or an answer at a time.
CHUNK = 1 << 20
DIGEST = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that the hub lists.

    size: bytes, None if not listed. digest: sha256 of the content, or git's sha1 of it as a blob,
    or empty if the hub lists neither.
    """

    name: str
    size: int | None
    digest: str

    def is_at(self, path: Path) -> bool:
        """Return whether the file at `path` is this one, as far as the hub's list shows."""
        try:
            with open_regular(path) as file:
                size = os.fstat(file.fileno()).st_size
                if self.size is not None and size != self.size:
                    return False
                if len(self.digest) == 64:
                    return hashlib.file_digest(file, "sha256").hexdigest() == self.digest
                if self.digest:
                    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
                    while block := file.read(CHUNK):
                        digest.update(block)
                    return digest.hexdigest() == self.digest
        except OSError:
            return False
        return True


def listed_file(name: object, size: object, digest: object) -> RemoteFile:
    """Return a file of a hub's list; raises TypeError for odd types."""
    if not isinstance(name, str):
        raise TypeError
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise TypeError
    return RemoteFile(name, size, digest_of(digest))


def digest_of(tag: object) -> str:
    """Return the digest in an ETag or in a list, empty where it is none: it may be anything."""
    found = str(tag or "").removeprefix("W/").strip('"').lower()
    return found if DIGEST.fullmatch(found) else ""


def size_of(header: str | None) -> int | None:
    """Return the bytes that a header states, None where it states no number."""
    return int(header) if header and re.fullmatch(r"[0-9]{1,15}", header) else None
