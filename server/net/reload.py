"""What a running server takes over of what is read again, without dropping a request.

First the keys and the audit's file, which wait for nothing and hold whatever becomes of the rest: a key that
was taken back must not live on because a setting beside it is wrong. Then the settings and the
certificate, all or none: models are loaded and tried beside the loop, what may fail comes before what
changes anything, and names and log level change within one turn of the loop, so that a request meets the
old or the new. Keys that cannot be read leave everything as it was.
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

# Settings that may change while a server runs; the content of the keys file may too, not its place.
AT_ONCE = frozenset({"model", "model_alias", "log_level"})
# Those that have a level of their own: all, and uvicorn's.
LOGGERS = ("", "uvicorn.error")
NOTHING = "nothing has changed: %s 未作任何更改：%s"
KEYS_ONLY = (
    "keys and audit were read again, no setting has changed: %s"
    " 已重新读取密钥并重新打开审计文件，其余设置未作更改：%s"
)

log = logging.getLogger(__name__)


def merged(running: Config, read: Config) -> Config:
    """The running settings with what may change at once as it was read."""
    return dataclasses.replace(running, **{name: getattr(read, name) for name in AT_ONCE})


def waiting(began: Config, read: Config) -> list[str]:
    """Names of the settings that differ, and cannot before the server starts again."""
    names = (setting.name for setting in dataclasses.fields(Config))
    return [
        name
        for name in names
        if name not in AT_ONCE and getattr(began, name) != getattr(read, name)
    ]


async def take_over(config: Config | None, state: Mapping[str, Any], access: Access) -> None:
    """Do in another process what `Reload.run` has done in the first; keys that cannot be read stay.

    config: the settings that hold from now on; None where none has changed. state: of the app. Raises
    StartupError where it cannot serve by these settings.
    """
    try:
        access.reload()
    except BadSettings as error:
        log.error("the keys stay as they were: %s 密钥保持不变：%s", error.english, error.chinese)
    if config is not None:
        _serve(await _opened(config, state), config, state)


async def _opened(config: Config, state: Mapping[str, Any]) -> Sequence[Model]:
    """The models to be served; raises StartupError."""
    models: ModelRegistry = state["models"]
    served = [engine.model for engine in models.engines]
    return await asyncio.to_thread(opened, config, served)


def _serve(fresh: Sequence[Model], config: Config, state: Mapping[str, Any]) -> None:
    """What was asked of a model that goes is finished by it."""
    models: ModelRegistry = state["models"]
    collections: CollectionRegistry | None = state["collections"]
    models.serve(fresh, config.model_alias)
    if collections is not None:
        collections.forget_queries()
    for name in LOGGERS:
        logging.getLogger(name).setLevel(config.log_level.upper())


class Reload:
    """The settings of a server that may be told to read them again.

    read: reads them as they were read at the start; raises BadSettings.
    """

    def __init__(
        self, began: Config, running: Config, read: Callable[[], Config], tls: Tls | None
    ) -> None:
        self._began = began
        self._running = running
        self._read = read
        self._tls = tls

    async def run(self, state: Mapping[str, Any], access: Access) -> Config | None:
        """The settings that hold from now on; None where none has changed, and the log says why."""
        failed = NOTHING
        try:
            access.reload()
            failed = NOTHING if access.idle else KEYS_ONLY
            read = self._read()
            await self._take_over(merged(self._running, read), state, access)
        except StartupError as error:
            log.error(failed, error.english, error.chinese)
            return None
        if names := waiting(self._began, read):
            log.warning(
                "these settings differ and hold after a restart: %s 以下设置的更改在重启后生效：%s",
                *(", ".join(names), "、".join(names)),
            )
        return self._running

    async def _take_over(self, config: Config, state: Mapping[str, Any], access: Access) -> None:
        """Raises StartupError, and then nothing has changed."""
        if self._tls is not None:
            self._tls.check()
        models = await _opened(config, state)
        if self._tls is not None:
            self._tls.renew()
            access.metrics.certificate_expiry.set(self._tls.expires_s)
        _serve(models, config, state)
        self._running = config
