"""The vectors of `bulk embed` into a collection, here or on a server: `bulk load`."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from server.bulk.manifest import MANIFEST_FILE, Output, read_output
from server.bulk.parts import rows_of_part
from server.cli.exchange.given_import import NoDimension, import_given
from server.cli.exchange.vector_lines import WithParts
from server.cli.ingest import Indexed
from server.cli.target import CollectionTarget
from server.errors import BadSettings, StoreError
from server.inference.comparison import row_cosines
from server.messages.terminal import Terminal
from server.store.reading.parts import Parts
from server.store.records import Info, Span
from server.types import Vectors

# Documents whose stored vectors are compared with those of the files at the end: the first of some files.
SAMPLE = 64
# A collection stores numbers in fewer bits than float32; those of two texts differ far more.
SAME = 0.999


class BulkParts:
    """The documents of a folder that `bulk embed` has completed.

    sample: some ids with their vectors, float32 (D,), once all documents were read.
    """

    # No collection is made for another embedder: the vectors count as those of a served model, or not at all.
    dimension = None

    def __init__(self, folder: Path) -> None:
        """Read the manifest; raises BadSettings for a folder that is not complete or has no texts."""
        found = read_output(folder)
        if found is None:
            raise BadSettings(
                "{folder} has no {file}: it is no folder of `bulk embed`, or its run has not ended; run it"
                " again to continue",
                folder=folder,
                file=MANIFEST_FILE,
            )
        if not found.with_text:
            raise BadSettings(
                "{folder} has vectors without texts, and a collection stores both; run `bulk embed` again"
                " with --with-text: no vector is computed twice",
                folder=folder,
            )
        self._folder = folder
        self.output: Output = found
        self.sample: dict[str, Vectors] = {}
        # 8 bytes of hash for each row, to count ids that come with several texts once.
        self._ids = np.zeros(found.rows, np.uint64)

    @property
    def n_ids(self) -> int:
        """Return how many ids there are, once all documents were read."""
        return len(np.unique(self._ids))

    def documents(self, info: Info) -> Iterator[tuple[WithParts, int]]:
        """Yield each document, with the number of rows read so far; raises BadSettings.

        info: of the collection, which must hold vectors of the same model.
        """
        self._check(info)
        n_read = 0
        for name, number in self.output.parts.items():
            end = n_read + number
            for row in rows_of_part(self._folder / name):
                if n_read == end:
                    raise self._changed(name)
                self._ids[n_read] = _hash(row["id"])
                if row["id"] in self.sample or (
                    n_read == end - number and len(self.sample) < SAMPLE
                ):
                    self.sample[row["id"]] = row["vector"]
                n_read += 1
                yield _document(row, self.output.kept), n_read
            if n_read != end:
                raise self._changed(name)

    def _check(self, info: Info) -> None:
        if info.fingerprint != self.output.fingerprint:
            raise BadSettings(
                "collection {name} holds vectors of the model with fingerprint {found}, and those of {folder}"
                " are of {model} ({wanted}); choose another collection, or a server of that model",
                name=info.name,
                found=info.fingerprint,
                folder=self._folder,
                model=self.output.model_id,
                wanted=self.output.fingerprint,
            )

    def _changed(self, name: str) -> BadSettings:
        return BadSettings(
            "{file} has another number of rows than the manifest says; run `bulk embed` again",
            file=self._folder / name,
        )


async def load(
    target: CollectionTarget, parts: BulkParts, *, clock: Callable[[], float], terminal: Terminal
) -> Indexed:
    """Store the documents of a folder with their vectors, and compare what is stored with the files.

    What is stored already is left as it is, so a load that was interrupted is continued by another one. Raises
    BadSettings where the vectors do not belong into the collection, StoreError where some are missing after it.
    """
    output = parts.output
    try:
        done = await import_given(
            target, parts, output.fingerprint, output.rows, clock=clock, terminal=terminal
        )
    except NoDimension:
        raise BadSettings(
            "no model with the fingerprint {fingerprint} ({model}) is served there; start the server with the"
            " artifact that made the vectors",
            fingerprint=output.fingerprint,
            model=output.model_id,
        ) from None
    await _check_stored(target, parts)
    return done


async def _check_stored(target: CollectionTarget, parts: BulkParts) -> None:
    found, wanted = await target.count(), parts.n_ids
    if found < wanted:
        raise StoreError(
            "collection {name} holds {found:,} documents after the load, and {wanted:,} ids were loaded",
            name=target.name,
            found=found,
            wanted=wanted,
        )
    stored = {
        document.id: given.vectors[0]
        for document, given in await target.with_parts(list(parts.sample))
        if given is not None
    }
    for id, vector in parts.sample.items():
        same = row_cosines(stored[id][None], vector[None])[0] if id in stored else 0.0
        if not same >= SAME:
            raise StoreError(
                "document {id} has another vector in collection {name} than in the files: cosine"
                " {cosine:.4f}; was it written meanwhile? Load again",
                id=id,
                name=target.name,
                cosine=float(same),
            )


def _document(row: Mapping[str, Any], kept: Mapping[str, str]) -> WithParts:
    metadata = {name: row[name] for name in kept if row[name] is not None}
    given = Parts((Span(0, len(row["text"])),), row["vector"][None])
    return WithParts(row["id"], row["text"], row["title"], metadata, given)


def _hash(id: str) -> int:
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest())
