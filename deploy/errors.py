"""What keeps a bundle from being made; said in English and Chinese by `bundle`."""


class BundleError(Exception):
    """Carries the same sentence in English and Chinese, without a final full stop."""

    def __init__(self, english: str, chinese: str) -> None:
        super().__init__(english)
        self.english = english
        self.chinese = chinese
