"""Reload: settings, keys, certificate and audit of a running server, without dropping a request.

The keys and the audit's file come first, and stay changed even if the rest fails: a removed key must not
work on because a setting beside it is wrong. Then the settings and the certificate, all or none. Models are
loaded and tested beside the loop, every step that may fail comes before the first change, and names and log
level change within one turn of the loop, so a request sees either the old or the new ones. If the keys
cannot be read, nothing changes.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from server.auth.gate import Access
from server.collections.registry import CollectionRegistry
from server.config import Config
from server.errors import BadSettings, StartupError
from server.inference.model import Model
from server.inference.registry import ModelRegistry, opened
from server.net.certificates import Tls

# Settings that may change while a server runs. The content of the keys file may change too, its path not.
AT_ONCE = frozenset({"model", "model_alias", "log_level"})
# Loggers with a level of their own: the root, and uvicorn's.
LOGGERS = ("", "uvicorn.error")
NOTHING = "nothing has changed: %s"
KEYS_ONLY = "keys and audit were read again, no setting has changed: %s"

log = logging.getLogger(__name__)


def merged(running: Config, read: Config) -> Config:
    """Return the running settings, with those that may change at once as they were read."""
    return dataclasses.replace(running, **{name: getattr(read, name) for name in AT_ONCE})


def waiting(began: Config, read: Config) -> list[str]:
    """Return the names of settings that differ and hold only after a restart."""
    names = (setting.name for setting in dataclasses.fields(Config))
    return [
        name
        for name in names
        if name not in AT_ONCE and getattr(began, name) != getattr(read, name)
    ]


async def take_over(config: Config | None, state: Mapping[str, Any], access: Access) -> None:
    """Repeat in a worker what `Reload.run` has done in the first process.

    Keys that cannot be read stay as they were. config: the settings from now on; None where none has
    changed. state: of the app. Raises StartupError where it cannot serve by these settings.
    """
    try:
        access.reload()
    except BadSettings as error:
        log.error("the keys stay as they were: %s", error.english)
    if config is not None:
        _serve(await _opened(config, state), config, state)


async def _opened(config: Config, state: Mapping[str, Any]) -> Sequence[Model]:
    """Return the models to be served; raise StartupError."""
    models: ModelRegistry = state["models"]
    served = [engine.model for engine in models.engines]
    return await asyncio.to_thread(opened, config, served)


def _serve(fresh: Sequence[Model], config: Config, state: Mapping[str, Any]) -> None:
    """Replace the served models; a model that is removed finishes its requests."""
    models: ModelRegistry = state["models"]
    # A worker has none.
    collections: CollectionRegistry | None = state.get("collections")
    models.serve(fresh, config.model_alias)
    if collections is not None:
        collections.forget_queries()
    for name in LOGGERS:
        logging.getLogger(name).setLevel(config.log_level.upper())


class Reload:
    """The settings of a server, which `run` reads again.

    read: reads them in the same way as at the start; raises BadSettings.
    """

    def __init__(
        self, began: Config, running: Config, read: Callable[[], Config], tls: Tls | None
    ) -> None:
        self._began = began
        self._running = running
        self._read = read
        self._tls = tls

    async def run(self, state: Mapping[str, Any], access: Access) -> Config | None:
        """Return the settings from now on; None where none has changed, and the log says why."""
        failed = NOTHING
        try:
            access.reload()
            failed = NOTHING if access.idle else KEYS_ONLY
            read = self._read()
            await self._take_over(merged(self._running, read), state, access)
        except StartupError as error:
            log.error(failed, error.english)
            return None
        if names := waiting(self._began, read):
            log.warning("these settings differ and hold after a restart: %s", ", ".join(names))
        return self._running

    async def _take_over(self, config: Config, state: Mapping[str, Any], access: Access) -> None:
        """Change all settings, or raise StartupError and change none."""
        if self._tls is not None:
            self._tls.check()
        models = await _opened(config, state)
        if self._tls is not None:
            self._tls.renew()
            access.metrics.certificate_expiry.set(self._tls.expires_s)
        _serve(models, config, state)
        self._running = config
