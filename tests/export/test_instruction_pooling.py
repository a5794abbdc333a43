"""Instructions that pooling leaves out: the graphs of every kind of family against numpy, and an export."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file

from export.checkpoint import Checkpoint, read_checkpoint
from export.errors import UnsupportedModel
from export.families.instruction import LOWEST
from export.onnx_file import serialize
from export.pipeline import export
from export.quantisation import rowwise
from export.settings import Settings
from export.source.folder import ModelFolder
from export.source.model import examine, locate, read_model
from server.inference.comparison import row_cosines
from server.inference.encoder import SessionEncoder
from server.inference.manifest import TextRules, read_manifest
from server.inference.model import Model
from server.inference.tokenizer import Tokenizer
from tests.support.biased_toys import write_t5
from tests.support.checkpoints import change_json
from tests.support.decoder_toys import write_decoder
from tests.support.dense_layers import Dense, write_steps
from tests.support.encoders import float_encoder, int8_encoder, one_by_one, random_ids
from tests.support.exports import change, toy_settings
from tests.support.gated_toys import WRITERS
from tests.support.reference_bert import ReferenceBert
from tests.support.reference_biased import ReferenceT5
from tests.support.reference_decoder import ReferenceDecoder
from tests.support.reference_gated import REFERENCES
from tests.support.toys import NORMALIZE, toy_texts, write_toy_checkpoint

QUERY, DOCUMENT = "search query: ", "文："
ROUNDING = 3e-6
# Tokens of each text, and how many of them are an instruction's: in one batch none, some, and all.
TEXTS = [(30, 4), (30, 0), (9, 9), (9, 3), (9, 8), (3, 1), (1, 0), (1, 1)]

Ids = npt.NDArray[np.int64]
Rows = Callable[[Ids], npt.NDArray[np.float64]]


def bert(folder: Path, pooling: str) -> tuple[Path, Callable[[Path], Rows]]:
    def rows(folder: Path) -> Rows:
        return lambda ids: ReferenceBert(folder).hidden(ids[None])[0]

    return write_toy_checkpoint(folder, pooling=pooling), rows


def gated(folder: Path, pooling: str) -> tuple[Path, Callable[[Path], Rows]]:
    written = WRITERS["nomic_bert"](folder, folder_options={"pooling": pooling})
    return written, lambda folder: REFERENCES["nomic_bert"](folder).hidden


def decoder(folder: Path, pooling: str) -> tuple[Path, Callable[[Path], Rows]]:
    return write_decoder(folder, pooling=pooling), lambda folder: ReferenceDecoder(folder).hidden


def t5(folder: Path, pooling: str) -> tuple[Path, Callable[[Path], Rows]]:
    written = write_t5(folder, folder_options={"pooling": pooling})
    return written, lambda folder: ReferenceT5(folder).hidden


def behind_dense(folder: Path, pooling: str) -> tuple[Path, Callable[[Path], Rows]]:
    """Return an instructor, whose vectors are not as wide as a token's row."""
    written, _ = t5(folder, pooling)
    write_steps(written, [Dense(20, bias=False), NORMALIZE])
    # A linear layer without a bias commutes with the mean.
    weight = load_file(written / "2_Dense" / "model.safetensors")["linear.weight"]

    def rows(folder: Path) -> Rows:
        return lambda ids: ReferenceT5(folder).hidden(ids) @ weight.T.astype(np.float64)

    return written, rows


def without_prompt(folder: Path) -> Checkpoint:
    change_json(folder / "1_Pooling" / "config.json", include_prompt=False)
    checkpoint = read_checkpoint(folder)
    assert not checkpoint.settings.include_prompt
    return checkpoint


def marked(checkpoint: Checkpoint) -> tuple[list[Ids], list[Ids]]:
    """Return token ids as they are, and as the tokenizer marks those of an instruction."""
    words = checkpoint.shape.vocabulary
    plain = [random_ids(1, length, seed, words)[0] for seed, (length, _) in enumerate(TEXTS)]
    ids = [row.copy() for row in plain]
    for row, (_, left_out) in zip(ids, TEXTS, strict=True):
        row[:left_out] += words
    return plain, ids


def pooled(rows: Sequence[npt.NDArray[np.float64]], pooling: str) -> npt.NDArray[np.float64]:
    found = []
    for row, (_, left_out) in zip(rows, TEXTS, strict=True):
        kept = row[left_out:]
        if pooling == "max":
            vector = kept.max(axis=0) if len(kept) else np.full(row.shape[1], LOWEST)
        else:
            vector = kept.sum(axis=0) / max(len(kept), 1)
        found.append(vector / max(float(np.linalg.norm(vector)), 1e-12))
    return np.stack(found)


@pytest.mark.parametrize(
    ("write", "pooling"),
    [
        (bert, "mean"),
        (bert, "max"),
        (gated, "mean"),
        (gated, "max"),
        (decoder, "mean"),
        (t5, "mean"),
        (t5, "max"),
        (behind_dense, "mean"),
    ],
)
def test_tokens_of_an_instruction_are_attended_to_and_not_pooled(
    write: Any, pooling: str, tmp_path: Path
) -> None:
    folder, reference = write(tmp_path, pooling)
    checkpoint = without_prompt(folder)
    plain, ids = marked(checkpoint)
    rows = [reference(folder)(each) for each in plain]
    expected = pooled(rows, pooling)
    encoder = float_encoder(checkpoint)
    alone = one_by_one(encoder, ids)
    assert np.abs(alone - expected).max() < ROUNDING
    assert np.abs(encoder.encode(ids) - expected).max() < ROUNDING
    # With no token left a mean is zero, as in sentence-transformers, and never NaN.
    assert pooling == "max" or not alone[[2, 7]].any()
    # The instruction does count: pooled with it the vectors are others.
    assert np.abs(one_by_one(encoder, plain) - expected)[[0, 3]].max() > 0.01


def test_int8_leaves_the_same_tokens_out(tmp_path: Path) -> None:
    network = without_prompt(bert(tmp_path / "bert", "mean")[0])
    exact, found = float_encoder(network), int8_encoder(network)
    ids = [ids for ids, (length, n) in zip(marked(network)[1], TEXTS, strict=True) if n < length]
    assert row_cosines(exact.encode(ids), found.encode(ids)).min() > 0.98
    assert np.allclose(found.encode(ids), one_by_one(found, ids), atol=1e-6)
    checkpoint = without_prompt(decoder(tmp_path / "decoder", "mean")[0])
    network_of = checkpoint.network()
    linears = rowwise.quantize(network_of, random_ids(20, 30), weight_bits=8, threads=1)
    model = network_of.whole(linears, int8_embeddings=True)
    encoder = SessionEncoder(serialize(model).model, network_of.packing(linears))
    assert np.allclose(encoder.encode(ids), one_by_one(encoder, ids), atol=1e-6)


def test_an_exported_model_leaves_out_the_instruction_of_each_request(tmp_path: Path) -> None:
    prompts = {"query": QUERY, "document": DOCUMENT}
    folder = write_toy_checkpoint(
        tmp_path / "model", pooling="mean", hidden=64, prompts=prompts, layers=1
    )
    checkpoint = without_prompt(folder)
    settings = change(
        toy_settings(tmp_path), source=str(folder), out=tmp_path / "artifact", precision="fp32"
    )
    export(settings)
    manifest = read_manifest(tmp_path / "artifact")
    assert manifest.text.instruction_offset == checkpoint.shape.vocabulary
    model, reference = Model(tmp_path / "artifact"), ReferenceBert(folder)
    texts = toy_texts(6, seed=8)
    for kind, prompt in (("query", QUERY), ("document", DOCUMENT), ("none", "")):
        # Plain ids, and what stands before the text: [CLS] and the instruction.
        plain = Tokenizer(checkpoint.tokenizer_json, TextRules(True, 64))
        left_out = len(plain.encode([prompt.strip()]).ids[0]) - 1 if prompt else 0
        for text in texts:
            rows = reference.hidden(plain.encode([prompt + text]).ids[0][None])[0]
            expected = rows[left_out:].mean(axis=0)
            (ids,) = model.tokenizer.encode([text], kind).ids  # type: ignore[arg-type]
            found = model.encoder.encode([ids])[0]
            assert expected @ found / np.linalg.norm(expected) > 0.99999


def test_optimum_cannot_leave_instructions_out(tmp_path: Path) -> None:
    folder = bert(tmp_path, "mean")[0]
    without_prompt(folder)
    with pytest.raises(UnsupportedModel, match="include_prompt: false"):
        examine(ModelFolder(folder), Settings(source=str(folder), via="optimum"))


def test_optimum_cannot_leave_out_the_instructions_of_a_known_model_either(tmp_path: Path) -> None:
    folder = bert(tmp_path, "mean")[0]
    (folder / "README.md").write_text("---\nbase_model: hkunlp/instructor-base\n---\n")
    settings = Settings(source=str(folder), via="optimum")
    with pytest.raises(UnsupportedModel, match="include_prompt: false"):
        read_model(locate(settings), settings)
