"""Calling handlers for what waits in a lane: a dispatcher thread's loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from lasersell_sync._pure.lanes import Lane
from lasersell_sync._pure.priority_queue import PriorityQueue

__all__ = ["HandlerLoop"]

_Handler: TypeAlias = Callable[[Any], object]


class HandlerLoop:
    """Calls handlers for the events of a lane, one after the other.

    Args:
        lanes: where events wait.
        lane: ``"any"``, ``"high"`` or ``"low"``.
        handlers: event type to a tuple of handlers, which may change at any time.
        on_error: called with (handler, event, error) when a handler raised; what it raises ends ``run``.

    Threads: ``run`` on one; ``running`` and ``stop`` from any.
    """

    def __init__(
        self,
        lanes: PriorityQueue[Any],
        lane: Lane,
        handlers: Mapping[str, tuple[_Handler, ...]],
        on_error: Callable[[Any, Any, BaseException], None],
    ) -> None:
        self._lanes = lanes
        self._lane: Lane = lane
        self._handlers = handlers
        self._on_error = on_error
        self._stopped = False
        #: What is being called, with what, since when; one object, so that nobody sees half of it.
        self._running: tuple[_Handler, Any, float] | None = None

    @property
    def running(self) -> tuple[_Handler, Any, float] | None:
        """(handler, event, since when in seconds by the monotonic clock) of the present call; None between two."""
        return self._running

    def stop(self) -> None:
        """``run`` ends after the present event, if it is not waiting for one; what waits stays where it is."""
        self._stopped = True

    def run(self) -> None:
        """Until ``stop``.

        Raises:
            Exception: the end of the lanes, once everything was taken; or what ``on_error`` raised.
        """
        while not self._stopped:
            # Handed on at once: who waits for the next event keeps none.
            self._call_all(self._lanes.take(lane=self._lane))

    def _call_all(self, event: Any) -> None:
        # The event under way sees the list it began with.
        for handler in self._handlers.get(event.type, ()):
            self._call(handler, event)

    def _call(self, handler: _Handler, event: Any) -> None:
        self._running = (handler, event, time.monotonic())
        try:
            handler(event)
        except BaseException as error:  # noqa: BLE001 - user code; on_error decides
            self._on_error(handler, event, error)
        finally:
            self._running = None
