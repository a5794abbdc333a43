"""A worker: a process that computes vectors for the first process of a server.

`worker_handle` runs this file as `python -P worker.py DESCRIPTOR PATH...`. The descriptor is one end of a
channel, over which the settings come; the paths are the first process's import path.
"""

import contextlib
import logging
import pickle
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.config import Config
    from server.net.ipc import Channel


def main(descriptor: int) -> int:
    """Work until the first process says stop; return the exit status."""
    # subtle: before anything is loaded. Ignored signals cannot be inherited, because the loop that starts
    # processes resets them. When a signal goes to the whole group, the first process says what to do.
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    from server.net.ipc import Channel
    from server.telemetry import logs

    with contextlib.closing(Channel.of(descriptor)) as channel:
        try:
            config = pickle.loads(channel.wait().content)
        except EOFError:
            return 1
        logs.start(config)
        return _work(config, channel)


def _work(config: "Config", channel: "Channel") -> int:
    from server.app import create_worker_app, model_operations
    from server.errors import StartupError
    from server.inference.registry import opened
    from server.net.ipc import Kind
    from server.net.server import work
    from server.telemetry.metrics import Metrics

    # The first process has logged the warnings about each model.
    logging.getLogger("server.inference.registry").setLevel(logging.ERROR)
    metrics = Metrics()
    try:
        models = opened(config)
        app = create_worker_app(models, config, metrics)
    except StartupError as error:
        channel.send(Kind.FAILED, pickle.dumps(error.sentence))
        return 1
    served = {each.path.encode() for each in model_operations(config) if "{" not in each.path}
    # The app alone holds them from here on, and frees those that a reload replaces.
    del models
    work(app, config, channel, served, metrics.render)
    return 0


if __name__ == "__main__":
    sys.path[:] = sys.argv[2:]
    sys.exit(main(int(sys.argv[1])))
