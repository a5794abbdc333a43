"""Reads calibration and verification texts: the project's own, or a file of the user's."""

import json
from dataclasses import dataclass
from pathlib import Path

from export.errors import BadTexts

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class TextSet:
    """Two files of texts that share none; `vocabulary` chooses the set that suits a model."""

    name: str

    @property
    def calibration(self) -> Path:
        return FOLDER / self.name / "calibration.jsonl"

    @property
    def verification(self) -> Path:
        return FOLDER / self.name / "verification.jsonl"


# The Chinese set is partly English, and the multilingual one partly both.
CHINESE, ENGLISH, MULTILINGUAL = map(TextSet, ("chinese", "english", "multilingual"))


def read_texts(path: Path, *, at_least: int) -> list[str]:
    """Return one text per line: plain, or in a .jsonl file a JSON string or an object with "text".

    Blank lines are skipped; fewer than `at_least` texts are refused.
    """
    try:
        # subtle: splitlines() would also cut at U+2028 and its like, which JSON strings may hold.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise BadTexts(
            "{path} cannot be read: {strerror}", path=path, strerror=error.strerror
        ) from None
    except UnicodeDecodeError as error:
        raise BadTexts(
            "{path} is not UTF-8 at byte {start}", path=path, start=error.start
        ) from None
    texts = [
        _json_text(path, number, line) if path.suffix == ".jsonl" else line
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if len(texts) < at_least:
        raise BadTexts(
            "{path} has {n_texts} texts; at least {at_least} are needed",
            path=path,
            n_texts=len(texts),
            at_least=at_least,
        )
    return texts


def _json_text(path: Path, number: int, line: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadTexts(
            "{path} line {number} is not JSON: {error}", path=path, number=number, error=error
        ) from None
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise BadTexts(
            '{path} line {number} is neither a string nor an object with "text"',
            path=path,
            number=number,
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadTexts(
            "{path} line {number} holds half of a surrogate pair, which is no character",
            path=path,
            number=number,
        ) from None
    return text
