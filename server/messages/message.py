"""A sentence for the person at the terminal, which exists in English and Chinese.

The English template stands where the sentence is made; `catalogue.json` holds its Chinese twin, with
the same fields. A field may be a message itself, or a tuple, whose items are listed.
"""

import json
import string
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

Language = Literal["en", "zh"]
CATALOGUE = Path(__file__).with_name("catalogue.json")
# In the order in which the C library asks them; the first that is set decides.
VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")


def language_of(environ: Mapping[str, str]) -> Language:
    """Return the language that the locale's variables ask for: Chinese for zh, else English."""
    locale = next((environ[name] for name in VARIABLES if environ.get(name)), "")
    return "zh" if locale.lower().startswith("zh") else "en"


SEPARATORS: Mapping[Language, str] = {"en": ", ", "zh": "、"}


class Message:
    """template: English, with the names of `fields` in braces as for `str.format`."""

    __slots__ = ("fields", "template")

    def __init__(self, template: str, **fields: object) -> None:
        self.template = template
        # An exception would keep its frames, and could not travel to another process.
        self.fields = {
            name: str(value) if isinstance(value, BaseException) else value
            for name, value in fields.items()
        }

    @property
    def english(self) -> str:
        return self.text("en")

    @property
    def chinese(self) -> str:
        return self.text("zh")

    def text(self, language: Language) -> str:
        template = self.template if language == "en" else chinese_of(self.template)
        return _FORMATTER.vformat(template, (), _Fields(self.fields, language))

    def __str__(self) -> str:
        return self.english

    def __repr__(self) -> str:
        return f"Message({self.english!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self.english)

    def _key(self) -> tuple[str, Mapping[str, object]]:
        return self.template, self.fields


def chinese_of(template: str) -> str:
    """Return the Chinese twin of an English template, or the template where there is none."""
    return _chinese().get(template, template)


@cache
def _chinese() -> dict[str, str]:
    """The sections of the catalogue, joined. Read when the first Chinese sentence is needed."""
    sections: dict[str, dict[str, str]] = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    return {english: twin for section in sections.values() for english, twin in section.items()}


class _Fields(Mapping[str, object]):
    """Fields as they are formatted: messages and lists among them in the language of the whole."""

    def __init__(self, fields: Mapping[str, object], language: Language) -> None:
        self._fields = fields
        self._language = language

    def __getitem__(self, name: str) -> object:
        value = self._fields[name]
        if isinstance(value, Message):
            return value.text(self._language)
        if isinstance(value, tuple):
            return SEPARATORS[self._language].join(map(str, value))
        return value

    def __iter__(self) -> Any:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


_FORMATTER = string.Formatter()
