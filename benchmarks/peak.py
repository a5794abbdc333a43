"""The most this CPU can multiply, in int8 and in float32: compiles peak.c and runs it.

Without a C compiler, or on a CPU that peak.c does not know, there is no peak, and result lines give
the reason.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
COMPILER = "cc"


@dataclass(frozen=True, slots=True)
class Peak:
    """10^9 operations per second of all threads together, a multiply-add as two."""

    int8_gops: float
    fp32_gflops: float
    int8_set: str  # The instruction sets used.
    fp32_set: str


class NoPeak(Exception):
    """The peak cannot be measured here; the message says why."""


def measure(threads: Sequence[int], compiler: str = COMPILER) -> dict[int, Peak]:
    """Return the peak by number of threads, each run as a process of its own; raises NoPeak."""
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "peak"
        command = [compiler, "-O2", "-march=native", str(SOURCE), "-o", str(program)]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except FileNotFoundError:
            raise NoPeak(f"no C compiler: {compiler} is not installed") from None
        except subprocess.CalledProcessError as error:
            raise NoPeak(f"{compiler} does not compile {SOURCE.name}: {error.stderr}") from None
        return {number: _together(program, number) for number in threads}


def _together(program: Path, threads: int) -> Peak:
    running = [
        subprocess.Popen([program], stdout=subprocess.PIPE, text=True) for _ in range(threads)
    ]
    return total([each.communicate()[0] for each in running])


def total(printed: Sequence[str]) -> Peak:
    """Return the sum of what each process printed; raises NoPeak if one printed nothing."""
    rates = {"int8": 0.0, "fp32": 0.0}
    sets = {}
    for text in printed:
        lines = [line.split() for line in text.splitlines()]
        if [line[0] for line in lines] != list(rates):
            raise NoPeak(f"{SOURCE.name} knows no loop for this CPU")
        for kind, instructions, rate in lines:
            rates[kind] += float(rate)
            sets[kind] = instructions
    return Peak(round(rates["int8"], 1), round(rates["fp32"], 1), sets["int8"], sets["fp32"])
