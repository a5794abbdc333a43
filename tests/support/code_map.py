"""The code map of ARCHITECTURE.md, printed from the first sentence of each module's docstring.

python -m tests.support.code_map          # print it
python -m tests.support.code_map --write  # put it into ARCHITECTURE.md
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "ARCHITECTURE.md"
# The map ends where the other folders begin.
SECTION = re.compile(r"(?<=\n## Code map\n\n).*?(?=### Other folders\n)", re.DOTALL)
EXPORT = (
    *("", "source", "source/hubs", "source/hubs/dialects", "source/gguf", "kinds", "known"),
    *("families", "families/bert", "families/decoder", "families/gated", "families/static"),
    *("families/t5", "optimum", "texts", "quantisation", "verification"),
)
# Highest room first, as in the drawing.
SERVER = (
    "cli",
    "cli/agents",
    "cli/commands",
    "cli/evaluation",
    "cli/exchange",
    "cli/indexing",
    "cli/searching",
    "doctor",
    "doctor/checks",
    "net",
    "",
    "api",
    "api/administration",
    "api/description",
    "api/dialects",
    "api/documents",
    "api/files",
    "api/overview",
    "api/streaming",
    "api/searching",
    "api/web",
    "bulk",
    "sources",
    "sources/isolated",
    "sources/office",
    "collections",
    "collections/cutting",
    "collections/administration",
    "collections/external",
    "collections/overview",
    "collections/reading",
    "collections/writing",
    "collections/searching",
    "collections/transferring",
    "databases",
    "databases/milvus",
    "databases/postgres",
    "databases/qdrant",
    "inference",
    "inference/kernels",
    "inference/tokenization",
    "auth",
    "store",
    "store/columns",
    "store/filters",
    "store/local_index",
    "store/passages",
    "store/naming",
    "store/reading",
    "store/searching",
    "store/sqlite",
    "store/words",
    "store/upkeep",
    "telemetry",
    "system",
    "messages",
)
FOLDERS = [
    *(Path("export") / folder for folder in EXPORT),
    *(Path("server") / folder for folder in SERVER),
]


def first_paragraph(path: Path) -> str:
    """Return the first paragraph of a module's docstring on one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split())


def modules(folder: Path) -> list[Path]:
    return [path for path in sorted((ROOT / folder).glob("*.py")) if path.stem != "__init__"]


def code_map() -> str:
    """Return the section: a heading, a sentence and a table for each folder."""
    parts = []
    for folder in FOLDERS:
        rows = [f"| `{path.stem}` | {first_paragraph(path)} |\n" for path in modules(folder)]
        purpose = first_paragraph(ROOT / folder / "__init__.py")
        parts.append(f"### {folder}/\n\n{purpose}\n\n| file | |\n|---|---|\n{''.join(rows)}\n")
    return "".join(parts)


def main() -> None:
    if "--write" in sys.argv[1:]:
        text = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(SECTION.sub(lambda _: code_map(), text), encoding="utf-8")
    else:
        sys.stdout.write(code_map())


if __name__ == "__main__":
    main()
