"""What is printed where the output is UTF-8, and where it is not."""

import io
import json

import pytest

from server.messages.message import Message
from server.messages.terminal import Terminal

VALUE = {"text": "墨池 café 😀"}


def printed(encoding: str, value: object) -> bytes:
    out = io.TextIOWrapper(io.BytesIO(), encoding, write_through=True)
    Terminal("en", out, io.StringIO()).say_json(value)
    raw = out.detach()
    assert isinstance(raw, io.BytesIO)
    return raw.getvalue()


def test_json_is_readable_where_the_output_is_utf_8() -> None:
    for encoding in ("utf-8", "UTF8"):
        assert printed(encoding, VALUE) == '{"text": "墨池 café 😀"}\n'.encode()
    out = io.StringIO()
    Terminal("en", out, io.StringIO()).say_json(VALUE)
    assert out.getvalue() == '{"text": "墨池 café 😀"}\n'


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "utf-16"])
def test_json_is_ascii_where_it_is_not(encoding: str) -> None:
    line = printed(encoding, VALUE).decode(encoding)
    assert line.isascii() and json.loads(line) == VALUE


def test_half_a_character_is_escaped_in_json() -> None:
    line = printed("utf-8", {"text": "a\udcff"})
    assert line.isascii() and json.loads(line) == {"text": "a\udcff"}


def test_characters_that_a_terminal_lacks_are_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, "latin-1", write_through=True))
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(err, "ascii", write_through=True))
    terminal = Terminal.of({})
    terminal.say(Message("{first}", first="墨é\udcff"))
    terminal.inform(Message("{first}", first="é"))
    assert out.getvalue() == rb"\u58a8" + b"\xe9" + rb"\udcff" + b"\n"
    assert err.getvalue() == rb"\xe9" + b"\n"


def test_control_characters_of_a_field_are_escapes() -> None:
    out = io.StringIO()
    Terminal("en", out, out).inform("error: {error}", error="\x1b[2J\x9b墨\n\t池")
    assert out.getvalue() == "error: \\x1b[2J\\x9b墨\n\t池\n"


def test_nothing_of_a_field_turns_or_overwrites_its_line() -> None:
    out = io.StringIO()
    Terminal("en", out, out).inform("{name} was read", name="a\u202etxt.exe\r\u2066b\r\n")
    assert out.getvalue() == "a\\u202etxt.exe\\x0d\\u2066b\r\n was read\n"


def test_json_cannot_steer_the_terminal_and_keeps_its_value() -> None:
    out = io.StringIO()
    value = {"text": "\x1b]52;c;x\x07\x9b2J\x7f\u202e墨"}
    Terminal("en", out, out).say_json(value)
    assert all(each.isprintable() for each in out.getvalue().rstrip("\n"))
    assert json.loads(out.getvalue()) == value and "墨" in out.getvalue()
