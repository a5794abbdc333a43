"""Reads the card of a model, README.md, which may say what the model was made from."""

from export.source.folder import ModelFolder

CARD = "README.md"
# The cards with the results of MTEB have some 300 KB.
MOST_CARD = 2 * 1024 * 1024


def read_card(files: ModelFolder) -> str:
    """Return the text of README.md; empty where there is none, or one that is too long to be a card."""
    path = files.path(CARD)
    if not files.has(CARD) or not path.is_file() or path.stat().st_size > MOST_CARD:
        return ""
    return files.content(CARD, MOST_CARD).decode("utf-8", "replace")


def split_card(card: str) -> tuple[str, str]:
    """Return the head of a card, empty where it has none, and the text behind it; a head without an end is both."""
    if not card.startswith("---"):
        return "", card
    parts = card.split("\n---", 1)
    return parts[0], parts[-1]
