"""After a reconnect: which positions the server announces again, and which it does not.

Nothing in the protocol says that a position was closed while there was no link (docs/protocol.md §2.5, §12), so absence
is told, not acted upon.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lasersell_sync.positions import PositionKey
from lasersell_sync.session.events import Resynced
from lasersell_sync.session.table import PositionTable

__all__ = ["Resync"]


class Resync:
    """Watches the announcements from a reconnect to the end of the grace window.

    Threads: the reader.
    """

    def __init__(
        self, table: PositionTable, *, gap_seconds: float, grace_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._table = table
        self._gap_seconds = gap_seconds
        self._clock = clock
        self._ends_at = clock() + grace_s
        self._expected: set[PositionKey] = table.keys()
        # Dicts for their order: the event tells positions in the order of their announcement.
        self._kept: dict[PositionKey, None] = {}
        self._opened: dict[PositionKey, None] = {}

    def announced(self, key: PositionKey, *, is_known: bool) -> None:
        """A ``position_opened`` came, of an opening that was known before or of another one."""
        if not is_known:
            # What was expected is gone.
            self._expected.discard(key)
            self._kept.pop(key, None)
        (self._kept if key in self._expected else self._opened)[key] = None

    def closed(self, key: PositionKey) -> None:
        """A ``position_closed`` came: that is evidence, and nothing is missing."""
        self._expected.discard(key)
        self._kept.pop(key, None)
        self._opened.pop(key, None)

    def due_in_s(self) -> float:
        """Seconds until the window ends."""
        return max(0.0, self._ends_at - self._clock())

    def result(self) -> Resynced:
        """What the window brought; positions that are missing are stale from now on."""
        missing = self._table.mark_stale(self._expected - self._kept.keys())
        by_key = {handle.key: handle for handle in self._table.handles()}
        return Resynced(
            kept=tuple(by_key[key] for key in self._kept if key in by_key),
            opened=tuple(by_key[key] for key in self._opened if key in by_key),
            missing=tuple(missing),
            gap_seconds=self._gap_seconds,
        )
