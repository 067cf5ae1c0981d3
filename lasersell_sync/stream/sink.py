"""Where the reader puts what it read: the one seam between a connection and whoever consumes it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Generic, Protocol, TypeVar

from lasersell_sync._backend import Router
from lasersell_sync.messages import ServerMessage
from lasersell_sync.stream.connection_events import ConnectionEvent
from lasersell_sync.stream.consumer_watch import ConsumerWatch
from lasersell_sync.stream.event_queue import EventQueue, LagCounts, LagReporter

__all__ = ["LaneSink", "Sink"]

T = TypeVar("T")


class Sink(Protocol):
    """Takes messages and connection events. Called on the reader thread only, but for ``lane_counts``."""

    #: Takes frequent messages past ``message``.
    router: Router
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
