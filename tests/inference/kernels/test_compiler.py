"""Compiling the kernels: atomically, with a line that says why where it cannot be done."""

import platform
from pathlib import Path

import pytest

from server.inference.kernels import compiler, sources
from server.inference.kernels.compiler import NotCompiled, compile_library, main
from server.inference.kernels.library import open_library


def script(folder: Path, text: str) -> str:
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def test_compiled_library_is_known_by_its_sources(tmp_path: Path) -> None:
    try:
        made = compile_library(tmp_path / "kernels.so")
    except NotCompiled as error:
        pytest.skip(str(error))
    assert open_library(made).inkwell_sources() == sources.digest().encode()
    assert [path.name for path in tmp_path.iterdir()] == ["kernels.so"]


def test_digest_follows_sources_and_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sources.digest()
    monkeypatch.setattr(sources, "FLAGS", ("-O3",))
    assert sources.digest() != before
    (tmp_path / "a.h").write_text("int a;")
    monkeypatch.setattr(sources, "SOURCES", tmp_path)
    one = sources.digest()
    (tmp_path / "a.h").write_text("int b;")
    assert sources.digest() != one


def test_failed_compilation_leaves_the_old_library(tmp_path: Path) -> None:
    out = tmp_path / "out" / "kernels.so"
    out.parent.mkdir()
    out.write_text("old")
    failing = script(tmp_path, "echo 'encoder.c:1: unknown type' >&2; exit 1")
    with pytest.raises(NotCompiled, match=r"does not compile the kernels:\nencoder\.c:1"):
        compile_library(out, failing)
    assert out.read_text() == "old" and len(list(out.parent.iterdir())) == 1


def test_compiler_may_have_arguments(tmp_path: Path) -> None:
    writing = script(tmp_path, 'while [ "$1" != -o ]; do shift; done; echo made > "$2"')
    out = compile_library(tmp_path / "kernels.so", f"env {writing}")
    assert out.read_text() == "made\n"


@pytest.mark.parametrize(
    ("locale", "words"),
    [("C.UTF-8", "there is no C compiler (cc, gcc, clang)"), ("zh_CN.UTF-8", "没有 C 编译器")],
)
def test_missing_compiler_is_told_in_the_language_of_the_terminal(
    locale: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LC_ALL", locale)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--out", str(tmp_path / "kernels.so")]) == 1
    said = capsys.readouterr().err
    assert words in said and "ONNX Runtime" in said and said.count("\n") == 1


def test_compiler_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotCompiled, match="no-such-compiler cannot be run"):
        compile_library(tmp_path / "kernels.so", "no-such-compiler")


def test_other_machines_are_told_and_run_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(compiler, "subprocess", None)
    with pytest.raises(NotCompiled, match="x86-64, and this is Linux on aarch64"):
        compile_library(tmp_path / "kernels.so", "cc")
