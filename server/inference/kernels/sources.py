"""The C sources of the kernels: how they are compiled, and a digest by which a library is known to be theirs."""

import hashlib
from pathlib import Path

SOURCES = Path(__file__).with_name("source")
MAIN = SOURCES / "encoder.c"
LIBRARY = Path(__file__).with_name("kernels.so")
# Instruction sets by the names of /proc/cpuinfo, and the flags by which a compiler uses them.
NEEDS = {
    "avx512f": "-mavx512f",
    "avx512bw": "-mavx512bw",
    "avx512vl": "-mavx512vl",
    "avx512dq": "-mavx512dq",
    "avx512_vnni": "-mavx512vnni",
    "fma": "-mfma",
}
# -O2: the loops are written with intrinsics, and -O3 gains nothing.
FLAGS = (
    *("-std=gnu11", "-O2", *NEEDS.values(), "-mprefer-vector-width=512"),
    *("-fvisibility=hidden", "-shared", "-fPIC", "-pthread"),
)


def digest() -> str:
    """Return the digest of sources and flags, which a library is compiled with."""
    found = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in (".c", ".h"):
            found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:32]
