"""Says when nobody takes what the reader delivers: reading that stopped, and a lane that keeps only the newest."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from lasersell_sync._log import logger
from lasersell_sync.stream.event_queue import EventQueue

__all__ = ["ConsumerWatch"]

log = logger("stream")


class ConsumerWatch:
    """Watches the lanes from the reader's side.

    Threads: the reader; ``stopped_s`` from any.
    """

    #: Shorter stops are how TCP holds a server back; a lossless lane makes many.
    WARN_AFTER_S: Final = 1.0
    #: Between two warnings about a lane that goes on dropping.
    DROPPED_EVERY_S: Final = 60.0

    def __init__(self, lanes: EventQueue[Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._lanes = lanes
        self._clock = clock
        #: Since when nothing has been read, because the lanes are full; None: the link is read.
        self._stopped_at: float | None = None
        self._is_warned = False
        #: Stop for as long as no way to consume was chosen and nobody follows (a replay, which loses nothing).
        self.waits_for_consumer = False
        self._dropped_told = 0
        self._dropped_told_at = float("-inf")

    def note_reading(self, *, reading: bool) -> None:
        """The reader reads the link, or has stopped because the lanes are full."""
        if not reading:
            self._stopped_at = self._clock() if self._stopped_at is None else self._stopped_at
            return
        if self._is_warned:
            log.warning("reading goes on after %.1f s: there is room in the lanes again", self.stopped_s() or 0.0)
        self._stopped_at, self._is_warned = None, False

    def stopped_s(self) -> float | None:
        """For how long nothing has been read, because the consumer takes nothing; None while the link is read."""
        stopped_at = self._stopped_at
        return None if stopped_at is None else self._clock() - stopped_at

    def tick(self, *, followed: bool) -> float | None:
        """Do what is due; seconds until something else is (None: nothing).

        Args:
            followed: somebody follows the events without taking them: then lanes that drop are as they should be.
        """
        self._warn_of_drops(followed=followed)
        stopped_s = self.stopped_s()
        if stopped_s is None or self._is_warned:
            return None
        if stopped_s < self.WARN_AFTER_S:
            return self.WARN_AFTER_S - stopped_s
        if not self._lanes.is_chosen and (followed or not self.waits_for_consumer):
            return self._go_on()
        self._is_warned = True
        log.warning(
            "reading stopped %.1f s ago, for %d events wait for the consumer: take them faster, or raise high_capacity",
            stopped_s,
            self._lanes.qsize(),
        )
        return None

    def _go_on(self) -> float:
        """Nobody may ever take what waits in lossless lanes; those who follow must not wait for that."""
        self._lanes.keep_newest()
        if self._lanes.is_chosen:
            # Just now, by another thread.
            self._lanes.keep_all()
        return 0.0

    def _warn_of_drops(self, *, followed: bool) -> None:
        dropped, now = self._lanes.high_dropped, self._clock()
        if dropped == self._dropped_told or now - self._dropped_told_at < self.DROPPED_EVERY_S:
            return
        self._dropped_told, self._dropped_told_at = dropped, now
        if not followed:
            log.warning(
                "nobody takes the events: %d wait, and %d older ones were dropped. "
                "Call start(), run() or recv(), or use events",
                self._lanes.qsize(),
                dropped,
            )
