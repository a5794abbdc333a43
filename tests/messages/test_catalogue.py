"""Every sentence for the terminal exists in both languages, with the same fields."""

import ast
import errno
import json
import os
import re
import string
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from export import errors as export_errors
from server import errors
from server.messages.message import CATALOGUE, SYSTEM_REASONS, VARIABLES, Message, language_of
from tests.support.fakes import PATIENCE_S
from tests.support.processes import environment

ROOT = Path(__file__).parents[2]
SECTIONS: dict[str, dict[str, str]] = json.loads(CATALOGUE.read_text(encoding="utf-8"))
PAIRS = {english: chinese for section in SECTIONS.values() for english, chinese in section.items()}
# What takes a template as its first argument, besides the errors for the terminal.
TAKING = {
    "Message",
    "NotADocument",
    "Unreadable",
    "UnreadableFile",
    "BundleError",
    "by_hand",
    "words",
    "say",
    "inform",
}


def names(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def taking() -> set[str]:
    """Names of everything that is called with a template."""
    terminal = {
        name
        for module in (errors, export_errors)
        for name, kind in vars(module).items()
        if isinstance(kind, type)
        and issubclass(kind, errors.StartupError | export_errors.ExportError)
    }
    return TAKING | terminal


def calls() -> Iterator[tuple[Path, ast.Call]]:
    for folder in ("server", "export", "deploy"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                    if name in taking() and node.args:
                        yield path, node


def literals(node: ast.expr) -> Iterator[str]:
    """Return the string constants that an argument may be; nothing for a variable."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from literals(node.body)
        yield from literals(node.orelse)


def test_catalogue_has_every_sentence_with_its_fields() -> None:
    found = 0
    for path, call in calls():
        for template in literals(call.args[0]):
            found += 1
            assert template in PAIRS, f"{path.name}:{call.lineno}: {template}"
            given = {keyword.arg for keyword in call.keywords}
            assert names(template) <= given, f"{path.name}:{call.lineno}: {template}"
    assert found > 350


def test_sentence_of_several_sections_has_one_twin() -> None:
    for section in SECTIONS.values():
        for english, chinese in section.items():
            assert chinese == PAIRS[english], english


def test_both_languages_have_the_same_fields() -> None:
    for english, chinese in PAIRS.items():
        assert names(english) == names(chinese), english


def test_catalogue_has_no_sentence_that_nothing_says() -> None:
    sources = [
        node.value
        for folder in ("server", "export", "deploy")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert PAIRS.keys() - set(sources) == set()


def test_message_is_said_whole_in_one_language() -> None:
    message = Message(
        "{place} has the unknown setting {name}; did you mean {near}?",
        place=Message("config file {path}", path="a.toml"),
        name="prot",
        near="port",
    )
    assert str(message) == message.english
    assert message.english == "config file a.toml has the unknown setting prot; did you mean port?"
    assert message.chinese == "配置文件 a.toml 中的 prot 不是有效的设置；是否想写 port？"


def test_lists_are_joined_as_the_language_does() -> None:
    message = Message("scope {each!r} is not one of {scopes}", each="x", scopes=("a", "b"))
    assert "a, b" in message.english and "a、b" in message.chinese


def test_messages_in_a_list_and_sentences_of_errors_are_in_the_language_of_the_whole() -> None:
    listed = Message("{counts}", counts=(Message("whole"), Message("none")))
    assert (listed.english, listed.chinese) == ("whole, none", "不切分、无")
    error = errors.BadSettings("there is no file {file}", file="a")
    assert Message("error: {error}", error=error).chinese == "错误：文件 a 不存在"


def test_what_the_system_says_of_an_error_is_in_the_language_of_the_whole() -> None:
    error = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a")
    message = Message("{where} cannot be read: {strerror}", where="a", strerror=error.strerror)
    assert message.english == "a cannot be read: No such file or directory"
    assert message.chinese == "无法读取 a：文件或文件夹不存在"
    assert SYSTEM_REASONS <= PAIRS.keys()
    odd = Message("{where} cannot be read: {strerror}", where="a", strerror="Level 2 halted")
    assert odd.chinese == "无法读取 a：Level 2 halted"


@pytest.mark.parametrize("template", ["backed up {name}: {size:,} bytes", "{other!r} {size:.4f}"])
def test_field_that_was_not_given_stays_in_braces(template: str) -> None:
    for said in (Message(template).english, Message(template).chinese):
        assert "{size}" in said


def test_sentence_without_a_twin_is_said_in_english() -> None:
    assert Message("no twin of {this}", this="it").chinese == "no twin of it"


@pytest.mark.parametrize(
    ("environ", "language"),
    [
        ({}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "en_US.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_TW"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, "zh"),
        ({"LANG": "ZH"}, "zh"),
    ],
)
def test_locale_chooses_the_language(environ: dict[str, str], language: str) -> None:
    assert language_of(environ) == language


# --- real commands ------------------------------------------------------------------------------------

OF_ENGLISH_HELP = re.compile("usage:|arguments|options:|and exit|error:|expected")
HAN = re.compile(r"[\u4e00-\u9fff]")
RUNS = {
    "help": (("server", "--help"), 0, "启动 HTTP 服务"),
    "help of a command": (("server", "index", "--help"), 0, "相邻片段重叠的 token 数"),
    "help of the exporter": (("export", "--help"), 0, "权重精度"),
    "help of the bundle": (("deploy.bundle", "--help"), 0, "制作可离线安装的安装包"),
    "doctor": (("server", "doctor", "--model", "none", "--port", "0"), 1, "正常  cpu"),
    "config": (("server", "config"), 0, "port = 8000  # 默认值"),
    "error": (("server", "index", "none.txt"), 1, "错误：无法读取 none.txt"),
    "error of a flag": (
        ("server", "search", "x", "--top-k", "0"),
        2,
        "python -m server search：错误：参数 --top-k：'0' 不是大于等于 1 的整数",
    ),
    "no command": (("server",), 2, "错误：缺少必需的参数：COMMAND"),
    "unknown command": (("server", "serv"), 2, "错误：参数 COMMAND：'serv' 不是有效的选项，可选："),
    "unknown flag": (("server", "check", "--fast"), 2, "错误：无法识别的参数：--fast"),
    "flag without its value": (("server", "check", "--data"), 2, "错误：参数 --data：需要一个值"),
    "flag with too few values": (("server", "import", "--pair", "a"), 2, "--pair：需要 2 个值"),
    "error of the exporter": (("export", "./none"), 1, "错误：没有这个模型文件夹：none"),
}


def printed(arguments: Sequence[str], folder: Path, locale: str, status: int) -> str:
    """Return what a command prints in a locale that this machine may not have."""
    environ = {name: value for name, value in environment().items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-P", "-m", *arguments],
        cwd=folder,
        env={**environ, "LANG": locale, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=PATIENCE_S,
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == status, said
    return said


@pytest.mark.parametrize(("arguments", "status", "words"), RUNS.values(), ids=RUNS)
def test_command_prints_in_one_language(
    arguments: Sequence[str], status: int, words: str, tmp_path: Path
) -> None:
    english = printed(arguments, tmp_path, "C.UTF-8", status)
    assert english.strip() and not HAN.search(english)
    chinese = printed(arguments, tmp_path, "zh_CN.UTF-8", status)
    assert words in chinese
    assert not OF_ENGLISH_HELP.search(chinese)
