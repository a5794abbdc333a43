"""Names of collections: what users write, in any script, and what a folder can have as its name.

A name has letters and digits of any script, and . _ - among them. It is kept in Unicode's composed form
(NFC), so that the same word typed on two systems is one collection. Its folder has the name in UTF-8,
whatever the locale; the prefixes of `folder_layout` need 40 of the 255 bytes that a folder's name can have.
"""

import os
import unicodedata

from server.errors import InvalidRequest, shown

MAX_CHARACTERS, MAX_BYTES = 64, 192
# For clients and generators: of ASCII exactly what is allowed, and everything else.
PATTERN = "^[^\\x00-,./:-@\\[-^`{-\\x7f][^\\x00-,/:-@\\[-^`{-\\x7f]{0,63}$"


def normal(name: str) -> str:
    """Return a name in the form in which it is stored and compared."""
    return unicodedata.normalize("NFC", name)


def is_name(name: str) -> bool:
    """Return whether this can name a collection."""
    return (
        0 < len(name) <= MAX_CHARACTERS
        and len(name.encode("utf-8", "replace")) <= MAX_BYTES
        # No dot first: ".." would leave the folder, and `folder_layout` uses names with a dot.
        and name[0] != "."
        and unicodedata.category(name[0])[0] != "M"
        and all(map(_may_stand, name))
        and normal(name) == name
    )


def _may_stand(character: str) -> bool:
    """Return whether a character may stand in a name: a letter with its marks, a digit, or . _ -"""
    kind = unicodedata.category(character)
    return character in "._-" or kind[0] in "LM" or kind == "Nd"


def check_name(name: str) -> None:
    """Raise InvalidRequest for what cannot name a collection."""
    if not is_name(name):
        raise InvalidRequest(
            f"{shown(name)} cannot name a collection: 1 to {MAX_CHARACTERS} letters and digits of any script, or"
            f" . _ - are needed, at most {MAX_BYTES} bytes in UTF-8, no dot first",
            param="name",
        )


def folder_name(name: str) -> str:
    """Return the name of a collection's folder as this process passes it to the system."""
    return os.fsdecode(name.encode())


def name_of(folder: str) -> str | None:
    """Return the text that a folder's name is in UTF-8; None where it is none."""
    try:
        return os.fsencode(folder).decode()
    except UnicodeError:
        return None
