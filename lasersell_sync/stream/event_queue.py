"""The two lanes between the reader and whoever consumes: priority, conflation, ``queue.Queue``'s way to get.

High lane: first in, first out, never dropped. Low lane (``pnl_update``, ``liquidity_snapshot``, ``trade_tick``, unknown
types): as ``StreamOptions.low_lane`` says. ``get`` drains the high lane first.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, Literal, NamedTuple, TypeVar

from lasersell_sync.exceptions import StreamClosed
from lasersell_sync.messages import LiquiditySnapshot, PnlUpdate, ServerMessage, TradeTick, UnknownMessage
from lasersell_sync.processes import ProcessGuard
from lasersell_sync.stream.connection_events import Lagged
from lasersell_sync.timeouts import TimeBudget

__all__ = ["EventQueue", "LagCounts", "LagReporter", "position_in_low_lane"]

T = TypeVar("T")
Lane = Literal["any", "high", "low"]

#: The low-lane types of which only the newest of a position matters.
CONFLATED_TYPES = frozenset({"pnl_update", "liquidity_snapshot"})


def position_in_low_lane(message: ServerMessage) -> tuple[str | None, int | None]:
    """(type, position id) of a low-lane message, (None, None) of a high-lane one (PROTOCOL.md §2).

    A type that this version does not know waits in the low lane: it may be frequent, and nothing here depends on it.
    """
    if isinstance(message, (PnlUpdate, LiquiditySnapshot, TradeTick)):
        return message.type, message.position_id
    if isinstance(message, UnknownMessage):
        return message.type, None
    return None, None


class LagCounts(NamedTuple):
    """What the low lane lost, since the queue was made."""

    dropped: int
    conflated: int


class _Waiting(Generic[T]):
    """A low-lane entry; a generic NamedTuple would do, but needs Python 3.11."""

    __slots__ = ("item", "position_id")

    def __init__(self, position_id: int | None, item: T) -> None:
        self.position_id = position_id
        self.item = item


def _nobody_claims() -> None:
    """The default of ``on_use``: a bare queue has no styles to keep apart."""


class EventQueue(Generic[T]):
    """Two lanes; ``get`` and its kind are ``queue.Queue``'s, so that loops written for one run unchanged.

    Threads: ``get``, ``get_nowait``, ``get_batch``, ``task_done``, ``join`` and the sizes from any thread, several at
    once. The producing side (``put_high``, ``put_low``, ``forget_position``, ``finish``) belongs to the reader.

    Args:
        low_lane, low_capacity, high_capacity: as in StreamOptions.
        on_room: called (from a consumer's thread, outside the lock) when a full lane has room again.
        on_use: called before every public ``get``; may raise to keep two ways of consuming apart.
    """

    def __init__(
        self,
        *,
        low_lane: str = "conflate",
        low_capacity: int = 1024,
        high_capacity: int = 65536,
        on_room: Callable[[], None] | None = None,
        on_use: Callable[[], None] | None = None,
    ) -> None:
        self._conflates = low_lane == "conflate"
        self._lossless = low_lane == "lossless"
        self._low_capacity = low_capacity
        self._high_capacity = high_capacity
        self._on_room = on_room
        self._on_use = on_use or _nobody_claims
        self._guard = ProcessGuard("event queue")
        # Guards everything below.
        self._lock = threading.Lock()
        self._not_empty = threading.Condition(self._lock)
        self._all_done = threading.Condition(self._lock)
        self._high: deque[T] = deque()
        # Both kinds of low-lane entry in one order of arrival: conflated slots under (type, position), the rest under a
        # running number. An OrderedDict, because popping the front of a plain dict again and again is quadratic.
        self._low: OrderedDict[Hashable, _Waiting[T]] = OrderedDict()
        # The running numbers among the keys of _low, oldest first; slots do not count against low_capacity.
        self._loose: deque[int] = deque()
        self._next_number = 0
        self._unfinished = 0
        self._dropped = 0
        self._conflated = 0
        self._producer_waits = False
        self._finished = False
        self._error: BaseException | None = None

    # ── producing: the reader ────────────────────────────────────────────────────────────────────────────────────

    def put_high(self, item: T) -> None:
        """Add to the high lane; never blocks, never drops (the reader asks ``full`` before it reads on)."""
        with self._lock:
            self._high.append(item)
            self._unfinished += 1
            self._not_empty.notify_all()

    def put_low(self, item: T, message_type: str, position_id: int | None) -> None:
        """Add to the low lane, replacing or dropping as its policy says."""
        with self._lock:
            if self._conflates and message_type in CONFLATED_TYPES:
                key: Hashable = (message_type, position_id)
                if key in self._low:
                    # In place: the slot keeps its turn, so a position that updates often cannot starve.
                    self._low[key] = _Waiting(position_id, item)
                    self._conflated += 1
                    return
            else:
                if len(self._loose) >= self._low_capacity and not self._lossless:
                    del self._low[self._loose.popleft()]
                    self._dropped += 1
                    self._done(1)
                key = self._next_number
                self._next_number += 1
                self._loose.append(key)
            self._low[key] = _Waiting(position_id, item)
            self._unfinished += 1
            self._not_empty.notify_all()

    def forget_position(self, position_id: int) -> int:
        """Take out what waits in the low lane about a position: nothing about it may follow its ``position_closed``.

        Returns:
            How many; they do not count as lost, for they say nothing that the close has not overtaken.
        """
        with self._lock:
            gone = [key for key, waiting in self._low.items() if waiting.position_id == position_id]
            if gone:
                for key in gone:
                    del self._low[key]
                self._loose = deque(key for key in self._loose if key in self._low)
                self._done(len(gone))
            return len(gone)

    def full(self) -> bool:
        """True when the reader should stop reading; ``on_room`` then tells when to go on."""
        with self._lock:
            self._producer_waits = len(self._high) >= self._high_capacity or (
                self._lossless and len(self._loose) >= self._low_capacity
            )
            return self._producer_waits

    def finish(self, error: BaseException | None) -> None:
        """Nothing more will come. What waits can still be had; then ``get`` raises StreamClosed, or ``error``."""
        with self._lock:
            if not self._finished:
                self._finished = True
                self._error = error
            self._not_empty.notify_all()

    @property
    def error(self) -> BaseException | None:
        """Why the stream failed, once ``finish`` said so."""
        return self._error

    def lag(self) -> LagCounts:
        """What the low lane lost so far."""
        with self._lock:
            return LagCounts(self._dropped, self._conflated)

    # ── consuming: the user ──────────────────────────────────────────────────────────────────────────────────────

    def get(self, block: bool = True, timeout: float | None = None) -> T:  # noqa: FBT001, FBT002 - queue.Queue's
        """The next event, the high lane's first.

        Args:
            block: wait for one.
            timeout: seconds to wait; None for ever.

        Raises:
            queue.Empty: none within that time.
            StreamClosed: the stream was closed and everything was read.
            Exception: the cause, when the stream failed for good and everything was read.
            ValueError: a negative timeout.
        """
        self._on_use()
        return self.take(block=block, timeout_s=timeout)

    def get_nowait(self) -> T:
        """As ``get(block=False)``."""
        return self.get(block=False)

    def get_batch(self, max_items: int = 256, timeout: float | None = None) -> list[T]:
        """Wait as ``get`` for the first event, then take what else is there, ``max_items`` at the most."""
        if max_items < 1:
            raise ValueError(f"max_items={max_items}: at least 1")
        self._on_use()
        batch = [self.take(timeout_s=timeout)]
        with self._lock:
            while len(batch) < max_items and (self._high or self._low):
                batch.append(self._pop("any"))
            room = self._room_again()
        self._tell_room(room)
        return batch

    def qsize(self) -> int:
        """How many events wait in both lanes."""
        with self._lock:
            return len(self._high) + len(self._low)

    def empty(self) -> bool:
        """True when none waits."""
        return self.qsize() == 0

    def task_done(self) -> None:
        """One event that was got is dealt with.

        Raises:
            ValueError: called more often than there were events.
        """
        with self._lock:
            if self._unfinished <= 0:
                raise ValueError("task_done() called too many times")
            self._done(1)

    def join(self) -> None:
        """Wait until ``task_done`` was called for every event that was put (dropped ones count as done)."""
        with self._lock:
            while self._unfinished:
                self._all_done.wait()

    def take(self, *, lane: Lane = "any", block: bool = True, timeout_s: float | None = None) -> T:
        """As ``get``, of one lane, for the library's own consumers."""
        # Before the lock: in a forked child it may be held by a thread that does not exist there.
        self._guard.check()
        if block and timeout_s is not None and timeout_s < 0:
            raise ValueError(f"timeout={timeout_s}: seconds ≥ 0, or None to wait for ever")
        budget = TimeBudget(timeout_s)
        with self._lock:
            while not self._has(lane):
                if self._finished:
                    raise self._end()
                if not block or budget.expired():
                    raise queue.Empty
                self._not_empty.wait(budget.remaining_s())
            item = self._pop(lane)
            room = self._room_again()
        self._tell_room(room)
        return item

    def take_all(self) -> list[T]:
        """Everything that waits, without waiting; for handing over to another queue."""
        with self._lock:
            items = [*self._high, *(waiting.item for waiting in self._low.values())]
            self._high.clear()
            self._low.clear()
            self._loose.clear()
            self._done(len(items))
            return items

    def _has(self, lane: Lane) -> bool:
        return bool((self._high and lane != "low") or (self._low and lane != "high"))

    def _pop(self, lane: Lane) -> T:
        assert self._lock.locked(), "the caller holds the lock"
        if self._high and lane != "low":
            return self._high.popleft()
        key, waiting = self._low.popitem(last=False)
        if self._loose and self._loose[0] == key:
            self._loose.popleft()
        return waiting.item

    def _done(self, count: int) -> None:
        self._unfinished -= count
        if self._unfinished == 0:
            self._all_done.notify_all()

    def _end(self) -> BaseException:
        return StreamClosed() if self._error is None else self._error

    def _room_again(self) -> bool:
        """True once when the producer waits and both lanes are half empty: waking it for one place would thrash."""
        assert self._lock.locked(), "the caller holds the lock"
        if not self._producer_waits:
            return False
        if len(self._high) * 2 > self._high_capacity or (self._lossless and len(self._loose) * 2 > self._low_capacity):
            return False
        self._producer_waits = False
        return True

    def _tell_room(self, room: bool) -> None:  # noqa: FBT001 - private
        if room and self._on_room is not None:
            self._on_room()


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
