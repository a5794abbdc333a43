"""Reads which model on which hub is meant by an id, an id with a hub's prefix, or a pasted address.

Addresses of servers come from the environment and from a short list. A pasted address only chooses
among these, so that no token is sent to a server that the user did not name.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from export.errors import NoSuchModel
from export.source.hubs.dialects.dialect import Dialect, Page
from export.source.hubs.dialects.hugging_face import HuggingFace
from export.source.hubs.dialects.modelscope import ModelScope
from export.source.hubs.errors import by_hand

HUGGING_FACE, MODELSCOPE = HuggingFace(), ModelScope()
DIALECTS: tuple[Dialect, ...] = (HUGGING_FACE, MODELSCOPE)
MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
SCHEMES = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A model on a hub.

    endpoint: the hub's address, which may hold a password. token: sent to the hub; empty for none.
    """

    dialect: Dialect
    model_id: str
    endpoint: str
    revision: str
    token: str

    @property
    def name(self) -> str:
        """The model on the command line, by which one hub's files are kept apart from another's."""
        return self.dialect.prefix + self.model_id


def is_hub_address(source: str) -> bool:
    """Return whether `source` can only mean a model on a hub, and not a folder."""
    return source.startswith((MODELSCOPE.prefix, *SCHEMES))


def hub_address(
    source: str,
    revision: str | None = None,
    endpoint: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> HubAddress:
    """Return which model `source` means; raises NoSuchModel and DownloadFailed.

    revision: as chosen by the user, None for the one that the address names or else the hub's default.
    endpoint: the hub's address; without it the environment's, else the public hub's.
    """
    dialect, page, mirror = _read(source, environ)
    if not MODEL_ID.fullmatch(page.model_id) or ".." in page.model_id:
        raise NoSuchModel('"{model_id}" is neither a folder nor the id of a model', model_id=source)
    if revision and page.revision and revision != page.revision:
        raise NoSuchModel(
            "{source} names the revision {named}, and --revision names {chosen}; leave one of them out",
            source=source,
            named=page.revision,
            chosen=revision,
        )
    return HubAddress(
        dialect,
        page.model_id,
        _checked(endpoint or mirror or endpoint_of(dialect, environ), dialect),
        revision or page.revision or dialect.default_revision,
        "" if mirror else environ.get(dialect.token_variable, "").strip(),
    )


def endpoint_of(dialect: Dialect, environ: Mapping[str, str]) -> str:
    """Return the address of the hub that a user has chosen, or of the public one."""
    for variable in dialect.endpoint_variables:
        if chosen := environ.get(variable, "").strip():
            return (
                chosen
                if "://" in chosen or variable != "MODELSCOPE_DOMAIN"
                else f"https://{chosen}"
            )
    return f"https://{dialect.hosts[0]}"


def _read(source: str, environ: Mapping[str, str]) -> tuple[Dialect, Page, str]:
    """Return the hub's kind, the model, and the address of a mirror that only `source` names."""
    if source.startswith(SCHEMES):
        return _read_url(source, environ)
    if source.startswith(MODELSCOPE.prefix):
        return MODELSCOPE, Page(source.removeprefix(MODELSCOPE.prefix)), ""
    return HUGGING_FACE, Page(source), ""


def _read_url(url: str, environ: Mapping[str, str]) -> tuple[Dialect, Page, str]:
    parts = _split(url)
    host = (parts.hostname or "").lower()
    dialect, mirror = _hub_at(parts, host, environ)
    path = [unquote(part) for part in parts.path.split("/") if part]
    page = dialect.page(path)
    if page is None:
        raise NoSuchModel(
            "{host}{path} is not the page of a model, such as https://{public}",
            host=host,
            path=parts.path,
            public=f"{HUGGING_FACE.hosts[0]}/ORG/NAME, https://{MODELSCOPE.hosts[1]}/models/ORG/NAME",
        )
    return dialect, page, mirror


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _hub_at(parts: SplitResult, host: str, environ: Mapping[str, str]) -> tuple[Dialect, str]:
    """Return the kind of the hub at `host`, and its address if only a pasted address names it."""
    netloc = parts.netloc.rpartition("@")[2].lower()
    for dialect in DIALECTS:
        chosen = _split(endpoint_of(dialect, environ)).netloc.rpartition("@")[2].lower()
        if netloc and (host in dialect.hosts or netloc == chosen):
            return dialect, ""
        if host in dialect.mirrors:
            return dialect, f"https://{host}"
    raise NoSuchModel(
        "{host} is not a known model hub; put its address into HF_ENDPOINT and give ORG/NAME, or into "
        "MODELSCOPE_ENDPOINT and give modelscope:ORG/NAME",
        host=host or '""',
    )


def _checked(endpoint: str, dialect: Dialect) -> str:
    """Return a hub's address without a slash at its end; raises DownloadFailed where it is none."""
    parts = _split(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise by_hand(
            "the hub's address begins neither with http:// nor https://: check {variable}",
            variable=dialect.endpoint_variables[0],
        )
    return endpoint.rstrip("/")
