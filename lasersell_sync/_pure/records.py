"""TLS, record by record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["read_records"]


def read_records(
    read: Callable[[int, memoryview], Any], record: memoryview, buffer: memoryview, filled: int, /
) -> tuple[int, OSError | None]:
    """Fill a buffer with the plaintext of as many records as there are and fit.

    Args:
        read: called with (size, buffer), as ``ssl.SSLObject.read``: the bytes of one record at the most.
        record: a buffer that one record fits in. Each is read into it: a slice of ``buffer`` costs more than a copy.
        buffer: to be filled.
        filled: how many bytes of it are already.

    Returns:
        (how many bytes of ``buffer`` are filled now, the OSError that ``read`` raised); None in its place when the
        buffer is full or ``read`` returned 0.
    """
    while filled < len(buffer):
        room = min(len(record), len(buffer) - filled)
        try:
            count = min(read(room, record), room)
        except OSError as problem:
            return filled, problem
        if count <= 0:
            break
        buffer[filled : filled + count] = record[:count]
        filled += count
    return filled, None
