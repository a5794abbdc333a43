"""Turns the errors of a hub and of its library into sentences that say what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from export.errors import CannotWrite, DownloadFailed, ExportError, NoSuchModel
from export.source.hub_client import Hub, by_hand
from server.messages.message import Message

REASONS = {
    errno.ENOSPC: Message("the disk is full"),
    errno.EACCES: Message("permission denied"),
    errno.EROFS: Message("the file system is read-only"),
}


@contextmanager
def plain_errors(hub: Hub, revision: str) -> Iterator[None]:
    try:
        yield
    except ExportError:
        raise
    except OSError as error:
        # All errors of requests and of the hub's library are OSErrors, with or without an errno.
        raise _plain_error(error, hub, revision) from None


def _plain_error(error: OSError, hub: Hub, revision: str) -> ExportError:
    from huggingface_hub import errors
    from requests import RequestException

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, OSError):
        error = error.__cause__
    if isinstance(error, errors.RevisionNotFoundError):
        return NoSuchModel(
            '{model_id} has no revision "{revision}" on {shown}',
            model_id=hub.model_id,
            revision=revision,
            shown=hub.shown,
        )
    if isinstance(error, errors.EntryNotFoundError):
        return by_hand(
            "{shown} lists a file of {model_id} that it does not have; try later",
            shown=hub.shown,
            model_id=hub.model_id,
        )
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        if error.response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            hub.forget_download()
        return _refusal(error.response.status_code, hub)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return by_hand("HF_HUB_OFFLINE is set, so nothing is downloaded: unset it")
    if isinstance(error, RequestException):
        reason = type(error).__name__
        return by_hand(
            "the download of {model_id} from {shown} failed ({reason}): check the network, or name a"
            " mirror in HF_ENDPOINT; what has come is kept and resumed",
            model_id=hub.model_id,
            shown=hub.shown,
            reason=reason,
        )
    if error.errno is not None:
        name = error.filename or hub.model_id
        return CannotWrite(
            "cannot write {name}: {reason}",
            name=name,
            reason=REASONS.get(error.errno or 0, error.strerror),
        )
    hub.forget_download()
    return by_hand(
        "{shown} sent other bytes for {model_id} than it announced; try again",
        shown=hub.shown,
        model_id=hub.model_id,
    )


def _refusal(status: int, hub: Hub) -> ExportError:
    if status in (401, 403):
        return DownloadFailed(
            "{shown} refuses {model_id} (HTTP {status}): it does not exist, or is private or "
            "gated; check the id, or accept the model's terms there and put your access token "
            "into HF_TOKEN",
            shown=hub.shown,
            model_id=hub.model_id,
            status=status,
        )
    if status == 404:
        return NoSuchModel(
            "there is no model {model_id} on {shown}", model_id=hub.model_id, shown=hub.shown
        )
    return by_hand(
        "{shown} answered {model_id} with HTTP {status}; try later",
        shown=hub.shown,
        model_id=hub.model_id,
        status=status,
    )
