"""Token ids become exactly the texts that they are of, or are refused."""

import asyncio
import base64
import hashlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from server.config import Config
from server.errors import BadSettings
from server.inference import token_ids
from server.inference.model import Model
from server.inference.token_ids import TokenIds, read_cl100k
from tests.support.clients import run
from tests.support.dialects import SAME, check_error
from tests.support.toys import toy_texts

# The bytes of the stand-in vocabulary: every byte, and a few longer tokens.
PIECES = [bytes([each]) for each in range(256)] + ["天气".encode(), b" the", "气".encode()[:2]]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the same form as OpenAI's, with a small vocabulary."""
    file = tmp_path / "cl100k_base.tiktoken"
    lines = [base64.b64encode(each) + b" %d\n" % place for place, each in enumerate(PIECES)]
    file.write_bytes(b"".join(lines))
    monkeypatch.setattr(token_ids, "CL100K_SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    return file


def post(model: Model, ids: Any, **settings: Any) -> httpx.Response:
    answers = []

    async def test(client: httpx.AsyncClient) -> None:
        answers.append(await client.post("/v1/embeddings", json={"input": ids}))

    run(test, model, **settings)
    return answers[0]


def vectors(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return [each["embedding"] for each in answer.json()["data"]]


def test_ids_of_cl100k_give_the_vectors_of_their_texts(toy_model: Model, table: Path) -> None:
    texts = ["天气 the 墨", "abc", "天"]
    ids = [[256, 257, 32, *"墨".encode()], list(b"abc"), list("天".encode())]
    setting = f"cl100k_base={table}"
    found = vectors(post(toy_model, ids, token_ids=setting))
    np.testing.assert_allclose(found, toy_model.embed(texts), atol=SAME)
    one = vectors(post(toy_model, ids[0], token_ids=setting))
    np.testing.assert_allclose(one, toy_model.embed(texts[:1]), atol=SAME)


def test_characters_that_a_client_cut_are_left_out_at_the_ends_only(
    toy_model: Model, table: Path
) -> None:
    setting = f"cl100k_base={table}"
    # The end of one character before the text, and the beginning of another after it.
    ids = [*"天".encode()[1:], 256, 258]
    np.testing.assert_allclose(
        vectors(post(toy_model, ids, token_ids=setting)), toy_model.embed(["天气"]), atol=SAME
    )
    refused = post(toy_model, [[97], [256, 258, 256]], token_ids=setting)
    assert "input[1]: these ids" in check_error("openai", refused, 400, param="input")


@pytest.mark.parametrize("ids", [[256, -1], [300], [100257 + 50], [[97], [2**40]]])
def test_ids_of_no_token_are_refused(toy_model: Model, table: Path, ids: Any) -> None:
    refused = post(toy_model, ids, token_ids=f"cl100k_base={table}")
    assert "no token id of cl100k_base" in check_error("openai", refused, 400, param="input")


def test_ids_of_the_served_model_give_the_vectors_of_their_texts(toy_model: Model) -> None:
    texts = toy_texts(30, longest=20, seed=5)
    whole = [list(map(int, ids)) for ids in toy_model.tokenizer.encode(texts).ids]
    expected = toy_model.embed(texts)
    for ids in (whole, [each[1:-1] for each in whole]):
        found = vectors(post(toy_model, ids, token_ids="model"))
        np.testing.assert_allclose(found, expected, atol=SAME)


def test_ids_that_no_text_has_are_refused(toy_model: Model) -> None:
    tokenizer = toy_model.tokenizer
    (cls_id, *_, sep_id) = map(int, tokenizer.encode(["墨"]).ids[0])
    # A special token in the middle is no text's.
    odd = next(
        [each, each]
        for each in range(tokenizer.rules.max_tokens * 10)
        if tokenizer.decode([[each]], skip_special=False)[0].startswith("##")
    )
    for ids in (odd, [10**6], [-1]):
        refused = post(toy_model, [[cls_id, *ids, sep_id]], token_ids="model")
        check_error("openai", refused, 400, param="input")


@pytest.mark.parametrize("setting", ["model", "cl100k"])
@pytest.mark.parametrize("ids", [[1, "a"], [[1], "a"], [[1], [True]], [[1], [1.5]], [[1], None]])
def test_lists_of_other_things_are_refused(
    toy_model: Model, table: Path, ids: Any, setting: str
) -> None:
    given = setting if setting == "model" else f"cl100k_base={table}"
    check_error("openai", post(toy_model, ids, token_ids=given), 400, param="input")


def test_empty_row_is_named_and_too_many_ids_are_refused(
    toy_model: Model, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = f"cl100k_base={table}"
    refused = post(toy_model, [[97], []], token_ids=setting)
    assert "text 1 is empty" in check_error("openai", refused, 400, "empty_input")
    monkeypatch.setattr(token_ids, "MAX_IDS", 10)
    refused = post(toy_model, [[97] * 5, [97] * 6], token_ids=setting)
    assert "11 token ids" in check_error("openai", refused, 413, "request_too_large")


def test_many_ids_are_decoded_in_a_thread(
    toy_model: Model, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    to_thread = asyncio.to_thread

    async def noted(work: Any, *arguments: Any) -> Any:
        threads.append(work)
        return await to_thread(work, *arguments)

    monkeypatch.setattr(asyncio, "to_thread", noted)
    rows = [[97]] * (token_ids.MAX_IDS_ON_LOOP // 2)
    for ids, begun in ((rows[:3], 0), ([[97, 97, 97]] * len(rows), 1)):
        before = sum("cl100k" in str(each) for each in threads)
        vectors(post(toy_model, ids, token_ids=f"cl100k_base={table}"))
        assert sum("cl100k" in str(each) for each in threads) - before == begun


def test_without_the_setting_the_refusal_names_it(toy_model: Model) -> None:
    for ids in ([1, 2], [[1, 2], [3]]):
        said = check_error("openai", post(toy_model, ids), 400, param="input")
        assert "--token-ids cl100k_base=FILE" in said and "--token-ids model" in said
        assert "check_embedding_ctx_length=False" in said


@pytest.mark.parametrize(
    "setting", ["cl100k_base", "cl100k_base=", "o200k_base=f", "yes", "model=f"]
)
def test_other_settings_are_refused(setting: str) -> None:
    with pytest.raises(BadSettings, match="neither model nor cl100k_base=FILE"):
        TokenIds(setting)
    assert Config(token_ids=setting).token_ids == setting


def test_file_that_is_not_the_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="cannot be read: No such file"):
        read_cl100k(tmp_path / "missing")
    with pytest.raises(BadSettings, match="cannot be read: Is a directory"):
        read_cl100k(tmp_path)
    (tmp_path / "other").write_bytes(b"YQ== 0\n" * 1_000_000)
    with pytest.raises(BadSettings, match="SHA-256"):
        read_cl100k(tmp_path / "other")
