"""Limits on reading one file: on what it may take in time, memory and text."""

from dataclasses import dataclass

MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may take.

    file_bytes: its size. wait_s: seconds that the reader may take in all, while it is waited for. cpu_s:
    seconds of CPU. memory_bytes: address space of the reader's process. text_bytes: what the reader may
    send back.
    """

    file_bytes: int = 256 * MB
    wait_s: float = 120.0
    cpu_s: int = 100
    memory_bytes: int = 2048 * MB
    text_bytes: int = 512 * MB
