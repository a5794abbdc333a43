"""What `doctor` finds, as values, as text for people in both languages, and as JSON for programs."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from server.errors import StartupError
from server.messages.message import Message

Level = Literal["ok", "warning", "error"]
MB = 1 << 20
LEVELS: dict[Level, str] = {"ok": "OK 正常", "warning": "WARNING 警告", "error": "ERROR 错误"}


class Finding(NamedTuple):
    """subject: a word of `doctor.CHECKS`. advice: None where there is nothing to do."""

    level: Level
    subject: str
    found: Message
    advice: Message | None = None


def refusal(subject: str, error: StartupError) -> Finding:
    """What a server would say and end with; it has its advice in itself."""
    return Finding("error", subject, error.sentence)


def healthy(findings: Sequence[Finding]) -> bool:
    """Whether a server would start and keep its promises; warnings do not keep it from that."""
    return all(finding.level != "error" for finding in findings)


def as_text(findings: Sequence[Finding]) -> str:
    lines = []
    for level, subject, found, advice in findings:
        lines += [f"{LEVELS[level]}  {subject}", f"    {found.english}", f"    {found.chinese}"]
        if advice is not None:
            lines += [f"    -> {advice.english}", f"    -> {advice.chinese}"]
    counts = {level: sum(each.level == level for each in findings) for level in LEVELS}
    lines.append(", ".join(f"{LEVELS[level]}: {count}" for level, count in counts.items()))
    return "".join(f"{line}\n" for line in lines)


def _both(message: Message) -> dict[str, str]:
    return {"english": message.english, "chinese": message.chinese}


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """For programs; keys and subjects stay, sentences may change."""
    return {
        "healthy": healthy(findings),
        "findings": [
            {
                "level": level,
                "subject": subject,
                "found": _both(found),
                "advice": None if advice is None else _both(advice),
            }
            for level, subject, found, advice in findings
        ],
    }
