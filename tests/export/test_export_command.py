"""`python -m export` as a user runs it: what it prints, where, and with which exit code."""

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.inference.comparison import SAME_VECTORS
from server.inference.manifest import read_manifest
from server.inference.model import Model
from tests.support.toys import write_toy_checkpoint, write_toy_texts

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "export")


def run(*arguments: str | Path, locale: str = "C.UTF-8") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "LC_ALL": locale},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= character <= "\u9fff" for character in text)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy_checkpoint(tmp_path / "toy")


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    """Options with texts that the toy's vocabulary covers."""
    return [
        f"--calibration={write_toy_texts(tmp_path / 'calibration.txt', 40)}",
        f"--verify-texts={write_toy_texts(tmp_path / 'verification.txt', 20, seed=1)}",
        "--min-agreement=0.99,0.9",
    ]


@pytest.mark.parametrize("locale", ["C.UTF-8", "zh_CN.UTF-8"])
def test_help_lists_every_option_in_the_language_of_the_locale(locale: str) -> None:
    done = run("--help", locale=locale)
    assert (done.returncode, done.stderr) == (0, "")
    _, listed = re.split("^(?:options|选项):$", done.stdout, flags=re.MULTILINE)
    options = [part for part in listed.split("\n  -") if part.strip()]
    named = {option.split()[0].lstrip("-") for option in options}
    assert named == {
        "h,",
        "out",
        "precision",
        "weight-bits",
        "calibration",
        "verify-texts",
        "min-agreement",
        "model-id",
        "revision",
        "query-instruction",
        "document-instruction",
        "matryoshka",
        "max-tokens",
        "pair-prompt",
        "task",
        "tokenizer",
        "via",
        "allow-pickle",
        "force",
    }
    for option in options:
        assert is_chinese(option) == locale.startswith("zh"), option


def test_reader_that_leaves_early_gets_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "list"], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("locale", "words"),
    [
        ("C.UTF-8", "error: no model folder at {}"),
        ("zh_CN.UTF-8", "错误：没有这个模型文件夹：{}"),
    ],
)
def test_missing_model_gives_one_line_and_exit_code_1(
    tmp_path: Path, locale: str, words: str
) -> None:
    done = run(tmp_path / "none", locale=locale)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == words.format(tmp_path / "none") + "\n"


@pytest.mark.parametrize(
    ("locale", "beginning"), [("C.UTF-8", "error: "), ("zh_CN.UTF-8", "错误：")]
)
def test_bad_checkpoint_gives_one_line_and_exit_code_1(
    toy: Path, locale: str, beginning: str
) -> None:
    (toy / "config.json").write_text("{", encoding="utf-8")
    done = run(toy, locale=locale)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(beginning) and "config.json" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["--precision", "int3"],
        ["--weight-bits", "4"],
        ["--min-agreement", "0.9"],
        ["--min-agreement", "0.9,0.95"],
        ["--min-agreement", "2,1"],
        ["--min-agreement", "nan,nan"],
        ["--matryoshka", "256,half"],
        ["--via", "torch"],
        ["--unknown"],
    ],
    ids=" ".join,
)
def test_bad_option_gives_the_usage_and_exit_code_2(arguments: list[str], toy: Path) -> None:
    done = run(toy, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: python -m export")
    assert arguments[0] in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("locale", "option"), [("C.UTF-8", "--query-instruction"), ("zh_CN.UTF-8", "--model-id")]
)
def test_bytes_that_are_not_utf_8_are_refused_as_an_option(
    toy: Path, option: str, locale: str
) -> None:
    done = run(toy, option, os.fsdecode(b"a\xffb"), locale=locale)
    assert (done.returncode, done.stdout) == (2, "")
    assert option in done.stderr and "UTF-8" in done.stderr and r"a\udcffb" in done.stderr


@pytest.mark.parametrize(("locale", "encoding"), [("C.UTF-8", "ascii"), ("zh_CN.UTF-8", "utf-8")])
def test_path_that_is_not_utf_8_is_named_on_any_terminal(
    toy: Path, texts: list[str], locale: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    odd = toy.rename(toy.parent / os.fsdecode(b"to\xffy"))
    done = run(odd, locale=locale)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert r"to\udcffy" in line and "--model-id" in line
    if encoding == "ascii":
        done = run(odd, *texts, "--model-id", "toy", "--precision", "fp32", locale=locale)
        assert (done.returncode, done.stderr) == (0, "")
        assert r"to\udcffy/onnx-fp32: " in done.stdout


def test_export_is_quiet_but_for_one_line_and_a_second_one_does_nothing(
    toy: Path, texts: list[str]
) -> None:
    first = run(toy, *texts)
    assert (first.returncode, first.stderr) == (0, "")
    (line,) = first.stdout.splitlines()
    assert line.startswith(f"{toy / 'onnx-int8'}: ")
    assert Model(toy / "onnx-int8").self_test_agreement > SAME_VECTORS
    second = run(toy, *texts)
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout == f"{toy / 'onnx-int8'} is up to date\n"
    assert is_chinese(run(toy, *texts, locale="zh_CN.UTF-8").stdout)


def test_every_option_reaches_the_manifest(toy: Path, texts: list[str], tmp_path: Path) -> None:
    done = run(
        toy,
        *texts,
        *("--out", tmp_path / "out"),
        *("--weight-bits", "7"),
        *("--model-id", "someone/toy"),
        *("--query-instruction", "查询："),
        *("--document-instruction", "文档："),
        *("--matryoshka", "16,8"),
        "--force",
    )
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(tmp_path / "out")
    assert manifest.model_id == "someone/toy"
    assert manifest.text.query_instruction == "查询："
    assert manifest.text.document_instruction == "文档："
    assert manifest.matryoshka_dimensions == [8, 16]
    assert manifest.quantization is not None
    assert manifest.quantization.weight_bits == 7
    assert manifest.quantization.calibration_texts == 40
    assert not (toy / "onnx-int8").exists()


def test_failed_verification_gives_exit_code_1_and_no_files(toy: Path, texts: list[str]) -> None:
    before = sorted(toy.iterdir())
    done = run(toy, *texts[:2], "--min-agreement", "1,1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: cosine to the float32 model: mean 0.99")
    assert not is_chinese(done.stderr.partition("worst texts:")[0])
    assert sorted(toy.iterdir()) == before


def test_interrupted_export_says_so_and_writes_nothing(toy: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = sorted(toy.iterdir())
    child = subprocess.Popen(
        [*COMMAND, str(toy), "--calibration", str(pipe)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        text=True,
        encoding="utf-8",
        # A shell that starts this in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # The export waits for its texts: from when the pipe can be opened until it is closed.
    writer = open_when_read(pipe, child)
    child.send_signal(signal.SIGINT)
    # A signal that comes just before the read is seen when the read ends.
    os.close(writer)
    said, complained = child.communicate(timeout=30)
    assert (child.returncode, said) == (130, "")
    assert complained.split("\n") == [
        "",
        "stopped, nothing was written",
        "",
    ]
    assert sorted(toy.iterdir()) == before


def open_when_read(pipe: Path, child: subprocess.Popen[str]) -> int:
    """Return the pipe's writing end, as soon as `child` has opened the other."""
    while child.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO
    raise AssertionError(f"the export ended with {child.returncode} before it read its texts")
