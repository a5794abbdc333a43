"""What a line of a document begins: a heading, an article, an item of a list, a function."""

import re
from typing import NamedTuple

# How firmly a text may be cut before a line: what is firmer is cut first.
LINE, ITEM, ARTICLE, HEADING = 1, 2, 3, 4

CHINESE_NUMBER = "0-9０-９一二三四五六七八九十百千零〇两"
# 第二条 is an article where a blank or a mark follows; 第二条规定 is mentioned.
ARTICLE_MARK = rf"第[{CHINESE_NUMBER}]{{1,9}}条(?:之[{CHINESE_NUMBER}]{{1,3}})?(?=[\s：:（(【]|\Z)"
CHINESE = re.compile(
    rf"第[{CHINESE_NUMBER}]{{1,9}}(?P<part>编|分编|部分|篇|章|节)(?:\s|\Z)"
    rf"|(?P<article>{ARTICLE_MARK})"
    rf"|(?P<item>（[{CHINESE_NUMBER}]{{1,3}}）|\([{CHINESE_NUMBER}]{{1,3}}\))"
    r"|(?P<roman>[一二三四五六七八九十]{1,3})[、．.]"
)
MARKDOWN = re.compile(r"(#{1,6})[ \t]+(?=\S)")
ENGLISH = re.compile(
    r"(?P<part>part|title|chapter|schedule|annex|appendix)\s+(?:\d{1,4}|[ivxlc]{1,7}|[a-z])\b(?![\s]*[a-z])"
    r"|(?P<article>article|section|clause|§)\s*\d{1,4}(?:\.\d{1,3}){0,4}\b",
    re.IGNORECASE,
)
NUMBERED = re.compile(r"(?P<number>\d{1,3}(?:\.\d{1,3}){1,5})\.?[ \t\u3000]+(?=\S)")
LISTED = re.compile(
    r"(?:[-*+•·▪◦‣–]|\d{1,3}[.)、．]|\(?[a-zA-Z]\)|\(?[ivx]{1,5}\))[ \t\u3000]+(?=\S)|\d{1,3}[、．]|[①-⑳]"
)
DEFINITION = re.compile(
    r"(?:@|(?:async\s+)?def\s+\w|class\s+\w|(?:pub(?:\([^)]*\))?\s+)?(?:async\s+)?(?:unsafe\s+)?"
    r"(?:fn|impl|trait|mod|struct|enum)\b|func\s|(?:export\s+)?(?:default\s+)?(?:async\s+)?function\b"
    r"|(?:export\s+)?(?:abstract\s+)?(?:class|interface|namespace)\s+\w"
    r"|(?:(?:public|private|protected|internal|static|final|virtual|override)\s+)+\w"
    r"|(?:export\s+)?(?:const|let|var)\s+\w+\s*=\s*(?:async\s*)?(?:\(|function\b)|CREATE\s+\w+)"
)
# Places of units in each other. A Markdown heading ends whatever was open, and so on.
PARTS = {"编": 20, "篇": 20, "部分": 20, "分编": 21, "章": 22, "节": 23}
OF_ROMAN, OF_ARTICLE, OF_NUMBERED, OF_ITEM, OF_LIST = 30, 40, 41, 50, 60
# A heading is short, and no sentence.
LONGEST_HEADING = 60
STOPS = "。；！？;!?，,"


class Begun(NamedTuple):
    """What begins at a line. level: of a unit, None where it begins none. label: characters of its name."""

    strength: int
    level: int | None
    label: int


def begun(line: str, ends_before: bool) -> Begun | None:
    """Return what a line of prose begins, None for nothing.

    line: without blanks at its ends. ends_before: whether a sentence had ended before it.
    """
    first = line[0]
    if first == "#":
        return _markdown(line)
    if first in "第（(一二三四五六七八九十":
        found = _chinese(line, ends_before)
        return found or (_listed(line) if first == "(" else None)
    if first in "PpTtCcSsAa§" and (found := _english(line, ends_before)):
        return found
    if "0" <= first <= "9" and (found := _numbered(line)):
        return found
    if not first.isalpha() or line[1:2] == ")":
        return _listed(line)
    return None


def _markdown(line: str) -> Begun | None:
    mark = MARKDOWN.match(line)
    return None if mark is None else Begun(HEADING, len(mark[1]), len(line))


def _chinese(line: str, ends_before: bool) -> Begun | None:
    mark = CHINESE.match(line)
    if mark is None:
        return None
    if mark["part"]:
        return Begun(HEADING, PARTS[mark["part"]], len(line)) if _is_heading(line) else None
    if mark["article"]:
        return Begun(ARTICLE, OF_ARTICLE, mark.end()) if ends_before else None
    if mark["item"]:
        return Begun(ITEM, OF_ITEM, mark.end())
    return Begun(HEADING, OF_ROMAN, len(line)) if _is_heading(line) else Begun(ITEM, None, 0)


def _english(line: str, ends_before: bool) -> Begun | None:
    mark = ENGLISH.match(line)
    if mark is None or not ends_before:
        return None
    if mark["part"]:
        return Begun(HEADING, 22, len(line)) if _is_heading(line) else None
    return Begun(ARTICLE, OF_ARTICLE, len(line) if _is_heading(line) else mark.end())


def _numbered(line: str) -> Begun | None:
    mark = NUMBERED.match(line)
    if mark is None:
        return _listed(line)
    level = OF_NUMBERED + mark["number"].count(".")
    return Begun(ARTICLE, level, len(line) if _is_heading(line) else mark.end())


def _listed(line: str) -> Begun | None:
    mark = LISTED.match(line)
    return None if mark is None else Begun(ITEM, None, 0)


def _is_heading(line: str) -> bool:
    return len(line) <= LONGEST_HEADING and line[-1] not in STOPS and "。" not in line
