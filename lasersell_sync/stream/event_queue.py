"""The two lanes between the reader and whoever consumes: priority, conflation, ``queue.Queue``'s way to get.

High lane: first in, first out, never dropped. Low lane (``pnl_update``, ``liquidity_snapshot``, ``trade_tick``, unknown
types): as ``StreamOptions.low_lane`` says. ``get`` drains the high lane first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, Literal, NamedTuple, TypeVar, cast

from lasersell_sync._backend import PriorityQueue
from lasersell_sync.exceptions import StreamClosed
from lasersell_sync.messages import SERVER_MESSAGES, PnlUpdate, ServerMessage, UnknownMessage
from lasersell_sync.runtime.fork_guard import ProcessGuard
from lasersell_sync.runtime.locks import signal_safe_lock
from lasersell_sync.stream.connection_events import Lagged

__all__ = ["LOW_LANE_CLASSES", "EventQueue", "LagCounts", "LagReporter", "Lane", "position_in_low_lane"]

T = TypeVar("T")
Lane = Literal["any", "high", "low"]

#: Frequent messages, each about one position (docs/protocol.md 2).
LOW_LANE_CLASSES = tuple(cls for cls in SERVER_MESSAGES.values() if cls.is_frequent)
#: The low-lane types of which only the newest of a position matters.
CONFLATED_TYPES = frozenset(cls.type for cls in LOW_LANE_CLASSES if cls.is_conflated)
UNKNOWN = "unknown"
#: Of unknown messages that are longer, the newest one waits: nothing bounds them but ``max_message_bytes`` each.
LONG_UNKNOWN_BYTES = 16 * 1024


def position_in_low_lane(message: ServerMessage) -> tuple[str | None, int | None]:
    """(type, position id) of a low-lane message, (None, None) of a high-lane one (docs/protocol.md 2).

    A type that this version does not know waits in the low lane: it may be frequent, and nothing here depends on it.
    """
    if isinstance(message, UnknownMessage):
        return UNKNOWN, unknown_slot(message)
    if isinstance(message, LOW_LANE_CLASSES):
        return message.type, cast("PnlUpdate", message).position_id
    return None, None


def unknown_slot(message: UnknownMessage) -> int | None:
    """What ``put_low`` takes for the position of an unknown message: long ones share a slot."""
    return 0 if len(message.raw) > LONG_UNKNOWN_BYTES else None


class LagCounts(NamedTuple):
    """What the low lane lost, since the queue was made."""

    dropped: int
    conflated: int


class EventQueue(PriorityQueue[T], Generic[T]):
    """Two lanes; ``get`` and its kind are ``queue.Queue``'s, so that loops written for one run unchanged.

    ``PriorityQueue`` (compiled) keeps items and parked consumers. A producer wakes consumers only if some wait.

    Threads: ``get``, ``get_nowait``, ``get_batch``, ``task_done``, ``join`` and the sizes from any thread, several at
    once. The producing side (``put_high``, ``put_low``, ``forget_position``, ``finish``) belongs to the reader.

    Args:
        low_lane, low_capacity, high_capacity: as in StreamOptions.
        on_room: called (from a consumer's thread, outside the lock) when a full lane has room again.
        on_use: called before every public ``get`` until one has succeeded; may raise to keep two ways of consuming
            apart.
        chosen: False for lanes that nobody may ever consume: both keep their newest, count the rest
            (``high_dropped``) and never stop the reader, until ``choose``. With ``"lossless"`` that begins only when
            ``keep_newest`` is called.
    """

    def __init__(
        self,
        *,
        low_lane: str = "conflate",
        low_capacity: int = 1024,
        high_capacity: int = 65536,
        on_room: Callable[[], None] | None = None,
        on_use: Callable[[], None] | None = None,
        chosen: bool = True,
    ) -> None:
        super().__init__(
            {"conflate": {*CONFLATED_TYPES, UNKNOWN}, "drop_oldest": {UNKNOWN}}.get(low_lane, ()),
            low_capacity,
            high_capacity,
            lossless=low_lane == "lossless",
            guard=ProcessGuard("event queue").check,
            on_use=on_use,
            on_room=on_room,
        )
        #: A way to consume was chosen.
        self.is_chosen = chosen
        if not chosen and low_lane != "lossless":
            self.keep_newest()
        # Guards nothing but who waits in ``join``; the lanes guard themselves.
        self._lock = signal_safe_lock()
        self._all_done = threading.Condition(self._lock)

    # ── producing: the reader ────────────────────────────────────────────────────────────────────────────────────

    def put_high(self, item: T, /) -> None:
        """Add to the high lane; never blocks, never drops (the reader asks ``full`` before it reads on)."""
        super().put_high(item)
        self.wake()

    def put_low(self, item: T, kind: str, position_id: int | None, /) -> None:
        """Add to the low lane, replacing or dropping as its policy says."""
        super().put_low(item, kind, position_id)
        self.wake()

    def forget_position(self, position_id: int, unwanted: Callable[[T], bool] | None = None, /) -> int:
        """Take out what waits in the low lane about a position: nothing about it may follow its ``position_closed``.

        Args:
            position_id: the id in those messages.
            unwanted: called with each such event; True takes it out. None: all of them.

        Returns:
            How many; they do not count as lost, for they say nothing that the close has not overtaken.
        """
        count = super().forget_position(position_id, unwanted)
        if count and not self.unfinished:
            with self._lock:
                self._all_done.notify_all()
        return count

    def finish(self, error: BaseException | None) -> None:
        """Nothing more will come. What waits can still be had; then ``get`` raises StreamClosed, or ``error``."""
        self.end(StreamClosed if error is None else error)

    @property
    def error(self) -> BaseException | None:
        """Why the stream failed, once ``finish`` said so."""
        return self.ending if isinstance(self.ending, BaseException) else None

    def lag(self) -> LagCounts:
        """What the low lane lost so far."""
        return LagCounts(self.dropped, self.conflated)

    def choose(self) -> Lagged | None:
        """Nothing of the high lane is dropped from now on; what was dropped before (None: nothing)."""
        self.is_chosen = True
        self.keep_all()
        return self.lagged_at_first()

    def lagged_at_first(self) -> Lagged | None:
        """What the first consumer missed of the high lane; None for nothing."""
        if not self.high_dropped:
            return None
        return Lagged(
            dropped=0,
            conflated=0,
            total_dropped=self.dropped,
            total_conflated=self.conflated,
            waiting=self.qsize(),
            high_dropped=self.high_dropped,
        )

    # ── consuming: any thread ────────────────────────────────────────────────────────────────────────────────────

    # ``get`` and ``take`` are the lanes' own: what waits is handed out without a detour over Python code.

    def get_nowait(self) -> T:
        """As ``get(block=False)``."""
        return self.get(block=False)

    def get_batch(self, max_items: int = 256, timeout: float | None = None) -> list[T]:
        """Wait as ``get`` for the first event, then take what else is there, ``max_items`` at the most."""
        if max_items < 1:
            raise ValueError(f"max_items={max_items}: at least 1")
        batch = [self.get(timeout=timeout)]
        self.pop_into(batch, max_items)
        self.tell_room()
        return batch

    def empty(self) -> bool:
        """True when none waits."""
        return self.qsize() == 0

    def task_done(self) -> None:
        """One event that was got is dealt with.

        Raises:
            ValueError: called more often than there were events.
        """
        if self.done() == 0:
            with self._lock:
                self._all_done.notify_all()

    def join(self) -> None:
        """Wait until ``task_done`` was called for every event that was put (dropped ones count as done)."""
        with self._lock:
            while self.unfinished:
                self._all_done.wait()

    def take_all(self) -> list[T]:
        """Everything that waits, without waiting; for handing over to another queue."""
        items: list[T] = []
        self.pop_into(items, self.qsize())
        if items and self.done(len(items)) == 0:
            with self._lock:
                self._all_done.notify_all()
        return items


class LagReporter:
    """Makes the ``lagged`` events: at most one a second, and none without news."""

    INTERVAL_S = 1.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told = LagCounts(0, 0)
        self._told_at = float("-inf")

    def due(self, now: LagCounts, waiting: int) -> tuple[Lagged | None, float | None]:
        """(the event, None) when one is due now; else (None, seconds until one is, or None without news)."""
        if now == self._told:
            return None, None
        wait_s = self._told_at + self.INTERVAL_S - self._clock()
        if wait_s > 0:
            return None, wait_s
        lagged = Lagged(
            dropped=now.dropped - self._told.dropped,
            conflated=now.conflated - self._told.conflated,
            total_dropped=now.dropped,
            total_conflated=now.conflated,
            waiting=waiting,
        )
        self._told = now
        self._told_at = self._clock()
        return lagged, None
