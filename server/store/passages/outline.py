"""The outline of a document: where it may be cut, and which headings stand above a place.

Made of one pass over the lines, in linear time. It knows Markdown, Chinese and English laws and contracts,
numbered sections, lists, tables of cells between bars, and code. What it does not know is prose.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from server.store.passages.lines import (
    ARTICLE,
    ARTICLE_MARK,
    DEFINITION,
    HEADING,
    ITEM,
    LINE,
    OF_ARTICLE,
    begun,
)
from server.store.records import Span

# Changes with anything that changes what is above a place of the same text: the index of words depends on it.
OUTLINE = "outline-1"
# Characters of a heading that are repeated, of all headings above a place, and of a table's first row.
MAX_LABEL, MAX_PATH, MAX_ROW = 60, 160, 160
SEPARATOR = " > "
# subtle: begins with what is no blank, so that rows of blanks are read once.
SHOWN_LINE = re.compile(r"\S[^\n]*")
FENCE = re.compile(r"(?:```|~~~)")
RULE = re.compile(r"[\s|:+-]*\Z")
# Articles within a line, as PDF programs write them.
WITHIN = re.compile(rf"(?<=[。；！？])[ \t\u3000]*(?={ARTICLE_MARK})")
ITEMS_WITHIN = re.compile(
    r"(?<=[。；：;:])\s?(?=（[一二三四五六七八九十]{1,3}）|\([一二三四五六七八九十]{1,3}\)|[1-9]\d?[．、])"
)
ENDS = "。；：！？.;:!?）)”」』》"
# Levels of functions within one another, by columns of indentation.
OF_CODE = 70
# Lines that are looked at to tell code from prose, and how many of them must look like it.
LOOKED_AT, LEAST_DEFINITIONS = 400, 2
CODE_END = re.compile(r"[;{}:,(\[\])>\\]\s*\Z")
# Lines of a table at least: its header and two rows.
LEAST_ROWS = 3
# Columns of a line that was broken because it was full, and the share of such lines.
NARROW, WIDE, FULL, MOSTLY = 36, 160, 0.75, 0.5


@dataclass(slots=True)
class Outline:
    """The outline of one text.

    cuts, strengths: where something begins, ascending, and how firmly the text may be cut there. verbatim:
    tables and code, which have lines and no sentences. width: columns of a full line where the lines of
    the text were broken at a width, 0 where they were not. headings: where lines begin that belong to what
    follows them.
    """

    text: str
    cuts: list[int] = field(default_factory=list)
    strengths: list[int] = field(default_factory=list)
    verbatim: list[Span] = field(default_factory=list)
    headings: set[int] = field(default_factory=set)
    width: int = 0
    # Units: where each begins, its label, and the place of the one around it, or -1.
    begins: list[int] = field(default_factory=list)
    labels: list[Span] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    # Tables: where each begins, where its header ends, and its own end.
    tables: list[tuple[int, int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, text: str) -> "Outline":
        """Return the outline of a text."""
        made = cls(text)
        _Pass(made).run()
        return made

    def strength(self, place: int) -> int:
        """Return how firmly the text may be cut where this place begins; 0 where nothing begins there."""
        found = bisect_left(self.cuts, place)
        same = found < len(self.cuts) and self.cuts[found] == place
        return self.strengths[found] if same else 0

    def is_full(self, begin: int, end: int) -> bool:
        """Return whether a line was broken because it was full."""
        if not self.width or end - begin > WIDE:
            return False
        return _columns(self.text[begin:end].rstrip()) >= FULL * self.width

    def context(self, begin: int, title: str | None = None, skip: int = 0) -> str:
        """Return what must be known of a chunk that begins at this place: headings, and a table's header.

        Empty, or whole lines, the last one ended. A heading that is the document's title is left out.
        skip: how many outer headings are left out as well.
        """
        header = self._header(begin)
        path = SEPARATOR.join(self.path(begin, title)[skip:])
        return "".join(f"{line}\n" for line in (path, header) if line)

    def key(self, begin: int) -> tuple[int, int]:
        """Return what the context of a place depends on, without making it."""
        return self._unit(begin), self._table(begin)

    def _unit(self, begin: int) -> int:
        found = bisect_right(self.begins, begin) - 1
        if found >= 0 and self.begins[found] == begin:
            found = self.parents[found]
        return found

    def path(self, begin: int, title: str | None = None) -> Sequence[str]:
        """Return the headings above a place, outermost first; one that is the document's title is left out."""
        found, length, unit = list[str](), 0, self._unit(begin)
        while unit >= 0:
            begin_of, end_of = self.labels[unit]
            label = self.text[begin_of : min(end_of, begin_of + MAX_LABEL)].strip("# \t\u3000")
            if label and label != title:
                length += len(label) + len(SEPARATOR)
                if length > MAX_PATH:
                    break
                found.append(label)
            unit = self.parents[unit]
        return found[::-1]

    def _table(self, begin: int) -> int:
        found = bisect_right(self.tables, (begin, len(self.text) + 1, 0)) - 1
        if found >= 0 and self.tables[found][1] <= begin < self.tables[found][2]:
            return found
        return -1

    def _header(self, begin: int) -> str:
        table = self._table(begin)
        if table < 0:
            return ""
        first, end, _ = self.tables[table]
        return self.text[first:end].split("\n", 1)[0].strip()[:MAX_ROW]


class _Pass:
    """One pass over the lines of a text."""

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.text = outline.text
        self.is_code = _is_code(self.text)
        # Open units: level and place among the units.
        self._open: list[tuple[int, int]] = []
        self._fence: tuple[str, int] | None = None
        self._rows: list[tuple[int, int]] = []
        self._code_from: int | None = 0 if self.is_code else None
        # Where the comments and decorators right above a line begin.
        self._above: int | None = None
        self._ended = True

    def run(self) -> None:
        last_end = 0
        widths: list[int] = []
        for found in SHOWN_LINE.finditer(self.text):
            place, end = found.span()
            # Blank lines, and how far the line is indented.
            gap = self.text[max(last_end, place - 256) : place]
            blank = gap.count("\n") > 1
            indent = len(gap) - gap.rfind("\n") - 1
            line = found.group().rstrip()
            self._line(place, place + len(line), line, indent, blank)
            if len(widths) < LOOKED_AT and self._fence is None:
                widths.append(_columns(line[: WIDE + 1]))
            last_end = end
        self._end_table()
        if self._code_from is not None:
            self.outline.verbatim.append(Span(self._code_from, len(self.text)))
        self.outline.width = 0 if self.is_code else _full_width(widths)

    def _line(self, place: int, end: int, line: str, indent: int, blank: bool) -> None:
        if FENCE.match(line) and not self.is_code:
            self._end_table()
            self._fenced(place, end, line)
        elif self._code_from is not None:
            self._code(place, end, line, indent, blank)
        elif _is_row(line):
            if blank:
                self._end_table()
            if not self._rows:
                self._cut(place, ITEM)
            self._rows.append((place, end))
            self._ended = True
        else:
            self._end_table()
            self._prose(place, end, line, blank)

    def _fenced(self, place: int, end: int, line: str) -> None:
        if self._fence is None:
            self._fence = (line[:3], place)
            self.outline.headings.add(place)
            self._code_from = place
            self._cut(place, LINE)
        elif line.startswith(self._fence[0]):
            self.outline.verbatim.append(Span(self._fence[1], end))
            self._fence = self._code_from = None
            self._ended = True

    def _code(self, place: int, end: int, line: str, indent: int, blank: bool) -> None:
        if line[0] in "#/*@;" or line.startswith(("--", '"""')):
            if self._above is None or blank:
                self._above = place
            if line[0] != "@":
                if blank:
                    self._cut(place, LINE)
                return
        elif DEFINITION.match(line):
            first = place if self._above is None or blank else self._above
            strength = ARTICLE if indent == 0 else ITEM
            self._recut(first, strength if self._fence is None else ITEM)
            if self._fence is None:
                self._unit(OF_CODE + indent, first, place, end)
        elif blank:
            self._cut(place, LINE)
        if line[0] != "@":
            self._above = None

    def _prose(self, place: int, end: int, line: str, blank: bool) -> None:
        found = begun(line, self._ended or blank or place == 0)
        if found is None:
            if blank:
                self._cut(place, LINE)
        else:
            self._cut(place, found.strength)
            if found.level is not None:
                self._unit(found.level, place, place, place + found.label)
            if found.strength == HEADING:
                self.outline.headings.add(place)
        self._within(place, end, line)
        self._ended = line[-1] in ENDS or (found is not None and found.strength == HEADING)

    def _within(self, place: int, end: int, line: str) -> None:
        if "第" not in line and "（" not in line and "、" not in line and "．" not in line:
            return
        marks = [(mark.end(), ARTICLE) for mark in WITHIN.finditer(line)]
        marks += [(mark.end(), ITEM) for mark in ITEMS_WITHIN.finditer(line)]
        for offset, strength in sorted(marks):
            at = place + offset
            if self.outline.cuts and self.outline.cuts[-1] >= at:
                continue
            self._cut(at, strength)
            if strength == ARTICLE:
                label = line.find("条", offset) + 1
                self._unit(OF_ARTICLE, at, at, place + label)

    def _cut(self, place: int, strength: int) -> None:
        cuts, strengths = self.outline.cuts, self.outline.strengths
        if cuts and cuts[-1] == place:
            strengths[-1] = max(strengths[-1], strength)
        else:
            cuts.append(place)
            strengths.append(strength)

    def _recut(self, place: int, strength: int) -> None:
        """Cut at a place that may have been passed already: where the comments of a function begin."""
        found = bisect_left(self.outline.cuts, place)
        if found < len(self.outline.cuts) and self.outline.cuts[found] == place:
            self.outline.strengths[found] = strength
        else:
            self.outline.cuts.insert(found, place)
            self.outline.strengths.insert(found, strength)

    def _unit(self, level: int, begin: int, label: int, label_end: int) -> None:
        outline = self.outline
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        outline.parents.append(self._open[-1][1] if self._open else -1)
        outline.begins.append(begin)
        outline.labels.append(Span(label, label_end))
        self._open.append((level, len(outline.begins) - 1))

    def _end_table(self) -> None:
        rows, self._rows = self._rows, []
        if len(rows) < LEAST_ROWS:
            return
        header = 1 if not RULE.match(self.text, *rows[1]) else 2
        self.outline.headings.update(begin for begin, _ in rows[:header])
        self.outline.tables.append((rows[0][0], rows[header - 1][1], rows[-1][1]))
        self.outline.verbatim.append(Span(rows[0][0], rows[-1][1]))


def _is_row(line: str) -> bool:
    return " | " in line or (line[0] == "|" and line[-1] == "|" and len(line) > 2)


def _is_code(text: str) -> bool:
    """Return whether a text is a program: it defines things, and most of its lines look like code."""
    shown = looking = definitions = 0
    for found in islice(SHOWN_LINE.finditer(text, 0, LOOKED_AT * WIDE), LOOKED_AT):
        line = found.group()
        indented = text[max(0, found.start() - 2) : found.start()] == "  " or (
            text[found.start() - 1 : found.start()] == "\t"
        )
        shown += 1
        defines = DEFINITION.match(line) is not None
        definitions += defines and line[0] != "@"
        if defines or indented or CODE_END.search(line[-8:]) or line[0] in "#/*}":
            looking += 1
    return definitions >= LEAST_DEFINITIONS and looking >= 0.6 * shown


def _full_width(widths: Sequence[int]) -> int:
    """Return the columns of a full line where most lines are nearly as wide; 0 where they are not."""
    if len(widths) < 5:
        return 0
    full = sorted(widths)[int(0.95 * (len(widths) - 1))]
    many = sum(FULL * full <= width <= full for width in widths) >= MOSTLY * len(widths)
    return full if NARROW <= full <= WIDE and many else 0


def _columns(line: str) -> int:
    """Return the columns of a line on a terminal, where Chinese characters have two."""
    return len(line) + sum(map("\u2e80".__le__, line))
