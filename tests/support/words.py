"""A full-text index of a few texts, as a collection has one, and what is marked in a text."""

import sqlite3

from server.store.lexical import TOKENIZER, ask, highlight, indexed
from server.store.words.asked import Asked
from server.store.words.ranking import Ranking, frequencies, ranked


def marked(text: str, query: str | Asked) -> list[str]:
    """Return what a search for the query marks in a text."""
    return [text[begin:end] for begin, end in highlight(text, query)]


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
        ranking = self.ranking(query)
        return None if ranking is None else str(ranking.parameters[-1])

    def ranking(self, query: str) -> Ranking | None:
        asked = ask(query)
        if not asked.lookups:
            return None
        counts = dict(self.database.execute(*frequencies(asked.lookups)))
        return ranked(asked, counts, self.n_texts)

    def found(self, query: str) -> list[int]:
        """Best first."""
        if (ranking := self.ranking(query)) is None:
            return []
        rows = self.database.execute(f"{ranking.sql} ORDER BY score, rowid", ranking.parameters)
        return [number for number, _ in rows]

    def vocabulary(self) -> set[str]:
        return {term for (term,) in self.database.execute("SELECT term FROM terms")}
