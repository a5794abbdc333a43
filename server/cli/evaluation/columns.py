"""Which column of a table, or key of a JSON object, is the question, the right answer and its relevance.

A column is named with a flag or has one of the usual names below. Several that could be the answer are an
error, because a wrong guess would look right: "id" may be the question's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from server.sources.checked import NotADocument
from server.sources.columns import listed, named, only, plain

QUESTION = frozenset({"question", "query", "q", "问题", "提问", "查询", "问句", "問題", "查詢"})
# Names that only ids of documents have; they come before the others.
IDS = frozenset(
    "ids doc_id doc_ids docid document_id document_ids answer_id answer_ids corpus-id corpus_id"
    " relevant relevant_ids 文档编号 答案编号 文檔編號".split()
)
ANSWER = frozenset(
    "answer answers document documents passage context text content id"
    " 答案 回答 文档 段落 正文 内容 编号 編號 文檔 內容".split()
)
RELEVANCE = frozenset({"relevance", "grade", "score", "相关度", "相关性", "分数", "相關度"})


@dataclass(frozen=True, slots=True)
class Asked:
    """The columns that flags name; None to find them."""

    question: str | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns of one file."""

    question: str
    answer: str
    relevance: str | None


def roles_of(names: Sequence[str], asked: Asked) -> Roles:
    """Return the columns of a file; raises NotADocument."""
    if asked.question is not None:
        question = named(asked.question, "question", names)
    else:
        question = _only("question", [name for name in names if plain(name) in QUESTION], names)
    others = [name for name in names if name != question]
    if asked.answer is not None:
        answer = named(asked.answer, "answer", others)
    else:
        found = [name for name in others if plain(name) in IDS] or [
            name for name in others if plain(name) in ANSWER
        ]
        answer = _only("answer", found, others)
    grades = [name for name in others if plain(name) in RELEVANCE and name != answer]
    return Roles(question, answer, grades[0] if grades else None)


def _only(role: str, found: Sequence[str], names: Sequence[str]) -> str:
    column = only(role, found)
    if column is None:
        raise NotADocument(
            "no column has a usual name of the {role}, only: {columns}; name it with --{role}-column",
            role=role,
            columns=listed(names),
        )
    return column
