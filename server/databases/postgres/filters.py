"""Filters in PostgreSQL's SQL: the rows that are stored of metadata, and the condition that reads them.

Nothing here touches a database. What is stored and compared of a value is what `store.filters.sql` has: the same
beginnings of long texts, the same kinds. A number is a numeric, which compares 64-bit whole numbers with floats
exactly; a text is bytes, in the order of code points; an instant stands beside the text that says it.
"""

from collections.abc import Iterator, Mapping, Sequence

from server.databases.postgres.literals import Field, bytea, byteas, numbers, numeric
from server.databases.postgres.session import Value
from server.store.filters.instants import instant
from server.store.filters.sql import (
    CONTAINER,
    FALSE,
    LONG_TEXT,
    NULL,
    TRUE,
    SqlValue,
    attributes,
    following,
    operand,
    stored_value,
)
from server.store.filters.tree import (
    ID,
    RESERVED,
    TEXT,
    TITLE,
    AllOf,
    AnyOf,
    Begins,
    Compared,
    Contains,
    Exists,
    Filter,
    Instant,
    Not,
    OneOf,
    Scalar,
)

NUMBER, WORD = 0, 1
# Kinds that have one value each.
KINDS: Mapping[SqlValue, int] = {NULL: 2, FALSE: 3, TRUE: 4, CONTAINER: 5}
COLUMNS = ("document", "kind", "head", "key", "number", "text", "instant")
# Columns of documents for the fields beside metadata.
BESIDE = {ID: "id", TITLE: "title", TEXT: "text"}


def rows(number: int, metadata: Mapping[str, object]) -> Iterator[tuple[Field, ...]]:
    """Yield the rows of `attributes` for a document, by COLUMNS."""
    for key, value in attributes(metadata):
        name = _name(key)
        if isinstance(value, str):
            head = len(value[:LONG_TEXT].encode()) if len(value) > LONG_TEXT else None
            yield number, WORD, head, name, None, value.encode(), instant(value)
        elif isinstance(value, bytes):
            yield number, KINDS[value], None, name, None, None, None
        else:
            # subtle: NaN compares with nothing, as in Python, and numeric's NaN equals itself.
            written = numeric(value) if value == value else None
            yield number, NUMBER, None, name, written, None, None


def _name(key: str) -> bytes:
    """Return what is stored of a field's name: an index takes 2,700 bytes a row."""
    found = stored_value(key)
    assert isinstance(found, str)
    return found.encode()


class Condition:
    """Writes a filter as a boolean expression over the table `documents` under the name d.

    Parameters follow those that the statement has already. Every call of `sql` adds the parameters that its text
    names.
    """

    def __init__(self, schema: str, values: Sequence[Value] = ()) -> None:
        """schema: quoted."""
        self.values: list[Value] = list(values)
        self._attributes = f"{schema}.attributes"

    def sql(self, filter: Filter) -> str:
        match filter:
            case AllOf(conditions):
                return f"({' AND '.join(map(self.sql, conditions))})" if conditions else "TRUE"
            case AnyOf(conditions):
                return f"({' OR '.join(map(self.sql, conditions))})"
            case Not(condition):
                return f"NOT {self.sql(condition)}"
            case Exists(key):
                return self._exists(key)
            case OneOf(key, values):
                return self._one_of(key, values)
            case Compared(key, sign, Instant(microseconds)):
                test = f"{{instant}} {sign} {self._value(microseconds)}::bigint"
                return self._having(key, "", test)
            case Compared(key, sign, value):
                return self._compared(key, sign, operand(key, value))
            case Contains(key, part):
                sought = f"position({self._value(bytea(part))}::bytea IN {{head}}) > 0"
                return self._having(key, f"a.kind = {WORD}", sought)
            case Begins(key, prefix):
                return self._begins(key, prefix)

    def _value(self, value: Value) -> str:
        self.values.append(value)
        return f"${len(self.values)}"

    def _having(self, key: str, kind: str, test: str) -> str:
        """Return that the field has a value that passes a test.

        kind: of rows of metadata, where the test needs one. test: on {text}, {head}, the part of it that is looked
        into, and {instant}.
        """
        if key in RESERVED:
            column = BESIDE[key]
            of_column = {
                "text": f"d.{column}",
                "head": f"d.{column}",
                "instant": f"d.{column}_instant",
            }
            # subtle: a comparison with null is null, and its opposite too; so null is asked for first.
            return f"(d.{column} IS NOT NULL AND COALESCE({test.format(**of_column)}, FALSE))"
        head = "CASE WHEN a.head IS NULL THEN a.text ELSE substring(a.text FROM 1 FOR a.head) END"
        tests = [kind, test.format(text="a.text", head=head, instant="a.instant")]
        return self._in_metadata(key, " AND ".join(each for each in tests if each))

    def _in_metadata(self, key: str, test: str = "TRUE") -> str:
        name = self._value(bytea(_name(key)))
        return (
            f"EXISTS (SELECT FROM {self._attributes} a WHERE a.document = d.number"
            f" AND a.key = {name}::bytea AND {test})"
        )

    def _exists(self, key: str) -> str:
        return f"d.{BESIDE[key]} IS NOT NULL" if key in RESERVED else self._in_metadata(key)

    def _one_of(self, key: str, values: Sequence[Scalar]) -> str:
        if not values:
            return "FALSE"
        instants = [value.microseconds for value in values if isinstance(value, Instant)]
        stored = [operand(key, value) for value in values if not isinstance(value, Instant)]
        texts = [value for value in stored if isinstance(value, str)]
        tests = []
        if texts:
            among = f"{{text}} = ANY ({self._value(byteas(texts))}::bytea[])"
            tests.append(among if key in RESERVED else f"a.kind = {WORD} AND {among}")
        if instants:
            tests.append(f"{{instant}} = ANY ({self._value(numbers(instants))}::bigint[])")
        if key not in RESERVED:
            tests += self._of_other_kinds(stored)
        found = [self._having(key, "", f"({' OR '.join(tests)})")] if tests else []
        if None in values:
            found.append(f"NOT {self._exists(key)}")
        return f"({' OR '.join(found)})"

    def _of_other_kinds(self, stored: Sequence[SqlValue]) -> Iterator[str]:
        among = [value for value in stored if isinstance(value, int | float)]
        if among:
            yield f"a.kind = {NUMBER} AND a.number = ANY ({self._value(numbers(among))}::numeric[])"
        kinds = sorted({KINDS[value] for value in stored if isinstance(value, bytes)})
        if kinds:
            yield f"a.kind IN ({', '.join(map(str, kinds))})"

    def _compared(self, key: str, sign: str, value: SqlValue) -> str:
        if isinstance(value, str):
            return self._having(
                key, f"a.kind = {WORD}", f"{{text}} {sign} {self._value(bytea(value))}::bytea"
            )
        assert isinstance(value, int | float)
        bound = self._value(numeric(value))
        return self._having(key, f"a.kind = {NUMBER}", f"a.number {sign} {bound}::numeric")

    def _begins(self, key: str, prefix: str) -> str:
        test = f"{{text}} >= {self._value(bytea(prefix))}::bytea"
        end = following(prefix)
        if end is not None:
            test += f" AND {{text}} < {self._value(bytea(end))}::bytea"
        return self._having(key, f"a.kind = {WORD}", f"({test})")
