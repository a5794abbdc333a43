"""Every sentence for the terminal exists in both languages, with the same fields."""

import ast
import json
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from export import errors as export_errors
from server import errors
from server.messages.message import CATALOGUE, Message, language_of

ROOT = Path(__file__).parents[2]
SECTIONS: dict[str, dict[str, str]] = json.loads(CATALOGUE.read_text(encoding="utf-8"))
PAIRS = {english: chinese for section in SECTIONS.values() for english, chinese in section.items()}
# What takes a template as its first argument, besides the errors for the terminal.
TAKING = {"Message", "NotADocument", "BundleError", "by_hand", "_say"}


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
    assert found > 250


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
        "{place} has {name}, which is no setting; the nearest is {near}",
        place=Message("config file {path}", path="a.toml"),
        name="prot",
        near="port",
    )
    assert str(message) == message.english
    assert (
        message.english == "config file a.toml has prot, which is no setting; the nearest is port"
    )
    assert message.chinese == "配置文件 a.toml 中的 prot 不是有效的设置；最接近的是 port"


def test_lists_are_joined_as_the_language_does() -> None:
    message = Message("scope {each!r} is not one of {scopes}", each="x", scopes=("a", "b"))
    assert "a, b" in message.english and "a、b" in message.chinese


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
