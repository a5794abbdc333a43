"""The digest of a document as it was sent, by which one that is stored unchanged is recognised."""

import hashlib
import json

from server.store.reading.parts import Parts
from server.store.records import Document


def digest(document: Document, parts: Parts | None) -> str:
    """Return the digest of a document and of the vectors that came with it; raises ValueError for NaN."""
    # JSON's 1, 1.0 and true differ, and so do their texts.
    whole = json.dumps(
        [document.id, document.title, document.text, document.metadata],
        sort_keys=True,
        allow_nan=False,
    )
    found = hashlib.blake2b(whole.encode(), digest_size=20)
    if parts is not None:
        found.update(repr([tuple(span) for span in parts.spans]).encode())
        found.update(parts.vectors.tobytes())
    return found.hexdigest()
