"""The model as a function from token ids to vectors, checked against its manifest at start."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np

from server.errors import BadArtifact
from server.inference.manifest import MODEL_FILE, TOKENIZER_FILE, read_manifest
from server.inference.runtime import open_session
from server.inference.tokenizer import Tokenizer
from server.system import hugepages
from server.types import Ids, Packing, Vectors

# Least cosine between a self-test vector computed here and the stored one. An int8 graph on a CPU
# without VNNI gives 0.9966 (its pairs of products saturate); any sound CPU with it gives 0.999999.
SAME_VECTORS = 0.9999
USABLE_VECTORS = 0.98


# Inputs of the graphs this project writes, all int64; `pack` says what they hold.
INPUT_IDS, POSITION_IDS, FIRST_ROWS = "input_ids", "position_ids", "first_rows"
GROUP_TEXTS, GROUP_TOKENS, GROUP_SHAPES = "group_texts", "group_tokens", "group_shapes"


class SessionEncoder:
    """One session; several lanes call it at once and share its weights.

    threads: that compute one batch together; with 1 it is the calling thread alone.

    packing: what a batch may hold. Graphs that this project writes take several lengths; one that came
    through optimum takes texts of one length at a time.
    """

    def __init__(self, model: str | bytes, packing: Packing, threads: int = 1) -> None:
        self.packing = packing
        self._session = open_session(model, threads)
        self._width = int(self._session.get_outputs()[0].shape[1])

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        """Int64 (T,) arrays, texts of one length side by side -> float32 (B, D), in that order.

        Releases the interpreter lock while it computes.
        """
        feeds = pack(texts, self.packing, self._width)
        return cast(Vectors, self._session.run(None, feeds)[0])


def pack(texts: Sequence[Ids], packing: Packing, width: int) -> dict[str, Ids]:
    """The graph's inputs for a batch; all int64. Raises ValueError for a batch that is not allowed.

    texts: (T,) arrays; neighbours of equal length form a group.
    Where all have one length, only input_ids (B, T). Otherwise input_ids (1, tokens), one text after
    the other; position_ids (tokens,); first_rows (B,), where each text begins; group_texts and
    group_tokens (groups,), how many of each; group_shapes (groups, 3), texts, tokens of each, and
    `width`. Unused places have no texts, of length 1.
    """
    if len(texts) == 1:
        return {INPUT_IDS: texts[0][None]}
    lengths = [len(ids) for ids in texts]
    shapes = [(sum(1 for _ in same), length, width) for length, same in itertools.groupby(lengths)]
    if len(shapes) == 1:
        return {INPUT_IDS: np.stack(texts)}
    if not packing.allows(lengths):
        different = ", ".join(map(str, sorted(set(lengths))))
        raise ValueError(f"texts of {different} tokens in one batch; it takes {packing}")
    shapes += [(0, 1, width)] * (packing.groups - len(shapes))
    group_shapes = np.array(shapes)
    first_rows = np.array([0, *itertools.accumulate(lengths[:-1])])
    return {
        INPUT_IDS: np.concatenate(texts)[None],
        POSITION_IDS: np.arange(sum(lengths)) - np.repeat(first_rows, lengths),
        FIRST_ROWS: first_rows,
        GROUP_TEXTS: group_shapes[:, 0],
        GROUP_TOKENS: group_shapes[:, 0] * group_shapes[:, 1],
        GROUP_SHAPES: group_shapes,
    }


class Model:
    """An artifact that has been opened and has proved itself: manifest, tokenizer, encoder.

    name: what the operator calls it, or its id. encoder: one thread a call. wide: `wide_threads`
    threads a call, None where that is 1.
    self_test_vectors: of the manifest's texts, float32 (B, D). self_test_cosine: their least
    agreement with the stored ones; below SAME_VECTORS this CPU computes slightly other vectors than
    the exporting one.
    """

    def __init__(self, folder: Path, wide_threads: int = 1, name: str = "") -> None:
        self.manifest = read_manifest(folder)
        self._name = name
        with _loading(folder / TOKENIZER_FILE) as path:
            self.tokenizer = Tokenizer(path.read_text(encoding="utf-8"), self.manifest.text)
        with _loading(folder / MODEL_FILE) as path:
            self.encoder = SessionEncoder(str(path), self.manifest.packing)
            self.wide = (
                SessionEncoder(str(path), self.manifest.packing, wide_threads)
                if wide_threads > 1
                else None
            )
        self.self_test_vectors, self.self_test_cosine = self._self_test(folder)
        hugepages.collapse()

    @property
    def name(self) -> str:
        return self._name or self.manifest.model_id

    def embed(self, texts: list[str]) -> Vectors:
        """Vectors one text at a time: for checks; the server goes through its engine."""
        ids = self.tokenizer.encode(texts).ids
        return np.concatenate([self.encoder.encode([row]) for row in ids])

    def _self_test(self, folder: Path) -> tuple[Vectors, float]:
        expected = np.array([test.vector for test in self.manifest.self_test], dtype=np.float32)
        with _loading(folder / MODEL_FILE):
            found = self.embed([test.text for test in self.manifest.self_test])
        shape = (len(found), self.manifest.dimension)
        sound = found.shape == expected.shape == shape
        least = float(row_cosines(found, expected).min()) if sound else 0.0
        if not least >= USABLE_VECTORS:
            raise BadArtifact(
                "{folder} computes wrong vectors on this machine: cosine {least:.4f} to those of its "
                "manifest, at least {USABLE_VECTORS} is needed; export the model again here",
                folder=folder,
                least=least,
                USABLE_VECTORS=USABLE_VECTORS,
            )
        return found, least


@contextmanager
def _loading(path: Path) -> Iterator[Path]:
    """Whatever is raised inside means that this file cannot be used."""
    try:
        yield path
    except Exception as error:
        # onnxruntime and tokenizers raise exceptions of their own, none of them documented.
        raise BadArtifact(
            "{path} cannot be loaded: {error}; export the model again",
            path=path,
            error=error,
        ) from error


def row_cosines(a: Vectors, b: Vectors) -> Vectors:
    """Cosine of each row of a with the same row of b: float32 (B, D) twice -> float32 (B,)."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return cast(Vectors, (a * b).sum(axis=1) / np.maximum(norms, 1e-12))
