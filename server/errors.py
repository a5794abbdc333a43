"""Every error of the server, in a tree by who is at fault.

ServerError
├── CallerError              the request is at fault; repeating it will not help
│   ├── Unauthorized         no key, an unknown one, or one that has expired
│   ├── Forbidden            the key may not do this
│   ├── InvalidRequest       not JSON, a wrong type or value, an unknown option
│   ├── EmptyInput           no texts, an empty text, or one without a token that the model knows
│   ├── TooManyTexts         more texts than one request may carry
│   ├── TextTooLong          longer than the model reads, and the caller forbade truncation
│   ├── RequestTooLarge      bytes, tokens, values or time over the limit of one request
│   ├── UnsupportedMediaType not application/json
│   ├── RouteNotFound        no such path
│   ├── MethodNotAllowed     the path exists, the method does not
│   ├── ModelNotFound        a model that is not served
│   ├── TaskNotServed        to rerank, classify or the like, which no served model does
│   ├── CollectionNotFound   no collection of this name
│   ├── DocumentNotFound     no document of this id
│   ├── TooManyCollections   one more needs more open files than the system allows
│   ├── AlreadyExists        a collection of this name, or a document that was only to be added
│   └── OtherModel           the collection's vectors are of another model; it must be reindexed
├── RetryableError           the same request may succeed later
│   ├── Overloaded           the queue is full
│   ├── QuotaExceeded        the key has used up its quota for now
│   ├── NotReady             a lane has ended or the disk is full: ask another server
│   ├── DatabaseAway         a vector database elsewhere does not answer
│   ├── DatabaseBusy         it answers, and cannot do this now
│   └── ShuttingDown         the server is stopping
├── DatabaseRefused          a vector database elsewhere refuses what was asked of it
├── ServerFault              the server is at fault
│   ├── InferenceFailed      the batch of this text raised
│   └── InternalError        anything unforeseen
└── StartupError             for the terminal, in English or Chinese
    ├── BadArtifact          missing, damaged, or computing other vectors than it should
    ├── BadSettings          a flag or variable with an impossible value
    ├── NoDataFolder         a command that only reads was given a folder without collections
    └── StoreError           the data folder cannot be used as requested; also sent over HTTP
        ├── DiskFull         no room for a write; nothing stored is lost
        └── StoreDamaged     what was stored cannot be read back as it was written

Messages name the value and the limit, and have no final full stop. Status codes are in `server/api`.
"""

import re
from typing import ClassVar

from server.messages.message import SentenceError

# Characters of a value in a message, and of a message whose values a caller chose.
SHOWN = 100
LONGEST_MESSAGE = 800
# The folders of an absolute path in a text, which may end anywhere.
FOLDERS = re.compile(r"(?<![\w./])/(?:[^\s/'\"]+/)+")


def shown(value: str) -> str:
    """Return a caller's text as a message shows it: in quotes, and cut if it is long."""
    if len(value) <= SHOWN:
        return repr(value)
    return f"{value[:SHOWN]!r}... ({len(value)} characters)"


class ServerError(Exception):
    code: ClassVar[str] = "internal_error"

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else self.code

    @property
    def public(self) -> str:
        """Return the message as clients get it, without the folders of this machine."""
        return FOLDERS.sub("", self.message)


def _shortened(message: str) -> str:
    """Return a message without its middle if it is long: its beginning and end say what is wrong."""
    excess = len(message) - LONGEST_MESSAGE
    if excess <= 0:
        return message
    half = LONGEST_MESSAGE // 2
    return f"{message[:half]} ... ({excess} characters left out) ... {message[-half:]}"


class CallerError(ServerError):
    """Raised for a request that is at fault. param: the key of its body at fault, if any."""

    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(_shortened(message))
        self.param = param

    @property
    def public(self) -> str:
        """Return the message as it is: a path in it is the caller's own."""
        return self.message


class Unauthorized(CallerError):
    code = "unauthorized"


class Forbidden(CallerError):
    code = "forbidden"


class InvalidRequest(CallerError):
    code = "invalid_request"


class EmptyInput(CallerError):
    """Raised for a text that is empty, or has no token. index: of the text that has none, else None."""

    code = "empty_input"

    def __init__(self, message: str, *, param: str | None = None, index: int | None = None) -> None:
        super().__init__(message, param=param)
        self.index = index


class TooManyTexts(CallerError):
    code = "too_many_texts"


class TextTooLong(CallerError):
    code = "text_too_long"


class RequestTooLarge(CallerError):
    code = "request_too_large"


class UnsupportedMediaType(CallerError):
    code = "unsupported_media_type"


class RouteNotFound(CallerError):
    code = "not_found"


class MethodNotAllowed(CallerError):
    code = "method_not_allowed"


class ModelNotFound(CallerError):
    code = "model_not_found"


class TaskNotServed(CallerError):
    code = "task_not_served"


class CollectionNotFound(CallerError):
    code = "collection_not_found"


class DocumentNotFound(CallerError):
    code = "document_not_found"


class TooManyCollections(CallerError):
    code = "too_many_collections"


class AlreadyExists(CallerError):
    code = "already_exists"


class OtherModel(CallerError):
    code = "other_model"


class RetryableError(ServerError):
    """Raised where the same request may succeed later. retry_after_s: whole seconds until then."""

    code = "try_later"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(RetryableError):
    code = "overloaded"


class QuotaExceeded(RetryableError):
    code = "quota_exceeded"


class NotReady(RetryableError):
    code = "not_ready"


class DatabaseAway(RetryableError):
    code = "database_away"


class DatabaseBusy(RetryableError):
    """Raised where a database answered, and said that it cannot do this now; other calls may succeed meanwhile."""

    code = "database_busy"


class ShuttingDown(RetryableError):
    code = "shutting_down"


class DatabaseRefused(ServerError):
    """Raised where trying again changes nothing; the message says which database, and what it said."""

    code = "database_refused"


class ServerFault(ServerError):
    code = "internal_error"


class InferenceFailed(ServerFault):
    code = "inference_failed"


class InternalError(ServerFault):
    code = "internal_error"


class StartupError(SentenceError, ServerError):
    """Raised with a sentence for the terminal, in English or Chinese; see `server/messages`."""

    code = "startup_error"
    exit_status: ClassVar[int] = 1

    @property
    def public(self) -> str:
        """Return the English sentence with the last two parts of each path."""
        return FOLDERS.sub("", self.sentence.without_folders().english)


class BadArtifact(StartupError):
    code = "bad_artifact"


class BadSettings(StartupError):
    code = "bad_settings"


class NoDataFolder(StartupError):
    code = "no_data_folder"
    # As for a wrong flag: nothing was examined, so nothing was found to be wrong.
    exit_status = 2


class StoreError(StartupError):
    code = "store_error"


class DiskFull(StoreError):
    code = "disk_full"


class StoreDamaged(StoreError):
    code = "store_damaged"
