"""A sentence for the person at the terminal, in English and Chinese, and the errors that have one.

The English template stands in the code. `catalogue.json` holds the Chinese twin, with the same
fields. A field may be a message, a tuple or what the system says of an error; each is written in the
language of the sentence.
"""

import json
import string
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Literal

Language = Literal["en", "zh"]
CATALOGUE = Path(__file__).with_name("catalogue.json")
# In the order in which the C library reads them; the first that is set decides.
VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")
# What the system often says of a file, a disk or an address; such a field has a Chinese twin too.
SYSTEM_REASONS = frozenset(
    {
        "No such file or directory",
        "Permission denied",
        "Operation not permitted",
        "Is a directory",
        "Not a directory",
        "Not a regular file",
        "File name too long",
        "Read-only file system",
        "No space left on device",
        "Disk quota exceeded",
        "Input/output error",
        "Device or resource busy",
        "Too many open files",
        "Connection refused",
        "Connection reset by peer",
        "Name or service not known",
    }
)
SEPARATORS: Mapping[Language, str] = {"en": ", ", "zh": "、"}


def language_of(environ: Mapping[str, str]) -> Language:
    """Return the language of the locale: Chinese for zh, else English."""
    locale = next((environ[name] for name in VARIABLES if environ.get(name)), "")
    return "zh" if locale.lower().startswith("zh") else "en"


class Message:
    """A template with its fields; `text` formats it in a language.

    template: English, with the names of `fields` in braces, as for `str.format`.
    """

    __slots__ = ("fields", "template")

    def __init__(self, template: str, /, **fields: object) -> None:
        self.template = template
        self.fields = {name: _field(value) for name, value in fields.items()}

    @property
    def english(self) -> str:
        return self.text("en")

    @property
    def chinese(self) -> str:
        return self.text("zh")

    def text(self, language: Language) -> str:
        """Return the sentence: in English if the twin is missing; a missing field stays in braces."""
        template = self.template if language == "en" else chinese_of(self.template)
        return _FORMATTER.vformat(template, (), _Fields(self.fields, language))

    def without_folders(self) -> "Message":
        """Return the message with the last two parts of each path in its fields."""
        return Message(self.template, **{name: _short(each) for name, each in self.fields.items()})

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
    """Return the Chinese twin of an English template, or the template if there is none."""
    return _chinese().get(template, template)


@cache
def _chinese() -> dict[str, str]:
    """Return all sections of the catalogue as one; read when the first Chinese sentence is needed."""
    sections: dict[str, dict[str, str]] = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    return {english: twin for section in sections.values() for english, twin in section.items()}


class SentenceError(Exception):
    """An error with a sentence for the terminal, in English or Chinese, without a final full stop."""

    def __init__(self, template: str | Message, **fields: object) -> None:
        self.sentence = template if isinstance(template, Message) else Message(template, **fields)
        super().__init__(self.sentence.english)

    @property
    def english(self) -> str:
        return self.sentence.english

    @property
    def chinese(self) -> str:
        return self.sentence.chinese


def _field(value: object) -> object:
    """Return a field as a message keeps it: an exception becomes its sentence.

    An exception would keep its frames, and could not travel to another process.
    """
    if isinstance(value, SentenceError):
        return value.sentence
    return str(value) if isinstance(value, BaseException) else value


def _short(value: object) -> object:
    if isinstance(value, Path):
        return Path(*value.parts[-2:]) if len(value.parts) > 2 else Path(value.name)
    if isinstance(value, Message):
        return value.without_folders()
    return tuple(map(_short, value)) if isinstance(value, tuple) else value


class _Fields(Mapping[str, object]):
    """Fields as they are formatted in one language."""

    def __init__(self, fields: Mapping[str, object], language: Language) -> None:
        self._fields = fields
        self._language = language

    def __getitem__(self, name: str) -> object:
        return self._said(self._fields[name]) if name in self._fields else _Missing(name)

    def _said(self, value: object) -> object:
        if isinstance(value, Message):
            return value.text(self._language)
        if isinstance(value, tuple):
            return SEPARATORS[self._language].join(str(self._said(each)) for each in value)
        if self._language == "zh" and isinstance(value, str) and value in SYSTEM_REASONS:
            return chinese_of(value)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class _Missing:
    """A field that was not given, formatted as its name in braces whatever its format."""

    def __init__(self, name: str) -> None:
        self._shown = f"{{{name}}}"

    def __format__(self, _: str) -> str:
        return self._shown

    def __repr__(self) -> str:
        return self._shown


_FORMATTER = string.Formatter()
