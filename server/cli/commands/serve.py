"""The command that starts the server."""

import contextlib
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.cli.first_model import with_fetched_model, with_model
from server.cli.invocation import Invocation
from server.config import Config, effective, flags_given, on_loopback

if TYPE_CHECKING:
    from server.system.systemd import Supervisor

OPEN = (
    "listening on %s without keys: every client that reaches this address can read and delete"
    " everything; create keys with `python -m server key new` and give --keys, or listen on 127.0.0.1"
)
HIDDEN = (
    "the data folder %s has collections, and this server answers none of them; leave out"
    " --collections off to serve them"
)
QUOTAS = (
    "each of the %d processes counts for itself: a key can use up to that many times its quota;"
    " divide the quotas, or leave --workers out"
)

log = logging.getLogger(__name__)


def serve(given: Invocation) -> int:
    """Serve until a signal ends it."""
    # Until there is something to reload.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from server.system.systemd import Supervisor

    with contextlib.closing(Supervisor.of(given.variables, os.getpid())) as supervisor:
        supervisor.notify("STATUS=loading the models")
        _serve(given, supervisor)
    return 0


def _serve(given: Invocation, supervisor: "Supervisor") -> None:
    from server.app import create_app, create_node_app
    from server.cli.welcome import documents_in, welcome
    from server.collections.external.opening import connections_of
    from server.inference.registry import opened
    from server.net.certificates import Tls
    from server.net.reload import Reload
    from server.net.server import listen
    from server.net.worker_pool import WorkerPool, share_of
    from server.store.folder import DataFolder
    from server.system.cpu import cpu_budget
    from server.system.open_files import allow_all

    began = with_model(given)
    if began.keys is None and began.tls_client_ca is None and not on_loopback(began.host):
        log.warning(OPEN, began.host)
    config = share_of(began, cpu_budget())
    tls = Tls.of(config)

    def read() -> Config:
        found = effective(given.variables, flags_given(given.arguments))
        return with_fetched_model(found, given.variables).config

    # Each collection and each connection needs some.
    allow_all()
    databases = connections_of(config, given.variables)
    models = opened(config)
    for model in models:
        log.info("%s: %s", model.name, model.computed_by_words.english)
    workers = WorkerPool(config)
    # The app closes the folder when it ends; this closes it if the app cannot start.
    with contextlib.ExitStack() as stack:
        folder = None
        if config.keeps_collections:
            folder = DataFolder(config.data, holder=_url(config))
            stack.enter_context(contextlib.closing(folder))
        elif _names_in(config.data):
            log.warning(HIDDEN, config.data)
        app = (
            create_node_app(models, config, workers.pages)
            if folder is None
            else create_app(models, config, folder, workers.pages, databases)
        )
        # The app may free the models; a reference here would keep them.
        del models, model
        if config.workers > 1 and app.access.has_quotas:
            log.warning(QUOTAS, config.workers)

        # Before the event loop runs: a large collection takes a moment to count.
        documents = {} if folder is None else documents_in(folder)

        def ready(url: str, state: Any) -> None:
            if folder is not None:
                folder.announce([url, *_unix(config)])
            engines, by_make = state["models"].engines, "MAKELEVEL" in given.variables
            welcome(url, engines, documents, config, given.terminal, by_make=by_make)

        listen(app, config, workers, supervisor, Reload(began, config, read, tls), tls, ready)


def _unix(config: Config) -> list[str]:
    """Return the address of the Unix socket, if there is one."""
    path = config.unix_socket
    return [] if path is None else [f"unix:{path.absolute()}"]


def _url(config: Config) -> str:
    """Return the address that the server will have; its port is 0 until the kernel has picked one."""
    host = "127.0.0.1" if config.host == "0.0.0.0" else config.host
    scheme = "http" if config.tls_cert is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{config.port}"


def _names_in(data: Path) -> list[str]:
    """Return the collections that a data folder has; none where it cannot be read."""
    from server.store.folder_layout import FolderLayout

    try:
        return FolderLayout(data).names()
    except OSError:
        return []
