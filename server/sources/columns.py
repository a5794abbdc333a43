"""Which column of a table, or key of a JSON object, is the text, the title and the id of a document.

A column is named with a flag, or it has the key's own name, or one of the usual names below. Where none is
the text, a question and its answer are the title and the text, as in a sheet of frequent questions. There
the question is the title even beside a column such as 标题, which is a heading of many questions: only text
and title are searched. Two usual names for one key are an error, because a wrong guess would look right.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from server.messages.message import Message
from server.sources.checked import SHOWN, NotADocument

Role = Literal["text", "title", "id"]
# As `plain` writes them.
USUAL: Mapping[Role, frozenset[str]] = {
    "text": frozenset({"text", "content", "body", "正文", "内容", "文本", "内文", "內容", "內文"}),
    "title": frozenset({"title", "标题", "名称", "標題", "名稱"}),
    "id": frozenset({"id", "编号", "序号", "編號", "序號"}),
}
# Columns of frequent questions, where no column has a usual name of the text. Both must be there.
FAQ: Mapping[Role, frozenset[str]] = {
    "text": frozenset({"answer", "答案", "答", "回答", "解答"}),
    "title": frozenset({"question", "问题", "问", "提问", "問題", "問", "提問"}),
}
# The value of a flag that stands for no column.
NONE = "none"


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that were asked for: a name, "none", or None to find them."""

    text: str | None = None
    title: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns of one table, None where it has none; guessed: the keys that only a usual name gave."""

    text: str
    title: str | None = None
    id: str | None = None
    guessed: tuple[Role, ...] = ()

    @property
    def guesses(self) -> tuple[tuple[str, str], ...]:
        """The keys that a usual name gave, each with its column."""
        columns = {"text": self.text, "title": self.title, "id": self.id}
        return tuple((role, columns[role] or "") for role in self.guessed)

    def without_id(self) -> "Roles":
        """Return the roles without a column for the id, which a guess had found."""
        return replace(self, id=None, guessed=tuple(r for r in self.guessed if r != "id"))

    def __contains__(self, name: object) -> bool:
        return name is not None and name in (self.text, self.title, self.id)


def roles_of(names: Sequence[str], asked: Columns) -> Roles:
    """Return the columns of the text, the title and the id; raises NotADocument.

    names: all columns or keys. Only a text must be there.
    """
    text, is_usual = _column("text", names, asked.text)
    is_faq = text is None and all(_found(role, names, FAQ) for role in FAQ)
    if is_faq:
        text, is_usual = only("text", _found("text", names, FAQ)), True
    if text is None:
        raise NotADocument(
            "no column is named text, or as texts usually are, only: {columns}; name the one of the "
            "texts with --text-column",
            columns=listed(names),
        )
    if is_faq and asked.title is None:
        title, is_usual_title = only("title", _found("title", names, FAQ)), True
    else:
        title, is_usual_title = _column("title", names, asked.title)
    id, is_usual_id = _column("id", names, asked.id)
    usual: Mapping[Role, bool] = {"text": is_usual, "title": is_usual_title, "id": is_usual_id}
    given = [name for name in (text, title, id) if name is not None]
    if len(set(given)) < len(given):
        raise NotADocument(
            "text, title and id are {given}: one column cannot be two of them",
            given=tuple(given),
        )
    return Roles(text, title, id, tuple(role for role, found in usual.items() if found))


def _column(role: Role, names: Sequence[str], asked: str | None) -> tuple[str | None, bool]:
    """Return the column of a key, None where there is none, and whether it was guessed."""
    if asked == NONE and asked not in names and role != "text":
        return None, False
    if asked is not None:
        return named(asked, role, names), False
    if role in names:
        return role, False
    found = only(role, _found(role, names, USUAL))
    return found, found is not None


def _found(role: Role, names: Sequence[str], usual: Mapping[Role, frozenset[str]]) -> Sequence[str]:
    """Return the columns that have one of the usual names of a key."""
    return [name for name in names if plain(name) in usual[role]]


def named(asked: str, role: str, names: Sequence[str]) -> str:
    """Return the column that a flag names; raises NotADocument if it is not one of `names`."""
    if asked not in names:
        raise NotADocument(
            "there is no column {asked}, which --{role}-column names, only: {columns}",
            asked=asked,
            role=role,
            columns=listed(names),
        )
    return asked


def only(role: str, found: Sequence[str]) -> str | None:
    """Return the one column with a usual name, None without one; raises NotADocument for several."""
    if len(found) > 1:
        raise NotADocument(
            "several columns could be the {role}: {found}; name one with --{role}-column",
            role=role,
            found=tuple(found),
        )
    return found[0] if found else None


def plain(name: str) -> str:
    """Return a name as it looks: without case, width and what is invisible."""
    return unicodedata.normalize("NFKC", name).strip("_ \u200b\ufeff").casefold()


def listed(names: Iterable[str]) -> str | Message:
    """Return the names of columns for a message."""
    found = ", ".join(filter(None, names))
    if not found:
        return Message("none")
    return found if len(found) <= 2 * SHOWN else f"{found[: 2 * SHOWN]}…"
