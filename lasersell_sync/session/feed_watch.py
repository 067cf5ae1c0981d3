"""Notices a feed that falls silent behind a link that lives: positions are open, and no price of any comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from lasersell_sync.session.events import FeedSilent

__all__ = ["FeedWatch"]


class FeedWatch:
    """Compares how many low-lane messages there were with how many there should be by now.

    Args:
        silent_after_s: as ``StreamOptions.feed_silent_after_s``.

    Threads: the reader; ``silent_s`` from any.
    """

    #: Without an option: so many of the server's flush intervals, and at least so many seconds.
    FLUSHES: Final = 30
    LEAST_S: Final = 30.0

    def __init__(self, silent_after_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._silent_after_s = silent_after_s
        self._clock = clock
        self._count = -1
        self._positions = 0
        self._since = clock()
        self._is_told = False

    def restart(self) -> None:
        """Count the silence from now on: there is a new session, or nothing could be seen so far."""
        self._since, self._is_told = self._clock(), False

    def look(self, *, count: int, positions: int, pnl_flush_ms: int) -> tuple[FeedSilent | None, float | None]:
        """(the event, None) when it is due now; else (None, seconds until it may be, or None: nothing is awaited).

        Args:
            count: low-lane messages so far.
            positions: open positions that the server has announced.
            pnl_flush_ms: of the session's limits.
        """
        if count != self._count or not positions or not self._positions:
            self.restart()
        self._count, self._positions = count, positions
        if not positions or self._is_told:
            return None, None
        limit_s = self._silent_after_s or max(self.LEAST_S, self.FLUSHES * pnl_flush_ms / 1000)
        silent_s = self._clock() - self._since
        if silent_s < limit_s:
            return None, limit_s - silent_s
        self._is_told = True
        return FeedSilent(silent_seconds=silent_s, positions=positions), None

    def silent_s(self) -> float | None:
        """For how long the feed has been silent, once that was told; None while it is not."""
        return self._clock() - self._since if self._is_told else None
