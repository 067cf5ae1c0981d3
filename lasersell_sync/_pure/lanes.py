"""The two lanes between the reader and its consumers: storage only; waiting and waking is the event queue's part."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, Literal, TypeVar

from lasersell_sync.runtime.locks import is_held_here, signal_safe_lock

__all__ = ["Lane", "Lanes"]

T = TypeVar("T")
Lane = Literal["any", "high", "low"]
#: Newest values that wait: ids that nobody knows must not pile up.
MAX_NEWEST = 16384


class Lanes(Generic[T]):
    """What waits for a consumer: a high lane, never dropped, and a low lane, bounded.

    Args:
        conflated: low-lane kinds of which only the newest of a position waits, in its first one's place.
        low_capacity: how many other low-lane items wait; the oldest goes when one more comes.
        high_capacity: from how many high-lane items on ``full`` says stop.
        lossless: the low lane drops nothing either; ``full`` says stop instead.

    Attributes:
        dropped, conflated: low-lane items that were lost or replaced.
        high_dropped: high-lane items that were lost after ``keep_newest``.
        unfinished: items that were put, and for which ``done`` was not called.

    Threads: any.
    """

    def __init__(
        self, conflated: Iterable[str], low_capacity: int, high_capacity: int, *, lossless: bool = False
    ) -> None:
        self._conflated_kinds = frozenset(conflated)
        self._low_capacity = low_capacity
        self._high_capacity = high_capacity
        self._lossless = lossless
        # Guards everything below.
        self._rows_lock = signal_safe_lock()
        self._high: deque[T] = deque()
        # Both kinds of low-lane entry in one order of arrival: conflated slots under (kind, position), the rest under a
        # running number. An OrderedDict, because popping the front of a plain dict again and again is quadratic.
        self._low: OrderedDict[tuple[str, int] | int, tuple[T, int | None]] = OrderedDict()
        # The running numbers among the keys of _low, oldest first; slots do not count against low_capacity.
        self._loose: deque[int] = deque()
        self._arrivals = 0
        self._producer_waits = False
        #: Nothing waits for room: both lanes drop their oldest.
        self._newest_only = False
        self.dropped = 0
        self.conflated = 0
        self.high_dropped = 0
        self.unfinished = 0

    # ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def keep_newest(self) -> None:
        """From now on ``full`` is never true: beyond its capacity each lane drops its oldest item."""
        with self._rows_lock:
            self._newest_only = True

    def keep_all(self) -> bool:
        """End ``keep_newest``; True when it had begun."""
        with self._rows_lock:
            began, self._newest_only = self._newest_only, False
            return began

    def put_high(self, item: T, /) -> None:
        """Add to the high lane; never drops (the producer asks ``full`` before it goes on), but for ``keep_newest``."""
        with self._rows_lock:
            self._high.append(item)
            self.unfinished += 1
            if self._newest_only and len(self._high) > self._high_capacity:
                self._high.popleft()
                self.high_dropped += 1
                self.unfinished -= 1

    def put_first(self, item: T, /) -> None:
        """Add to the high lane, before what waits there."""
        with self._rows_lock:
            self._high.appendleft(item)
            self.unfinished += 1

    def put_low(self, item: T, kind: str, position_id: int | None, /) -> None:
        """Add to the low lane, replacing or dropping as its policy says; ``position_id`` may be None."""
        with self._rows_lock:
            if kind in self._conflated_kinds and position_id is not None:
                self._put_newest((kind, position_id), item)
                return
            self._low[self._arrivals] = (item, position_id)
            self._loose.append(self._arrivals)
            self._arrivals += 1
            self.unfinished += 1
            if len(self._loose) > self._low_capacity and (self._newest_only or not self._lossless):
                self._drop(self._loose.popleft())

    def _put_newest(self, slot: tuple[str, int], item: T) -> None:
        assert is_held_here(self._rows_lock), "the caller holds the lock"
        if slot in self._low:
            # In place: the slot keeps its turn, so a position that updates often cannot starve.
            self._low[slot] = (item, slot[1])
            self.conflated += 1
            return
        self._low[slot] = (item, slot[1])
        self.unfinished += 1
        if len(self._low) - len(self._loose) > MAX_NEWEST:
            self._drop(next(key for key in self._low if not isinstance(key, int)))

    def _drop(self, key: tuple[str, int] | int) -> None:
        del self._low[key]
        self.dropped += 1
        self.unfinished -= 1

    def forget_position(self, position_id: int, unwanted: Callable[[T], bool] | None = None, /) -> int:
        """Take out what waits in the low lane about a position; returns how many.

        Args:
            position_id: the key under which it was put there.
            unwanted: called with each such item, on this thread, the producer's; True takes it out. None: all of them.
        """
        with self._rows_lock:
            gone = [
                key
                for key, (item, position) in self._low.items()
                if position == position_id and (unwanted is None or unwanted(item))
            ]
            if gone:
                for key in gone:
                    del self._low[key]
                self._loose = deque(key for key in self._loose if key in self._low)
                self.unfinished -= len(gone)
            return len(gone)

    # ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def has(self, lane: Lane = "any", /) -> bool:
        """True when an item waits in ``"any"`` lane, in ``"high"``, or in ``"low"``."""
        return bool((self._high and lane != "low") or (self._low and lane != "high"))

    def pop(self, lane: Lane = "any", /) -> T:
        """The next item of a lane, high before low.

        Raises:
            IndexError: none waits there.
        """
        with self._rows_lock:
            return self._next(lane)

    def pop_into(self, batch: list[T], max_items: int, /) -> None:
        """Append what waits, high before low, until the list has ``max_items``."""
        with self._rows_lock:
            while len(batch) < max_items and self.has():
                batch.append(self._next("any"))

    def _next(self, lane: Lane) -> T:
        assert is_held_here(self._rows_lock), "the caller holds the lock"
        if self._high and lane != "low":
            return self._high.popleft()
        if not self._low or lane == "high":
            raise IndexError("nothing waits in this lane")
        key, (item, _) = self._low.popitem(last=False)
        if self._loose and self._loose[0] == key:
            self._loose.popleft()
        return item

    def get(self, block: bool = True, timeout: float | None = None) -> T:  # noqa: FBT001, FBT002 - queue.Queue's way
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
        item: T = self.get_blocking(block, timeout)
        return item

    def get_blocking(self, block: bool, timeout: float | None) -> Any:  # noqa: FBT001 - as get
        """What ``get`` asks when it must not, or cannot, hand out what waits at once; the event queue's part."""
        raise NotImplementedError

    def unpark(self) -> None:
        """From now on ``get`` may hand out what waits without asking ``get_blocking`` first; here it always asks."""

    def done(self, count: int = 1, /) -> int:
        """So many of the items that were got are dealt with; returns how many are not.

        Raises:
            ValueError: more than there were.
        """
        with self._rows_lock:
            if count > self.unfinished:
                raise ValueError("task_done() called too many times")
            self.unfinished -= count
            return self.unfinished

    # ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def qsize(self) -> int:
        """How many items wait in both lanes."""
        return len(self._high) + len(self._low)

    def full(self) -> bool:
        """True when the producer should stop; ``room_again`` then tells when it may go on."""
        with self._rows_lock:
            self._producer_waits = not self._newest_only and (
                len(self._high) >= self._high_capacity or (self._lossless and len(self._loose) >= self._low_capacity)
            )
            return self._producer_waits

    def room_again(self) -> bool:
        """True once when the producer waits and both lanes are half empty: going on for one place would thrash."""
        with self._rows_lock:
            if not self._producer_waits:
                return False
            if len(self._high) * 2 > self._high_capacity or (
                self._lossless and len(self._loose) * 2 > self._low_capacity
            ):
                return False
            self._producer_waits = False
            return True
