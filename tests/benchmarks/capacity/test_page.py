"""The pages show what the command and the stored lines say today."""

import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="the development packages are older than the plots")

from benchmarks.capacity import page
from benchmarks.capacity.measured import LAW_TOKENS, measured, stored


@pytest.fixture(scope="module")
def rows() -> dict[str, list[str]]:
    return dict(page.tables())


@pytest.mark.parametrize("path", page.PAGES, ids=["en", "zh"])
def test_pages_show_the_tables_and_answers_of_today(path: Path, rows: dict[str, list[str]]) -> None:
    text = path.read_text(encoding="utf-8")
    again = page.answered(page.written(text, rows))
    assert again == text, "run: python -m benchmarks.capacity.page --write"
    assert len(page.CALL.findall(text)) == 3


@pytest.mark.parametrize("path", page.CITING, ids=["en", "zh"])
def test_pages_that_cite_the_command_show_its_answers_of_today(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert page.answered(text) == text, "run: python -m benchmarks.capacity.page --write"
    assert len(page.CALL.findall(text)) == 3


def test_plot_is_the_one_of_today_and_has_every_store() -> None:
    drawn = page.plot()
    assert page.PLOT.read_bytes() == drawn
    for name in (b"this server, measured", b"Qdrant, by its documentation", b"Milvus", b"pgvector"):
        assert name in drawn


def test_model_is_within_a_quarter_of_the_policy_in_the_table(rows: dict[str, list[str]]) -> None:
    assert len(rows["error"]) == 12
    for row in rows["error"]:
        assert abs(int(re.findall(r"([+-]\d+) %", row)[-1])) <= 25, row


def test_missing_table_is_named() -> None:
    with pytest.raises(ValueError, match="the page has no table 'loads'"):
        page.written("# Page\n", {"loads": []})


def test_texts_a_second_of_the_models_follow_from_the_same_lines() -> None:
    lines = stored()
    for language in ("en", "zh"):
        text = (page.DOCS / language / "how-to/choose-a-model.md").read_text(encoding="utf-8")
        found = re.findall(
            r"^\| (\S+) \| (\d+) \| (\d+) \| ([\d,]+) \| (\d+) \|$", text, re.MULTILINE
        )
        assert len(found) == 7
        for model, dimension, file_mb, tokens, texts in found:
            known = measured(lines, model)
            line = [each for each in lines if each.get("model") == model][-1]
            assert int(dimension) == known.dimension
            assert int(file_mb) == round(known.file_bytes / 1e6)
            assert int(tokens.replace(",", "")) == line["tokens_cpu_s_1x128"]
            assert int(texts) == round(known.tokens_core_s / LAW_TOKENS)
