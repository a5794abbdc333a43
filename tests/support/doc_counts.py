"""Command line: python -m tests.support.doc_counts

Prints how many pages and words the documents have in each language. An English word is a run of letters
and digits. Chinese has no blanks between words, so each of its characters counts. Code blocks count apart.
"""

import re
import sys
from dataclasses import dataclass

from tests.support.processes import ROOT

READMES = {"en": "README.md", "zh": "README.zh-CN.md"}
FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
WORD = re.compile(r"[^\W_]+(?:['_.-][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class Counts:
    """What one language has. han: Chinese characters; code_lines: lines in blocks of code."""

    pages: int
    words: int
    han: int
    code_lines: int


def counts(language: str) -> Counts:
    """Return the counts of a language's pages and its README."""
    pages = [ROOT / READMES[language], *sorted((ROOT / "docs" / language).rglob("*.md"))]
    words = han = lines = 0
    for page in pages:
        text = page.read_text(encoding="utf-8")
        lines += sum(block[0].count("\n") - 1 for block in FENCE.finditer(text))
        prose = FENCE.sub("", text)
        han += len(HAN.findall(prose))
        words += len(WORD.findall(HAN.sub(" ", prose)))
    return Counts(len(pages), words, han, lines)


def main() -> int:
    for language in READMES:
        found = counts(language)
        sys.stdout.write(
            f"{language}: {found.pages} pages, {found.words:,} words, {found.han:,} Chinese characters,"
            f" {found.code_lines:,} lines of code\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
