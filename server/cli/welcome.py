"""What a server says once it answers: where it is, what it serves, and what to try next.

At a terminal these are a few lines for people. Elsewhere it is one line of the log, which programs read.
"""

import logging
from collections.abc import Mapping, Sequence

from server.config import Config
from server.inference.engine import Engine
from server.messages.message import Message
from server.messages.terminal import Terminal
from server.store.folder import DataFolder

# Names of collections that are shown.
MOST_NAMED = 3
CURL = "curl {url}/{path} {key}-H 'content-type: application/json' -d '{body}'"

log = logging.getLogger(__name__)


def documents_in(folder: DataFolder) -> Mapping[str, int]:
    """Return the number of documents of each collection."""
    return {name: each.documents.count() for name, each in folder.collections.items()}


def welcome(
    url: str,
    engines: Sequence[Engine],
    documents: Mapping[str, int],
    config: Config,
    terminal: Terminal,
    *,
    by_make: bool,
) -> None:
    """Say that the server answers at `url`. by_make: whether `make` has started it."""
    if config.log_format == "json" or not terminal.err.isatty():
        names = ", ".join(engine.model.name for engine in engines)
        log.info(
            "ready at %s: models %s; documents %d, collections %d",
            *(url, names, sum(documents.values()), len(documents)),
        )
        return
    for line in _lines(url, engines, documents, config, by_make=by_make):
        terminal.inform(line)


def _lines(
    url: str,
    engines: Sequence[Engine],
    documents: Mapping[str, int],
    config: Config,
    *,
    by_make: bool,
) -> list[Message]:
    index, search = (
        ("make index FILE=docs.txt", "make search")
        if by_make
        else ("python -m server index docs.txt", "python -m server search")
    )
    models = Message("  models     {models}", models=tuple(map(_model, engines)))
    attempt = Message("  try        {command}", command=_curl(url, documents, config))
    if config.keeps_collections:
        lines = [
            Message("  page       {url}/    routes: {url}/docs    manual: {url}/manual", url=url),
            models,
            Message("  documents  {documents}", documents=_documents(documents)),
            attempt,
            Message("             {index}  ·  {search}", index=index, search=search),
        ]
    else:
        routes = Message("  routes     {url}/docs    manual: {url}/manual", url=url)
        lines = [routes, models, attempt]
    first = Message("Inkwell answers at {url}", url=url)
    return [Message(""), first, *lines, Message("  Ctrl-C stops it"), Message("")]


def _model(engine: Engine) -> Message:
    manifest = engine.manifest
    if manifest.task != "dense":
        return Message("{name} ({task})", name=engine.model.name, task=manifest.task)
    return Message(
        "{name} ({dimension} numbers a vector)",
        name=engine.model.name,
        dimension=manifest.dimension,
    )


def _documents(documents: Mapping[str, int]) -> Message:
    if not any(documents.values()):
        return Message("none yet")
    named = [f"{name} {number:,}" for name, number in list(documents.items())[:MOST_NAMED]]
    if len(documents) > MOST_NAMED:
        named.append("...")
    return Message(
        "{total:,} ({names})",
        total=sum(documents.values()),
        names=tuple(named),
    )


def _curl(url: str, documents: Mapping[str, int], config: Config) -> str:
    searched = documents.get("default", 0) > 0
    key = "-H 'authorization: Bearer KEY' " if config.keys is not None else ""
    body = '{"query": "你好"}' if searched else '{"texts": ["你好"]}'
    return CURL.format(url=url, path="search" if searched else "embed", key=key, body=body)
