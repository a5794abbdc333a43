"""The model as a function from token ids to vectors, checked against its manifest at start."""

from pathlib import Path
from typing import cast

import numpy as np

from server.errors import BadArtifact
from server.manifest import MODEL_FILE, TOKENIZER_FILE, Manifest, read_manifest
from server.session import open_session
from server.tokenizer import Tokenizer
from server.types import Ids, Vectors

# Least cosine between a self-test vector computed here and the stored one. An int8 graph on a CPU
# without VNNI gives 0.9966 (its pairs of products saturate); any sound CPU with it gives 0.999999.
SAME_VECTORS = 0.9999
USABLE_VECTORS = 0.98


class SessionEncoder:
    """One session with one intra-op thread; several lanes call it at once and share its weights."""

    def __init__(self, model: str | bytes, manifest: Manifest, threads: int = 1) -> None:
        self._input = manifest.inputs[0]
        self._session = open_session(model, threads)

    def encode(self, ids: Ids) -> Vectors:
        """Int64 (B, T), without padding -> float32 (B, D); releases the interpreter lock."""
        return cast(Vectors, self._session.run(None, {self._input: ids})[0])


class Model:
    """An artifact that has been opened and has proved itself: manifest, tokenizer, encoder.

    self_test_cosine: the least agreement with the stored vectors; below SAME_VECTORS this CPU
    computes slightly other vectors than the exporting one.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.manifest = read_manifest(folder)
        self.tokenizer = Tokenizer(
            (folder / TOKENIZER_FILE).read_text(encoding="utf-8"), self.manifest.text
        )
        try:
            self.encoder = SessionEncoder(str(folder / MODEL_FILE), self.manifest, threads)
        except Exception as error:
            # onnxruntime raises its own family of exceptions, none of them documented.
            raise BadArtifact(
                f"{folder / MODEL_FILE} cannot be loaded: {error}",
                f"{folder / MODEL_FILE} 无法加载：{error}",
            ) from error
        self.self_test_cosine = self._self_test(folder)

    def embed(self, texts: list[str]) -> Vectors:
        """Vectors one text at a time: for checks; the server goes through its engine."""
        ids = self.tokenizer.encode(texts).ids
        return np.concatenate([self.encoder.encode(row[None]) for row in ids])

    def _self_test(self, folder: Path) -> float:
        expected = np.array([test.vector for test in self.manifest.self_test], dtype=np.float32)
        found = self.embed([test.text for test in self.manifest.self_test])
        least = float(row_cosines(found, expected).min()) if found.shape == expected.shape else 0.0
        if not least >= USABLE_VECTORS:
            raise BadArtifact(
                f"{folder} computes wrong vectors on this machine: cosine {least:.4f} to those of"
                f" its manifest, at least {USABLE_VECTORS} is needed; export the model again here",
                f"{folder} 在本机上计算的向量不正确：与清单中向量的余弦为 {least:.4f}，"
                f"至少需要 {USABLE_VECTORS}；请在本机重新导出模型",
            )
        return least


def row_cosines(a: Vectors, b: Vectors) -> Vectors:
    """Cosine of each row of a with the same row of b: float32 (B, D) twice -> float32 (B,)."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return cast(Vectors, (a * b).sum(axis=1) / np.maximum(norms, 1e-12))
