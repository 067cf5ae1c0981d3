"""Listeners beside a consumer: what a recorder hangs on to a connection, and an automatic seller to a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec, TypeAlias

from lasersell_sync._log import logger
from lasersell_sync.locks import signal_safe_lock
from lasersell_sync.user_code import passes_through

__all__ = ["Tap", "Taps"]

log = logger("stream")

P = ParamSpec("P")
#: Called with a text message's bytes and the ``time.monotonic_ns()`` at which they were read.
Tap: TypeAlias = Callable[[bytes, int], None]


class Taps(Generic[P]):
    """Calls each tap for everything that there is to hear.

    Threads: ``add`` and what it returns from any; ``hear`` belongs to the reader.
    """

    def __init__(self) -> None:
        # Guards changes; the reader sees one consistent tuple.
        self._lock = signal_safe_lock()
        self._taps: tuple[Callable[P, None], ...] = ()
        #: ``hear``, or None as long as nobody listens: then no copy of a message is made.
        self.hearer: Callable[P, None] | None = None

    def add(self, tap: Callable[P, None]) -> Callable[[], None]:
        """From now on ``tap`` hears everything; call the result to end that."""
        with self._lock:
            self._set((*self._taps, tap))
        return lambda: self._remove(tap)

    def _remove(self, tap: Callable[P, None]) -> None:
        with self._lock:
            self._set(tuple(other for other in self._taps if other is not tap))

    def _set(self, taps: tuple[Callable[P, None], ...]) -> None:
        self._taps = taps
        self.hearer = self.hear if taps else None

    def hear(self, *heard: P.args, **kwargs: P.kwargs) -> None:
        """Tell every tap."""
        for tap in self._taps:
            self.tell(tap, *heard, **kwargs)

    def tell(self, tap: Callable[P, None], *heard: P.args, **kwargs: P.kwargs) -> bool:
        """Call one tap; if it raises it is taken off, for there is more to this than its listeners.

        Returns:
            False when it was taken off.
        """
        try:
            tap(*heard, **kwargs)
        except BaseException as error:
            if passes_through(error):
                raise
            log.exception("a tap raised and hears nothing any more: %r", tap)
            self._remove(tap)
            return False
        return True
