"""Stored result lines as a document with tables and plots.

    python -m benchmarks.report benchmarks/results/DATE.jsonl [MORE.jsonl ...] [--out DATE.md]

Lines of several files stand together, a line that is in two of them once; whatever else `make bench`
said between them is passed over. Written are the document, by default beside the first file, and the
plots beside it, DATE-NAME.svg. Measuring and showing are apart: this script measures nothing, and the
same lines make the same files.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arguments import parser
from benchmarks.report import plots
from benchmarks.report.tables import Line, document


def main() -> None:
    options = parser(__doc__, model=False)
    options.add_argument("files", type=Path, nargs="+", metavar="FILE.jsonl")
    options.add_argument("--out", type=Path, metavar="FILE.md")
    arguments = options.parse_args()
    write(read(arguments.files), arguments.out or arguments.files[0].with_suffix(".md"))


def read(files: Sequence[Path]) -> list[Line]:
    texts = [text for file in files for text in file.read_text(encoding="utf-8").splitlines()]
    return [json.loads(text) for text in dict.fromkeys(texts) if text.startswith("{")]


def write(lines: Sequence[Line], out: Path) -> None:
    pictures = {}
    for plot in plots.drawn(lines):
        path = out.with_name(f"{out.stem}-{plot.name}.svg")
        path.write_bytes(plot.svg)
        pictures[plot.title] = path.name
    out.write_text("\n".join(document(lines, pictures)), encoding="utf-8")


if __name__ == "__main__":
    main()
