"""python -m server.worker DESCRIPTOR: a process that computes vectors for the first process of a server.

It is started by `workers` and told its settings over the channel that it inherits.
"""

import contextlib
import json
import logging
import pickle
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.channel import Channel
    from server.config import Config


def main(descriptor: int) -> int:
    """Work until told to stop; returns the exit status."""
    # subtle: before anything is loaded. The first process cannot leave this to be inherited, for the loop
    # that starts processes has every signal end them. What a signal to the whole group means, it says.
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    from server import logs
    from server.channel import Channel

    with contextlib.closing(Channel.of(descriptor)) as channel:
        try:
            config = pickle.loads(channel.wait().content)
        except EOFError:
            return 1
        logs.start(config)
        return _work(config, channel)


def _work(config: "Config", channel: "Channel") -> int:
    from server.app import create_worker_app, of_vectors
    from server.channel import Kind
    from server.errors import StartupError
    from server.listener import work
    from server.metrics import Metrics
    from server.models import opened

    # What is to be said of a model, the first process has said.
    logging.getLogger("server.models").setLevel(logging.ERROR)
    metrics = Metrics()
    try:
        models = opened(config)
        app = create_worker_app(models, config, metrics)
    except StartupError as error:
        channel.send(Kind.FAILED, json.dumps([error.english, error.chinese]).encode())
        return 1
    served = {each.path.encode() for each in of_vectors(config) if "{" not in each.path}
    # They are the app's from here on, which may let them go.
    del models
    work(app, config, channel, served, metrics.render)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
