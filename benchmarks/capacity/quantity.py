"""Quantities with units as people write them: 50M, 200/s, 5000/day, 100ms, 1.5 h, 32GB.

A count, a rate a second and a number of bytes may stand without one; a time may not. Anything that is not
wholly understood is refused.
"""

import math
import re
from collections.abc import Mapping

NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([a-zA-Z/%]*)", re.ASCII)
Units = Mapping[str, float]
COUNTS: Units = {"": 1, "k": 1e3, "M": 1e6, "B": 1e9}
TIMES: Units = {"s": 1, "ms": 1e-3, "us": 1e-6, "min": 60, "h": 3600}
BYTES: Units = {"": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
PERIODS: Units = {"s": 1, "min": 60, "h": 3600, "day": 86_400}
RATES: Units = {"": 1} | {
    f"{count}/{period}": factor / seconds
    for count, factor in COUNTS.items()
    for period, seconds in PERIODS.items()
}


class BadQuantity(ValueError):
    """Raised for a text that is no quantity of the wanted kind, or outside the bounds."""


def quantity(text: str, units: Units, low: float, high: float) -> float:
    """Return the quantity in the base unit; raises BadQuantity.

    low, high: the least and the largest that is accepted, in the base unit.
    """
    matched = NUMBER.fullmatch(text.strip())
    if matched is None or matched[2] not in units:
        possible = ", ".join(unit or "no unit" for unit in units)
        raise BadQuantity(f"{text[:40]!r} is not a number with one of these units: {possible}")
    value = float(matched[1]) * units[matched[2]]
    if not low <= value <= high:
        raise BadQuantity(f"{text[:40]!r} is outside {low:g} to {high:g} (in the base unit)")
    return value


def whole(text: str, high: float = 1e12) -> int:
    """Return a number of things, at least 1: 50M, 1.5k; raises BadQuantity."""
    value = quantity(text, COUNTS, 1, high)
    if value != math.floor(value):
        raise BadQuantity(f"{text[:40]!r} is not a whole number")
    return int(value)


def shown_count(number: float) -> str:
    """Return a large number as people read it: 50 million."""
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number:,.0f}"


def shown_rate(number: float) -> str:
    """Return a rate without the exponent that a large one would have."""
    return f"{number:,.0f}" if number >= 1e3 else f"{number:.4g}"


def shown_time(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for size, unit in ((86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "s")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds * 1e3:.1f} ms"


def shown_bytes(number: float) -> str:
    """Return an amount of memory or disk."""
    if number >= 1e12:
        return f"{number / 1e12:,.1f} TB"
    return f"{number / 1e9:,.1f} GB" if number >= 1e8 else f"{number / 1e6:,.1f} MB"
