"""The commands `list` and `inspect`: what they print, in both languages, and that they change nothing."""

import json
import math
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from export import estimate, inspection, listing
from export.checkpoint import read_checkpoint
from export.known.models import PUBLISHED
from server.messages.terminal import Terminal
from tests.export.test_export_command import is_chinese, run
from tests.support.checkpoints import change_json
from tests.support.cross_encoders import write_cross_encoder
from tests.support.dense_layers import TANH, Dense, write_steps
from tests.support.downloads import files_in, lone_hub
from tests.support.stand_in_hub import MODEL, StandInHub
from tests.support.toys import write_json, write_toy_checkpoint


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy_checkpoint(tmp_path / "toy", prompts={"search_query": "q: "})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    pytest.importorskip("requests", reason="needs the export extra")
    for each in lone_hub(monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", each.url)
        yield each


def inspected(*arguments: str | Path, chinese: bool = False) -> tuple[int, str]:
    """Return the exit status of `inspect`, and what it prints on both streams."""
    out = StringIO()
    terminal = Terminal("zh" if chinese else "en", out, out)
    return inspection.run(terminal, [*map(str, arguments)]), out.getvalue()


def test_model_that_can_be_exported_is_described(toy: Path) -> None:
    before = files_in(toy)
    status, said = inspected(toy)
    assert (status, files_in(toy)) == (0, before)
    for part in (
        f"model: {toy}\n",
        "kind: embedding model",
        "family: bert, written directly",
        "network: 2 layers of width 32",
        "texts: up to 64 tokens; pooling cls; normalised",
        "before queries: 'q: '; before documents: ''; from the folder's prompts search_query",
        "an export would write about 0 MB (int8), take about 1 min on ",
    ):
        assert part in said
    status, said = inspected(toy, "--precision=fp32", chinese=True)
    assert status == 0 and all(map(is_chinese, said.splitlines())) and "（fp32）" in said


def test_layers_behind_the_pooling_and_the_similarity_are_described(toy: Path) -> None:
    write_steps(toy, ["Normalize", Dense(48, TANH), Dense(40)])
    write_json(toy / "config_sentence_transformers.json", {"similarity_fn_name": "dot"})
    change_json(toy / "config.json", matryoshka_dimensions=[36, 64])
    status, said = inspected(toy)
    assert status == 0 and "pooling cls; not normalised" in said
    assert (
        "behind the pooling: normalised, Dense 32 to 48 (Tanh), Dense 48 to 40 (no activation); "
        "a vector has 40 numbers" in said
    )
    assert "shorter vectors: 36; from" in said
    assert "note: similarity_fn_name is dot: searches in collections compare by cosine" in said
    status, said = inspected(toy, "--via=optimum")
    assert status == 1 and "refused: --via optimum writes no Dense layers" in said


def test_model_that_is_refused_is_described_with_the_reason(toy: Path) -> None:
    (toy / "modules.json").unlink()
    change_json(toy / "config.json", architectures=["BertForMaskedLM"])
    status, said = inspected(toy)
    assert status == 1
    assert "kind: masked language model" in said and "network: 2 layers of width 32" in said
    assert "refused: " in said and "an export would" not in said


def test_cross_encoder_is_described(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path / "scorer", "xlm-roberta")
    status, said = inspected(folder)
    assert status == 0 and "kind: cross-encoder" in said and "family: roberta" in said
    assert "pairs of texts: up to 64 tokens together; score by sigmoid" in said
    status, said = inspected(folder, "--via=optimum")
    assert status == 1 and "refused: --via optimum exports models of vectors" in said


def test_pooling_that_is_refused_leaves_the_kind_known(toy: Path) -> None:
    (toy / "1_Pooling/config.json").write_text('{"pooling_mode": "lasttoken"}')
    status, said = inspected(toy)
    assert status == 1 and "kind: embedding model" in said
    assert "refused: pooling lasttoken" in said


@pytest.mark.parametrize("source", ["./none", "none"])
def test_missing_model_is_an_error(source: str) -> None:
    status, said = inspected(source)
    assert status == 1 and said.startswith("error: no model folder at none")


def test_hub_model_is_described_without_its_weights(
    hub: StandInHub, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hub.files = files_in(toy)
    status, said = inspected(MODEL)
    assert status == 0 and f"model: {MODEL}\n" in said and "family: bert" in said
    assert "model.safetensors" not in hub.sent()
    hub.files = {
        "adapter_config.json": json.dumps({"base_model_name_or_path": "a/base"}).encode(),
        "adapter_model.safetensors": b"",
    }
    status, said = inspected(MODEL)
    assert status == 1 and "kind: LoRA adapter" in said and "adapter of a/base" in said
    assert {path.name for path in tmp_path.iterdir()} == {"toy"}


def test_parameters_by_config_are_near_those_of_the_tensors(toy: Path) -> None:
    checkpoint = read_checkpoint(toy)
    exact = estimate.of_shapes(checkpoint.shape.tensors(), checkpoint.outline.config)
    assert exact.parameters == sum(math.prod(each) for each in checkpoint.shape.tensors().values())
    near = estimate.of_config(checkpoint.outline.config)
    assert near is not None
    assert near.parameters == pytest.approx(exact.parameters, rel=0.2)
    assert estimate.of_config({"hidden_size": 7}) is None


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("BAAI/bge-small-zh-v1.5", 24),
        ("BAAI/bge-m3", 568),
        ("Alibaba-NLP/gte-multilingual-base", 305),
        ("Qwen/Qwen3-Embedding-0.6B", 596),
        ("Qwen/Qwen3-Embedding-8B", 7568),
        ("intfloat/e5-mistral-7b-instruct", 7111),
        ("sentence-transformers/LaBSE", 471),
    ],
)
def test_parameters_of_published_models_are_as_published(name: str, millions: int) -> None:
    (model,) = (each for each in PUBLISHED if each.name == name)
    assert listing.millions(model) == pytest.approx(millions, rel=0.05)


def test_list_has_every_published_model_once() -> None:
    out = StringIO()
    assert listing.run(Terminal("zh", out, out), []) == 0
    lines = out.getvalue().splitlines()
    assert len({model.name for model in PUBLISHED}) == len(PUBLISHED)
    for model in PUBLISHED:
        (line,) = (each for each in lines if each.split()[:1] == [model.name])
        assert "直接导出" in line or "optimum" in line or "暂不支持" in line
    for name in ("bge-small-zh", "acge", "Conan", "stella-mrl", "stella_en", "LaBSE", "distiluse"):
        assert any(name in line and "直接导出" in line for line in lines)


def test_commands_are_found_beside_the_export(toy: Path) -> None:
    done = run("list")
    assert done.returncode == 0 and "BAAI/bge-m3" in done.stdout and not is_chinese(done.stdout)
    done = run("inspect", toy, locale="zh_CN.UTF-8")
    assert done.returncode == 0 and "类型：" in done.stdout


def test_revision_that_is_not_utf_8_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        inspection.run(Terminal.of({}), [MODEL, "--revision", "\udcff"])
    assert ended.value.code == 2
    assert "holds bytes that are not UTF-8" in capsys.readouterr().err
