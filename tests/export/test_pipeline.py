"""Whole exports of toy checkpoints: the same again, nothing twice, and nothing after a failure."""

import hashlib
import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from export import pipeline
from export.artifact import MARK, OLD
from export.errors import (
    BadTexts,
    CannotWrite,
    CorruptFile,
    DisagreesWithCheckpoint,
    ExportError,
    NoSuchModel,
    UnsupportedModel,
)
from export.pipeline import export
from export.quantisation import quantise
from export.settings import Settings
from export.texts.files import ENGLISH, read_texts
from export.texts.samples import MAX_CALIBRATION_TEXTS, SELF_TEST_TEXTS
from export.verification.verify import Thresholds
from server.inference.comparison import SAME_VECTORS, row_cosines
from server.inference.manifest import MODEL_FILE, TOKENIZER_FILE, Manifest, read_manifest
from server.inference.model import Model
from server.messages.terminal import Terminal
from tests.support.checkpoints import change_json
from tests.support.exports import artifact_files, change, toy_settings
from tests.support.reference_bert import ReferenceBert
from tests.support.toys import toy_texts, write_json, write_toy_checkpoint, write_toy_texts

IMPOSSIBLE = Thresholds(mean=1.0, minimum=1.0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return toy_settings(tmp_path)


def in_toy(settings: Settings) -> set[str]:
    """Return the names in the checkpoint's folder, hidden files too."""
    return {path.name for path in Path(settings.source).iterdir()}


# --- what an export makes -------------------------------------------------------------------------


def test_artifact_is_in_the_checkpoint_folder_unless_another_is_given(
    settings: Settings, tmp_path: Path
) -> None:
    assert export(settings) == tmp_path / "toy" / "onnx-int8"
    assert export(change(settings, precision="fp32")) == tmp_path / "toy" / "onnx-fp32"
    other = tmp_path / "else" / "where"
    assert export(change(settings, out=other)) == other
    assert {path.name for path in other.iterdir()} == {
        "model.onnx",
        "tokenizer.json",
        "manifest.json",
    }


def test_manifest_states_what_the_server_must_not_guess(settings: Settings, tmp_path: Path) -> None:
    folder = export(
        change(
            settings,
            model_id="someone/toy",
            query_instruction="查询：",
            document_instruction="文档：",
            matryoshka=(32, 8),
        )
    )
    manifest = read_manifest(folder)
    assert (manifest.model_id, manifest.revision) == ("someone/toy", "local")
    assert (manifest.family, manifest.pooling, manifest.normalized) == ("bert", "cls", True)
    assert (manifest.dimension, manifest.precision) == (32, "int8")
    assert (manifest.text.lower_case, manifest.text.max_tokens) == (True, 64)
    assert manifest.text.query_instruction == "查询："
    assert manifest.text.document_instruction == "文档："
    assert manifest.matryoshka_dimensions == [8, 32]
    assert manifest.task == "dense"
    assert manifest.quantization is not None
    assert manifest.quantization.recipe == quantise.RECIPE
    assert manifest.quantization.weight_bits == 8
    assert manifest.quantization.calibration_texts == 40
    calibration = (tmp_path / "calibration.txt").read_bytes()
    assert manifest.quantization.calibration_sha256 == hashlib.sha256(calibration).hexdigest()
    assert 0.99 < manifest.agreement.minimum <= manifest.agreement.mean < 1
    # Every sixth text is verified as a query too: 4 of 20.
    assert manifest.agreement.texts == 24
    assert manifest.files.keys() == {MODEL_FILE, TOKENIZER_FILE}
    assert {"onnxruntime", "onnx", "numpy"} <= manifest.exported_with.keys()
    assert [test.text for test in manifest.self_test] == list(SELF_TEST_TEXTS)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_server_reads_what_export_writes_and_its_self_test_passes(
    precision: Any, pooling: str, settings: Settings, tmp_path: Path
) -> None:
    write_toy_checkpoint(tmp_path / "toy", pooling=pooling)
    model = Model(export(change(settings, precision=precision)))
    assert model.self_test_agreement > SAME_VECTORS
    ids = model.tokenizer.encode(toy_texts(10, seed=9)).ids
    reference = ReferenceBert(tmp_path / "toy")
    expected = np.concatenate([reference.embed(row[None]) for row in ids]).astype(np.float32)
    found = model.embed(toy_texts(10, seed=9))
    least = 0.99 if precision == "int8" else 0.999999
    assert row_cosines(found, expected).min() > least


def test_float_artifact_states_that_nothing_was_quantised(settings: Settings) -> None:
    manifest = read_manifest(export(change(settings, precision="fp32")))
    assert (manifest.precision, manifest.quantization) == ("fp32", None)
    assert manifest.agreement.minimum == pytest.approx(1, abs=1e-6)


def test_int8_file_is_smaller_than_the_float_file(settings: Settings, tmp_path: Path) -> None:
    write_toy_checkpoint(tmp_path / "toy", hidden=96, intermediate=384, heads=4)
    int8 = (export(settings) / MODEL_FILE).stat().st_size
    fp32 = (export(change(settings, precision="fp32")) / MODEL_FILE).stat().st_size
    assert int8 < 0.4 * fp32


@pytest.mark.parametrize("kind", ["query", "document"])
def test_instruction_that_leaves_little_of_a_text_is_refused(kind: str, settings: Settings) -> None:
    option = f"{kind}_instruction"
    for n_tokens in (31, 62, 3000):
        with pytest.raises(UnsupportedModel) as caught:
            export(change(settings, **{option: "墨" * n_tokens}))
        assert f"takes {n_tokens + 2} of the 64 tokens" in caught.value.english
        assert f"--{kind}-instruction" in caught.value.english and "一半" in caught.value.chinese
    export(change(settings, precision="fp32", **{option: "墨" * 30}))


def test_instruction_of_the_folder_is_bounded_too(settings: Settings, tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "墨" * 70}}
    write_json(tmp_path / "toy" / "config_sentence_transformers.json", prompts)
    with pytest.raises(UnsupportedModel, match="takes 72 of the 64 tokens"):
        export(settings)


def test_instructions_come_from_the_folder_the_table_or_the_command(
    settings: Settings, tmp_path: Path
) -> None:
    def text_rules(**values: Any) -> tuple[str, str]:
        text = read_manifest(export(change(settings, precision="fp32", **values))).text
        return text.query_instruction, text.document_instruction

    assert text_rules() == ("", "")
    assert text_rules(model_id="intfloat/e5-small") == ("query: ", "passage: ")
    assert text_rules(model_id="intfloat/e5-small", query_instruction="") == ("", "passage: ")
    prompts = {"query": "q: ", "document": "d: "}
    write_json(tmp_path / "toy" / "config_sentence_transformers.json", {"prompts": prompts})
    assert text_rules(model_id="intfloat/e5-small") == ("q: ", "d: ")
    assert text_rules(document_instruction="x") == ("q: ", "x")
    write_json(
        tmp_path / "toy" / "config_sentence_transformers.json",
        {"prompts": {"all": "a: "}, "default_prompt_name": "all"},
    )
    assert text_rules() == ("a: ", "a: ")


def test_export_prints_instructions_shorter_sizes_and_notes_and_the_manifest_has_them(
    settings: Settings, tmp_path: Path
) -> None:
    change_json(
        tmp_path / "toy/config.json",
        _name_or_path="nomic-ai/nomic-embed-text-v1.5",
        matryoshka_dimensions=[64, 16, 8],
    )
    (tmp_path / "toy/sparse_linear.pt").touch()
    out = StringIO()
    chosen = change(settings, precision="fp32", document_instruction="d: ")
    manifest = read_manifest(export(chosen, Terminal("en", out, out)))
    assert manifest.text.query_instruction == "search_query: "
    assert manifest.matryoshka_dimensions == [8, 16]
    said = out.getvalue()
    assert "note: sparse_linear.pt: only the dense vectors are exported" in said
    assert (
        "before queries: 'search_query: '; before documents: 'd: '; from the command line" in said
    )
    assert "recognised as nomic-embed-text-v1.5 by _name_or_path in config.json" in said
    assert "shorter vectors: 8, 16; from matryoshka_dimensions in config.json" in said
    manifest = read_manifest(export(change(chosen, matryoshka=())))
    assert manifest.matryoshka_dimensions == []


def test_many_short_calibration_texts_serve_as_well_as_few(
    settings: Settings, tmp_path: Path
) -> None:
    write_toy_checkpoint(tmp_path / "toy", pooling="mean")
    few = read_manifest(export(settings)).agreement
    many = write_toy_texts(tmp_path / "many.txt", 2500, longest=20, seed=3)
    agreement = read_manifest(export(change(settings, calibration=many))).agreement
    assert 1 - agreement.mean < 2 * (1 - few.mean)


# --- failures -------------------------------------------------------------------------------------


def test_failed_verification_names_texts_and_leaves_nothing(settings: Settings) -> None:
    before = in_toy(settings)
    with pytest.raises(DisagreesWithCheckpoint) as caught:
        export(change(settings, thresholds=IMPOSSIBLE))
    shown = toy_texts(20, seed=1)
    worst = caught.value.english.splitlines()[1:]
    assert len(worst) == 5
    for line in worst:
        assert any(" ".join(text.split())[:30] in line for text in shown)
    assert "余弦" in caught.value.chinese
    assert in_toy(settings) == before


def test_failed_verification_tells_queries_from_documents(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "verification.txt").write_text("墨池书画\n", encoding="utf-8")
    with pytest.raises(DisagreesWithCheckpoint) as caught:
        export(change(settings, thresholds=IMPOSSIBLE, query_instruction="查询："))
    named = [line.split(maxsplit=1)[1] for line in caught.value.english.splitlines()[1:]]
    assert sorted(named) == ["'(query) 墨池书画'", "'墨池书画'"]


def test_good_artifact_survives_a_failing_export(settings: Settings) -> None:
    folder = export(settings)
    whole, before = artifact_files(folder), in_toy(settings)
    with pytest.raises(DisagreesWithCheckpoint):
        export(change(settings, thresholds=IMPOSSIBLE))
    assert artifact_files(folder) == whole
    assert in_toy(settings) == before
    assert Model(folder).self_test_agreement > SAME_VECTORS


def spoil_weights(settings: Settings) -> None:
    path = Path(settings.source) / "model.safetensors"
    tensors = load_file(path)
    tensors["embeddings.word_embeddings.weight"][5, 5] = np.nan
    save_file(tensors, path)


def spoil_config(settings: Settings) -> None:
    (Path(settings.source) / "config.json").write_text("{", encoding="utf-8")


def spoil_nothing(settings: Settings) -> None:
    del settings


@pytest.mark.parametrize(
    ("spoil", "values", "kind"),
    [
        (spoil_weights, {}, CorruptFile),
        (spoil_config, {}, CorruptFile),
        (spoil_nothing, {"calibration": Path("none.txt")}, BadTexts),
        (spoil_nothing, {"verify_texts": Path("none.txt")}, BadTexts),
        (spoil_nothing, {"calibration": Path(__file__).parent}, BadTexts),
        (spoil_nothing, {"verify_texts": Path(__file__).parent}, BadTexts),
        (spoil_nothing, {"matryoshka": (33,)}, UnsupportedModel),
        (spoil_nothing, {"matryoshka": (0,)}, UnsupportedModel),
        (spoil_nothing, {"matryoshka": (16, -1)}, UnsupportedModel),
        (spoil_nothing, {"source": "./none"}, NoSuchModel),
        (spoil_nothing, {"source": "a/b/c"}, NoSuchModel),
        (spoil_nothing, {"source": "none"}, NoSuchModel),
    ],
)
def test_failure_says_why_in_both_languages_and_leaves_nothing(
    spoil: Any, values: dict[str, Any], kind: type[ExportError], settings: Settings
) -> None:
    spoil(settings)
    before = in_toy(settings)
    with pytest.raises(kind) as caught:
        export(change(settings, **values))
    assert caught.value.english
    assert any("\u4e00" <= character <= "\u9fff" for character in caught.value.chinese)
    assert in_toy(settings) == before


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a test fail if an export gets as far as calibration."""

    def refuse(*_: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(pipeline, "build", refuse)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("size", [-1, 0, 33, 10**9])
def test_size_that_the_model_does_not_have_is_refused_before_any_work(
    size: int, settings: Settings
) -> None:
    with pytest.raises(UnsupportedModel, match=f"--matryoshka {size} is outside 1 to"):
        export(change(settings, matryoshka=(16, size)))


@pytest.mark.usefixtures("no_work")
def test_impossible_size_is_refused_before_a_download(settings: Settings) -> None:
    with pytest.raises(UnsupportedModel, match="--matryoshka 0"):
        export(change(settings, source="no-one/nothing", matryoshka=(0,)))


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("out", ["calibration.txt", "calibration.txt/onnx", "x" * 250])
def test_place_that_cannot_be_written_is_refused_before_any_work(
    out: str, settings: Settings, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CannotWrite, match="cannot write"):
        export(change(settings, out=tmp_path / out))
    assert sorted(tmp_path.rglob("*")) == before


def test_artifact_of_a_killed_export_comes_back_and_is_current(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = change(settings, precision="fp32")
    folder = export(settings)
    whole = artifact_files(folder)
    scratch = folder.with_name(f".{folder.name}.12345678.tmp")
    scratch.mkdir()
    (scratch / MARK).touch()
    folder.rename(scratch / OLD)
    capsys.readouterr()
    export(settings)
    assert "is up to date" in capsys.readouterr().out
    assert artifact_files(folder) == whole


def test_too_few_calibration_texts_are_refused(settings: Settings, tmp_path: Path) -> None:
    few = write_toy_texts(tmp_path / "few.txt", 19)
    with pytest.raises(BadTexts, match="has 19 texts; at least 20"):
        export(change(settings, calibration=few))


def test_export_never_replaces_a_folder_with_other_things(
    settings: Settings, tmp_path: Path
) -> None:
    before = artifact_files_of_tree(tmp_path / "toy")
    for out in (tmp_path / "toy", tmp_path):
        with pytest.raises(CannotWrite, match="would be lost"):
            export(change(settings, out=out, force=True))
    assert artifact_files_of_tree(tmp_path / "toy") == before


def artifact_files_of_tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the written file -----------------------------------------------------------------------------


def test_written_files_name_no_folder_of_this_machine(settings: Settings, tmp_path: Path) -> None:
    folder = export(settings)
    content = b"".join(artifact_files(folder).values())
    assert str(tmp_path).encode() not in content
    assert str(Path.home()).encode() + b"/" not in content


def test_written_model_passes_the_checker(settings: Settings) -> None:
    onnx.checker.check_model(onnx.load(export(settings) / MODEL_FILE), full_check=True)


def test_manifest_is_readable_json(settings: Settings) -> None:
    manifest = json.loads((export(settings) / "manifest.json").read_text(encoding="utf-8"))
    assert manifest.keys() == set(Manifest.__struct_fields__)


def test_own_texts_are_used_where_none_are_given(settings: Settings, tmp_path: Path) -> None:
    folder = export(
        change(
            settings,
            calibration=None,
            verify_texts=None,
            # Most of these characters are unknown to the toy.
            thresholds=Thresholds(mean=0.9, minimum=0.5),
        )
    )
    quantization = read_manifest(folder).quantization
    assert quantization is not None
    # The toy reads no set of the project's; then it is the English one.
    own = read_texts(ENGLISH.calibration, at_least=1)
    assert quantization.calibration_texts == len(own)
    assert MAX_CALIBRATION_TEXTS >= len(own)
