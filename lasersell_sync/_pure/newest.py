"""The newest message of each position."""

from __future__ import annotations

from typing import Any

from lasersell_sync._pure.decoder import Decoder
from lasersell_sync._pure.handles import checked_id, is_id

__all__ = ["Newest"]


class Newest:
    """The newest message of each id (u64).

    The garbage collector does not see them: a message refers to nothing mutable.

    Args:
        decoder: reads them, where they are kept as text; here it has nothing to do.

    Threads: any may ask; the reader writes.
    """

    def __init__(self, decoder: Decoder) -> None:
        if not isinstance(decoder, Decoder):
            raise TypeError(f"decoder is a {type(decoder).__name__}; it must be a Decoder")
        self._kept: dict[int, Any] = {}

    def put(self, key: int, message: Any, /) -> None:
        """Keep this one."""
        self._kept[checked_id(key)] = message

    def get(self, key: int, /) -> Any:
        """The newest of this id, or None."""
        return self._kept.get(key) if is_id(key) else None

    def forget(self, key: int, /) -> None:
        """Keep none of this id any more."""
        if is_id(key):
            self._kept.pop(key, None)

    def items(self) -> list[tuple[int, Any]]:
        """All as (id, message), for tests."""
        return list(self._kept.items())
