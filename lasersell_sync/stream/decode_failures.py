"""Messages that could not be read: counted, kept raw within bounds, and told in events that a flood cannot multiply."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from lasersell_sync.exceptions import DecodeError
from lasersell_sync.stream.connection_events import DecodeFailure
from lasersell_sync.stream.event_queue import LOW_LANE_CLASSES

__all__ = ["DecodeFailures"]

#: A message that says so near its beginning is of the low lane, whatever else is wrong with it.
_LOW_LANE: Final = re.compile(rb'"type"\s*:\s*"(?:%b)"' % b"|".join(cls.type.encode() for cls in LOW_LANE_CLASSES))
_TYPE_WITHIN: Final = 4096


class DecodeFailures:
    """Keeps the latest failures raw, and decides which are told at once.

    A message that may have been of the high lane is told by an event of its own, a burst of them and then so many a
    second. All others wait for the next event, at most one a second, which tells how many there were.

    Threads: the reader; ``kept`` from any.
    """

    #: Kept raw; nothing else holds a message's bytes.
    MAX_MESSAGES: Final = 64
    MAX_BYTES: Final = 4 * 2**20
    #: Events of their own at once, and per second after that.
    BURST: Final = 1024
    PER_S: Final = 64.0
    #: Between two events of the others.
    INTERVAL_S: Final = 1.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: deque[DecodeFailure] = deque()
        self._bytes = 0
        self._count = 0
        self._told_count = 0
        self._told_at = float("-inf")
        #: The latest that was not told yet.
        self._pending: DecodeFailure | None = None
        self._budget = float(self.BURST)
        self._budget_at = clock()

    def add(self, error: DecodeError, payload: bytes) -> DecodeFailure | None:
        """Keep a message that could not be read; the event that tells it, or None when a later one will."""
        self._count += 1
        failure = DecodeFailure(
            reason=error.reason,
            path=error.path,
            offset=error.offset,
            count=self._count,
            since_last=self._count - self._told_count,
            size=len(payload),
            raw=payload if len(payload) <= self.MAX_BYTES else b"",
        )
        self._keep(failure)
        is_low_lane = _LOW_LANE.search(payload, 0, _TYPE_WITHIN) is not None
        if self._may_tell_now(is_low_lane=is_low_lane):
            return self._told(failure)
        self._pending = failure
        return None

    def due(self) -> tuple[DecodeFailure | None, float | None]:
        """(the event, None) when one is due now; else (None, seconds until one is, or None without news)."""
        if self._pending is None:
            return None, None
        wait_s = self._told_at + self.INTERVAL_S - self._clock()
        if wait_s > 0:
            return None, wait_s
        return self._told(self._pending), None

    def rest(self) -> DecodeFailure | None:
        """The event for what was not told yet, whether due or not; None without news."""
        return None if self._pending is None else self._told(self._pending)

    def kept(self) -> list[DecodeFailure]:
        """The latest, oldest first."""
        return list(self._kept)

    def _keep(self, failure: DecodeFailure) -> None:
        if failure.size > self.MAX_BYTES:
            return
        self._kept.append(failure)
        self._bytes += failure.size
        while len(self._kept) > self.MAX_MESSAGES or self._bytes > self.MAX_BYTES:
            oldest = self._kept.popleft()
            self._bytes -= oldest.size
            # An event may be kept by anyone, its message's bytes by nobody.
            oldest.forget_raw()

    def _may_tell_now(self, *, is_low_lane: bool) -> bool:
        now = self._clock()
        if is_low_lane:
            return now - self._told_at >= self.INTERVAL_S
        self._budget = min(self._budget + (now - self._budget_at) * self.PER_S, float(self.BURST))
        self._budget_at = now
        if self._budget < 1:
            return False
        self._budget -= 1
        return True

    def _told(self, failure: DecodeFailure) -> DecodeFailure:
        self._told_count = failure.count
        self._told_at = self._clock()
        self._pending = None
        return failure
