"""The process that reads files: one request after the other on its standard input, answers on its output.

`process` starts it. It imports everything first, then gives up its rights, then reads. It ends
when its input ends, or when it has had nothing to do for a while.
"""

import os
import select
import sys

IDLE_S = 60.0


def main(memory_bytes: int, paths: list[str]) -> None:
    """Read files until there are no more."""
    sys.path[:] = paths
    # Libraries may print; nothing of that may come between the answers.
    reads, writes = os.dup(0), os.dup(1)
    silent = os.open(os.devnull, os.O_RDWR)
    os.dup2(silent, 0)
    os.dup2(silent, 1)

    from server.sources.isolated import answering, sandbox, warm
    from server.sources.isolated.frames import LENGTH, framed, request_of

    answering.load()
    warm.load()
    sandbox.enter(memory_bytes)
    while select.select([reads], [], [], IDLE_S)[0]:
        head = _exactly(reads, LENGTH.size)
        if head is None:
            return
        request = request_of(_exactly(reads, *LENGTH.unpack(head)) or b"")
        data = _exactly(reads, request.n_bytes)
        if data is None:
            return
        sandbox.allow_cpu(request.cpu_s)
        for answer in answering.answers(request, data):
            _write(writes, framed(answer))
            is_last = getattr(answer, "is_last", False)
            if is_last:
                return


def _exactly(descriptor: int, size: int) -> bytes | None:
    """Return so many bytes, or None if the pipe ends before them."""
    data = bytearray()
    while len(data) < size:
        piece = os.read(descriptor, min(size - len(data), 1 << 20))
        if not piece:
            return None
        data += piece
    return bytes(data)


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
