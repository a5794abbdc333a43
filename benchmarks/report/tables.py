"""Result lines as Markdown, one table a case.

A column for every number that a line of the case has. Machine and versions stand once at the top; where
lines of several commits or machines stand together, each says which it is of.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Line = dict[str, Any]
# In every line's facts, and not what tells one machine from another.
PASSING = ("commit", "load_average")


def document(lines: Sequence[Line], pictures: Mapping[str, str]) -> Iterator[str]:
    """The lines of the document; raises KeyError for a result without a case.

    pictures: file names by title, shown before the tables.
    """
    machines = list(dict.fromkeys(_machine(line["machine"]) for line in lines))
    yield "# Results\n"
    for number, machine in enumerate(machines, 1):
        yield f"{number}. {machine}\n" if len(machines) > 1 else f"{machine}\n"
    for title, file in pictures.items():
        yield f"![{title}]({file})\n"
    for case in dict.fromkeys(line["case"] for line in lines):
        rows = [line for line in lines if line["case"] == case]
        yield f"## {case}\n"
        yield from _table([_origin(row, rows, machines) | _flat(row) for row in rows])
        yield ""


def _origin(row: Line, rows: Sequence[Line], machines: Sequence[str]) -> Line:
    """What tells rows of one table apart that were not measured together."""
    origin: Line = {}
    if len(machines) > 1:
        origin["machine"] = machines.index(_machine(row["machine"])) + 1
    if len({each["machine"].get("commit") for each in rows}) > 1:
        origin["commit"] = row["machine"].get("commit")
    return origin


def _machine(facts: Line) -> str:
    shown = {key: value for key, value in facts.items() if key not in PASSING}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def _flat(line: Line) -> Line:
    """Without what stands elsewhere, and with the values of inner objects beside the others."""
    flat: Line = {}
    for key, value in line.items():
        if key in ("case", "machine"):
            continue
        if isinstance(value, dict):
            flat |= {f"{key} {inner}": each for inner, each in _flat(value).items()}
        else:
            flat[key] = value
    return flat


def _table(rows: Sequence[Line]) -> Iterator[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    yield "| " + " | ".join(column.replace("_", " ") for column in columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(_shown(row.get(column)) for column in columns) + " |"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
