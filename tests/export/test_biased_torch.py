"""MPNet and T5 through sentence-transformers itself: the same texts give the same tokens and vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.checkpoint import read_checkpoint
from export.families.relative_bias import Buckets, bucket_of
from server.inference.comparison import row_cosines
from tests.support.biased_toys import write_mpnet, write_t5
from tests.support.checkpoints import change_json
from tests.support.dense_layers import Dense, write_steps
from tests.support.encoders import float_encoder, one_by_one, token_ids
from tests.support.relatives import PADDING_SECOND
from tests.support.toys import tokenizer, toy_texts

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TEXTS = [*toy_texts(20, seed=4), "search searching " * 60, "墨" * 299, " \t池\n Ínk ＡＩ's ", ""]


@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (32, 64), (16, 128), (6, 20)])
def test_distances_fall_into_the_buckets_of_transformers(buckets: int, furthest: int) -> None:
    torch = pytest.importorskip("torch")
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder
    from transformers.models.t5.modeling_t5 import T5Attention

    distances = np.arange(-9_000, 9_000)
    found = bucket_of(distances, Buckets(buckets, furthest))
    given = torch.from_numpy(distances)
    for expected in (
        T5Attention._relative_position_bucket(given, True, buckets, furthest),
        MPNetEncoder.relative_position_bucket(given, buckets, furthest),
    ):
        assert np.array_equal(found, expected.numpy())


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_mpnet_computes_what_transformers_computes(pooling: str, tmp_path: Path) -> None:
    folder = write_mpnet(tmp_path, folder_options={"pooling": pooling})
    tokenizer(PADDING_SECOND, lower_case=True).save(str(folder / "tokenizer.json"))
    change_json(
        folder / "tokenizer_config.json",
        tokenizer_class="MPNetTokenizer",
        do_lower_case=True,
        model_max_length=300,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
        bos_token="[CLS]",
        eos_token="[SEP]",
    )
    assert_same_vectors(folder)


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {}),
        ({"feed_forward_proj": "gated-gelu"}, {"normalize": False}),
        ({"relative_attention_max_distance": 40, "d_kv": 8}, {"pooling": "max"}),
    ],
    ids=str,
)
def test_t5_computes_what_transformers_computes(
    changes: dict[str, Any], options: dict[str, Any], tmp_path: Path
) -> None:
    assert_same_vectors(write_t5(tmp_path, folder_options=options, **changes))


def test_sentence_t5_with_its_dense_layer_computes_what_transformers_computes(
    tmp_path: Path,
) -> None:
    assert_same_vectors(write_steps(write_t5(tmp_path), [Dense(24, bias=False), "Normalize"]))


def test_length_of_a_t5_without_a_limit_of_its_own_is_the_tokenizers(tmp_path: Path) -> None:
    folder = write_t5(tmp_path)
    change_json(folder / "sentence_bert_config.json", max_seq_length=...)
    change_json(folder / "tokenizer_config.json", model_max_length=300)
    assert_same_vectors(folder, states_length=False)


def assert_same_vectors(folder: Path, *, states_length: bool = True) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(
        str(folder), device="cpu", local_files_only=True
    )
    expected = np.stack([model.encode(text, show_progress_bar=False) for text in TEXTS])
    checkpoint = read_checkpoint(folder)
    assert model.max_seq_length == (checkpoint.settings.max_tokens if states_length else None)
    ids, encoder = token_ids(checkpoint, TEXTS), float_encoder(checkpoint)
    assert max(map(len, ids)) == 300, "no text is computed in tiles"
    for own, text in zip(ids, TEXTS, strict=True):
        assert np.array_equal(own, model.tokenize([text])["input_ids"][0])
    found = one_by_one(encoder, ids)
    assert row_cosines(expected, found).min() > 0.99999
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs((expected - found) / lengths).max() < 1e-5
