"""The base form of a word: without accents, and without the endings of English.

Of running and runs it is run, of Résumés resum. A word whose base form differs has it as a further term,
so that a text with the very word still comes before others. Letters that only look accented stay as they
are: the й of Cyrillic, the marks of kana, Thai and the scripts of India.
"""

import re
import threading
import unicodedata
from functools import lru_cache

import Stemmer

# The marks that Latin, Greek and Cyrillic share, but for the breve of й and ў; points of Hebrew and Arabic.
ACCENTS = re.compile(
    "(?<![\u0438\u0443])[\u0300-\u036f]|[\u0301\u0308\u0300]|[\u0591-\u05c7\u064b-\u065f\u0670]"
)
# Letters that Unicode does not divide.
LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}
)
SHORTEST = 3  # shorter words have no ending
# Words of a large collection: 96 % of the words of SciFact are among the 32,768 latest.
KEPT = 32_768

# Another version may give other base forms, and words must be removable as they were added.
SNOWBALL = Stemmer.version()

_of_thread = threading.local()


@lru_cache(maxsize=KEPT)
def base(word: str) -> str:
    """Return the base form of a folded word, which may be the word itself."""
    plain = word if word.isascii() else _plain(word)
    if len(plain) < SHORTEST or not (plain.isascii() and plain.isalpha()):
        return plain or word
    return str(_stemmer().stemWord(plain))


def _plain(word: str) -> str:
    divided = unicodedata.normalize("NFD", word.translate(LETTERS))
    return unicodedata.normalize("NFC", ACCENTS.sub("", divided))


def _stemmer() -> Stemmer.Stemmer:
    # subtle: a stemmer must not be used from two threads at once.
    if not hasattr(_of_thread, "stemmer"):
        _of_thread.stemmer = Stemmer.Stemmer("english", 0)
    found: Stemmer.Stemmer = _of_thread.stemmer
    return found
