"""An ONNX graph as a function from token ids to results, and how a batch is laid out for it."""

import itertools
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from server.inference.results import ResultForm
from server.inference.runtime import open_session
from server.types import Ids, Packing, Vectors

# Inputs of the graphs this project writes, all int64; `pack` says what they hold.
INPUT_IDS, POSITION_IDS, FIRST_ROWS = "input_ids", "position_ids", "first_rows"
GROUP_TEXTS, GROUP_TOKENS, GROUP_SHAPES = "group_texts", "group_tokens", "group_shapes"


class SessionEncoder:
    """A session of ONNX Runtime; several lanes call it at once and share its weights.

    threads: how many compute one batch together; with 1 it is the calling thread alone.
    packing: which lengths a batch may have. Graphs that this project writes take several; a graph
    that came through optimum takes texts of one length at a time.
    """

    def __init__(self, model: str | bytes, packing: Packing, threads: int = 1) -> None:
        self.packing = packing
        self._session = open_session(model, threads)
        self._width = int(self._session.get_outputs()[0].shape[1])

    def encode(self, texts: Sequence[Ids]) -> Vectors:
        """Return float32 (B, D), a row a text. Releases the interpreter lock while it computes.

        texts: int64 (T,) arrays, equal lengths side by side.
        """
        feeds = pack(texts, self.packing, self._width)
        return cast(Vectors, self._session.run(None, feeds)[0])


class TaskEncoder(SessionEncoder):
    """A session whose rows become other results than vectors: see `ResultForm`."""

    def __init__(
        self, model: str | bytes, packing: Packing, threads: int = 1, *, form: ResultForm
    ) -> None:
        super().__init__(model, packing, threads)
        self._form = form

    def encode(self, texts: Sequence[Ids]) -> Any:
        """Return one result for each text, in order; texts: as in `SessionEncoder`."""
        return self._form.results(super().encode(texts), texts)


def open_encoder(
    model: str | bytes, packing: Packing, threads: int, form: ResultForm
) -> SessionEncoder:
    """Return an encoder that gives results of this form."""
    if form.task in ("dense", "score"):
        return SessionEncoder(model, packing, threads)
    return TaskEncoder(model, packing, threads, form=form)


def pack(texts: Sequence[Ids], packing: Packing, width: int) -> dict[str, Ids]:
    """Return the graph's inputs for a batch, all int64; raises ValueError where packing forbids it.

    texts: (T,) arrays; neighbours of equal length form a group.
    Where all have one length, there is only input_ids (B, T). Otherwise: input_ids (1, tokens), one
    text after the other; position_ids (tokens,); first_rows (B,), where each text begins; group_texts
    and group_tokens (groups,), how many of each; group_shapes (groups, 3), texts, tokens of each, and
    `width`. Unused groups have no texts, of length 1.
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
