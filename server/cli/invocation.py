"""A command as it was typed, with everything it may use."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from server.config import Config
from server.messages.message import Message
from server.messages.terminal import Terminal


@dataclass(frozen=True, slots=True)
class Invocation:
    """One run of a command.

    origins: where each setting comes from, by name. variables: the environment of the process.
    """

    config: Config
    arguments: Namespace
    terminal: Terminal
    origins: Mapping[str, Message]
    variables: Mapping[str, str]


# Runs a command and returns its exit status.
Command = Callable[[Invocation], int]
