"""Finds what is no text in a text: encoded images, certificates and other long rows of code characters.

A model makes noise of it, and a search by words has no use for it. So chunks leave it out; the stored
document keeps it. Hashes, keys and addresses are shorter and stay: people search for them.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from server.store.records import Span

# Characters of one row, and of each line where several follow one another. SHA-512 has 128 in hex.
LEAST, LEAST_OF_LINE = 200, 60
CODE, OF_LINES = "A-Za-z0-9+/_-", "A-Za-z0-9+/"
# subtle: a row is tried only where it begins, so that the time is linear.
ROW = re.compile(
    rf"(?<![{CODE}])(?:[{CODE}]{{{LEAST},}}"
    rf"|(?:[{OF_LINES}]{{{LEAST_OF_LINE},}}\r?\n[ \t]*){{2,}}[{OF_LINES}]+)={{0,2}}"
)
HEX = re.compile(r"[0-9a-fA-F\s]+={0,2}")
# A row of base64 has nearly all of its 64 characters; names joined by hyphens have 30.
SAMPLE, LEAST_KINDS = 2_000, 40
# What stands around an image that is written into Markdown or HTML; looked for in so many characters.
AROUND = 400
BEFORE = re.compile(
    r"(?:!\[[^\]\n]*\]\(|<img\s[^<>\n]*?src=[\"']?)?data:[^,\s()<>]*,\Z|-----BEGIN [A-Z ]+-----\s*\Z"
)
WORD = re.compile(r"\w")
AFTER = re.compile(r"\)|[\"'][^<>\n]{0,200}>|\s*-----END [A-Z ]+-----")


def noise(text: str) -> Iterator[Span]:
    """Yield the places that are no text, in order."""
    if len(text) < LEAST:
        return
    for row in ROW.finditer(text):
        if _is_noise(row.group()[:SAMPLE]):
            begin, end = row.span()
            first = max(0, begin - AROUND)
            if before := BEFORE.search(text[first:begin]):
                begin = first + before.start()
                if after := AFTER.match(text, end):
                    end = after.end()
            yield Span(begin, end)


def without_noise(text: str) -> list[Span]:
    """Return the parts of a text that are no noise; all of it where nothing would be left."""
    return list(_between(text, noise(text))) or [Span(0, len(text))]


def noise_length(text: str) -> int:
    """Return how many characters chunks leave out of a text; none where it is nothing but noise."""
    rows = list(noise(text))
    return sum(end - begin for begin, end in rows) if any(_between(text, rows)) else 0


def _between(text: str, rows: Iterable[Span]) -> Iterator[Span]:
    """Yield the parts of a text between rows of noise that are worth keeping."""
    begin = 0
    for row in chain(rows, [Span(len(text), len(text))]):
        # What stands alone beside noise is a bracket or the like.
        if WORD.search(text, begin, row.begin):
            yield Span(begin, row.begin)
        begin = row.end


def _is_noise(row: str) -> bool:
    if HEX.fullmatch(row):
        return any(map(str.isdigit, row)) and any(map(str.isalpha, row))
    return len(set(row)) >= LEAST_KINDS
