"""python -m server.net.worker DESCRIPTOR: a process that computes vectors for the first process of a server.

It is started by `workers` and told its settings over the channel that it inherits.
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
    """Work until told to stop; returns the exit status."""
    # subtle: before anything is loaded. The first process cannot leave this to be inherited, for the loop
    # that starts processes has every signal end them. What a signal to the whole group means, it says.
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
    from server.app import create_worker_app, of_vectors
    from server.errors import StartupError
    from server.inference.registry import opened
    from server.net.ipc import Kind
    from server.net.server import work
    from server.telemetry.metrics import Metrics

    # What is to be said of a model, the first process has said.
    logging.getLogger("server.inference.registry").setLevel(logging.ERROR)
    metrics = Metrics()
    try:
        models = opened(config)
        app = create_worker_app(models, config, metrics)
    except StartupError as error:
        channel.send(Kind.FAILED, pickle.dumps(error.sentence))
        return 1
    served = {each.path.encode() for each in of_vectors(config) if "{" not in each.path}
    # They are the app's from here on, which may let them go.
    del models
    work(app, config, channel, served, metrics.render)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
