"""The project's own shape of errors, spoken on every path that is no other dialect's."""

import msgspec

from server.api.endpoint import Reply, headers_of, json_body, status_of
from server.api.operation import Dialect
from server.errors import ServerError


class Fault(msgspec.Struct):
    """code: stable, see docs/errors.md; message: for people."""

    code: str
    message: str


class Error(msgspec.Struct):
    error: Fault


def error_reply(error: ServerError) -> Reply:
    body = json_body(Error(Fault(error.code, error.message)))
    return Reply(body, status_of(error), headers_of(error))


NATIVE = Dialect("native", error_reply, Error)
