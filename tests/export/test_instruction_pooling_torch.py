"""Instructions that pooling leaves out, through sentence-transformers itself."""

from pathlib import Path

import numpy as np
import pytest

from export.checkpoint import read_checkpoint
from server.inference.comparison import row_cosines
from server.inference.manifest import TextRules
from server.inference.tokenizer import Tokenizer
from tests.support.biased_toys import write_t5
from tests.support.checkpoints import change_json
from tests.support.decoder_toys import use_llama_tokenizer, write_decoder
from tests.support.dense_layers import Dense, write_steps
from tests.support.encoders import float_encoder, one_by_one
from tests.support.toys import NORMALIZE, toy_texts, write_toy_checkpoint

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TEXTS = [*toy_texts(20, seed=4), "search searching " * 40, " \t池\n Ínk", "", "  "]
PROMPTS = ["search query: ", "search", "文：墨 ", " ", "墨池" * 200, "index\n<s>"]


def bert(folder: Path, pooling: str) -> Path:
    return write_toy_checkpoint(folder, pooling=pooling)


def llama(folder: Path, pooling: str) -> Path:
    write_decoder(folder, "mistral", pooling=pooling)
    use_llama_tokenizer(folder)
    return folder


def t5(folder: Path, pooling: str) -> Path:
    return write_t5(folder, folder_options={"pooling": pooling})


def qwen(folder: Path, pooling: str) -> Path:
    return write_decoder(folder, "qwen3", pooling=pooling, normalize=False)


def instructor(folder: Path, pooling: str) -> Path:
    return write_steps(
        write_t5(folder, folder_options={"pooling": pooling}), [Dense(20), NORMALIZE]
    )


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(
    ("write", "pooling"),
    [
        (bert, "mean"),
        (bert, "max"),
        (bert, "cls"),
        (llama, "mean"),
        (qwen, "mean"),
        (t5, "max"),
        (instructor, "mean"),
    ],
)
def test_the_same_tokens_are_left_out(
    write: object, pooling: str, prompt: str, tmp_path: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    assert callable(write)
    folder = write(tmp_path, pooling)
    change_json(folder / "1_Pooling" / "config.json", include_prompt=False)
    model = sentence_transformers.SentenceTransformer(
        str(folder), device="cpu", local_files_only=True
    )
    expected = np.stack(
        [model.encode(text, prompt=prompt, show_progress_bar=False) for text in TEXTS]
    )
    checkpoint = read_checkpoint(folder)
    settings = checkpoint.settings
    offset = settings.instruction_offset(checkpoint.shape.vocabulary)
    rules = TextRules(settings.lower_case, settings.max_tokens, prompt, instruction_offset=offset)
    ids = Tokenizer(checkpoint.tokenizer_json, rules).encode(TEXTS, "query").ids
    found = one_by_one(float_encoder(checkpoint), ids)
    # With no token left the library gives zeros, and so does the graph.
    empty = ~expected.any(axis=1)
    assert not found[empty].any()
    assert (row_cosines(expected, found)[~empty] > 0.99999).all()
