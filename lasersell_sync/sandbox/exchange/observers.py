"""Listening in on what sessions are told: how the web page learns of signals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lasersell_sync.sandbox.exchange.sessions import Frame, Outbox

#: Takes a high-lane frame as it is sent to some session, under the exchange's lock: it must be quick and must not fail.
Listener = Callable[[Frame], object]


class OverheardOutbox:
    """An outbox whose high-lane frames are heard by listeners too; the flood of the low lane is not.

    Threads: as the outbox in it.
    """

    def __init__(self, outbox: Outbox, listeners: Sequence[Listener]) -> None:
        self._outbox = outbox
        self._listeners = listeners

    def post(self, frames: Sequence[Frame], *, low_lane: bool = False) -> None:
        """Queue frames in order."""
        if not low_lane:
            for listener in self._listeners:
                for frame in frames:
                    listener(frame)
        self._outbox.post(frames, low_lane=low_lane)

    def close(self, code: int, reason: str) -> None:
        """Close the connection once everything queued is written."""
        self._outbox.close(code, reason)
