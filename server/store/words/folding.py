"""Folds texts for the search by words, so that the same word is always the same characters.

A text and a query are folded alike: NFKC, so that full-width ＡＩ is AI, then case. Invisible
characters are removed, the radicals that some PDF programs write become the characters they show, and
traditional Chinese characters become simplified ones: by words, simplified questions find traditional
text.
`joined` also removes blanks and line ends beside Chinese characters, where they separate nothing.
Nothing here touches a database.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from server.store.words.traditional import SIMPLIFIED, TRADITIONAL

# Written without spaces between words, or (Hangul) with endings grown onto them.
CHINESE = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
UNSPACED = f"{CHINESE}\uac00-\ud7a3"

# What Unicode calls default ignorable: soft hyphens, zero-width blanks and joiners, byte order marks,
# marks of direction, variation selectors.
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]+"
)
# NFKC maps the Kangxi radicals, but not these of the supplement, which look like whole characters.
RADICALS = dict(
    zip(
        "⺟⺠⻁⻄⻅⻆⻉⻋⻑⻓⻔⻘⻙⻚⻛⻜⻝⻢⻣⻤⻥⻦⻧⻨⻩⻪⻬⻮⻰⻳",
        "母民虎西见角贝车長长门青韦页风飞食马骨鬼鱼鸟卤麦黄黾齐齿龙龟",
        strict=True,
    )
)
RADICAL = re.compile("[\u2e80-\u2ef3]")
SIMPLE = str.maketrans(TRADITIONAL, SIMPLIFIED)
# subtle: to look for one is six times as fast as to map a text that has none.
TRADITIONALS = re.compile(f"[{TRADITIONAL}]")
# Blanks between Chinese characters, or between one and a letter or digit.
# subtle: beginning with \s is 4 times as fast as beginning with what stands before.
BLANKS = re.compile(
    rf"\s(?:(?<=[{CHINESE}]\s)\s*(?=[{CHINESE}]|[^\W_{UNSPACED}])"
    rf"|(?<=[^\W_{UNSPACED}]\s)\s*(?=[{CHINESE}]))"
)

# Characters that NFKC may join to the one before. The marks of Latin and kana stay with it; those of
# other scripts are mapped back one by one.
MAY_JOIN = re.compile("[\u0300-\u036f\u0600-\u11ff\u3099\u309a\U00011000-\U000119ff]")
CLUSTER = re.compile("(?s:.)[\u0300-\u036f\u3099\u309a]{0,30}")
# Text that is folded at once: NFKC takes time quadratic in marks that follow one another, 31 s for
# 200,000 of them.
PIECE = re.compile("(?s:.{1,64})[\u0300-\u036f\u3099\u309a]{0,30}")


@dataclass(frozen=True, slots=True)
class Folded:
    """A text folded and joined, and where the source of each character begins and ends in it."""

    text: str
    begins: Sequence[int]
    ends: Sequence[int]


def fold(text: str) -> str:
    """Return a text with one form for each character."""
    if text.isascii():
        return text.lower()
    return _shown("".join(map(_fold, PIECE.findall(INVISIBLE.sub("", text)))))


def joined(folded: str) -> str:
    """Return a folded text without the blanks and line ends beside its Chinese characters."""
    return folded if folded.isascii() else BLANKS.sub("", folded)


def joined_places(folded: str) -> Sequence[int]:
    """Return where each character of `joined(folded)` stands in `folded`."""
    return _without(BLANKS, folded, range(len(folded)))


def fold_with_places(text: str) -> Folded:
    """Return a text folded and joined as `joined(fold(text))`, with the places of its characters."""
    visible = INVISIBLE.sub("", text)
    folded: list[str] = []
    begins: list[int] = []
    ends: list[int] = []
    for part in PIECE.finditer(visible):
        piece = _fold(part.group())
        # Folding removes a character only by joining it to another.
        if len(piece) == len(part.group()) and not MAY_JOIN.search(part.group()):
            folded.append(piece)
            begins += range(part.start(), part.end())
            ends += range(part.start() + 1, part.end() + 1)
            continue
        for cluster in CLUSTER.finditer(visible, part.start(), part.end()):
            piece = _fold(cluster.group())
            folded.append(piece)
            begins += [cluster.start()] * len(piece)
            ends += [cluster.end()] * len(piece)
    whole = _shown("".join(folded))
    if len(visible) < len(text):
        places = _without(INVISIBLE, text, range(len(text)))
        begins = [places[begin] for begin in begins]
        ends = [places[end - 1] + 1 for end in ends]
    compact = joined(whole)
    if len(compact) < len(whole):
        begins, ends = (list(_without(BLANKS, whole, values)) for values in (begins, ends))
    return Folded(compact, begins, ends)


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _shown(folded: str) -> str:
    shown = RADICAL.sub(lambda found: RADICALS.get(found.group(), found.group()), folded)
    return shown.translate(SIMPLE) if TRADITIONALS.search(shown) else shown


def _without(pattern: re.Pattern[str], text: str, values: Sequence[int]) -> Sequence[int]:
    """Return the values of the characters that `pattern` does not match."""
    kept: list[int] = []
    last = 0
    for match in pattern.finditer(text):
        kept += values[last : match.start()]
        last = match.end()
    return [*kept, *values[last:]] if last else values
