"""The pages of metrics of several processes as one page: text in Prometheus' format in, the same out.

Counters and histograms are added up, and gauges too, because they count what is there: tokens waiting,
lanes, bytes. Three kinds say something else and are not added: of moments (`_created`,
`_start_time_seconds`, `_expiry_timestamp_seconds`) the earliest holds, and of limits (`_max_fds`,
`_max`, `_memory_limit_bytes`) and descriptions (`_info`) the largest.
"""

from collections.abc import Callable, Iterable

EARLIEST = ("_created", "_start_time_seconds", "_expiry_timestamp_seconds")
LARGEST = ("_max_fds", "_max", "_memory_limit_bytes", "_info")
COUNTED = ("counter", "histogram", "untyped")


class _Family:
    """described: its HELP line; typed: its TYPE line; samples: values by name with labels."""

    def __init__(self) -> None:
        self.described = self.typed = ""
        self.samples: dict[str, float] = {}


def summed(pages: Iterable[str]) -> str:
    """One page; families and samples in the order in which they first come."""
    return _written(_read(pages).values())


def counted(page: str) -> str:
    """What remains of a page when its process has ended: what it had counted."""
    families = _read([page]).values()
    return _written(each for each in families if each.typed.endswith(COUNTED))


def _read(pages: Iterable[str]) -> dict[str, _Family]:
    families: dict[str, _Family] = {}
    for page in pages:
        for line in page.splitlines():
            if line.startswith("# HELP "):
                family = families.setdefault(line.split(" ", 3)[2], _Family())
                family.described = line
            elif line.startswith("# TYPE "):
                family.typed = line
            else:
                name, _, value = line.rpartition(" ")
                join = _join(name.partition("{")[0])
                known = family.samples.get(name)
                family.samples[name] = float(value) if known is None else join(known, float(value))
    return families


def _join(name: str) -> Callable[[float, float], float]:
    if name.endswith(EARLIEST):
        return min
    return max if name.endswith(LARGEST) else float.__add__


def _written(families: Iterable[_Family]) -> str:
    lines = []
    for family in families:
        lines += [family.described, family.typed]
        lines += [f"{name} {value!r}" for name, value in family.samples.items()]
    return "".join(f"{line}\n" for line in lines)
