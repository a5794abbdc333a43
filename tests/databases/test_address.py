"""Addresses of databases: what a URI stands for, and that no secret is in one, or shown."""

import sys
from pathlib import Path

import pytest

from server.databases.address import KINDS, Address, opened, parse, variable
from server.errors import BadSettings
from tests.support.databases import SECRET


@pytest.mark.parametrize(
    ("uri", "kind", "target", "is_local"),
    [
        ("qdrant+http://db:6333", "qdrant", "http://db:6333", False),
        ("qdrant+https://db/prefix", "qdrant", "https://db/prefix", False),
        ("qdrant:data/qdrant", "qdrant", "data/qdrant", True),
        ("qdrant:/a b/c", "qdrant", "/a b/c", True),
        ("milvus+http://[::1]:19530", "milvus", "http://[::1]:19530", False),
        ("milvus+https://db", "milvus", "https://db", False),
        ("milvus:data/milvus.db", "milvus", "data/milvus.db", True),
        ("postgresql://me@db:5432/docs", "postgres", "postgresql://me@db:5432/docs", False),
    ],
)
def test_a_uri_stands_for_an_address(uri: str, kind: str, target: str, is_local: bool) -> None:
    found = parse("main", uri, {})
    assert (found.kind, found.target, found.secret, found.is_local) == (
        kind,
        target,
        None,
        is_local,
    )
    assert (dict(found.options), found.timeout_s) == ({}, 10.0)


def test_options_follow_a_question_mark(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    found = parse("main", f"qdrant+https://db?shards=6&timeout_s=2.5&secret_file={path}", {})
    assert (dict(found.options), found.timeout_s) == ({"shards": "6"}, 2.5)
    assert (found.target, found.secret) == ("https://db", SECRET)
    assert dict(parse("x", "postgresql://db/docs?sslmode=require", {}).options) == {
        "sslmode": "require"
    }


def test_the_secret_comes_from_a_variable_with_the_name() -> None:
    assert variable("my-db.2") == "INKWELL_VECTOR_DATABASE_SECRET_MY_DB_2"
    found = parse("my-db.2", "qdrant+https://db", {variable("my-db.2"): SECRET})
    assert found.secret == SECRET
    assert SECRET not in repr(found)
    assert found.redacted(f"key {SECRET}!") == "key ***!"
    assert Address("qdrant", "x").redacted("text") == "text"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://db:6333", "begins with one of qdrant"),
        ("", "begins with one of qdrant"),
        ("qdrant", "names no path"),
        ("qdrant:", "names no path"),
        ("qdrant:?timeout_s=1", "names no path"),
        ("qdrant+http://", "no host and port"),
        ("qdrant+http://db:99999", "no host and port"),
        ("qdrant+http://[::1", "no host and port"),
        ("qdrant+http:db", "no host and port"),
        ("qdrant+http://db?sslmode=x", "qdrant has no option 'sslmode'; there are ca_file"),
        ("qdrant:data?timeout_s=soon", "timeout_s 'soon' is not a number from 0.1 to 600"),
        ("qdrant:data?timeout_s=0", "timeout_s '0' is not"),
        ("qdrant:data?timeout_s=nan", "timeout_s 'nan' is not"),
        ("qdrant:data?secret_file=/never/there", "/never/there cannot be read: No such file"),
        ("qdrant:data?secret_file=/dev/zero", "/dev/zero cannot be read: Not a regular file"),
        ("qdrant+http://db?shards=0", "shards '0' is not a whole number from 1 to 999"),
        ("qdrant:" + "x" * 3_000, "has 3007 characters, at most 2000"),
    ],
)
def test_a_wrong_address_is_refused(uri: str, message: str) -> None:
    with pytest.raises(BadSettings) as raised:
        parse("main", uri, {})
    assert "vector database main: " in str(raised.value)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff", "is not UTF-8 text"),
        (b"x" * 20_000, "more than 16000 bytes"),
    ],
)
def test_a_wrong_secret_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(BadSettings, match=message):
        parse("main", f"qdrant:data?secret_file={path}", {})


@pytest.mark.parametrize(
    "uri",
    [
        f"qdrant+http://:{SECRET}@db",
        f"qdrant+http://{SECRET}@db",
        f"milvus+https://root:{SECRET}@db",
        f"postgresql://me:{SECRET}@db/docs",
    ],
)
def test_a_secret_in_a_uri_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(BadSettings, match=variable("main")) as raised:
        parse("main", uri, {})
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_client_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, KINDS[kind].module, None)
    with pytest.raises(BadSettings, match=rf"inkwell-embeddings\[{KINDS[kind].extra}\]"):
        opened(Address(kind, "data"))
