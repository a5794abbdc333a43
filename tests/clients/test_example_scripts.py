"""The scripts and the notebook of examples/ that need packages run, and look up no other host."""

import runpy
import sys
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from processes import ROOT, embedded

EXAMPLES = ROOT / "examples"
BEST = "人工智能正在改变世界。"
QUESTION = "AI 能做哪些事?"


@pytest.fixture
def example(url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a script of examples/ in this process, which is watched for other hosts."""
    monkeypatch.setenv("INKWELL_URL", url)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "inkwell", raising=False)
    return lambda name: runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.parametrize("name", ["langchain_search.py", "llamaindex_search.py"])
def test_both_ways_find_the_right_line(
    name: str, example: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    example(name)
    assert capsys.readouterr().out.splitlines() == [
        f"vectors of the server: {BEST}",
        f"search of the server: {BEST}",
    ]


def test_langchains_query_gets_the_instruction(example: Any, url: str) -> None:
    made = example("langchain_search.py")["embeddings"]()
    (query,) = embedded(url, [QUESTION], "query")
    (document,) = embedded(url, [QUESTION])
    assert made.embed_query(QUESTION) == pytest.approx(query, abs=1e-6)
    assert made.embed_documents([QUESTION])[0] == pytest.approx(document, abs=1e-6)


def test_notebook_runs_from_top_to_bottom(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INKWELL_URL", url)
    book = nbformat.read(EXAMPLES / "collection.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "it is stored without outputs"
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert not any(output.output_type == "error" for output in outputs)
