"""The table in the manual says of each database what its adapter does."""

import pytest

from server.databases.database import VectorDatabase
from server.store.records import Info
from tests.support.database_table import COLUMNS, PAGES, SENTENCES, TABLE, column, shown, translated
from tests.support.databases import Engine


def cells(language: str) -> list[list[str]]:
    found = TABLE.search(PAGES[language].read_text(encoding="utf-8"))
    assert found
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in found[0].splitlines()
    ]


@pytest.mark.parametrize("language", PAGES)
def test_the_manual_says_what_a_database_does(
    engine: Engine, database: VectorDatabase, info: Info, language: str
) -> None:
    """After a change: python -m tests.support.database_table --write."""
    if engine.name not in COLUMNS:
        pytest.skip("another form of a database that is in the table")
    heads, _, *rows = cells(language)
    at = heads.index(COLUMNS[engine.name])
    expected = {
        SENTENCES[row][language] if row in SENTENCES else translated(row, language): shown(
            cell, language
        )
        for row, cell in column(database, info).items()
    }
    assert {row[0]: row[at] for row in rows} == expected
