"""Listeners on the raw stream beside its consumer: what a recorder hangs on to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias

from lasersell_sync._log import logger

__all__ = ["Tap", "Taps"]

log = logger("stream")

#: Called with a text message's bytes and the ``time.monotonic_ns()`` at which they were read.
Tap: TypeAlias = Callable[[bytes, int], None]


class Taps:
    """Calls each tap for each text message, readable or not, before it is decoded.

    Threads: ``add`` and what it returns from any; ``hear`` belongs to the reader.
    """

    def __init__(self) -> None:
        # Guards changes; the reader sees one consistent tuple.
        self._lock = threading.Lock()
        self._taps: tuple[Tap, ...] = ()

    def add(self, tap: Tap) -> Callable[[], None]:
        """From now on ``tap`` hears everything; call the result to end that."""
        with self._lock:
            self._taps = (*self._taps, tap)
        return lambda: self._remove(tap)

    def _remove(self, tap: Tap) -> None:
        with self._lock:
            self._taps = tuple(other for other in self._taps if other is not tap)

    @property
    def hearer(self) -> Tap | None:
        """``hear``, or None as long as nobody listens: then no copy of a message is made."""
        return self.hear if self._taps else None

    def hear(self, payload: bytes, received_ns: int) -> None:
        """Tell every tap; one that raises is taken off, for the stream is more than its listeners."""
        for tap in self._taps:
            try:
                tap(payload, received_ns)
            except Exception:
                log.exception("a tap raised and hears nothing any more: %r", tap)
                self._remove(tap)
