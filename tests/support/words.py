"""A full-text index of a few texts, as a collection has one."""

import sqlite3

from server.store.lexical import TOKENIZER, ask, frequencies, indexed, match_expression


class Words:
    """A full-text index of texts that are numbered from 0."""

    def __init__(self, *texts: str) -> None:
        self.database = sqlite3.connect(":memory:")
        self.database.execute(
            f"CREATE VIRTUAL TABLE words USING fts5 (text, content = '', tokenize = '{TOKENIZER}')"
        )
        self.database.execute("CREATE VIRTUAL TABLE terms USING fts5vocab (words, row)")
        self.add(*texts)

    def add(self, *texts: str) -> None:
        self.database.executemany(
            "INSERT INTO words (rowid, text) VALUES (?, ?)",
            [(number, indexed(text)) for number, text in enumerate(texts)],
        )

    def asked(self, query: str) -> dict[str, int]:
        """What is looked for, with the number of texts that have it."""
        asked = ask(query)
        return asked.chosen(dict(self.database.execute(*frequencies(asked.lookups))))

    def expression(self, query: str) -> str | None:
        return match_expression(self.asked(query))

    def found(self, query: str) -> list[int]:
        """Best first."""
        expression = self.expression(query)
        if expression is None:
            return []
        rows = self.database.execute(
            "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank, rowid", (expression,)
        )
        return [number for (number,) in rows]

    def vocabulary(self) -> set[str]:
        return {term for (term,) in self.database.execute("SELECT term FROM terms")}
