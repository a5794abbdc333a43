"""Results as Markdown, one table per case.

A column for every value that a result of the case has. Machine and versions stand once at the top, texts
and recipe above a table; where they differ between results, each result shows its own. A number that was
measured several times is the latest, with the lowest and the highest of all runs in brackets.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.machine import Line
from benchmarks.report.lines import Result, results

# Facts in every line that do not distinguish machines.
PASSING = ("commit", "load_average")
# Not shown in a table's own columns.
ELSEWHERE = ("case", "machine", "inputs")


def document(lines: Sequence[Line], pictures: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of the document; raises KeyError for a line without a case.

    pictures: file names by title, shown before the tables.
    """
    found = results(lines)
    machines = list(dict.fromkeys(_machine(result.line) for result in found))
    yield "# Results\n"
    for number, machine in enumerate(machines, 1):
        yield f"{number}. {machine}\n" if len(machines) > 1 else f"{machine}\n"
    yield from _notes(lines, found)
    for title, file in pictures.items():
        yield f"![{title}]({file})\n"
    for case in dict.fromkeys(result.line["case"] for result in found):
        rows = [result for result in found if result.line["case"] == case]
        yield f"## {case}\n"
        yield from _inputs(rows)
        yield from _table([_origin(row, rows, machines) | _shown_line(row) for row in rows])
        yield ""


def _notes(lines: Sequence[Line], found: Sequence[Result]) -> Iterator[str]:
    """Yield what a reader must know of superseded lines and drafts."""
    drafts = sum(result.draft for result in found)
    if superseded := len(lines) - len(found):
        yield (
            f"{superseded} of {len(lines)} lines are superseded by a later run of the same question;"
            " brackets hold the lowest and the highest of its runs.\n"
        )
    if drafts:
        yield (
            f"**{drafts} of {len(found)} results are drafts**: they come from a tree with"
            " uncommitted changes and cannot be measured again from a commit.\n"
        )


def _origin(row: Result, rows: Sequence[Result], machines: Sequence[str]) -> Line:
    """Return what distinguishes rows of one table that were not measured together."""
    origin: Line = {}
    if len(machines) > 1:
        origin["machine"] = machines.index(_machine(row.line)) + 1
    commits = {each.line["machine"].get("commit") for each in rows}
    if len(commits) > 1 or any(each.draft for each in rows):
        commit = row.line["machine"].get("commit")
        origin["commit"] = f"**{commit} (draft)**" if row.draft else commit
    if any(len(each.runs) > 1 for each in rows):
        origin["runs"] = len(row.runs)
    if len(_all_inputs(rows)) > 1:
        origin |= row.line.get("inputs", {})
    return origin


def _all_inputs(rows: Sequence[Result]) -> list[Line]:
    """Return the different inputs of the rows."""
    found: list[Line] = []
    for row in rows:
        inputs = row.line.get("inputs", {})
        if inputs not in found:
            found.append(inputs)
    return found


def _inputs(rows: Sequence[Result]) -> Iterator[str]:
    """Yield texts and recipe of the table where all rows share them."""
    several = _all_inputs(rows)
    if len(several) == 1 and several[0]:
        yield ", ".join(f"{key}: {value}" for key, value in several[0].items()) + "\n"


def _machine(line: Line) -> str:
    shown = {key: value for key, value in line["machine"].items() if key not in PASSING}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def _shown_line(result: Result) -> dict[str, str]:
    """Return the cells of a result, numbers with their spread over its runs."""
    runs = [_flat(run) for run in result.runs]
    return {
        key: _shown(value) + _spread([run[key] for run in runs if key in run])
        for key, value in runs[-1].items()
    }


def _flat(line: Line) -> Line:
    """Return the line without what stands elsewhere, values of inner objects beside the others."""
    flat: Line = {}
    for key, value in line.items():
        if key in ELSEWHERE:
            continue
        if isinstance(value, dict):
            flat |= {f"{key} {inner}": each for inner, each in _flat(value).items()}
        else:
            flat[key] = value
    return flat


def _spread(values: Sequence[Any]) -> str:
    """Return the lowest and the highest of several numbers; nothing if they are equal."""
    if not all(isinstance(value, int | float) for value in values):
        return ""
    lowest, highest = _shown(min(values)), _shown(max(values))
    return f" ({lowest} to {highest})" if lowest != highest else ""


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
