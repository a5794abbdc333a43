"""Counts the tokens of texts in few calls, each of a bounded size."""

from collections.abc import Callable, Iterable, Sequence

from server.collections.cutting.piece import Piece

# Texts to the tokens of each by itself, without special tokens.
Count = Callable[[Sequence[str]], list[int]]

# A text of more characters than this, or than this for each token, is split without counting it whole.
UNCOUNTED_CHARACTERS = 1 << 16
UNCOUNTED_CHARACTERS_PER_TOKEN = 16
# A tokenizer holds about 300 bytes a token until a call is over: 80 MB at the most.
BATCH_PIECES = 4096
BATCH_CHARACTERS = 1 << 18


def most_characters(size: int) -> int:
    return max(UNCOUNTED_CHARACTERS, UNCOUNTED_CHARACTERS_PER_TOKEN * size)


def piece_tokens(text: str, pieces: Sequence[Piece], size: int, count: Count) -> list[int]:
    """Return the tokens of each piece; size + 1 for one that is too long to be counted."""
    most = most_characters(size)
    short = [piece for piece in pieces if piece.end - piece.begin <= most]
    counted = iter(counts((text[piece.begin : piece.end] for piece in short), count))
    return [next(counted) if p.end - p.begin <= most else size + 1 for p in pieces]


def counts(texts: Iterable[str], count: Count) -> list[int]:
    """Count in batches, so that there are neither many calls nor much memory."""
    found: list[int] = []
    batch: list[str] = []
    n_characters = 0
    for text in texts:
        if batch and (len(batch) >= BATCH_PIECES or n_characters + len(text) > BATCH_CHARACTERS):
            found += count(batch)
            batch, n_characters = [], 0
        batch.append(text)
        n_characters += len(text)
    return found + count(batch) if batch else found
