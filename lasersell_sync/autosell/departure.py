"""A signed transaction between its record and its first byte."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Departure"]


class Departure:
    """Leaves once, or is held back and never leaves.

    The position's line decides when a transaction is signed; the thread that commits its record sends it. In between
    the position may be closed or opened again: whoever is first, ``leave`` or ``hold_back``, decides.

    Args:
        signature: of the transaction, base58.

    Threads: every method from any.
    """

    def __init__(self, signature: str) -> None:
        self.signature = signature
        # Held while the bytes leave: who asks meanwhile gets the answer after that.
        self._lock = threading.Lock()
        self._has_left = False
        self._is_held_back = False

    @property
    def is_held_back(self) -> bool:
        """Whether it never leaves."""
        return self._is_held_back

    def leave(self, send: Callable[[], object]) -> None:
        """Call ``send``, unless the transaction is held back. What it raises is passed on."""
        with self._lock:
            if not self._is_held_back:
                self._has_left = True
                send()

    def hold_back(self) -> bool:
        """True: it has not left, and never will."""
        with self._lock:
            self._is_held_back = not self._has_left
            return self._is_held_back
