"""The formats of office files: their suffixes, and what to do with those that are not read."""

from collections.abc import Mapping
from typing import Literal, get_args

from server.messages.message import Message

OfficeFormat = Literal["pdf", "docx", "xlsx", "pptx", "html", "epub", "eml"]
OFFICE: tuple[str, ...] = get_args(OfficeFormat)
SHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
SUFFIXES: Mapping[str, str] = {
    **{f".{name}": name for name in OFFICE},
    **dict.fromkeys(SHEETS, "xlsx"),
    ".docm": "docx",
    ".pptm": "pptx",
    ".htm": "html",
    ".xhtml": "html",
}
# Formats that are not read, and the one to save them as.
OTHERS: Mapping[str, str] = {
    **dict.fromkeys((".doc", ".dot", ".wps", ".rtf", ".odt", ".pages"), ".docx"),
    **dict.fromkeys((".ppt", ".pps", ".dps", ".odp", ".key"), ".pptx"),
    **dict.fromkeys((".et", ".numbers"), ".xlsx"),
    **dict.fromkeys((".mobi", ".azw", ".azw3"), ".epub"),
    ".msg": ".eml",
}
# Word, Excel and PowerPoint write such a file beside one that is open; it has the name of a person.
LOCK_PREFIX = "~$"


def advice(suffix: str) -> Message | None:
    """Return what to do with a file of a format that is not read; None for an unknown suffix."""
    wanted = OTHERS.get(suffix.lower())
    if wanted is None:
        return None
    return Message(
        "files ending in {suffix} are not read; save it as {wanted}, for example with LibreOffice",
        suffix=suffix.lower(),
        wanted=wanted,
    )
