"""Completeness: every error has a code, and a status and a shape in every dialect."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from server import errors
from server.api import native_errors as native
from server.api import replies
from server.api.dialects import cohere, ollama, openai, rerank, tei, weaviate
from server.api.replies import Reply, status_of
from server.errors import CallerError, RetryableError, ServerError, StartupError


def descendants(kind: type[ServerError]) -> Iterator[type[ServerError]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


ALL = [kind for kind in descendants(ServerError) if kind.__module__ == errors.__name__]
LEAVES = [kind for kind in ALL if not kind.__subclasses__()]
# Errors that a request can get; the others end the process.
ANSWERS = [kind for kind in LEAVES if not issubclass(kind, StartupError)]
DIALECTS = {
    "native": native.error_reply,
    "openai": openai.error_reply,
    "tei": tei.error_reply,
    "rerank": rerank.error_reply,
    "cohere": cohere.error_reply,
    "ollama": ollama.error_reply,
    "weaviate": weaviate.error_reply,
}
TABLES = {"native and openai": replies.STATUS, "tei": tei.STATUS}
by_name = pytest.mark.parametrize("kind", ANSWERS, ids=lambda kind: kind.__name__)
by_dialect = pytest.mark.parametrize("dialect", DIALECTS)


def made(kind: type[ServerError]) -> ServerError:
    """Return an error as the server raises it."""
    options: dict[str, Any] = {}
    if issubclass(kind, CallerError):
        options = {"param": "input"}
    elif issubclass(kind, RetryableError):
        options = {"retry_after_s": 7}
    return kind("墨 is 3, at most 2", **options)


def test_tree_in_the_docstring_is_the_tree() -> None:
    drawn = {word.strip("│├└─ ").split()[0] for word in (errors.__doc__ or "").splitlines()[2:-2]}
    assert drawn == {ServerError.__name__, *(kind.__name__ for kind in ALL)}


def test_codes_of_leaves_are_unique() -> None:
    codes = [kind.code for kind in LEAVES]
    assert len(set(codes)) == len(codes)
    for kind in LEAVES:
        assert "code" in vars(kind), f"{kind.__name__} has no code of its own"
        assert kind.code == kind.code.lower() and kind.code.replace("_", "").isalpha()


@by_name
@pytest.mark.parametrize("name", TABLES)
def test_every_error_has_a_status_that_fits_whose_fault_it_is(
    kind: type[ServerError], name: str
) -> None:
    status = status_of(made(kind), TABLES[name])
    assert kind in TABLES[name] or any(base in TABLES[name] for base in kind.__mro__[1:-4])
    if issubclass(kind, CallerError):
        assert status != 408
        # For TEI a task that no model does is the fault of its backend.
        backend = (name, kind) == ("tei", errors.TaskNotServed)
        assert status == 424 if backend else 400 <= status < 424
    elif issubclass(kind, RetryableError):
        assert status in (429, 503)
    elif issubclass(kind, errors.DatabaseRefused):
        # As a gateway says it of what is behind it.
        assert status == 502
    else:
        assert status in (500, 424)


@pytest.mark.parametrize("name", TABLES)
def test_tables_know_only_errors_that_exist_and_have_one_for_all(name: str) -> None:
    assert set(TABLES[name]) <= {ServerError, *ALL}
    assert TABLES[name][ServerError] == 500


def test_kinds_of_tei_are_its_own() -> None:
    known = {"Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"}
    assert set(tei.KIND.values()) <= known


SHAPES: dict[str, Callable[[ServerError, Any], None]] = {}


def shape(check: Callable[[ServerError, Any], None]) -> Callable[[ServerError, Any], None]:
    SHAPES[check.__name__.removeprefix("check_")] = check
    return check


@shape
def check_native(error: ServerError, body: Any) -> None:
    assert body == {"error": {"code": error.code, "message": error.message}}


@shape
def check_openai(error: ServerError, body: Any) -> None:
    assert set(body) == {"error", "message", "detail"}
    assert body["message"] == body["detail"] == error.message
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] == error.message
    assert body["error"]["code"] == error.code
    assert body["error"]["param"] == getattr(error, "param", None)
    assert body["error"]["type"] in ("invalid_request_error", "rate_limit_error", "server_error")


@shape
def check_tei(error: ServerError, body: Any) -> None:
    assert set(body) == {"error", "error_type"}
    assert body["error"] == error.message
    assert body["error_type"] in tei.KIND.values()


@shape
def check_rerank(error: ServerError, body: Any) -> None:
    assert body == {"message": error.message, "detail": error.message}


@shape
def check_cohere(error: ServerError, body: Any) -> None:
    assert body == {"message": error.message}


@shape
def check_ollama(error: ServerError, body: Any) -> None:
    assert set(body) == {"error"} and body["error"].endswith(error.message)


@shape
def check_weaviate(error: ServerError, body: Any) -> None:
    assert body == {"error": error.message}


@by_name
@by_dialect
def test_every_error_has_the_shape_of_every_dialect(kind: type[ServerError], dialect: str) -> None:
    error = made(kind)
    reply: Reply = DIALECTS[dialect](error)
    assert reply.content_type == b"application/json"
    SHAPES[dialect](error, json.loads(reply.body))
    assert reply.error_code == error.code
    retry = dict(reply.headers).get(b"retry-after")
    assert retry == (b"7" if isinstance(error, RetryableError) else None)


def test_error_without_words_still_says_its_code() -> None:
    assert ServerError().message == "internal_error"
    assert ServerError("said").message == "said"


def test_startup_errors_keep_both_languages() -> None:
    error = errors.BadSettings("keys file {path} is not UTF-8 text", path="K")
    assert error.message == error.english == "keys file K is not UTF-8 text"
    assert error.chinese == "密钥文件 K 不是 UTF-8 文本"
