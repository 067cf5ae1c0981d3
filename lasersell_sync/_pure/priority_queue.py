"""Waiting at the lanes, and being woken."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from lasersell_sync._pure.lanes import Lane, Lanes

__all__ = ["PriorityQueue"]

T = TypeVar("T")


class _Sleeper:
    """One consumer asleep: who takes it out of the list may release its lock, and nobody else."""

    def __init__(self, lane: Lane) -> None:
        self.lane: Lane = lane
        self.lock = threading.Lock()
        self.lock.acquire()


class PriorityQueue(Lanes[T], Generic[T]):
    """Lanes at which consumers can wait.

    Args:
        conflated, low_capacity, high_capacity, lossless: as Lanes.
        guard: called before a wait, and in a forked child before everything; may raise.
        on_use: called before every ``get`` until one has succeeded; may raise.
        on_room: called, by a consumer, when the producer may go on.

    Threads: any.
    """

    def __init__(
        self,
        conflated: Iterable[str],
        low_capacity: int,
        high_capacity: int,
        *,
        lossless: bool = False,
        guard: Callable[[], None] | None = None,
        on_use: Callable[[], None] | None = None,
        on_room: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(conflated, low_capacity, high_capacity, lossless=lossless)
        #: Changed by single steps only: taking one out is the right to release it.
        self._sleepers: list[_Sleeper] = []
        #: Why nothing more will come; None as long as something may.
        self.ending: BaseException | type[BaseException] | None = None
        self._guard = guard
        self._on_use = on_use
        self._on_room = on_room

    def wake(self) -> None:
        """Wake the consumers for whom something waits; whoever puts into the lanes calls this, once a batch."""
        for parked in self._sleepers.copy():
            if (self.ending is not None or self.has(parked.lane)) and self._take_out(parked):
                parked.lock.release()

    def end(self, cause: BaseException | type[BaseException], /) -> None:
        """Nothing more will come: who finds nothing gets ``cause``, an exception or its class. The first end counts."""
        if self.ending is None:
            self.ending = cause
        self.wake()

    def get_blocking(self, block: bool, timeout: float | None) -> T:  # noqa: FBT001 - queue.Queue's way
        """What ``get`` does when nothing waits, or before the first success, or when the producer may go on."""
        if self._on_use is not None:
            self._on_use()
        item = self.take(block=block, timeout_s=timeout)
        # It has succeeded.
        self._on_use = None
        return item

    def take(self, *, lane: Lane = "any", block: bool = True, timeout_s: float | None = None) -> T:
        """As ``get``, of one lane: ``"any"``, ``"high"`` or ``"low"``."""
        if self._guard is not None:
            # Before any lock: in a forked child it may be held by a thread that does not exist there.
            self._guard()
        seconds = 0.0 if not block else math.inf if timeout_s is None else timeout_s
        if not seconds >= 0:
            raise ValueError(f"timeout={timeout_s}: seconds ≥ 0, or None to wait for ever")
        item = self._wait_for(lane, seconds)
        self.tell_room()
        return item

    def tell_room(self) -> None:
        """Call ``on_room`` if the producer waits and may go on; ``get`` and ``take`` do."""
        if self.room_again() and self._on_room is not None:
            self._on_room()

    def _wait_for(self, lane: Lane, seconds: float) -> T:
        until = time.monotonic() + seconds
        while True:
            # Asked before the lanes: what came before the end is handed out before it is told.
            ending = self.ending
            # Another consumer may be faster than the look, so the look is the taking.
            with contextlib.suppress(IndexError):
                return self.pop(lane)
            if ending is not None:
                raise ending
            left = until - time.monotonic()
            if left <= 0:
                raise queue.Empty
            parked = _Sleeper(lane)
            self._sleepers.append(parked)
            try:
                # First down, then a look: who puts does it the other way round, so one of the two sees the other.
                if not self.has(lane) and self.ending is None:
                    parked.lock.acquire(timeout=-1 if left == math.inf else min(left, threading.TIMEOUT_MAX))
            finally:
                self._take_out(parked)

    def _take_out(self, parked: Any) -> bool:
        """False when somebody else did."""
        try:
            self._sleepers.remove(parked)
        except ValueError:
            return False
        return True
