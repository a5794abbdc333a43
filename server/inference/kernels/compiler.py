"""Compiles the kernels: python -m server.inference.kernels.compiler [--compiler CC]

A server never imports this. `make install` runs it; without a C compiler, or on other CPUs than x86-64, ONNX Runtime
computes every model.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from server.inference.kernels.sources import FLAGS, LIBRARY, MAIN, digest
from server.messages.message import SentenceError
from server.messages.terminal import Terminal

COMPILERS = ("cc", "gcc", "clang")
MACHINES = ("x86_64", "AMD64")
# Lines of what a compiler says that are shown.
SHOWN = 5


class NotCompiled(SentenceError):
    """Raised where there is no library afterwards; the message says why."""


def compile_library(
    out: Path = LIBRARY, compiler: str = "", more_flags: Sequence[str] = ()
) -> Path:
    """Write the library to `out`, which it replaces as a whole; raises NotCompiled.

    compiler: its name or path; the first of COMPILERS that is installed unless given.
    """
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        raise NotCompiled(
            "the kernels are for Linux on x86-64, and this is {system} on {machine}",
            system=platform.system(),
            machine=platform.machine(),
        )
    # CC may have arguments, as in "ccache gcc".
    command = compiler.split() or _installed()
    # In the same folder, so that the file takes the place of the old one in one step.
    with tempfile.TemporaryDirectory(prefix=".kernels-", dir=out.parent) as scratch:
        made = Path(scratch) / out.name
        named = (f'-DINKWELL_SOURCES="{digest()}"', *more_flags, "-o", str(made))
        try:
            ended = subprocess.Popen(
                [*command, *FLAGS, *named, str(MAIN), "-lm"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise NotCompiled(
                "{compiler} cannot be run: {why}", compiler=command[0], why=error
            ) from None
        said, _ = ended.communicate()
        if ended.returncode:
            lines = "\n".join(said.splitlines()[:SHOWN])
            raise NotCompiled(
                "{compiler} does not compile the kernels:\n{lines}",
                compiler=command[0],
                lines=lines,
            )
        made.replace(out)
    return out


def _installed() -> list[str]:
    for name in COMPILERS:
        if found := shutil.which(name):
            return [found]
    raise NotCompiled(
        "there is no C compiler ({names}); install one, such as Debian's gcc and libc6-dev, and run "
        "`make kernels`",
        names=COMPILERS,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile the kernels and return the exit status: 1 where there are none afterwards."""
    terminal = Terminal.of(os.environ)
    words = terminal.words
    parser = terminal.parser(
        "python -m server.inference.kernels.compiler", words("Compile the kernels.")
    )
    parser.add_argument(
        "--compiler",
        default="",
        metavar="CC",
        help=words("C compiler (default: {names})", names=COMPILERS),
    )
    parser.add_argument("--out", type=Path, default=LIBRARY, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    try:
        made = compile_library(given.out, given.compiler)
    except NotCompiled as error:
        terminal.inform(
            "the kernels are not compiled, so ONNX Runtime computes every model: {reason}",
            reason=error.sentence,
        )
        return 1
    terminal.inform("compiled {made}", made=str(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
