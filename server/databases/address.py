"""Addresses of vector databases elsewhere: from a URI to an open database, without secrets in either.

    qdrant+http://HOST:6333    qdrant+https://HOST    qdrant:FOLDER
    milvus+http://HOST:19530   milvus+https://HOST    milvus:FILE.db
    postgresql://USER@HOST:5432/NAME

Options follow a question mark. An API key, a token or a password comes from the environment or from a file that
`secret_file` names. Packages of clients are imported only for an address that needs them.
"""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import cast
from urllib.parse import SplitResult, parse_qsl, urlsplit

from server.databases.database import VectorDatabase
from server.errors import BadSettings
from server.system.regular_file import FileTooLarge, read_limited

# Followed by the name of the database in capitals.
SECRET = "INKWELL_VECTOR_DATABASE_SECRET_"
MAX_URI, MAX_SECRET = 2_000, 16_000
SHORTEST_S, LONGEST_S, USUAL_S = 0.1, 600.0, 10.0
HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Kind:
    """What there is to know of a kind of database before its client is imported.

    module, adapter: where its class is; the constructor takes an Address. extra: what pip installs its client by.
    schemes: of its URIs, each with that of the target's URL; "" for a path on this machine. options: what a URI
    may have after the question mark, besides those of every kind.
    """

    module: str
    adapter: str
    extra: str
    schemes: Mapping[str, str]
    options: frozenset[str]


KINDS: Mapping[str, Kind] = {
    "qdrant": Kind(
        "server.databases.qdrant.database",
        "QdrantDatabase",
        "qdrant",
        {"qdrant+http": "http", "qdrant+https": "https", "qdrant": ""},
        frozenset({"ca_file", "shards", "replicas"}),
    ),
    "milvus": Kind(
        "server.databases.milvus.database",
        "MilvusDatabase",
        "milvus",
        {"milvus+http": "http", "milvus+https": "https", "milvus": ""},
        frozenset({"ca_file", "database", "shards", "replicas"}),
    ),
    "postgres": Kind(
        "server.databases.postgres.database",
        "PostgresDatabase",
        "postgres",
        {"postgresql": "postgresql"},
        frozenset({"ca_file", "sessions", "sslmode", "sslrootcert"}),
    ),
}
OF_ALL = frozenset({"secret_file", "timeout_s"})
COUNTS, COUNT = frozenset({"shards", "replicas"}), re.compile(r"[1-9][0-9]{0,2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is, and what it takes to get in.

    kind: a key of KINDS. target: a URL, or a path on this machine; without a secret. options: those of its kind.
    timeout_s: the longest that one call may take.
    """

    kind: str
    target: str
    secret: str | None = field(default=None, repr=False)
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    timeout_s: float = USUAL_S

    @property
    def is_local(self) -> bool:
        """Whether the database is a path on this machine, which this process opens by itself."""
        return "://" not in self.target

    def redacted(self, text: str) -> str:
        """Return a text of the database or its client without the secret, which either may repeat."""
        return text.replace(self.secret, HIDDEN) if self.secret else text


def parse(name: str, uri: str, environ: Mapping[str, str]) -> Address:
    """Return the address that a URI stands for, with the secret of `name`; raises BadSettings.

    name: of the database in the settings, as messages show it.
    """
    if len(uri) > MAX_URI:
        raise BadSettings(
            "vector database {name}: its address has {size} characters, at most {limit} are allowed",
            name=name,
            size=len(uri),
            limit=MAX_URI,
        )
    scheme, _, rest = uri.partition(":")
    kind = next((each for each, known in KINDS.items() if scheme in known.schemes), None)
    if kind is None:
        raise BadSettings(
            "vector database {name}: an address begins with one of {schemes}, not with {scheme!r}",
            name=name,
            schemes=tuple(each for known in KINDS.values() for each in known.schemes),
            scheme=scheme[:40],
        )
    target = KINDS[kind].schemes[scheme]
    if target:
        parts = _split(name, f"{target}:{rest}")
        target, query = parts._replace(query="", fragment="").geturl(), parts.query
    else:
        target, _, query = rest.partition("?")
    if not target:
        raise BadSettings(
            "vector database {name}: {uri} names no path", name=name, uri=f"{scheme}:"
        )
    options = _options(name, kind, query)
    secret = _secret(name, options.pop("secret_file", None), environ)
    timeout_s = _timeout_s(name, options.pop("timeout_s", None))
    return Address(kind, target, secret, MappingProxyType(options), timeout_s)


def opened(address: Address) -> VectorDatabase:
    """Return a connection to the database; raises BadSettings where its client is not installed."""
    kind = KINDS[address.kind]
    try:
        module = importlib.import_module(kind.module)
    except ModuleNotFoundError as error:
        raise BadSettings(
            "the package {package} is missing, which {kind} needs; install it with"
            " `make install-databases`, or with pip install 'inkwell-embeddings[{extra}]'",
            package=error.name or "",
            kind=address.kind,
            extra=kind.extra,
        ) from None
    return cast(VectorDatabase, getattr(module, kind.adapter)(address))


def variable(name: str) -> str:
    """Return the environment variable that holds the secret of a database."""
    return SECRET + re.sub("[^A-Z0-9]", "_", name.upper())


def _split(name: str, url: str) -> SplitResult:
    """Return the parts of a URL with a host; one with a secret is refused, and not repeated."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # which is read when it is asked for
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if not parts.hostname:
        raise BadSettings(
            "vector database {name}: its address has no host and port that can be read;"
            " write it as {form}",
            name=name,
            form="SCHEME://HOST:PORT",
        )
    if parts.password is not None or (parts.username is not None and parts.scheme != "postgresql"):
        raise BadSettings(
            "vector database {name}: an address holds no secret; put it into the environment variable"
            " {variable}, or into a file that ?secret_file= names",
            name=name,
            variable=variable(name),
        )
    return parts


def _options(name: str, kind: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=20))
    for option in options:
        if option not in KINDS[kind].options | OF_ALL:
            raise BadSettings(
                "vector database {name}: {kind} has no option {option!r}; there are {options}",
                name=name,
                kind=kind,
                option=option[:40],
                options=tuple(sorted(KINDS[kind].options | OF_ALL)),
            )
        if option in COUNTS and not COUNT.fullmatch(options[option]):
            raise BadSettings(
                "vector database {name}: {option} {given!r} is not a whole number from 1 to 999",
                name=name,
                option=option,
                given=options[option][:40],
            )
    return options


def _secret(name: str, path: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the secret without the end of its line; None where there is none."""
    if path is None:
        return environ.get(variable(name)) or None
    try:
        content = read_limited(Path(path), MAX_SECRET).decode().strip("\r\n")
    except FileTooLarge as error:
        raise BadSettings(
            "vector database {name}: secret_file {path} has more than {limit} bytes, the most"
            " allowed",
            name=name,
            path=path,
            limit=error.most,
        ) from None
    except OSError as error:
        raise BadSettings(
            "vector database {name}: secret_file {path} cannot be read: {why}",
            name=name,
            path=path,
            why=error.strerror,
        ) from None
    except UnicodeDecodeError:
        raise BadSettings(
            "vector database {name}: secret_file {path} is not UTF-8 text", name=name, path=path
        ) from None
    if not content:
        raise BadSettings(
            "vector database {name}: secret_file {path} is empty", name=name, path=path
        )
    return content


def _timeout_s(name: str, given: str | None) -> float:
    try:
        seconds = USUAL_S if given is None else float(given)
    except ValueError:
        seconds = -1.0
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise BadSettings(
            "vector database {name}: timeout_s {given!r} is not a number from {least} to {most}",
            name=name,
            given=(given or "")[:40],
            least=SHORTEST_S,
            most=LONGEST_S,
        )
    return seconds
