"""Every setting of the server in one frozen dataclass; `config_sources` reads where values come from.

A flag wins over its environment variable, which wins over the file of --config, which wins over the
default. `--help` is made from the fields below.
"""

import argparse
import contextlib
import dataclasses
import ipaddress
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from server.config_sources import DEFAULT, FILE, Given, env_name, gather
from server.errors import BadSettings
from server.messages.message import Language, Message
from server.messages.terminal import Terminal

DEFAULT_MODEL = Path("models/bge-small-zh-v1.5/onnx-int8")
MODE = re.compile("[0-7]{3}")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("plain", "json")
KERNELS = ("auto", "off")
COLLECTIONS = ("on", "off")
# A host name as requests carry it: without scheme and port, in ASCII.
HOST = re.compile(r"\*|[\w-]+(\.[\w-]+)*\.?", re.ASCII)
# The name of a vector database, as requests say it.
DATABASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
# The alias that stands for every name that no model has.
ANY_NAME = "*"
URL = re.compile(r"https?://[^/?#\s]+/[^\s]*")
# What a value of the wrong kind must be, for the error.
WANTED = {int: Message("a whole number"), str: Message("text"), Path: Message("a path")}


class ModelPlace(NamedTuple):
    """An artifact folder, with a name that clients may use besides the id: FOLDER or NAME=FOLDER."""

    folder: Path
    name: str = ""

    @classmethod
    def of(cls, text: str) -> "ModelPlace":
        name, found, folder = text.rpartition("=")
        if not folder or (found and not name) or ":" in name:
            raise BadSettings(
                "model {text!r} is not FOLDER or NAME=FOLDER, with no colon in NAME", text=text
            )
        return cls(Path(folder), name)

    def __str__(self) -> str:
        return f"{self.name}={self.folder}" if self.name else str(self.folder)


class ModelPlaces(tuple[ModelPlace, ...]):
    """One or several models."""

    @classmethod
    def of(cls, given: str | Sequence[str], folder: Path = Path()) -> "ModelPlaces":
        """Parse several places, or one text with separators as in PATH; relative to `folder`."""
        several = given.split(os.pathsep) if isinstance(given, str) else given
        places = map(ModelPlace.of, several)
        return cls(place._replace(folder=folder / place.folder) for place in places)

    def __str__(self) -> str:
        return os.pathsep.join(map(str, self))


def _setting(default: Any, text: str, *, several: bool = False, **limits: Any) -> Any:
    """Return a field of Config. several: the flag may be repeated; its values are joined with commas."""
    metadata = {"text": Message(text), "limits": limits, "several": several}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Config:
    """The effective settings; the constructor checks them."""

    # Other machines reach the server only if this is set; then use keys.
    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8000, "TCP port, 0 for a free one", low=0, high=65535)
    # For a proxy on the same machine, or for the users whom the mode of the file allows.
    unix_socket: Path | None = _setting(None, "Unix socket to listen on besides the port")
    unix_socket_mode: str = _setting("660", "octal mode of the socket file")
    tls_cert: Path | None = _setting(None, "certificate chain in PEM, turns on HTTPS")
    tls_key: Path | None = _setting(None, "private key in PEM, if not in the certificate file")
    tls_client_ca: Path | None = _setting(
        None, "CA that signs client certificates; clients then need one"
    )
    # The first serves requests that name no model.
    model: ModelPlaces = _setting(
        ModelPlaces([ModelPlace(DEFAULT_MODEL)]),
        "artifact folder, FOLDER or NAME=FOLDER; repeat the flag to serve several",
    )
    data: Path = _setting(Path("data"), "folder for collections")
    # Off on each of several nodes behind a proxy: a document would be on one of them only.
    collections: str = _setting("on", "keep collections, on or off; off needs no data folder")
    # A name that clients already send, such as text-embedding-3-small. The manifest's id always works.
    # "*": any name that no model has, for platforms whose names cannot be changed.
    model_alias: str = _setting(
        "", 'other names for the first model, with commas, "*" for any', several=True
    )
    # Ids of another vocabulary give vectors that mean nothing, so none are taken unless it is named.
    token_ids: str = _setting(
        "",
        "vocabulary of token ids in requests: model, or cl100k_base=FILE; none are taken without",
    )
    # 0: one lane per core of the affinity mask and cgroup quota. Fewer leave cores to other programs.
    lanes: int = _setting(0, "compute threads, 0 for one per core", low=0, high=1024)
    # ONNX Runtime computes what the kernels do not know in any case: turn them off to compare, or where they are in
    # doubt.
    kernels: str = _setting(
        "auto",
        "auto: compute models with Inkwell's own kernels where they can; off: with ONNX Runtime",
    )
    # A batch takes 10 ms, a long text of a large model seconds: a longer one never ends.
    hang_s: int = _setting(
        30, "seconds after which a batch that does not end is abandoned", low=1, high=3600
    )
    # One process carries some 5,000 requests/s of one text: use more only if the cores compute more.
    workers: int = _setting(1, "number of processes", low=1, high=256)
    # On a CPU, larger batches than 256 tokens add no throughput, and other requests wait longer.
    batch_tokens: int = _setting(256, "tokens in one batch", low=1, high=65536)
    # Smaller requests go before larger ones. The default is four batches.
    interactive_tokens: int = _setting(
        1024, "requests of up to this many tokens go first", low=1, high=1 << 20
    )
    # A person does not wait longer than about 1.5 seconds.
    interactive_queue_tokens: int = _setting(
        0,
        "tokens of small requests that may wait, 0 for about 1.5 seconds of work",
        low=0,
        high=1 << 30,
    )
    # The default holds two requests of 2,048 texts with 512 tokens each.
    bulk_queue_tokens: int = _setting(
        2_097_152, "tokens of large requests that may wait", low=1, high=1 << 32
    )
    # OpenAI's limit; a request with more is refused.
    max_texts: int = _setting(2048, "texts in one request", low=1, high=1 << 20)
    # Of each process; an idle one takes a descriptor and some 10 KB.
    max_connections: int = _setting(4096, "connections at once", low=1, high=1 << 20)
    # A path, a key and the headers that proxies add are 2 KB.
    max_head_bytes: int = _setting(65_536, "bytes of the head of a request", low=1024, high=1 << 24)
    # A head is one packet: a client that needs longer only holds the connection.
    head_s: int = _setting(10, "seconds to wait for the head of a request", low=1, high=3600)
    # Slow networks pause for less.
    read_s: int = _setting(30, "seconds to wait for more of a body", low=1, high=3600)
    send_s: int = _setting(
        30, "seconds to wait for a client to read more of a reply", low=1, high=3600
    )
    # More than the 60 s after which nginx closes idle connections: the client must close first.
    keep_alive_s: int = _setting(75, "seconds that a connection may be idle", low=1, high=86_400)
    # 2,048 texts of 512 Chinese characters are 3 MB, and twice that and more with JSON escapes.
    max_body_bytes: int = _setting(
        32 * 1024 * 1024, "bytes of the body of a request", low=1024, high=1 << 32
    )
    # As large as a body may be. A search for 1,000 hits of 512 tokens each has 2 MB.
    max_reply_bytes: int = _setting(
        32 * 1024 * 1024,
        "bytes of a reply with hits, documents or token vectors",
        low=1024,
        high=1 << 32,
    )
    # A filter of 256 conditions over a million documents takes about as long.
    query_s: int = _setting(
        10,
        "seconds that one search, count, listing or removal by filter may take",
        low=1,
        high=3600,
    )
    # The default holds some 6,000 queries with 512 numbers each: a team's queries of a day.
    query_cache_bytes: int = _setting(
        16 * 1024 * 1024, "bytes of the query cache", low=0, high=1 << 40
    )
    # Without one the server connects to none. NAME is what requests say; see docs/en/how-to/vector-database.md.
    vector_database: str = _setting(
        "",
        "NAME=URI of a vector database that may keep collections; repeat the flag for several",
        several=True,
    )
    # Acknowledged writes are on this disk until the database has them: 300,000 short documents.
    outbox_mb: int = _setting(
        1024, "megabytes of writes that may wait for vector databases", low=1, high=1 << 20
    )
    # Without it every client that reaches the port may do everything.
    keys: Path | None = _setting(None, "file with the keys of clients; clients then need one")
    # Stops web pages whose host name was pointed at this machine (DNS rebinding); keys stop them too.
    allowed_hosts: str = _setting(
        "",
        'host names that clients without keys may use, with commas, "*" for any',
        several=True,
    )
    audit: Path | None = _setting(None, 'audit file, a line per request, "-" for standard output')
    # Texts are often confidential, so none are recorded by default.
    audit_texts: int = _setting(
        0, "characters of each body to keep in the audit", low=0, high=1 << 30
    )
    # Longer than a load balancer needs to notice, two or three of its checks. A lone server has none.
    drain_s: int = _setting(
        0, "seconds to go on serving after SIGTERM while /ready says 503", low=0, high=3600
    )
    # A load balancer usually gives 30 seconds between SIGTERM and SIGKILL.
    shutdown_s: int = _setting(25, "seconds to finish accepted work at shutdown", low=0, high=3600)
    log_level: str = _setting("info", "log level: debug, info, warning or error")
    # The only address to which a server ever connects, and only if it is given.
    trace_endpoint: str = _setting(
        "", "URL of an OpenTelemetry collector, e.g. http://127.0.0.1:4318/v1/traces"
    )
    # People read lines; log collectors read JSON.
    log_format: str = _setting("plain", "log format, plain or json")

    def __post_init__(self) -> None:
        for setting in dataclasses.fields(self):
            _check(setting, getattr(self, setting.name))
        if not self.host:
            # To the kernel an empty address means every address, which an empty variable does not.
            raise BadSettings(
                "host is empty; give an address, 0.0.0.0 for all addresses of this machine"
            )
        if not MODE.fullmatch(self.unix_socket_mode):
            raise BadSettings(
                "unix_socket_mode {mode!r} is not three octal digits such as 660",
                mode=self.unix_socket_mode,
            )
        _check_tls(self)
        names = [place.name for place in self.model if place.name]
        if len(names) > len(set(names)):
            raise BadSettings(
                "two models have the name {name!r}; give each its own NAME",
                name=max(names, key=names.count),
            )
        _check_hosts(self.allowed_hosts)
        if databases_in(self.vector_database) and not self.keeps_collections:
            raise BadSettings(
                "vector_database is given, and with collections off there is nothing to keep in it; leave out"
                " one of the two"
            )
        if self.trace_endpoint and not URL.fullmatch(self.trace_endpoint):
            raise BadSettings(
                "trace_endpoint {url!r} is not a URL such as http://127.0.0.1:4318/v1/traces",
                url=self.trace_endpoint,
            )
        for name, allowed in (
            ("collections", COLLECTIONS),
            ("kernels", KERNELS),
            ("log_level", LOG_LEVELS),
            ("log_format", LOG_FORMATS),
        ):
            if (value := getattr(self, name)) not in allowed:
                raise BadSettings(
                    "{name} {value!r} is not one of {allowed}",
                    name=name,
                    value=value,
                    allowed=allowed,
                )

    @property
    def keeps_collections(self) -> bool:
        return self.collections == "on"


def names_in(hosts: str) -> list[str]:
    """Return the names in `allowed_hosts`, in lower case."""
    return [name.strip().lower().removesuffix(".") for name in hosts.split(",") if hosts]


def aliases_in(aliases: str) -> list[str]:
    """Return the names in `model_alias`."""
    return [name.strip() for name in aliases.split(",") if name.strip()]


def databases_in(given: str) -> dict[str, str]:
    """Return the addresses in `vector_database` by name; raises BadSettings."""
    found: dict[str, str] = {}
    for each in filter(None, map(str.strip, given.split(","))):
        name, separator, uri = each.partition("=")
        if not separator or not uri or not DATABASE.fullmatch(name):
            raise BadSettings(
                "vector_database {text!r} is not NAME=URI, with 1 to 40 letters, digits, - and _ in NAME",
                text=each if len(each) <= 40 else each[:40] + "...",
            )
        if name in found:
            raise BadSettings(
                "two vector databases have the name {name!r}; give each its own NAME", name=name
            )
        found[name] = uri
    return found


def on_loopback(host: str) -> bool:
    """Return whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Effective(NamedTuple):
    """The settings, and where each value comes from, by name."""

    config: Config
    origins: Mapping[str, Message]


def effective(
    environ: Mapping[str, str], flags: Mapping[str, str | Sequence[str] | None] | None = None
) -> Effective:
    """Return settings from flags (None: not given), environment, file and defaults, in this order.

    Raises BadSettings.
    """
    known = {setting.name: setting for setting in dataclasses.fields(Config)}
    given = gather(known, environ, flags or {})
    config = Config(**{name: _parse(known[name], each) for name, each in given.items()})
    origins = {name: given[name].origin if name in given else DEFAULT for name in known}
    return Effective(config, origins)


def add_flags(parser: argparse.ArgumentParser, terminal: Terminal, *names: str) -> None:
    """Add --config and one flag for each setting to the parser, for all settings or those named."""
    text = Message("settings as TOML; flags and variables go before it")
    parser.add_argument(f"--{FILE}", metavar="FILE", help=_help(terminal, text, "", FILE))
    for setting in dataclasses.fields(Config):
        if names and setting.name not in names:
            continue
        parser.add_argument(
            "--" + setting.name.replace("_", "-"),
            action="append" if _may_repeat(setting) else "store",
            metavar=_kind(setting).__name__.upper(),
            help=_help(terminal, setting.metadata["text"], setting.default, setting.name),
        )


def _help(terminal: Terminal, text: Message, default: object, name: str) -> str:
    return terminal.words(
        "{text} (default: {default}, environment: {variable})",
        text=text,
        default=Message("none") if default in ("", None) else str(default),
        variable=env_name(name),
    )


def flags_given(arguments: argparse.Namespace) -> dict[str, str | list[str] | None]:
    names = (FILE, *(setting.name for setting in dataclasses.fields(Config)))
    return {name: getattr(arguments, name, None) for name in names}


def _is_list(setting: "dataclasses.Field[Any]") -> bool:
    return isinstance(setting.default, ModelPlaces)


def _may_repeat(setting: "dataclasses.Field[Any]") -> bool:
    return _is_list(setting) or setting.metadata["several"]


def _kind(setting: "dataclasses.Field[Any]") -> type:
    if _is_list(setting):
        return Path
    # Only paths have None, no file, as their default.
    return Path if isinstance(setting.default, Path | None) else type(setting.default)


def _parse(setting: "dataclasses.Field[Any]", given: Given) -> Any:
    """Return the value in the type of the setting, from text or from a TOML value."""
    value, kind = given.value, _kind(setting)
    if setting.metadata["several"] and _are_texts(value):
        return ",".join(value)
    if _is_list(setting) and (isinstance(value, str) or _are_texts(value)):
        return ModelPlaces.of(value, given.folder)
    if type(value) is kind:
        return value
    if value == "" and setting.default is None:
        return None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            parsed = kind(value)
            # "-" is standard input or output, and no file in `folder`.
            is_file = isinstance(parsed, Path) and value != "-"
            return given.folder / parsed if is_file else parsed
    raise BadSettings(
        "{setting} must be {wanted}, not {value!r} ({origin})",
        setting=setting.name,
        wanted=WANTED[kind],
        value=value,
        origin=given.origin,
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _check(setting: "dataclasses.Field[Any]", value: Any) -> None:
    limits = setting.metadata["limits"]
    if limits and not limits["low"] <= value <= limits["high"]:
        low, high = limits["low"], limits["high"]
        raise BadSettings(
            "{setting} {value} is outside {low} to {high}",
            setting=setting.name,
            value=value,
            low=low,
            high=high,
        )


def _check_hosts(hosts: str) -> None:
    for name in names_in(hosts):
        if not HOST.fullmatch(name):
            raise BadSettings(
                "allowed_hosts {hosts!r}: {name!r} is neither * nor a host name such as "
                "search.example.com, without scheme and port",
                hosts=hosts,
                name=name,
            )


def _check_tls(config: Config) -> None:
    if config.tls_cert is None and (config.tls_key or config.tls_client_ca):
        raise BadSettings(
            "tls_key and tls_client_ca have no effect without tls_cert; give --tls-cert"
        )
    if config.tls_cert is not None and config.workers > 1:
        # A TLS session belongs to one process; its connection cannot move to another.
        raise BadSettings(
            "tls_cert works with one process, not with workers {workers}; leave out one of them, "
            "or terminate TLS in a proxy",
            workers=config.workers,
        )


def as_toml(config: Config, origins: Mapping[str, Message], language: Language) -> str:
    """Return the settings as a file for --config, each with its origin as a comment."""
    lines = []
    for setting in dataclasses.fields(Config):
        value = getattr(config, setting.name)
        # TOML writes strings, lists of strings and numbers as JSON does.
        plain: Any = value if isinstance(value, int) else str("" if value is None else value)
        if _is_list(setting):
            plain = list(map(str, value))
        written = f"{setting.name} = {json.dumps(plain, ensure_ascii=False)}"
        lines.append(f"{written}  # {origins[setting.name].text(language)}\n")
    return "".join(lines)
