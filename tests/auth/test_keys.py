"""The keys file: what is in it, what is refused, and the commands that change it."""

import re
import stat
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest

from server.auth.keys import PREFIX, SCOPES, Key, Keys, add_key, new_key, read_keys, remove_key
from server.auth.quota import Quota
from server.errors import BadSettings
from tests.support.commands import Commands

DIGEST = "ab" * 32
HAN = re.compile(r"[\u4e00-\u9fff]")
DAY_S = 86_400


def written(folder: Path, *lines: str) -> Path:
    path = folder / "keys"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def entry(name: str = "a", more: str = "") -> str:
    return f'{{"name": "{name}", "sha256": "{DIGEST}", "scopes": ["embed"]{more}}}'


def refusal_of(path: Path) -> BadSettings:
    with pytest.raises(BadSettings) as refusal:
        read_keys(path)
    assert HAN.search(refusal.value.chinese) and not HAN.search(refusal.value.english)
    assert str(path) in refusal.value.english and str(path) in refusal.value.chinese
    return refusal.value


def test_keys_are_long_and_never_the_same() -> None:
    secrets = {new_key("a", "embed")[0] for _ in range(100)}
    assert len(secrets) == 100
    # 256 bits in base64.
    assert all(secret.startswith(PREFIX) and len(secret) == len(PREFIX) + 43 for secret in secrets)


def test_key_is_found_by_its_secret_only() -> None:
    (secret, key), (other, another) = new_key("a", "embed"), new_key("b", "search")
    keys = Keys([key, another])
    assert len(keys) == 2 and list(keys) == [key, another]
    assert keys.find(secret.encode()) is key and keys.find(other.encode()) is another
    for wrong in (b"", b"\xff", secret[:-1].encode(), secret.upper().encode(), key.sha256.encode()):
        assert keys.find(wrong) is None
    assert Keys([]).find(secret.encode()) is None


def test_key_is_found_by_its_digest_and_not_by_comparing_with_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = [new_key(f"k{number}", "embed") for number in range(50)]
    keys = Keys(key for _, key in made)
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("server.auth.keys.hmac.compare_digest", compare)
    secret, key = made[-1]
    assert keys.find(secret.encode()) is key
    assert compared == [bytes.fromhex(key.sha256)]
    assert keys.find(b"ink_unknown") is None
    assert len(compared) == 1 and len(keys) == 50


def test_key_holds_through_its_last_day() -> None:
    _, key = new_key("a", "embed", "1970-01-03")
    assert not key.expired(0) and not key.expired(3 * DAY_S - 1)
    assert key.expired(3 * DAY_S) and key.expired(1e12)
    assert not new_key("a", "embed")[1].expired(1e12)


def test_everything_about_a_key_is_kept_but_the_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    secret, key = new_key("财务", "write, embed", "2027-01-31", Quota(60, 100_000))
    add_key(path, key)
    assert read_keys(path) == [key]
    assert key.scopes == ["embed", "write"] and key.expires == date(2027, 1, 31)
    assert key.quota == Quota(60, 100_000)
    content = path.read_text(encoding="utf-8")
    assert (
        "财务" in content and secret not in content and secret.removeprefix(PREFIX) not in content
    )


def test_new_file_is_the_owners_alone_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    add_key(path, new_key("a", "embed")[1])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    add_key(path, new_key("b", "embed")[1])
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize("allowed", [True, False])
def test_file_that_is_replaced_keeps_its_owner_where_that_is_allowed(
    allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, entry("a"))
    asked: list[tuple[int, int]] = []

    def fchown(_: int, user: int, group: int) -> None:
        asked.append((user, group))
        if not allowed:
            raise PermissionError

    monkeypatch.setattr("os.fchown", fchown)
    add_key(path, new_key("b", "embed")[1])
    assert asked == [(path.stat().st_uid, path.stat().st_gid)]
    assert [key.name for key in read_keys(path)] == ["a", "b"]


def test_other_lines_stay_as_they_were(tmp_path: Path) -> None:
    path = written(tmp_path, "# of the search page", entry("a"), "", entry("b"))
    add_key(path, new_key("c", "embed")[1])
    remove_key(path, "a")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["# of the search page", "", entry("b")] and len(lines) == 4
    assert [key.name for key in read_keys(path)] == ["b", "c"]


def test_new_content_is_on_the_disk_before_it_takes_the_files_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, entry("a"))
    synced: list[tuple[bytes, bytes]] = []

    def fsync(handle: int) -> None:
        synced_file = Path(f"/proc/self/fd/{handle}")
        if synced_file.is_file():
            synced.append((synced_file.read_bytes(), path.read_bytes()))

    monkeypatch.setattr("os.fsync", fsync)
    before = path.read_bytes()
    add_key(path, new_key("b", "embed")[1])
    added = path.read_bytes()
    remove_key(path, "a")
    assert synced == [(added, before), (path.read_bytes(), added)]


def test_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "keys"
    link.symlink_to(written(tmp_path / "real", entry()))
    remove_key(link, "a")
    assert link.is_symlink() and read_keys(link) == []


@pytest.mark.parametrize(
    "line",
    [
        "not JSON",
        "[]",
        entry(more=', "admin": true'),
        entry(name="a b"),
        entry().replace("embed", "everything"),
        entry().replace(DIGEST, "ink_somebodysecret"),
        entry(more=', "expires": "soon"'),
        entry(more=', "requests_per_minute": 0'),
        '{"name": "a"}',
    ],
)
def test_bad_line_is_refused_by_its_number_and_not_repeated(tmp_path: Path, line: str) -> None:
    refused = refusal_of(written(tmp_path, "# first", line))
    assert "line 2" in refused.english and "第 2 行" in refused.chinese
    assert "somebodysecret" not in refused.english + refused.chinese


@pytest.mark.parametrize("entry_of", ['""', '"l*w"', '"a b"', '"**"', "1"])
def test_refusal_of_collections_says_how_to_name_them(tmp_path: Path, entry_of: str) -> None:
    refused = refusal_of(written(tmp_path, entry(more=f', "collections": ["laws", {entry_of}]')))
    assert "such as laws-*" in refused.english and "laws-*" in refused.chinese
    assert "regex" not in refused.english


def test_name_that_comes_twice_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    assert "'a'" in refusal_of(written(tmp_path, entry(), entry())).english
    assert "key new" in refusal_of(tmp_path / "missing").english
    (tmp_path / "bytes").write_bytes(b"\xff")
    refusal_of(tmp_path / "bytes")


# --- commands -------------------------------------------------------------------------------------


def names(keys: Sequence[Key]) -> list[str]:
    return [key.name for key in keys]


def test_key_is_shown_once_and_works(run: Commands, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    said = run(
        "key", "new", "a", "--scopes", "embed,search", "--expires", "2999-12-31", "--keys", file
    )
    secret = said.out.strip()
    assert said.out == f"{secret}\n" and secret not in said.err
    assert "SIGHUP" in said.err and not HAN.search(said.err)
    assert Keys(read_keys(file)).find(secret.encode()) == read_keys(file)[0]
    run("key", "new", "b", "--scopes", "metrics", "--requests-per-minute", "60", "--keys", file)
    listed = run("key", "list", "--keys", file).out
    assert "a  embed,search  until 2999-12-31\n" in listed and "60 requests/min" in listed
    assert secret not in listed and read_keys(file)[0].sha256 not in listed
    removed = run("key", "remove", "a", "--keys", file)
    assert "removed a" in removed.out
    # A running server accepts the key until it reads its keys again.
    assert "SIGHUP" in removed.err and "is restarted" in removed.err
    assert names(read_keys(file)) == ["b"]
    run("key", "remove", "b", "--keys", file)
    assert "no keys" in run("key", "list", "--keys", file).out


def test_key_that_has_expired_is_listed_as_such(run: Commands, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    run("key", "new", "a", "--scopes", "embed", "--expires", "2001-01-01", "--keys", file)
    assert "(expired)" in run("key", "list", "--keys", file).out
    assert "已过期" in run("key", "list", "--keys", file, locale="zh_CN.UTF-8").out


def test_commands_refuse_what_cannot_be_done(run: Commands, tmp_path: Path) -> None:
    to = ("--keys", tmp_path / "keys")
    assert "--keys FILE" in run.refused("key", "new", "a", "--scopes", "embed")
    assert run.refused("key", "new", "a", "--scopes", "embed,all", *to).count("'all'") == 2
    assert "metrics" in run.refused("key", "new", "a", "--scopes", "", *to)
    assert run.refused("key", "new", "a b", "--scopes", "embed", *to).count("'a b'") == 2
    for day in ("tomorrow", "2027-02-30"):
        assert day in run.refused("key", "new", "a", "--scopes", "embed", "--expires", day, *to)
    assert not (tmp_path / "keys").exists()
    run("key", "new", "a", "--scopes", ",".join(SCOPES), *to)
    assert "already" in run.refused("key", "new", "a", "--scopes", "embed", *to)
    assert "it has a" in run.refused("key", "remove", "b", *to)
    missing = tmp_path / "no" / "keys"
    assert "cannot be written" in run.refused(
        "key", "new", "a", "--scopes", "embed", "--keys", missing
    )
