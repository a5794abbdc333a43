"""The metrics pages of several processes as one page, in Prometheus' text format.

Counters and histograms are added up. Each gauge is declared with its own way to join: `sum` for what every
process has of its own, such as lanes; `max` for limits and descriptions, which all have in common; `min` for
moments, of which the earliest matters.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

Join = Literal["sum", "min", "max"]
JOINS: Mapping[Join, Callable[[Iterable[float]], float]] = {"sum": sum, "min": min, "max": max}
COUNTED = ("counter", "histogram", "untyped")
# prometheus_client adds to each counter and histogram a gauge with this ending: when it was made.
CREATED = "_created"


class _Family:
    """One metric. help, type: its lines of comment. samples: values by name with labels."""

    def __init__(self) -> None:
        self.help = self.type = ""
        self.samples: dict[str, float] = {}


def summed(pages: Iterable[str], joins: Mapping[str, Join]) -> str:
    """Return one page, with families and samples in the order in which they first come.

    joins: by a gauge's name. A gauge without one is added up.
    """
    return _written(_read(pages, joins).values())


def counted(page: str) -> str:
    """Return the part of a page that still counts when its process has ended: no gauges."""
    return _written(each for each in _read([page], {}).values() if each.type.endswith(COUNTED))


def _read(pages: Iterable[str], joins: Mapping[str, Join]) -> dict[str, _Family]:
    families: dict[str, _Family] = {}
    for page in pages:
        for line in page.splitlines():
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                join = JOINS[joins.get(name, "min" if name.endswith(CREATED) else "sum")]
                family = families.setdefault(name, _Family())
                family.help = line
            elif line.startswith("# TYPE "):
                family.type = line
            else:
                sample, _, text = line.rpartition(" ")
                known, value = family.samples.get(sample), float(text)
                family.samples[sample] = value if known is None else join((known, value))
    return families


def _written(families: Iterable[_Family]) -> str:
    lines = []
    for family in families:
        lines += [family.help, family.type]
        lines += [f"{name} {value!r}" for name, value in family.samples.items()]
    return "".join(f"{line}\n" for line in lines)
