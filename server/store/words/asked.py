"""What a query asks for: words, identifiers, and what is quoted or excluded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from server.errors import InvalidRequest

# Quoted phrases of a query, and exclusions.
MAX_QUOTES = 32


@dataclass(frozen=True, slots=True)
class Phrase:
    """An identifier in a query.

    pairs: terms that a text has in a row. wholes: terms of texts in which nothing is added to it.
    words: its single words. is_strict: whether they are looked for only where no text has the phrase.
    """

    pairs: tuple[str, ...]
    wholes: tuple[str, ...]
    words: tuple[str, ...]
    is_strict: bool

    @property
    def text(self) -> str:
        """The phrase as FTS5 reads it: the terms, with blanks between."""
        return " ".join(self.pairs)


@dataclass(frozen=True, slots=True)
class Quote:
    """What stands between quotation marks in a query, or after a minus.

    rows: phrases that a text must all have; each is terms in a row, with blanks between.
    """

    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a query asks for.

    words, phrases: what texts should have. exact: the few words of a short query as it has them, each
    with its base form, which is among `words`. required: what texts must have. excluded: what they
    must not have.
    """

    words: tuple[str, ...]
    phrases: tuple[Phrase, ...]
    exact: tuple[tuple[str, str], ...] = ()
    required: tuple[Quote, ...] = ()
    excluded: tuple[Quote, ...] = ()

    @property
    def terms(self) -> list[str]:
        """Every term that a text should have, each once."""
        of_phrases = [(*each.pairs, *each.wholes, *each.words) for each in self.phrases]
        return list(dict.fromkeys(chain(self.words, *of_phrases)))

    @property
    def rows(self) -> list[str]:
        """Every phrase that a text must have, each once."""
        return _rows(self.required)

    @property
    def lookups(self) -> list[str]:
        """What `frequencies` must count: every term, and every phrase of several terms."""
        phrases = (each.text for each in self.phrases)
        exact = (word for word, _ in self.exact)
        return list(dict.fromkeys([*self.terms, *phrases, *exact, *self.rows]))

    def check(self) -> None:
        """Raise InvalidRequest where nothing is asked for but to exclude, and for too many phrases."""
        if self.excluded and not self.lookups:
            raise InvalidRequest(
                "the query only excludes; add what to look for, or put a minus that is meant as text"
                " into quotation marks"
            )
        for name, quotes in (("quoted phrases", self.required), ("exclusions", self.excluded)):
            if len(quotes) > MAX_QUOTES:
                raise InvalidRequest(
                    f"the query has {len(quotes)} {name}, at most {MAX_QUOTES} are possible; remove some"
                )

    def chosen(self, frequencies: Mapping[str, int]) -> dict[str, int]:
        """Return what is looked for, and how many texts have each.

        Where a text has an identifier with digits, its single numbers and letters are not looked for:
        they would find texts that have them in any order. Words of one without digits always are.
        """
        found: dict[str, None] = dict.fromkeys(self.words)
        for phrase in self.phrases:
            if frequencies.get(phrase.text, 0) > 0:
                found.update(dict.fromkeys((phrase.text, *phrase.wholes)))
            else:
                found.update(dict.fromkeys(phrase.pairs))
            if not phrase.is_strict or phrase.text not in found:
                found.update(dict.fromkeys(phrase.words))
        return {term: frequencies.get(term, 0) for term in found}


def _rows(quotes: Iterable[Quote]) -> list[str]:
    return list(dict.fromkeys(chain.from_iterable(quote.rows for quote in quotes)))
