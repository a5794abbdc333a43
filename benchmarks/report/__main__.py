"""Show stored result lines as a document with tables and plots.

    python -m benchmarks.report benchmarks/results/DATE.jsonl [MORE.jsonl ...] [--out DATE.md]

Files are given from old to new: where several lines answer the same question, the last one counts. A
line that two files hold counts once; other output of `make bench` between the lines is skipped. The
report writes the document, by default beside the first file, and the plots beside it, DATE-NAME.svg. It
measures nothing: the same lines make the same files.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arguments import parser
from benchmarks.machine import Line
from benchmarks.report import plots
from benchmarks.report.lines import read, results
from benchmarks.report.tables import document
from server.system.output import until_reader_leaves


def main() -> None:
    options = parser(__doc__, model=False)
    options.add_argument("files", type=Path, nargs="+", metavar="FILE.jsonl")
    options.add_argument("--out", type=Path, metavar="FILE.md")
    arguments = options.parse_args()
    write(read(arguments.files), arguments.out or arguments.files[0].with_suffix(".md"))


def write(lines: Sequence[Line], out: Path) -> None:
    """Write the document to `out` and the plots beside it."""
    pictures = {}
    for plot in plots.drawn([result.line for result in results(lines)]):
        path = out.with_name(f"{out.stem}-{plot.name}.svg")
        path.write_bytes(plot.svg)
        pictures[plot.title] = path.name
    out.write_text("\n".join(document(lines, pictures)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
