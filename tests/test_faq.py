"""The FAQ, in both languages, states the defaults and limits of the code, and figures that other pages have."""

from pathlib import Path

import pytest

from server.api.searching.request import SearchRequest
from server.cli.parser import _parser
from server.collections.chunk_embedding import DEFAULT_TOKENS
from server.collections.reranking import CANDIDATES
from server.config import Config
from server.inference.capacity import MAX_WIDE_THREADS
from server.messages.terminal import Terminal
from server.store.fusion import DENSE_WEIGHT, LEXICAL_WEIGHT

ROOT = Path(__file__).parents[1]
FAQ = "docs/{language}/explanation/faq.md"
# Figures of the FAQ, and the page that explains where each one comes from.
FIGURES = {
    "0.998": "README.md",
    "0.00001": "README.md",
    "1,000,000": "README.md",
    "279 MB": "README.md",
    "0.7 GB": "README.md",
    "1.6": "docs/en/how-to/choose-a-model.md",
    "glibc 2.28": "docs/en/how-to/deploy.md",
}


def faq(language: str) -> str:
    return (ROOT / FAQ.format(language=language)).read_text(encoding="utf-8")


def defaults() -> dict[str, list[str]]:
    """Return what the FAQ says by the code's own values: English and Chinese."""
    config, shown = Config(), _parser(Terminal.of({})).parse_args(["search", "?"]).top_k
    found = SearchRequest().top_k
    megabytes = config.max_body_bytes >> 20
    return {
        "weights": [
            f"{DENSE_WEIGHT} for meaning, {LEXICAL_WEIGHT} for words",
            f"语义 {DENSE_WEIGHT}，词 {LEXICAL_WEIGHT}",
        ],
        "mode": [f"`{SearchRequest().mode}`"] * 2,
        "top_k": [
            f"{found} over HTTP and {shown} in `search`",
            f"在 HTTP 接口中默认为 {found}，在 `search` 命令中为 {shown}",
        ],
        "chunks": [f"the default, {DEFAULT_TOKENS} tokens", f"默认的 {DEFAULT_TOKENS} 个 token"],
        "candidates": [f"{CANDIDATES} pairs", f"{CANDIDATES} 对"],
        "threads": [f"up to {MAX_WIDE_THREADS} threads", f"最多用 {MAX_WIDE_THREADS} 个线程"],
        "texts": [f"{config.max_texts:,} texts", f"{config.max_texts:,} 条文本"],
        "body": [f"{megabytes} MiB"] * 2,
    }


@pytest.mark.parametrize("name", defaults())
def test_faq_states_the_defaults_of_the_code(name: str) -> None:
    english, chinese = defaults()[name]
    assert english in faq("en")
    assert chinese in faq("zh")


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_of_the_faq_stand_where_they_are_explained(figure: str) -> None:
    explained = (ROOT / FIGURES[figure]).read_text(encoding="utf-8")
    assert figure in explained
    assert figure in faq("en")
    assert figure in faq("zh")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_answers_of_the_faq_are_short(language: str) -> None:
    for answer in faq(language).split("\n### ")[1:]:
        question, *lines = answer.split("\n## ")[0].strip().splitlines()
        assert len([line for line in lines if line]) <= 6, question
