"""Where the reader delivers: the lanes, the taps beside them, and the watch over a consumer that takes nothing."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final, Generic, ParamSpec, Protocol, TypeAlias, TypeVar

from lasersell_sync._backend import EventRouter
from lasersell_sync.messages import ServerMessage
from lasersell_sync.runtime.locks import signal_safe_lock
from lasersell_sync.runtime.log import logger
from lasersell_sync.runtime.user_code import passes_through
from lasersell_sync.stream.connection_events import ConnectionEvent
from lasersell_sync.stream.event_queue import EventQueue, LagCounts, LagReporter

__all__ = ["ConsumerWatch", "LaneSink", "Sink", "Tap", "Taps"]

log = logger("stream")


# ── Listeners beside a consumer ─────────────────────────────────────────────────────────────────────────────────────


P = ParamSpec("P")
#: Called with a text message's bytes and the ``time.monotonic_ns()`` at which they were read.
Tap: TypeAlias = Callable[[bytes, int], None]


class Taps(Generic[P]):
    """Calls each tap for everything that there is to hear.

    Threads: ``add`` and what it returns from any; ``hear`` belongs to the reader.
    """

    def __init__(self) -> None:
        # Guards changes; the reader sees one consistent tuple.
        self._lock = signal_safe_lock()
        self._taps: tuple[Callable[P, None], ...] = ()
        #: ``hear``, or None as long as nobody listens: then no copy of a message is made.
        self.hearer: Callable[P, None] | None = None

    def add(self, tap: Callable[P, None]) -> Callable[[], None]:
        """From now on ``tap`` hears everything; call the result to end that."""
        with self._lock:
            self._set((*self._taps, tap))
        return lambda: self._remove(tap)

    def _remove(self, tap: Callable[P, None]) -> None:
        with self._lock:
            self._set(tuple(other for other in self._taps if other is not tap))

    def _set(self, taps: tuple[Callable[P, None], ...]) -> None:
        self._taps = taps
        self.hearer = self.hear if taps else None

    def hear(self, *heard: P.args, **kwargs: P.kwargs) -> None:
        """Tell every tap."""
        for tap in self._taps:
            self.tell(tap, *heard, **kwargs)

    def tell(self, tap: Callable[P, None], *heard: P.args, **kwargs: P.kwargs) -> bool:
        """Call one tap; if it raises it is taken off, for there is more to this than its listeners.

        Returns:
            False when it was taken off.
        """
        try:
            tap(*heard, **kwargs)
        except BaseException as error:
            if passes_through(error):
                raise
            log.exception("a tap raised and hears nothing any more: %r", tap)
            self._remove(tap)
            return False
        return True


# ── Says when nobody takes what the reader delivers ─────────────────────────────────────────────────────────────────


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


# ── Where the reader puts what it read: the one seam between a connection and whoever consumes it ───────────────────


T = TypeVar("T")


class Sink(Protocol):
    """Takes messages and connection events. Called on the reader thread only, but for ``lane_counts``."""

    #: Takes frequent messages past ``message``.
    router: EventRouter
    #: Where things wait: woken after each batch of messages; once full, reading stops until the connection's ``wake``.
    lanes: EventQueue[Any]
    #: Watches whether somebody takes what waits in the lanes.
    consumer: ConsumerWatch

    def message(self, message: ServerMessage, received_ns: int) -> None:
        """One message from the wire."""

    def unreadable(self, payload: bytes) -> None:
        """A message from the wire that could not be read; an event tells it, now or later."""

    def event(self, event: ConnectionEvent) -> None:
        """Something happened to the connection."""

    def tick(self) -> float | None:
        """Called once a round: do what is due, and say in how many seconds something will be (None: nothing)."""

    def finish(self, error: BaseException | None) -> None:
        """Nothing follows; ``error`` is why, or None after ``close()``."""

    def lane_counts(self) -> tuple[LagCounts, int]:
        """(what the low lane lost, how many wait), for ``stats``; from any thread."""


class LaneSink(Generic[T]):
    """The part of a Sink that every sink with lanes does alike: ``lagged``, counts, the end."""

    def __init__(self, lanes: EventQueue[T]) -> None:
        self.lanes = lanes
        self.consumer = ConsumerWatch(lanes)
        self._lag = LagReporter()

    @abstractmethod
    def event(self, event: ConnectionEvent) -> None:
        """Something happened to the connection."""

    @property
    @abstractmethod
    def followed(self) -> bool:
        """True while somebody follows the events without taking them."""

    def tick(self) -> float | None:
        """Tell ``lagged`` when it is due, and warn when nobody consumes."""
        lagged, due_s = self._lag.due(self.lanes.lag(), self.lanes.qsize())
        if lagged is not None:
            self.event(lagged)
        dues = (due_s, self.consumer.tick(followed=self.followed))
        return min((due for due in dues if due is not None), default=None)

    def finish(self, error: BaseException | None) -> None:
        """The lanes end, after what waits in them."""
        self.lanes.finish(error)

    def lane_counts(self) -> tuple[LagCounts, int]:
        """(what the low lane lost, how many wait)."""
        return self.lanes.lag(), self.lanes.qsize()
