"""Observers of what sessions are sent: the web page collects signals with one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lasersell_sync.sandbox.exchange.sessions import Frame, Outbox

#: Takes a high-lane frame as it is sent to some session, under the exchange's lock: it must be quick and must not fail.
Observer = Callable[[Frame], object]


class ObservedOutbox:
    """An outbox whose high-lane frames go to observers too; low-lane frames do not.

    Threads: as the outbox in it.
    """

    def __init__(self, outbox: Outbox, observers: Sequence[Observer]) -> None:
        self._outbox = outbox
        self._observers = observers

    def post(self, frames: Sequence[Frame], *, low_lane: bool = False) -> None:
        """Queue frames in order."""
        if not low_lane:
            for observer in self._observers:
                for frame in frames:
                    observer(frame)
        self._outbox.post(frames, low_lane=low_lane)

    def close(self, code: int, reason: str) -> None:
        """Close the connection once everything queued is written."""
        self._outbox.close(code, reason)
