"""The kind of a model, as a value."""

from dataclasses import dataclass, field

from server.messages.message import Message
from server.types import Task


@dataclass(frozen=True, slots=True)
class Kind:
    """What a model is.

    name: for people. task: what it would give, None where that is nothing that can be served. refusal: why it
    cannot be exported, and what to do. notes: what an export leaves out. on_request: what it gives too, where
    that is asked for.
    """

    name: Message
    task: Task | None = None
    refusal: Message | None = None
    notes: tuple[Message, ...] = field(default=())
    on_request: tuple[Task, ...] = ()
