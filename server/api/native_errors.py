"""The native shape of errors, for every path without another dialect."""

import msgspec

from server.api.operation import Dialect
from server.api.replies import Reply, error_reply_of
from server.errors import ServerError


class Fault(msgspec.Struct):
    """An error. code: stable, see docs/en/reference/errors.md; message: for people."""

    code: str
    message: str


class Error(msgspec.Struct):
    error: Fault


def error_reply(error: ServerError) -> Reply:
    return error_reply_of(error, Error(Fault(error.code, error.public)))


NATIVE = Dialect("native", error_reply, Error)
