"""Errors of making a bundle."""

from server.messages.message import Message


class BundleError(Exception):
    """A sentence in English or Chinese, without a final full stop; see `server/messages`."""

    def __init__(self, template: str, **fields: object) -> None:
        self.sentence = Message(template, **fields)
        super().__init__(self.sentence.english)

    @property
    def english(self) -> str:
        return self.sentence.english

    @property
    def chinese(self) -> str:
        return self.sentence.chinese
