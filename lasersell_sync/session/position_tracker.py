"""What announcements, closes and reconnects mean for positions; the resync after a reconnect."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from lasersell_sync.messages import PositionClosed, PositionOpened
from lasersell_sync.positions import OwnSales, PositionHandle, PositionKey
from lasersell_sync.runtime.log import logger
from lasersell_sync.session.deadlines import DeadlineClock
from lasersell_sync.session.events import Contradiction, Resynced, StreamEvent
from lasersell_sync.session.position_table import Announced, MarketView, PositionTable
from lasersell_sync.stream.event_queue import EventQueue
from lasersell_sync.stream.stats import Counters

__all__ = ["PositionTracker", "Resync"]

log = logger("session")


# ── After a reconnect: which positions the server announces again, and which it does not ────────────────────────────
# Nothing in the protocol says that a position was closed while there was no link (docs/protocol.md §2.5, §12), so
# absence is told, not acted upon.


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


# ── What announcements, closes and reconnects mean for a session's positions ────────────────────────────────────────


#: Contradictions are logged and reported as an event at most this often; each is counted.
CONTRADICTION_INTERVAL_S: Final = 10.0


class PositionTracker:
    """Keeps everything that belongs to a position together while it opens, closes, and changes its id.

    Args:
        lanes: where events wait; a closed position takes its low-lane events with it.
        deadlines: one for each opening.
        sales: what the exit signals say.
        counters: ``late`` and ``contradictions`` are counted here.
        server_time_ms: the server's clock; None while it is not known.
        on_event: called with a Contradiction.

    Threads: the reader; the table and the market view may be read from any.
    """

    def __init__(
        self,
        lanes: EventQueue[StreamEvent],
        deadlines: DeadlineClock,
        sales: OwnSales,
        counters: Counters,
        server_time_ms: Callable[[], float | None],
        on_event: Callable[[Contradiction], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.table = PositionTable(sales, self._contradicted)
        self.market = MarketView()
        self._lanes = lanes
        self._deadlines = deadlines
        self._sales = sales
        self._counters = counters
        self._server_time_ms = server_time_ms
        self._on_event = on_event
        self._clock = clock
        #: After a reconnect, until the announcements are over.
        self.resync: Resync | None = None
        self._has_reconnected = False
        #: Ids under which low-lane events of a position may wait, where another position may have one of them.
        self._shared_ids: dict[PositionKey, set[int]] = {}
        self._next_report_at = 0.0

    # ── connections ──────────────────────────────────────────────────────────────────────────────────────────────

    def reconnected(self, *, gap_s: float, grace_s: float) -> None:
        """Another connection began: no id means anything yet, and the announcements of the next seconds tell."""
        self._has_reconnected = True
        self.table.new_connection()
        self.resync = Resync(self.table, gap_seconds=gap_s, grace_s=grace_s)

    def disconnected(self) -> None:
        """The next reconnect begins a window of its own."""
        self.resync = None

    def resync_due_in_s(self) -> float | None:
        """Seconds until the window ends; None when there is none."""
        return None if self.resync is None else self.resync.due_in_s()

    def end_resync(self) -> Resynced:
        """What the window brought."""
        assert self.resync is not None, "there is a window"
        resynced, self.resync = self.resync.result(), None
        log.info(
            "after a gap of %.1f s: %d positions kept, %d new, %d not announced again",
            resynced.gap_seconds,
            len(resynced.kept),
            len(resynced.opened),
            len(resynced.missing),
        )
        return resynced

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    def opened(self, message: PositionOpened) -> PositionHandle:
        """Take in an announcement; the position's handle from now on."""
        announced = self.table.opened(message)
        self._take_in(announced)
        if self.resync is not None:
            self.resync.announced(announced.handle.key, is_known=announced.known is not None)
        return announced.handle

    def repeated(self, handle: PositionHandle) -> None:
        """A position that the table knows just so was announced again."""
        if self.resync is not None:
            self.resync.announced(handle.key, is_known=True)

    def closed(self, message: PositionClosed) -> PositionHandle | None:
        """Forget everything about a position; its last handle, or None when it was not known."""
        handle = self.table.closed(message)
        if handle is not None:
            self._end(handle)
            if self.resync is not None:
                self.resync.closed(handle.key)
        elif self.table.is_free(message.position_id):
            self._counters.late += self._lanes.forget_position(message.position_id, _has_no_handle)
        return handle

    # ── a position's life ────────────────────────────────────────────────────────────────────────────────────────

    def _take_in(self, announced: Announced) -> None:
        """A position that is new, opened again, or comes under another id."""
        handle, known = announced.handle, announced.known
        if announced.replaced is not None:
            log.info("token account %s was opened again; its close was missed", handle.token_account)
            self._end(announced.replaced)
        is_first = known is None and announced.ousted is None and not self._has_reconnected
        if not announced.keeps_id and not is_first:
            # Values under this id are another position's, and those under the old one would never be replaced.
            self.market.forget(handle.position_id)
            if known is not None and self.table.is_free(known.position_id):
                self.market.forget(known.position_id)
            self._share_id(announced)
        key = (handle.wallet_pubkey, handle.token_account)
        if handle.watched:
            self._deadlines.cancel(handle.key)
        elif not self._deadlines.counts_for(key):
            self._deadlines.start(handle, age_s=self._age_s(handle.opened_at_ms))

    def _end(self, handle: PositionHandle) -> None:
        key = handle.key
        self._deadlines.cancel(key)
        self._sales.forget(key)
        is_free, ids = self.table.is_free(handle.position_id), self._shared_ids.pop(key, None)
        if is_free:
            self.market.forget(handle.position_id)
        if is_free and ids is None:
            self._counters.late += self._lanes.forget_position(handle.position_id)
            return
        for position_id in {handle.position_id, *(ids or ())}:
            self._counters.late += self._lanes.forget_position(position_id, lambda event: _is_about(event, key))

    def _share_id(self, announced: Announced) -> None:
        """Events that wait under one id may be of two positions from now on, or those of one under two ids."""
        if not self._lanes.has("low"):
            # Nothing waits under the ids of before.
            self._shared_ids.pop(announced.handle.key, None)
            return
        if announced.ousted is not None:
            self._shared_ids.setdefault(announced.ousted.key, set()).add(announced.ousted.position_id)
        if announced.ousted is not None or announced.known is not None or self._has_reconnected:
            ids = self._shared_ids.setdefault(announced.handle.key, set())
            ids.add(announced.handle.position_id)
            if announced.known is not None:
                ids.add(announced.known.position_id)

    def _age_s(self, opened_at_ms: int | None) -> float | None:
        """How long ago that was by the server's clock, which hello_ok told; our own wall clock has no say."""
        server_now_ms = self._server_time_ms()
        if opened_at_ms is None or server_now_ms is None:
            return None
        return (server_now_ms - opened_at_ms) / 1000

    # ── contradictions ───────────────────────────────────────────────────────────────────────────────────────────

    def _contradicted(self, problem: str, position_id: int, token_account: str | None) -> None:
        self._counters.contradictions += 1
        now = self._clock()
        if now < self._next_report_at:
            return
        self._next_report_at = now + CONTRADICTION_INTERVAL_S
        count = self._counters.contradictions
        log.warning("contradiction %d of the server: %s (id %d, %s)", count, problem, position_id, token_account)
        self._on_event(
            Contradiction(problem=problem, position_id=position_id, token_account=token_account, count=count)
        )


def _has_no_handle(event: Any) -> bool:
    return event.handle is None


def _is_about(event: Any, key: PositionKey) -> bool:
    return event.handle is not None and event.handle.key == key
