"""An artifact that has been opened and checked: manifest, tokenizer, encoder, and its speed here."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from server.errors import BadArtifact
from server.inference.comparison import COMPARISONS, SUMMARY
from server.inference.kernels.choice import KERNELS, Encoders, encoders_of
from server.inference.manifest import MODEL_FILE, TOKENIZER_FILE, read_manifest
from server.inference.speed import measured_rate
from server.inference.tokenizer import Tokenizer
from server.messages.message import Message
from server.system import hugepages
from server.types import Encoder, Ids, Vectors

DISAGREE = "they give other results than its self-test ({measure} {agreement:.4f})"

log = logging.getLogger(__name__)


class Model:
    """An opened artifact whose self-test gave the results that its manifest states.

    name: what the operator calls it, or its id. encoder: one thread a call. wide: `wide_threads`
    threads a call, None where that is 1.
    self_test_results: of the manifest's texts as this machine computes them, float32 (B, D); the summaries
    of sparse weights and token vectors.
    self_test_agreement: the least agreement with the stored ones. Below `comparison.same` this CPU
    computes slightly other results than the exporting one.
    kernels: whether they were allowed. computed_by, reason: see `kernels.choice.Encoders`.
    rate: tokens per second of one short text on one thread, measured at opening.
    """

    def __init__(
        self, folder: Path, wide_threads: int = 1, name: str = "", *, kernels: bool = True
    ) -> None:
        self.manifest = read_manifest(folder)
        self._name = name
        self.kernels = kernels
        self.comparison = COMPARISONS[self.manifest.task]
        with _loading(folder / TOKENIZER_FILE) as path:
            self.tokenizer = Tokenizer(path.read_text(encoding="utf-8"), self.manifest.text)
        opened, (found, agreement) = self._opened(folder, wide_threads, kernels=kernels)
        if opened.computed_by == KERNELS and not agreement >= self.comparison.same:
            # Whatever the reason: the standard graph is what was verified.
            reason = Message(DISAGREE, measure=self.comparison.measure, agreement=agreement)
            log.warning("%s: %s", self.name, reason.english)
            opened, (found, agreement) = self._opened(folder, wide_threads, kernels=False)
            opened = replace(opened, reason=reason)
        self._check_usable(folder, agreement)
        self.encoder, self.wide = opened.narrow, opened.wide
        self.computed_by, self.reason = opened.computed_by, opened.reason
        self.self_test_results, self.self_test_agreement = found, agreement
        hugepages.collapse()
        sample = self._self_test_ids()
        # Its text may be longer than those of the self-test.
        with _loading(folder / MODEL_FILE):
            self.rate = measured_rate(self.encoder, sample, self.manifest.text.max_tokens)

    def _opened(
        self, folder: Path, wide_threads: int, *, kernels: bool
    ) -> tuple[Encoders, tuple[Vectors, float]]:
        """Return the encoders, and what the self-test gives with them."""
        with _loading(folder / MODEL_FILE) as path:
            sample = self._self_test_ids()
            opened = encoders_of(path, self.manifest, wide_threads, sample, kernels=kernels)
        return opened, self._self_test(folder, opened.narrow)

    @property
    def name(self) -> str:
        return self._name or self.manifest.model_id

    @property
    def computed_by_words(self) -> Message:
        """Return what computes its results, and why it is not the kernels."""
        if self.reason is None:
            return Message("computed by the kernels")
        return Message("computed by ONNX Runtime, not by the kernels: {reason}", reason=self.reason)

    @property
    def computes_the_same(self) -> bool:
        """Return whether this CPU computes the results of the exporting one."""
        return self.self_test_agreement >= self.comparison.same

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return vectors computed one text at a time. For checks; the server uses its engine."""
        return np.concatenate(
            [self.encoder.encode([row]) for row in self.tokenizer.encode(texts).ids]
        )

    def _summaries(self, encoder: Encoder, ids: Sequence[Ids]) -> Vectors:
        """Return the summary of each text's result, float32 (B, S)."""
        summary = self.comparison.summary
        return np.array([summary(next(iter(encoder.encode([row])))) for row in ids])

    def _self_test_ids(self) -> list[Ids]:
        tests = self.manifest.self_test
        return [
            self.tokenizer.encode([test.text]).ids[0]
            if test.second is None
            else self.tokenizer.encode_pair(test.text, test.second)
            for test in tests
        ]

    def _self_test(self, folder: Path, encoder: Encoder) -> tuple[Vectors, float]:
        """Return the summaries of the manifest's texts, and the least agreement with those stored."""
        tests = self.manifest.self_test
        with _loading(folder / MODEL_FILE):
            found = self._summaries(encoder, self._self_test_ids())
        width = SUMMARY if self.manifest.task == "sparse" else self.manifest.dimension
        sound = found.shape == (len(tests), width)
        sound = sound and {len(test.vector) for test in tests} == {width}
        least = 0.0
        if sound:
            expected = np.array([test.vector for test in tests], dtype=np.float32)
            least = float(self.comparison.agreement(found, expected).min())
        return found, least

    def _check_usable(self, folder: Path, least: float) -> None:
        if not least >= self.comparison.usable:
            raise BadArtifact(
                "{folder} computes wrong results on this machine: their agreement with those of its "
                "manifest ({measure}) is {least:.4f}, at least {usable} is needed; export the model "
                "again here",
                folder=folder,
                measure=self.comparison.measure,
                least=least,
                usable=self.comparison.usable,
            )


@contextmanager
def _loading(path: Path) -> Iterator[Path]:
    """Report anything that is raised inside as a file that cannot be used."""
    try:
        yield path
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        # onnxruntime and tokenizers raise exceptions of their own, none of them documented. A panic of the
        # tokenizers library is no Exception.
        raise BadArtifact(
            "{path} cannot be loaded: {error}; export the model again", path=path, error=error
        ) from error
