"""Settings: where they come from, what is refused, and that each is explained."""

import argparse
import dataclasses
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from server.cli import parser
from server.config import (
    Config,
    ModelPlace,
    ModelPlaces,
    add_flags,
    aliases_in,
    effective,
    flags_given,
    names_in,
    on_loopback,
)
from server.config_sources import ENV_PREFIX, env_name
from server.errors import BadSettings
from server.messages.terminal import Terminal

SETTINGS = dataclasses.fields(Config)
NAMES = [setting.name for setting in SETTINGS]
BOUNDED = [setting for setting in SETTINGS if setting.metadata["limits"]]
HAN = re.compile(r"[\u4e00-\u9fff]")


def another(setting: "dataclasses.Field[Any]", step: int = 1) -> str:
    """A good value that is not the default; another one for another step."""
    chosen = {
        "collections": ("off", "on"),
        "log_level": ("debug", "warning"),
        "log_format": ("json", "plain"),
        "kernels": ("off", "auto"),
    }
    chosen["trace_endpoint"] = ("http://a/v1", "https://b:1/")
    chosen["unix_socket_mode"] = ("600", "666")
    chosen["vector_database"] = ("a=qdrant:here", "b=qdrant+http://c:6333")
    if setting.name in chosen:
        return chosen[setting.name][step - 1]
    if isinstance(setting.default, int):
        return str(setting.default + step)
    return f"elsewhere-{step}"


def load(environ: Mapping[str, str] | None = None, /, **flags: str | None) -> Config:
    return effective(environ or {}, flags).config


def test_without_flags_and_variables_the_defaults_hold() -> None:
    assert load() == Config()
    assert effective({}).config == Config()


@pytest.mark.parametrize("setting", SETTINGS, ids=NAMES)
def test_flag_wins_over_variable_and_variable_over_default(
    setting: "dataclasses.Field[Any]",
) -> None:
    chosen, other = another(setting), another(setting, step=2)
    environ = {env_name(setting.name): other}
    if setting.name in ("tls_key", "tls_client_ca"):
        environ[env_name("tls_cert")] = "cert.pem"

    from_default = getattr(load(), setting.name)
    from_variable = getattr(load(environ), setting.name)
    from_flag = getattr(load(environ, **{setting.name: chosen}), setting.name)
    not_given = getattr(load(environ, **{setting.name: None}), setting.name)
    # Of two values that there are, the other one is the default.
    assert from_variable != from_default or setting.name in ("collections", "kernels", "log_format")
    assert from_flag not in (from_default, from_variable)
    assert str(from_variable) == str(not_given) == other
    assert str(from_flag) == chosen


def test_each_variable_has_the_prefix_and_changes_one_setting_only() -> None:
    for setting in SETTINGS:
        assert env_name(setting.name) == ENV_PREFIX + setting.name.upper()
        if setting.name in ("tls_key", "tls_client_ca"):
            continue  # Not without a certificate.
        changed = load({env_name(setting.name): another(setting)})
        differing = [n for n in NAMES if getattr(changed, n) != getattr(Config(), n)]
        assert differing == [setting.name]


def test_variables_of_others_are_ignored() -> None:
    assert load({"PORT": "1", "HOST": "x", "inkwell_port": "1"}) == Config()


def refusal_of(environ: Mapping[str, str], **flags: str) -> BadSettings:
    with pytest.raises(BadSettings) as refusal:
        effective(environ, flags)
    assert HAN.search(refusal.value.chinese)
    assert not HAN.search(refusal.value.english)
    return refusal.value


@pytest.mark.parametrize("service", ["inkwell", "inkwell-search"])
def test_variables_that_kubernetes_sets_for_a_service_are_told_with_their_cause(
    service: str,
) -> None:
    name = service.upper().replace("-", "_")
    port = "tcp://10.0.0.1:8000"
    environ = {
        f"{name}_SERVICE_HOST": "10.0.0.1",
        f"{name}_SERVICE_PORT": "8000",
        f"{name}_PORT": port,
        f"{name}_PORT_8000_TCP": port,
        f"{name}_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    refused = refusal_of(environ)
    for text in (refused.english, refused.chinese):
        assert "enableServiceLinks: false" in text
        assert f"{name}_SERVICE_HOST" in text and f"{name}_PORT" in text and f" {service}" in text
    given = {"INKWELL_PORT": "8000"}
    assert "enableServiceLinks" in refusal_of(environ | given).english, (
        "and the rest are not settings"
    )


def test_unknown_variable_with_the_prefix_is_refused_with_the_nearest() -> None:
    refused = refusal_of({"INKWELL_PROT": "1"})
    for text in (refused.english, refused.chinese):
        assert "INKWELL_PROT" in text
        assert "INKWELL_PORT" in text


@pytest.mark.parametrize("name", ["model_alias", "allowed_hosts"])
def test_flags_with_names_may_be_repeated(name: str, tmp_path: Path) -> None:
    flags = argparse.ArgumentParser()
    add_flags(flags, Terminal("en", io.StringIO(), io.StringIO()))
    flag = "--" + name.replace("_", "-")
    given = flags_given(flags.parse_args([flag, "a", flag, "b,c"]))
    assert getattr(effective({}, given).config, name) == "a,b,c"
    file = written(tmp_path, f'{name} = ["a", "b"]\n')
    assert getattr(effective({}, {"config": file}).config, name) == "a,b"
    assert getattr(effective({env_name(name): "a,b"}).config, name) == "a,b"
    assert aliases_in(" a,, b c ,") == ["a", "b c"]


# --- the file -------------------------------------------------------------------------------------


def written(folder: Path, content: str) -> str:
    (folder / "inkwell.toml").write_text(content, encoding="utf-8")
    return str(folder / "inkwell.toml")


def test_file_wins_over_default_and_variable_over_file(tmp_path: Path) -> None:
    file = written(tmp_path, 'port = 9000\nlanes = 3\nmodel_alias = "甲"\n')
    found = load({env_name("lanes"): "2", env_name("config"): file})
    assert (found.port, found.lanes, found.model_alias) == (9000, 2, "甲")
    assert found.max_texts == Config().max_texts
    assert load({env_name("config"): "elsewhere.toml"}, config=file, port="1").port == 1


def test_relative_paths_of_a_file_start_in_its_folder(tmp_path: Path) -> None:
    file = written(tmp_path, 'data = "d"\nmodel = ["m", "甲=n", "/o"]\n')
    found = load(config=file)
    assert found.data == tmp_path / "d"
    places = (ModelPlace(tmp_path / "m"), ModelPlace(tmp_path / "n", "甲"), ModelPlace(Path("/o")))
    assert found.model == ModelPlaces(places)
    assert load(config=file, data="d").data == Path("d")


def test_files_that_are_not_wanted_are_empty_and_a_dash_is_no_file(tmp_path: Path) -> None:
    file = written(tmp_path, 'keys = "k"\naudit = "-"\n')
    found = load(config=file)
    assert (found.keys, found.audit) == (tmp_path / "k", Path("-"))
    assert load(config=file, keys="", audit="").keys is None
    assert load({env_name("keys"): ""}).keys is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_is_known(host: str) -> None:
    assert on_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", "127.0.0.1.example"]
)
def test_everything_else_is_beyond_the_loopback(host: str) -> None:
    assert not on_loopback(host)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("prot = 1", ["prot", "port"]),
        ("[server]\nport = 1", ["server"]),
        ("port = true", ["port", "True", "inkwell.toml"]),
        ("port = 1.5", ["port", "1.5"]),
        ("port = 70000", ["port", "70000", "65535"]),
        ("host = 1", ["host", "1"]),
        ("data = 1", ["data", "1"]),
        ("model = []", ["model", "[]"]),
        ("model = [1]", ["model", "[1]"]),
        ("port 1", ["inkwell.toml", "line 1"]),
        ('host = "\\ud800"', ["inkwell.toml"]),
    ],
)
def test_file_that_cannot_be_meant_is_refused(
    content: str, said: list[str], tmp_path: Path
) -> None:
    refused = refusal_of({}, config=written(tmp_path, content))
    for word in said:
        assert word in refused.english
        assert word in refused.chinese


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'model_alias = "\xe9"')
    for name in ("nowhere.toml", "latin.toml", ""):
        assert str(tmp_path / name) in refusal_of({}, config=str(tmp_path / name)).english


@pytest.mark.parametrize("command", ["serve", "index", "backup", "config"])
def test_every_command_with_settings_takes_a_file(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--config FILE settings as TOML" in help_of(command, capsys)


def test_shown_settings_are_a_file_with_the_same_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, 'data = "d"\nmodel = ["m", "甲=n"]\nmodel_alias = "\\"乙\\""\n')
    monkeypatch.setenv(env_name("port"), "9000")
    assert parser.main(["config", "--config", file, "--lanes", "3"]) == 0
    shown = capsys.readouterr().out
    origins = dict(line.split("  # ") for line in shown.splitlines())
    assert origins["port = 9000"] == "variable INKWELL_PORT"
    assert origins["lanes = 3"] == "flag --lanes"
    assert origins["max_texts = 2048"] == "default"
    assert file in origins[f'data = "{tmp_path / "d"}"']
    monkeypatch.delenv(env_name("port"))
    again = effective({}, {"config": written(tmp_path, shown)}).config
    assert again == effective({env_name("port"): "9000"}, {"config": file, "lanes": "3"}).config


def test_environment_of_this_process_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, env_name("port"), "1")
    assert load() == Config()


def check_refused(name: str, value: str, *said: object) -> None:
    """Check that a value is refused as a flag and as a variable, in both languages."""
    for environ, flags in (({}, {name: value}), ({env_name(name): value}, None)):
        with pytest.raises(BadSettings) as refusal:
            effective(environ, flags)
        for text in (refusal.value.english, refusal.value.chinese):
            for word in (name, value, *said):
                assert str(word) in text
        assert HAN.search(refusal.value.chinese)
        assert not HAN.search(refusal.value.english)
        assert not refusal.value.english.endswith(".")


@pytest.mark.parametrize("setting", BOUNDED, ids=[setting.name for setting in BOUNDED])
def test_value_outside_its_limits_names_value_and_limits(
    setting: "dataclasses.Field[Any]",
) -> None:
    low, high = setting.metadata["limits"]["low"], setting.metadata["limits"]["high"]
    check_refused(setting.name, str(low - 1), low, high)
    check_refused(setting.name, str(high + 1), low, high)
    assert getattr(load(**{setting.name: str(low)}), setting.name) == low
    assert getattr(load(**{setting.name: str(high)}), setting.name) == high


@pytest.mark.parametrize("setting", BOUNDED, ids=[setting.name for setting in BOUNDED])
@pytest.mark.parametrize("value", ["many", "1.5", "0x10", "1e3", "½"])
def test_number_that_is_none_names_the_value(setting: "dataclasses.Field[Any]", value: str) -> None:
    check_refused(setting.name, value)


def test_empty_number_is_refused() -> None:
    with pytest.raises(BadSettings, match="port .*''"):
        load({env_name("port"): ""})


def test_unknown_log_level_names_the_known_ones() -> None:
    check_refused("log_level", "loud", "debug", "info", "warning", "error")


@pytest.mark.parametrize("value", ["collector:4318", "http://", "file:///v1", "http://a b/"])
def test_trace_endpoint_must_be_a_whole_url(value: str) -> None:
    check_refused("trace_endpoint", value, "http://127.0.0.1:4318/v1/traces")


def test_unknown_log_format_names_the_known_ones() -> None:
    check_refused("log_format", "xml", "plain", "json")


def test_unknown_choice_of_kernels_names_the_known_ones() -> None:
    check_refused("kernels", "on", "auto", "off")


def test_mode_that_is_none_is_refused() -> None:
    check_refused("unix_socket_mode", "rw-rw----", "660")


def test_tls_is_for_one_process_and_begins_with_a_certificate() -> None:
    with pytest.raises(BadSettings, match="without tls_cert"):
        load(tls_key="key.pem")
    with pytest.raises(BadSettings, match="workers 2"):
        load(tls_cert="cert.pem", workers="2")


def test_settings_given_directly_are_checked_too() -> None:
    with pytest.raises(BadSettings, match="65536"):
        Config(port=65536)


def test_only_this_machine_can_connect_by_default() -> None:
    assert Config().host == "127.0.0.1"


def test_empty_address_is_refused_because_it_would_mean_all() -> None:
    check_refused("host", "", "0.0.0.0")


@pytest.mark.parametrize(
    "hosts",
    ["http://a.example", "a:8000", "a.example,", "a,,b", "a/b", "*.example", "é.example", "a b"],
)
def test_allowed_host_that_no_request_could_name_is_refused(hosts: str) -> None:
    check_refused("allowed_hosts", hosts, "search.example.com")


def test_allowed_hosts_are_names_with_commas() -> None:
    assert names_in(Config(allowed_hosts="A.example, b-1.example.").allowed_hosts) == [
        "a.example",
        "b-1.example",
    ]
    assert names_in(Config().allowed_hosts) == []
    assert names_in(Config(allowed_hosts="*").allowed_hosts) == ["*"]


def test_every_setting_is_explained_in_both_languages() -> None:
    for setting in SETTINGS:
        assert re.search("[a-z]{3}", setting.metadata["text"].english)
        assert not HAN.search(setting.metadata["text"].english)
        assert HAN.search(setting.metadata["text"].chinese)


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of help is broken at a hyphen, and help is in English."""
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        parser.main([command, "--help"])
    assert end.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_of_serve_lists_every_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = help_of("serve", capsys)
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    chinese = help_of("serve", capsys)
    for setting in SETTINGS:
        assert f"--{setting.name.replace('_', '-')} " in text
        assert f"environment: {env_name(setting.name)})" in text
        assert setting.metadata["text"].english in text
        assert setting.metadata["text"].chinese in chinese
        assert f"(default: {setting.default}," in text or not setting.default


@pytest.mark.parametrize("command", ["index", "search"])
def test_help_of_commands_lists_their_settings_only(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(command, capsys)
    listed = [name for name in NAMES if f"environment: {env_name(name)})" in text]
    assert listed == ["model", "data", "lanes", "log_level"]


def test_flags_that_were_not_given_are_none() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, Terminal.of({}))
    flags = flags_given(parser.parse_args(["--max-texts", "5", "--model", "a b"]))
    assert flags == {**dict.fromkeys(NAMES), "config": None, "max_texts": "5", "model": ["a b"]}
    assert effective({}, flags).config == Config(
        max_texts=5, model=ModelPlaces([ModelPlace(Path("a b"))])
    )


@pytest.mark.parametrize(
    ("locale", "words"),
    [
        ("C.UTF-8", "error: port 70000 is outside 0 to 65535"),
        ("zh_CN.UTF-8", "错误：port 的值 70000 超出 0 到 65535 的范围"),
    ],
)
def test_command_line_says_what_is_wrong_in_the_language_of_the_locale(
    locale: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LC_ALL", locale)
    assert parser.main(["serve", "--port", "70000"]) == 1
    assert capsys.readouterr().err == f"{words}\n"
