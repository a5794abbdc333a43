"""What the process that reads files is sent, and what it sends back: messages with their length."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from server.messages.message import Message
from server.sources.source import Options
from server.store.records import Document

LENGTH = struct.Struct("<I")
# Of one message: a document of the longest text and its metadata, in UTF-8.
MOST_BYTES = 1 << 28


class Request(msgspec.Struct, tag="read"):
    """A file to read; its bytes follow.

    name: its path, as documents have it. shown: as messages have it. For the rest see `Source`.
    """

    name: str
    shown: str
    format: str
    n_bytes: int
    cpu_s: int
    keep_going: bool
    is_folder: bool
    options: Options


class Began(msgspec.Struct, tag="began"):
    """The file has arrived."""


class Found(msgspec.Struct, tag="found"):
    """A document. metadata: as JSON, whose numbers may be of any size. n_read: bytes of the file read."""

    id: str
    text: str
    title: str | None
    metadata: bytes
    n_read: int

    @classmethod
    def of(cls, document: Document, n_read: int) -> "Found":
        metadata = msgspec.json.encode(document.metadata)
        return cls(document.id, document.text, document.title, metadata, n_read)

    @property
    def document(self) -> Document:
        metadata = msgspec.json.decode(self.metadata, type=dict[str, Any])
        return Document(self.id, self.text, self.title, metadata)


class Sentence(msgspec.Struct):
    """A `Message` as it is sent."""

    template: str
    fields: dict[str, Any]


class Wrong(msgspec.Struct, tag="wrong"):
    """A row that is not a document, where reading goes on."""

    why: Sentence


class Failed(msgspec.Struct, tag="failed"):
    """The file cannot be read any further.

    named: whether the sentence names the file. is_last: whether the process ends after it.
    """

    why: Sentence
    named: bool = False
    is_last: bool = False


class Done(msgspec.Struct, tag="done"):
    """The file has been read. notes: on what was assumed or left out."""

    notes: list[Sentence]


Answer = Began | Found | Wrong | Failed | Done
_encoder = msgspec.msgpack.Encoder()
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_requests = msgspec.msgpack.Decoder(Request)


def framed(message: Request | Answer) -> bytes:
    """Return a message with its length before it."""
    data = _encoder.encode(message)
    return LENGTH.pack(len(data)) + data


def answer_of(data: bytes) -> Answer:
    """Decode an answer; raises msgspec.DecodeError."""
    return _answers.decode(data)


def request_of(data: bytes) -> Request:
    return _requests.decode(data)


def sentence_of(message: Message) -> Sentence:
    """Return a message in a form that can be sent."""
    return Sentence(message.template, {name: _sent(each) for name, each in message.fields.items()})


def message_of(sentence: Sentence) -> Message:
    """Return the message that was sent."""
    return Message(sentence.template, **_received(sentence.fields))


def _sent(value: object) -> object:
    if isinstance(value, Message):
        return {"message": msgspec.to_builtins(sentence_of(value))}
    if isinstance(value, tuple):
        return {"tuple": [_sent(each) for each in value]}
    if isinstance(value, Path):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _received(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _back(each) for name, each in fields.items()}


def _back(value: Any) -> Any:
    if isinstance(value, dict) and "message" in value:
        found = value["message"]
        return Message(found["template"], **_received(found["fields"]))
    if isinstance(value, dict) and "tuple" in value:
        return tuple(_back(each) for each in value["tuple"])
    return value
