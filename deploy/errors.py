"""The error of a bundle that cannot be made."""

from server.messages.message import SentenceError


class BundleError(SentenceError):
    """Raised where a bundle cannot be made; see `server/messages`."""
