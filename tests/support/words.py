"""A full-text index of a few texts, as a collection has one."""

import sqlite3

from server.store.lexical import TOKENIZER, ask, frequencies, indexed, match_expression, ranked


class Words:
    """A full-text index of texts that are numbered from 0."""

    def __init__(self, *texts: str) -> None:
        self.database = sqlite3.connect(":memory:")
        self.database.execute(
            f"CREATE VIRTUAL TABLE words USING fts5 (text, content = '', tokenize = '{TOKENIZER}')"
        )
        self.database.execute("CREATE VIRTUAL TABLE terms USING fts5vocab (words, row)")
        self.n_texts = 0
        self.add(*texts)

    def add(self, *texts: str) -> None:
        self.n_texts += len(texts)
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
        asked = ask(query)
        counts = dict(self.database.execute(*frequencies(asked.lookups)))
        expression = match_expression(asked.chosen(counts))
        if expression is None:
            return []
        sql, parameters = ranked(expression, asked.boosts(counts, self.n_texts))
        rows = self.database.execute(f"{sql} ORDER BY score, rowid", parameters)
        return [number for number, _ in rows]

    def vocabulary(self) -> set[str]:
        return {term for (term,) in self.database.execute("SELECT term FROM terms")}
