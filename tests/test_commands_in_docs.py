"""Commands that the documents show exist, take their flags, and end well when a reader types them."""

import os
import re
from pathlib import Path

import pytest

from export.__main__ import _parser as export_parser
from server.cli.parser import _parser as server_parser
from server.messages.terminal import Terminal
from tests.support import doc_commands
from tests.support.doc_commands import Block
from tests.support.processes import ROOT

PAGES = doc_commands.pages()
# Pages that explain or list show commands too; those with curl are sent by `tests.support.examples`.
OTHERS = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("docs/en/[er]*/*.md"))]
BLOCKS = [block for page in [*PAGES, *OTHERS] for block in doc_commands.blocks(page)]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
by_block = pytest.mark.parametrize(
    "block", BLOCKS, ids=lambda block: f"{Path(block.page).stem}:{block.line}"
)


@by_block
def test_commands_of_a_block_exist_and_take_their_arguments(block: Block) -> None:
    for command in doc_commands.commands(block.script):
        if command[0] == "make":
            assert {word for word in command[1:2] if "=" not in word} <= TARGETS, command
        for module, parser in (("server", server_parser), ("export", export_parser)):
            arguments = doc_commands.arguments_of(command, module)
            # These two of `export` have parsers of their own.
            if arguments is not None and arguments[0] not in ("inspect", "list"):
                # Ends with status 2 where a command or a flag is unknown.
                parser(Terminal.of({})).parse_args(arguments)


@by_block
def test_block_that_is_not_run_says_why(block: Block) -> None:
    text = (ROOT / block.page).read_text(encoding="utf-8")
    assert text.count("<!-- not run:") == sum(
        bool(each.not_run) for each in doc_commands.blocks(block.page)
    )
    assert not block.not_run or len(block.not_run) > len("no root")


@pytest.mark.slow
@pytest.mark.docs
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(not block.not_run for block in doc_commands.blocks(page))],
    ids=lambda page: Path(page).stem,
)
def test_commands_of_a_page_end_well(page: str, tmp_path: Path) -> None:
    ended = doc_commands.run(page, tmp_path)
    assert ended.returncode == 0, ended.stdout[-4000:]
    if not os.environ.get(doc_commands.READER_PYTHON):
        left = [block for block in doc_commands.blocks(page) if block.needs]
        if left:
            pytest.skip(
                f"{len(left)} blocks need {left[0].needs}; see tests/support/doc_commands.py"
            )


def test_commands_are_read_as_a_shell_reads_them() -> None:
    script = "make a B=1  # why; not\ncat > x <<'END'\nmake c\nEND\ncurl -d '{\"x\":\n 1}' y && make b \\\n  | z"
    assert list(doc_commands.commands(script)) == [
        ["make", "a", "B=1"],
        ["cat"],
        ["x"],
        ["curl", "-d", '{"x":\n 1}', "y"],
        ["make", "b"],
        ["z"],
    ]
