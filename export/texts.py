"""Reads calibration and verification texts: the project's own, or a file of the user's."""

import json
from pathlib import Path

from export.errors import BadTexts

FOLDER = Path(__file__).parent / "texts"
CALIBRATION = FOLDER / "calibration.jsonl"
VERIFICATION = FOLDER / "verification.jsonl"


def read_texts(path: Path, *, at_least: int) -> list[str]:
    """One text a line: plain, or in a .jsonl file a JSON string or an object with "text".

    Blank lines are skipped; fewer than `at_least` texts are refused.
    """
    try:
        # subtle: splitlines() would also cut at U+2028 and its like, which JSON strings may hold.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise BadTexts(
            f"{path} cannot be read: {error.strerror}", f"{path} 无法读取：{error.strerror}"
        ) from None
    except UnicodeDecodeError as error:
        raise BadTexts(
            f"{path} is not UTF-8 at byte {error.start}", f"{path} 第 {error.start} 字节不是 UTF-8"
        ) from None
    texts = [
        _json_text(path, number, line) if path.suffix == ".jsonl" else line
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if len(texts) < at_least:
        raise BadTexts(
            f"{path} has {len(texts)} texts; at least {at_least} are needed",
            f"{path} 只有 {len(texts)} 条文本；至少需要 {at_least} 条",
        )
    return texts


def _json_text(path: Path, number: int, line: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadTexts(
            f"{path} line {number} is not JSON: {error}", f"{path} 第 {number} 行不是 JSON：{error}"
        ) from None
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise BadTexts(
            f'{path} line {number} is neither a string nor an object with "text"',
            f'{path} 第 {number} 行既不是字符串，也不是带 "text" 的对象',
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadTexts(
            f"{path} line {number} holds half of a surrogate pair, which is no character",
            f"{path} 第 {number} 行含有不成对的代理码位，不是有效字符",
        ) from None
    return text
