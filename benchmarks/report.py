"""Stored result lines as Markdown tables, one a case.

    python -m benchmarks.report benchmarks/results/DATE.jsonl > benchmarks/results/DATE.md

A column for every number that a line of the case has; machine and versions stand once at the top.
Measuring and showing are apart: this script measures nothing.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    path = parser.parse_args().file
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    print("\n".join(report(lines)))


def report(lines: Sequence[Line]) -> Iterator[str]:
    """The lines of the document; raises KeyError for a result without a case."""
    machines = list(dict.fromkeys(_machine(line["machine"]) for line in lines))
    yield "# Results\n"
    yield from (f"{machine}\n" for machine in machines)
    for case in dict.fromkeys(line["case"] for line in lines):
        yield f"## {case}\n"
        yield from _table([_flat(line) for line in lines if line["case"] == case])
        yield ""


def _machine(facts: Line) -> str:
    shown = {key: value for key, value in facts.items() if key not in ("commit", "load_average")}
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


if __name__ == "__main__":
    main()
