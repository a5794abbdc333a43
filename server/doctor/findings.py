"""Findings of `doctor` as values, as text for people, and as JSON for programs."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from server.errors import StartupError
from server.messages.message import Language, Message

Level = Literal["ok", "warning", "error"]
MB = 1 << 20
LEVELS: dict[Level, Message] = {
    "ok": Message("OK"),
    "warning": Message("WARNING"),
    "error": Message("ERROR"),
}


class Finding(NamedTuple):
    """Result of a check. subject: a key of `examine.CHECKS`. advice: None if nothing is to be done."""

    level: Level
    subject: str
    found: Message
    advice: Message | None = None


def refusal(subject: str, error: StartupError) -> Finding:
    """Return the error with which a server would not start; its sentence contains the advice."""
    return Finding("error", subject, error.sentence)


def healthy(findings: Sequence[Finding]) -> bool:
    """Return whether a server would start and keep its promises; warnings do not prevent that."""
    return all(finding.level != "error" for finding in findings)


def as_text(findings: Sequence[Finding], language: Language) -> str:
    """Return the findings for people, and how many there are of each level."""
    lines = []
    for level, subject, found, advice in findings:
        lines += [f"{LEVELS[level].text(language)}  {subject}", f"    {found.text(language)}"]
        if advice is not None:
            lines.append(f"    -> {advice.text(language)}")
    counts = tuple(
        Message(
            "{level}: {number}", level=said, number=sum(each.level == level for each in findings)
        )
        for level, said in LEVELS.items()
    )
    lines.append(Message("{counts}", counts=counts).text(language))
    return "".join(f"{line}\n" for line in lines)


def _both(message: Message) -> dict[str, str]:
    return {"english": message.english, "chinese": message.chinese}


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings for programs: keys and subjects are stable, sentences may change."""
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
