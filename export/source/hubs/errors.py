"""Turns refusals of a hub and errors of the network and the disk into sentences that say what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from export.errors import CannotWrite, DownloadFailed, ExportError, NoSuchModel
from export.source.hubs.dialects.dialect import NO_ACCESS, NO_ENTRY, NO_REVISION
from server.messages.message import Message

if TYPE_CHECKING:
    from export.source.hubs.address import HubAddress

# The best-known mirror of the Hugging Face hub.
MIRROR = "https://hf-mirror.com"

REASONS = {
    errno.ENOSPC: Message("the disk is full"),
    errno.EACCES: Message("permission denied"),
    errno.EROFS: Message("the file system is read-only"),
}


def by_hand(template: str, **fields: object) -> DownloadFailed:
    """Return an error that says what went wrong with a download, and the way without a network."""
    return DownloadFailed(
        "{why}; or copy the model's folder, or a .tar of it, by hand from a machine with a network and "
        "export that",
        why=Message(template, **fields),
    )


def other_hubs(model_id: str) -> Message:
    """Return how the same model may come from another hub."""
    return Message(
        "{model_id} with HF_ENDPOINT={mirror}, or modelscope:{model_id}",
        model_id=model_id,
        mirror=MIRROR,
    )


def refusal(status: int, cause: str, shown: str, address: "HubAddress") -> ExportError:
    """Return the error for an answer with another status than success.

    cause: as the dialect reads it, empty where the answer does not say it. shown: the hub's address.
    """
    model_id = address.model_id
    if cause == NO_REVISION:
        return NoSuchModel(
            '{model_id} has no revision "{revision}" on {shown}',
            model_id=model_id,
            revision=address.revision,
            shown=shown,
        )
    if cause == NO_ENTRY:
        return by_hand(
            "{shown} lists a file of {model_id} that it does not have; try later",
            shown=shown,
            model_id=model_id,
        )
    if status in (401, 403) or cause == NO_ACCESS:
        return DownloadFailed(
            "{shown} refuses {model_id} (HTTP {status}): it does not exist, or is private or "
            "gated; check the id, or accept the model's terms there and put your access token "
            "into {variable}",
            shown=shown,
            model_id=model_id,
            status=status,
            variable=address.dialect.token_variable,
        )
    if status == 404:
        return NoSuchModel(
            "there is no model {model_id} on {shown}", model_id=model_id, shown=shown
        )
    return by_hand(
        "{shown} answered {model_id} with HTTP {status}; try later",
        shown=shown,
        model_id=model_id,
        status=status,
    )


@contextmanager
def plain_errors(model_id: str, shown: str) -> Iterator[None]:
    """Raise an ExportError for what the network or the disk raises inside."""
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    # First: all errors of requests are OSErrors too. ValueError: a redirect to what is no address.
    except (RequestException, HTTPError, ValueError) as error:
        raise by_hand(
            "the download of {model_id} from {shown} failed ({reason}): check the network, or try another "
            "hub: {other}; what has come is kept and resumed",
            model_id=model_id,
            other=other_hubs(model_id),
            shown=shown,
            reason=type(error).__name__,
        ) from None
    except OSError as error:
        raise cannot_write(error, model_id) from None


def cannot_write(error: OSError, what: object) -> CannotWrite:
    """Return the error for what the disk refuses. what: the name where the error names no file."""
    return CannotWrite(
        "cannot write {name}: {reason}",
        name=error.filename or what,
        reason=REASONS.get(error.errno or 0, error.strerror),
    )
