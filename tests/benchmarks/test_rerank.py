"""Rerankers are measured by shapes of their requests."""

import argparse
import asyncio
import json
import sys
from pathlib import Path

import pytest

from benchmarks import rerank
from server.config import Config
from server.inference.model import Model


def test_shapes_are_a_number_of_pairs_and_their_tokens() -> None:
    assert list(rerank.Shape.of("3x8").lengths) == [8, 8, 8]
    assert list(rerank.Shape.of("3x4-16").lengths) == [4, 10, 16]
    for wrong in ("3", "0x8", "3x0", "x8", "3x8-", "ax8", "3x8-16-20"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no shape"):
            rerank.Shape.of(wrong)


def test_a_reranker_is_measured(
    scorer_artifact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["rerank", "--model", str(scorer_artifact), "--shapes", "5x8", "5x4-16", "--turns", "1"]
    monkeypatch.setattr(sys, "argv", given)
    rerank.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["shape"], line["pairs"], line["tokens"]) for line in lines] == [
        ("5x8", 5, 40),
        ("5x4-16", 5, 50),
    ]
    for line in lines:
        assert line["latency_ms"] > 0 and line["pairs_s"] > 0
        assert line["ktok_s"] == pytest.approx(line["pairs_s"] * line["tokens"] / 5e3, rel=0.1)


def test_what_the_model_does_not_do_is_said(toy_model: Model, toy_scorer: Model) -> None:
    for model, said in ((toy_scorer, "reads 16 tokens"), (toy_model, "gives no scores of pairs")):
        measuring = rerank.measured(model, Config(), rerank.Shape.of("2x17"), 1)
        with pytest.raises(SystemExit, match=said):
            asyncio.run(measuring)
