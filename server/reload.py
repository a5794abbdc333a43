"""What a running server takes over of settings that are read again, without dropping a request.

Models are loaded and tried first, beside the loop; what may fail comes before what changes anything.
Then names, keys and log level change within one turn of the loop: a request meets the old or the new.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any

from server.api.access import Access
from server.config import Config
from server.errors import StartupError
from server.library import Library
from server.models import Models, opened
from server.tls import Tls

# Settings that may change while a server runs; the content of the keys file may too, not its place.
AT_ONCE = frozenset({"model", "model_alias", "log_level"})
# Those that have a level of their own: all, and uvicorn's.
LOGGERS = ("", "uvicorn.error")

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


async def take_over(config: Config, state: Mapping[str, Any], access: Access) -> None:
    """Serve by these settings from now on; raises StartupError, and then nothing has changed.

    state: of the app. What was asked of a model that goes is finished by it.
    """
    models: Models = state["models"]
    library: Library | None = state["library"]
    served = [engine.model for engine in models.engines]
    models.serve(await asyncio.to_thread(opened, config, served), config.model_alias)
    if library is not None:
        library.forget_queries()
    for name in LOGGERS:
        logging.getLogger(name).setLevel(config.log_level.upper())
    access.reload()


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
        """The settings that hold from now on; None where those that were read are impossible."""
        try:
            read = self._read()
            config = merged(self._running, read)
            if self._tls is not None:
                self._tls.check()
            await take_over(config, state, access)
            if self._tls is not None:
                self._tls.renew()
                access.metrics.certificate_expiry.set(self._tls.expires_s)
        except StartupError as error:
            log.error("nothing has changed: %s 未作任何更改：%s", error.english, error.chinese)
            return None
        if names := waiting(self._began, read):
            log.warning(
                "these settings differ and hold after a restart: %s 以下设置的更改在重启后生效：%s",
                *(", ".join(names), "、".join(names)),
            )
        self._running = config
        return config
