"""The instruction that a model gets: its folder's prompts, else the table of published models."""

import time
from typing import Any

import pytest

from export.instructions import Instructions, instructions
from export.known.models import PUBLISHED
from export.known.presets import PRESETS
from export.known.recognition import Clues, by_name, known_sizes, recognise

BGE_ZH = "为这个句子生成表示以用于检索相关文章："
BGE_EN = "Represent this sentence for searching relevant passages: "
SMALL_ZH = {"model_type": "bert", "num_hidden_layers": 4, "hidden_size": 512}
E5_SMALL = {"model_type": "bert", "num_hidden_layers": 12, "hidden_size": 384}
OTHER = {"model_type": "bert", "num_hidden_layers": 3, "hidden_size": 512}


def texts(found: Instructions) -> tuple[str, str]:
    return found.query, found.document


@pytest.mark.parametrize(
    ("model_id", "expected"),
    [
        ("BAAI/bge-small-zh-v1.5", (BGE_ZH, "")),
        ("BAAI/bge-large-zh", (BGE_ZH, "")),
        ("BAAI/bge-base-en-v1.5", (BGE_EN, "")),
        ("intfloat/e5-small-v2", ("query: ", "passage: ")),
        ("intfloat/multilingual-e5-large", ("query: ", "passage: ")),
        ("someone/my-e5-large-v2", ("query: ", "passage: ")),
        ("BAAI/bge-large-zh-noinstruct", ("", "")),
        ("someone/BGE-Base-EN-noinstruct-v2", ("", "")),
        ("shibing624/text2vec-base-chinese", ("", "")),
        ("BAAI/bge-m3", ("", "")),
        ("someone/the5-base", ("", "")),
        ("nomic-ai/nomic-embed-text-v1.5", ("search_query: ", "search_document: ")),
        ("mixedbread-ai/mxbai-embed-large-v1", (BGE_EN, "")),
        ("Snowflake/snowflake-arctic-embed-m-v1.5", (BGE_EN, "")),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", ("query: ", "")),
        ("thenlper/gte-large-zh", ("", "")),
        ("jinaai/jina-embeddings-v2-base-zh", ("", "")),
    ],
)
def test_published_model_is_known_by_its_id(model_id: str, expected: tuple[str, str]) -> None:
    assert texts(instructions(Clues(model_id, OTHER), {})) == expected


@pytest.mark.parametrize(
    ("model_id", "begins"),
    [
        ("intfloat/multilingual-e5-large-instruct", "Instruct: Given a web search query"),
        ("intfloat/e5-mistral-7b-instruct", "Instruct: Given a web search query"),
        ("Qwen/Qwen3-Embedding-0.6B", "Instruct: Given a web search query"),
        ("Alibaba-NLP/gte-Qwen2-1.5B-instruct", "Instruct: "),
        ("dunzhang/stella_en_400M_v5", "Instruct: "),
        ("hkunlp/instructor-large", "Represent the question"),
        ("GritLM/GritLM-7B", "<|user|>\n"),
        ("google/embeddinggemma-300m", "task: search result"),
    ],
)
def test_models_with_instructed_queries_are_known(model_id: str, begins: str) -> None:
    assert instructions(Clues(model_id, {}), {}).query.startswith(begins)


@pytest.mark.parametrize(
    ("clues", "evidence"),
    [
        (Clues("bge-small-zh-v1.5", SMALL_ZH), "its name and sizes"),
        (Clues("mine", OTHER | {"_name_or_path": "/cache/BAAI_bge-small-zh/"}), "_name_or_path"),
        (Clues("mine", OTHER, "---\nbase_model: BAAI/bge-small-zh-v1.5\n---\n"), "README.md"),
        (Clues("mine", OTHER, "---\nbase_model:\n- BAAI/bge-small-zh-v1.5\n---\n"), "README.md"),
        (
            Clues("mine", OTHER, "---\ntags:\n- mteb\nmodel-index:\n- name: bge-small-zh\n---\n"),
            "README.md",
        ),
    ],
)
def test_base_of_a_model_shows_its_instructions(clues: Clues, evidence: str) -> None:
    found = instructions(clues, {})
    assert texts(found) == (BGE_ZH, "")
    assert "BAAI/bge-large-zh-v1.5; recognised as bge-*-zh by" in found.source.english
    assert evidence in found.source.english and found.warning is None


def test_name_of_a_folder_alone_shows_nothing_but_is_warned_of() -> None:
    found = instructions(Clues("bge-small-zh-v1.5", OTHER), {})
    assert texts(found) == ("", "") and found.warning is not None
    assert "has other sizes" in found.warning.english and BGE_ZH in found.warning.english
    assert "其他" in found.warning.chinese or "不同" in found.warning.chinese
    # Named after a model without instructions, or with its own prompts.
    assert instructions(Clues("bge-m3", OTHER), {}).warning is None
    assert instructions(Clues("e5-base", OTHER), {"query": "q: "}).warning is None


def test_what_the_text_of_a_model_card_says_is_no_evidence() -> None:
    card = "---\ntags: []\n---\nbase_model: intfloat/e5-small\nCompared with intfloat/e5-base.\n"
    assert recognise(Clues("mine", OTHER, card)) is None
    assert recognise(Clues("mine", OTHER, "base_model: intfloat/e5-small")) is None


def test_card_with_very_many_names_is_read_in_a_moment() -> None:
    card = "---\n" + "base_model: a/b\n" * 100_000
    began = time.perf_counter()
    assert recognise(Clues("mine", OTHER, card)) is None
    assert time.perf_counter() - began < 1


def test_empty_prompts_of_a_model_known_for_instructions_are_warned_of() -> None:
    clues = Clues("intfloat/e5-small-v2", E5_SMALL)
    found = instructions(clues, {"query": "", "document": ""})
    assert texts(found) == ("", "") and found.warning is not None
    assert "'query: '" in found.warning.english
    assert found.with_chosen("", None).warning is None
    assert found.with_chosen(None, "x").warning is not None
    assert instructions(clues, {"query": "q: "}).warning is None


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
        ({"search_query": "q: ", "search_document": "d: "}, ("q: ", "d: ")),
        ({"s2p_query": "q: ", "s2s_query": "s: "}, ("q: ", "")),
        ({"retrieval.query": "q: ", "retrieval.passage": "p: "}, ("q: ", "p: ")),
        ({"Retrieval-query": "q: ", "Retrieval-document": "d: "}, ("q: ", "d: ")),
        ({"web_search_query": "q: ", "sts_query": "s: "}, ("q: ", "")),
        ({"Query": "Q: ", "query": "q: "}, ("Q: ", "")),
    ],
)
def test_own_prompts_win_over_the_table(prompts: dict[str, str], expected: tuple[str, str]) -> None:
    found = instructions(Clues("BAAI/bge-small-zh-v1.5", SMALL_ZH), prompts)
    assert texts(found) == expected
    assert found.source.english.startswith("the folder's prompts ")


def test_prompts_for_other_tasks_do_not_count() -> None:
    clues = Clues("BAAI/bge-small-zh-v1.5", SMALL_ZH)
    assert texts(instructions(clues, {"sts": "s: "})) == (BGE_ZH, "")


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
    clues = Clues("BAAI/bge-small-zh-v1.5", SMALL_ZH)
    assert texts(instructions(clues, prompts, default)) == expected


# --- the table ------------------------------------------------------------------------------------


def test_every_preset_is_the_one_of_its_source() -> None:
    for preset in PRESETS:
        assert by_name(preset.source) is preset, preset.name
        assert preset.sizes == tuple(sorted(preset.sizes))


def test_published_embedding_models_of_the_same_name_and_size_are_recognised_in_a_folder() -> None:
    for model in PUBLISHED:
        preset = by_name(model.name)
        if preset is not None and model.task == "dense":
            found = recognise(Clues(model.name.split("/")[1], model.config))
            assert found is not None and found.preset is preset, model.name


@pytest.mark.parametrize(
    ("clues", "dimension", "sizes", "source"),
    [
        (Clues("nomic-ai/nomic-embed-text-v1.5", {}), 768, (64, 128, 256, 512), "nomic-ai"),
        (
            Clues("Qwen/Qwen3-Embedding-0.6B", {"hidden_size": 1024}),
            None,
            (32, 64, 128, 256, 512, 768),
            "Qwen",
        ),
        (
            Clues("x", {"matryoshka_dimensions": [64, "a", 32, 128, 64]}),
            128,
            (32, 64),
            "config.json",
        ),
        (
            Clues("x", {}, 'MatryoshkaLoss {"matryoshka_dims": [768, 512]}'),
            768,
            (512,),
            "README.md",
        ),
        (Clues("BAAI/bge-m3", {}), 1024, (), "BAAI/bge-m3"),
        (Clues("x", {}), 1024, (), "none"),
    ],
)
def test_shorter_sizes_are_known(
    clues: Clues, dimension: Any, sizes: tuple[int, ...], source: str
) -> None:
    found = known_sizes(clues, recognise(clues), dimension)
    assert found.sizes == sizes and source in found.source.english
