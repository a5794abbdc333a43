"""The table of what each vector database does, in docs, from the adapters themselves on real databases.

python -m tests.support.database_table          # print it
python -m tests.support.database_table --write  # put it into docs/en and docs/zh
"""

import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from server.databases.address import opened
from server.databases.database import VectorDatabase
from server.errors import InvalidRequest
from server.store.filters.tree import parse
from server.store.records import Info
from tests.support.databases import ENGINES, INFO, Engine, entry, vector
from tests.support.processes import ROOT

# Columns by the names of ENGINES; another engine of the suite is one of these in another form.
COLUMNS = {"qdrant": "Qdrant", "milvus": "Milvus", "postgres": "PostgreSQL"}
PAGES = {name: ROOT / "docs" / name / "reference" / "databases.md" for name in ("en", "zh")}
TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end of table -->\n)", re.DOTALL)
LONGEST = 256
Cell = bool | int
# Conditions of filters, each with a bound of its own where it has one.
CONDITIONS: Mapping[str, dict[str, object]] = {
    "`$eq`, `$ne`, `$in`, `$nin`": {"a": {"$in": ["x", 1, True, None]}},
    "`$exists`": {"a": {"$exists": True}},
    "`$and`, `$or`, `$not`": {"$or": [{"a": 1}, {"$not": {"a": "x"}}]},
    "`$gt`, `$gte`, `$lt`, `$lte` / number": {"a": {"$gt": 2**53 + 1}},
    "`$gt`, `$gte`, `$lt`, `$lte` / `$date`": {"a": {"$lt": {"$date": "2024-01-01"}}},
    "`$contains`": {"a": {"$contains": "x"}},
    "`$prefix`": {"a": {"$prefix": "x"}},
    "`$id`, `$title`": {"$or": [{"$id": {"$prefix": "x"}}, {"$title": "x"}]},
    "`$text`": {"$text": {"$contains": "x"}},
}
ORDER_OF_TEXTS = "`$gt`, `$gte`, `$lt`, `$lte` / text"
HEADS = {"en": "what", "zh": "项目"}
SENTENCES: Mapping[str, Mapping[str, str]] = {
    "own_words": {"en": "ranks by words itself", "zh": "自行按词语排序"},
    "own_fusion": {"en": "fuses both searches itself", "zh": "自行融合两种检索"},
    "whole_documents": {
        "en": "no search sees chunks of two versions of a document",
        "zh": "检索不会同时看到同一文档两个版本的分块",
    },
}


def column(database: VectorDatabase, info: Info) -> dict[str, Cell]:
    """Return what a database does, by the row: whether, or of texts up to how many bytes."""
    database.put(info, [entry(1, "id", "text", {"a": "x"}, ends=(2, 4))])
    found: dict[str, Cell] = {}
    for row, condition in CONDITIONS.items():
        found[row] = evaluates(database, info, condition)
        if row.endswith("number"):
            found[ORDER_OF_TEXTS] = longest(
                lambda size: evaluates(database, info, {"a": {"$gt": "x" * size}})
            )
    abilities = database.abilities
    return found | {name: bool(getattr(abilities, name)) for name in SENTENCES}


def evaluates(database: VectorDatabase, info: Info, condition: dict[str, object]) -> bool:
    """Return whether every call takes a condition; a refusal is one by name."""
    filter = parse(condition)
    try:
        database.count(info, filter)
        database.page(info, -1, 10, filter)
        database.nearest(info, vector(1), 10, filter)
    except InvalidRequest as error:
        assert "cannot be evaluated by" in error.message
        return False
    return True


def longest(holds: Callable[[int], bool]) -> Cell:
    """Return True where the longest text is compared, else the bytes of the longest that is; False for none."""
    if holds(LONGEST):
        return True
    least, most = 0, LONGEST
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if holds(middle) else (least, middle)
    return least or False


def shown(cell: Cell, language: str) -> str:
    if isinstance(cell, bool):
        return {"en": "yes" if cell else "no", "zh": "是" if cell else "否"}[language]
    return {"en": f"up to {cell} bytes", "zh": f"最多 {cell} 字节"}[language]


def table(columns: Mapping[str, Mapping[str, Cell]], language: str) -> str:
    names = list(columns)
    rows = list(columns[names[0]])
    lines = [[HEADS[language], *names], ["---"] * (len(names) + 1)]
    for row in rows:
        head = SENTENCES[row][language] if row in SENTENCES else translated(row, language)
        lines.append([head, *(shown(columns[name][row], language) for name in names)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def translated(row: str, language: str) -> str:
    names, _, kind = row.partition(" / ")
    kinds = {
        "number": {"en": "with numbers", "zh": "与数字比较"},
        "text": {"en": "with texts", "zh": "与文本比较"},
        "`$date`": {"en": "with `$date`", "zh": "与 `$date` 比较"},
    }
    return f"{names} {kinds[kind][language]}" if kind else names


def measured(engine: Engine, folder: Path) -> dict[str, Cell]:
    """Start a database and return its column."""
    with engine.running(folder / engine.name) as address:
        database = opened(address)
        info = replace(INFO, name="of_the_table")
        try:
            database.create(info)
            return column(database, info)
        finally:
            database.drop(info.name)
            database.close()


def main(arguments: Sequence[str]) -> int:
    known = [engine for engine in ENGINES if engine.name in COLUMNS]
    missing = [engine.missing for engine in known if engine.missing]
    if missing:
        sys.stderr.write("\n".join(missing) + "\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        columns = {COLUMNS[engine.name]: measured(engine, Path(folder)) for engine in known}
    for language, page in PAGES.items():
        written = table(columns, language)
        if "--write" in arguments:
            text = page.read_text(encoding="utf-8")
            page.write_text(TABLE.sub(written, text), encoding="utf-8")
        else:
            sys.stdout.write(written)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
