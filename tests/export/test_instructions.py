"""The instruction that a model gets: its folder's prompts, else the table of published models."""

import pytest

from export.instructions import instructions

BGE_ZH = "为这个句子生成表示以用于检索相关文章："
BGE_EN = "Represent this sentence for searching relevant passages: "


@pytest.mark.parametrize(
    ("model_id", "expected"),
    [
        ("bge-small-zh-v1.5", (BGE_ZH, "")),
        ("BAAI/bge-large-zh", (BGE_ZH, "")),
        ("BAAI/bge-base-en-v1.5", (BGE_EN, "")),
        ("intfloat/e5-small-v2", ("query: ", "passage: ")),
        ("e5-base", ("query: ", "passage: ")),
        ("intfloat/multilingual-e5-large", ("query: ", "passage: ")),
        ("my-e5-large-v2", ("query: ", "passage: ")),
        ("BAAI/bge-large-zh-noinstruct", ("", "")),
        ("bge-small-zh-noinstruct", ("", "")),
        ("BGE-Base-EN-noinstruct-v2", ("", "")),
        ("shibing624/text2vec-base-chinese", ("", "")),
        ("BAAI/bge-m3", ("", "")),
        ("someone/the5-base", ("", "")),
    ],
)
def test_published_model_is_known_by_its_name(model_id: str, expected: tuple[str, str]) -> None:
    assert instructions(model_id, {}) == expected


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ({"query": "q: "}, ("q: ", "")),
        ({"query": "q: ", "document": "d: "}, ("q: ", "d: ")),
        ({"query": "q: ", "passage": "p: "}, ("q: ", "p: ")),
        ({"query": "q: ", "corpus": "c: "}, ("q: ", "c: ")),
        ({"query": "q: ", "passage": "p: ", "document": "d: "}, ("q: ", "d: ")),
        ({"document": "d: "}, ("", "d: ")),
        ({"query": "", "document": ""}, ("", "")),
    ],
)
def test_own_prompts_win_over_the_table(prompts: dict[str, str], expected: tuple[str, str]) -> None:
    assert instructions("bge-small-zh-v1.5", prompts) == expected


def test_prompts_for_other_tasks_do_not_count() -> None:
    assert instructions("bge-small-zh-v1.5", {"sts": "s: "}) == (BGE_ZH, "")


@pytest.mark.parametrize(
    ("prompts", "default", "expected"),
    [
        ({"text": "t: "}, "text", ("t: ", "t: ")),
        ({"text": "t: ", "query": "q: "}, "text", ("q: ", "t: ")),
        ({"text": "t: ", "document": "d: "}, "text", ("t: ", "d: ")),
        ({"query": "q: ", "document": "d: "}, "document", ("q: ", "d: ")),
        ({"query": "q: "}, "query", ("q: ", "q: ")),
        ({"query": "q: "}, "gone", ("q: ", "")),
        ({}, "gone", (BGE_ZH, "")),
    ],
)
def test_kind_without_a_prompt_of_its_own_gets_the_default_one(
    prompts: dict[str, str], default: str, expected: tuple[str, str]
) -> None:
    assert instructions("bge-small-zh-v1.5", prompts, default) == expected
