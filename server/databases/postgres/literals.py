"""Values as PostgreSQL reads them: parameters of statements, and rows of COPY.

Texts that callers chose are bytes in UTF-8 (bytea). So NUL is a character like any other, order is by code point
wherever the server runs, and no collation of an operating system decides what an index holds.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import orjson

from server.types import Vectors

# What one column of a row of COPY may be.
Field = str | bytes | int | None
NULL = "\\N"
ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def bytea(text: str | bytes) -> str:
    """Return a parameter of type bytea."""
    return "\\x" + (text if isinstance(text, bytes) else text.encode()).hex()


def byteas(texts: Iterable[str]) -> str:
    """Return a parameter of type bytea[]."""
    return "{" + ",".join(f'"\\\\x{text.encode().hex()}"' for text in texts) + "}"


def numbers(values: Iterable[int | float | None]) -> str:
    """Return a parameter of an array of numbers."""
    return "{" + ",".join("NULL" if each is None else numeric(each) for each in values) + "}"


def numeric(value: int | float) -> str:
    """Return a number with all of its digits; not NaN.

    The nearest decimal would do for a float by itself. But a number of metadata is compared with whole numbers of
    64 bits too.
    """
    if isinstance(value, int) or value in (float("inf"), float("-inf")):
        return str(value)
    return format(Decimal(value), "f")


def vector(values: Vectors) -> str:
    """Return a parameter of type vector; float32 (D,), with the fewest digits that tell it from its neighbours."""
    return orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY).decode()


def read_vector(text: str) -> Vectors:
    """Return the vector of its text, float32 (D,)."""
    found: npt.NDArray[np.float32] = np.array(orjson.loads(text), dtype=np.float32)
    return found


def line(fields: Sequence[Field]) -> str:
    """Return a row as COPY reads it."""
    return "\t".join(map(_field, fields)) + "\n"


def _field(value: Field) -> str:
    match value:
        case None:
            return NULL
        case bytes():
            return f"\\\\x{value.hex()}"
        case str():
            return value.translate(ESCAPES)
    return str(value)
