"""Handlers: who is called for what, on which thread, and what happens when one raises."""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from lasersell_sync._log import logger
from lasersell_sync.exceptions import StreamClosed, ThreadDiedError
from lasersell_sync.session.events import EVENT_TYPES, EVERY, HandlerError, HandlerStuck, StreamEvent, event_type
from lasersell_sync.stream.event_queue import EventQueue, Lane

__all__ = ["Dispatcher", "Handler", "HandlerRegistry"]

log = logger("dispatch")

Handler: TypeAlias = Callable[[StreamEvent], object]
Dispatch: TypeAlias = Literal["thread", "per_lane", "inline"]


class HandlerRegistry:
    """Handlers by event type, in registration order.

    Threads: any; a change replaces the tuples, so an event that is being handled sees one consistent list.
    """

    def __init__(self) -> None:
        # Guards changes; reading needs no lock.
        self._lock = threading.Lock()
        self._handlers: dict[str, tuple[Handler, ...]] = {}
        #: Event type to who is called for it: the specific handlers, then those for everything. Its entries change, the
        #: dict stays the same, for the reader's fast way holds it.
        self.called: dict[str, tuple[Handler, ...]] = {}

    def add(self, name: object, handler: Handler) -> None:
        """Register ``handler`` for an event type, a message class, or ``"*"``.

        Raises:
            ValueError: there is no such event.
            TypeError: the handler cannot be called.
        """
        if not callable(handler):
            raise TypeError(f"a handler is called with an event; {type(handler).__name__} cannot be called")
        known = event_type(name)
        with self._lock:
            self._set(known, (*self._handlers.get(known, ()), handler))

    def remove(self, name: object, handler: Handler | None = None) -> None:
        """Forget ``handler``, or with None every handler of that type; one that is not registered is no error."""
        known = event_type(name)
        with self._lock:
            kept = tuple(h for h in self._handlers.get(known, ()) if handler is not None and h != handler)
            self._set(known, kept)

    def _set(self, name: str, handlers: tuple[Handler, ...]) -> None:
        self._handlers[name] = handlers
        for kind in EVENT_TYPES if name == EVERY else (name,):
            self.called[kind] = self._handlers.get(kind, ()) + self._handlers.get(EVERY, ())

    def of(self, kind: str) -> tuple[Handler, ...]:
        """The handlers for an event of this type: the specific ones, then those for everything."""
        return self.called.get(kind, ())


class _Running(NamedTuple):
    """What a dispatcher thread is in the middle of."""

    handler: str
    event_type: str
    since: float


class Dispatcher:
    """Calls handlers, and keeps their exceptions from ending anything.

    ``thread``: one thread for both lanes. ``per_lane``: one each, so a slow ``pnl_update`` handler cannot hold up an
    exit signal. ``inline``: on the reader itself; the fastest, and a slow handler stops the reading.

    Args:
        lanes: where the events wait.
        registry: the handlers.
        report: delivers a ``handler_error`` event.
        on_death: told when a dispatcher thread dies of something it cannot survive.

    Threads: owns ``lasersell-dispatch`` (two with ``per_lane``); ``handle`` runs on them, on the reader (inline), or
    on the caller of ``run``.
    """

    def __init__(
        self,
        lanes: EventQueue[StreamEvent],
        registry: HandlerRegistry,
        report: Callable[[StreamEvent], None],
        on_death: Callable[[ThreadDiedError], None] | None = None,
    ) -> None:
        self._lanes = lanes
        self._registry = registry
        self._report = report
        self._on_death = on_death
        #: Dispatcher threads and the lane each serves.
        self._threads: dict[threading.Thread, Lane] = {}
        # Each thread writes its own entry only.
        self._running: dict[threading.Thread, _Running] = {}
        #: Calls that were reported as stuck; each is reported once.
        self._reported: set[_Running] = set()
        #: Set when close() has waited long enough: whatever still waits in the lanes is left there.
        self._abandoned = threading.Event()

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, dispatch: Dispatch) -> None:
        """Start the thread or threads."""
        lanes: tuple[Lane, ...] = ("high", "low") if dispatch == "per_lane" else ("any",)
        for lane in lanes:
            self._start_thread(lane)

    def run(self, dispatch: Dispatch) -> None:
        """Handle events on this thread until the stream ends.

        Raises:
            Exception: the cause, when the stream failed.
        """
        if dispatch == "per_lane":
            self._start_thread("low")
        self._drain("high" if dispatch == "per_lane" else "any")

    def _start_thread(self, lane: Lane) -> None:
        name = "lasersell-dispatch" if lane == "any" else f"lasersell-dispatch-{lane}"
        thread = threading.Thread(target=self._run_thread, args=(lane,), name=name, daemon=True)
        self._threads[thread] = lane
        thread.start()

    def _run_thread(self, lane: Lane) -> None:
        try:
            self._drain(lane)
        except BaseException as error:  # noqa: BLE001 - a dispatcher that is silently gone sells nothing
            if error is self._lanes.error:
                # Why the stream failed: the reader has logged it, and every caller gets it.
                return
            if self._on_death is not None:
                self._on_death(ThreadDiedError.caused_by(threading.current_thread().name, error))

    def _drain(self, lane: Lane) -> None:
        while not self._abandoned.is_set():
            try:
                event = self._lanes.take(lane=lane)
            except (StreamClosed, queue.Empty):
                return
            self.handle(event)

    def handle(self, event: StreamEvent) -> None:
        """Call every handler of this event. KeyboardInterrupt alone passes through (``run`` on the main thread)."""
        thread = threading.current_thread()
        # A handler_error is handled while the handler that caused it still counts as running (inline dispatch).
        outer = self._running.get(thread)
        for handler in self._registry.of(event.type):
            self._running[thread] = _Running(_name(handler), event.type, time.monotonic())
            try:
                handler(event)
            except BaseException as error:  # noqa: BLE001 - user code; the events after it must arrive
                self.failed(handler, event, error)
            finally:
                if outer is None:
                    self._running.pop(thread, None)
                else:
                    self._running[thread] = outer

    def failed(self, handler: Handler, event: StreamEvent, error: BaseException) -> None:
        """Tell that a handler raised; what is neither an Exception nor a SystemExit is raised again."""
        if not isinstance(error, (Exception, SystemExit)):
            raise error
        name = _name(handler)
        log.error("handler %s raised for %s", name, event.type, exc_info=error)
        if event.type == HandlerError.type:
            # A handler of handler_error that raises would call itself for ever.
            return
        told = HandlerError(handler=name, event_type=event.type, error=error)
        self._report(StreamEvent(HandlerError.type, told, None, time.monotonic_ns()))

    # ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────

    def watch(self, stuck_after_s: float) -> float | None:
        """Report handlers that have run for too long; seconds until the next one might (None: none is running).

        Called on the reader, so with inline dispatch a stuck handler holds up this watch too.
        """
        now = time.monotonic()
        dues: list[float] = []
        for thread, call in list(self._running.items()):
            due_s = call.since + stuck_after_s - now
            if due_s > 0:
                dues.append(due_s)
            elif call not in self._reported:
                # Told first: whoever sees it in health() can find its stack in the log.
                self._report_stuck(thread, call, now - call.since)
                self._reported.add(call)
        self._reported &= set(self._running.values())
        return min(dues, default=None)

    def stuck(self) -> tuple[str, ...]:
        """Names of the handlers that were reported and still run."""
        return tuple(call.handler for call in list(self._running.values()) if call in self._reported)

    def _report_stuck(self, thread: threading.Thread, call: _Running, seconds: float) -> None:
        frame = sys._current_frames().get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "(gone)"
        log.error("handler %s has been handling %s for %.0f s:\n%s", call.handler, call.event_type, seconds, stack)
        told = HandlerStuck(handler=call.handler, event_type=call.event_type, seconds=seconds, stack=stack)
        event: StreamEvent = StreamEvent(HandlerStuck.type, told, None, time.monotonic_ns())
        lane = self._threads.get(thread)
        if lane == "low":
            self._lanes.put_high(event)
        elif lane == "high":
            self._lanes.put_low(event, HandlerStuck.type, None)

    def join(self, timeout_s: float | None) -> list[str]:
        """Wait for the threads to finish what waits; then leave the rest. Names of the handlers that still run.

        On a dispatcher thread (a handler closes the session) that thread is not waited for.
        """
        ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        # A handler on the first lane's thread may close the session before the second one has even started; that one
        # will find the lanes finished.
        others = [t for t in list(self._threads) if t is not threading.current_thread() and t.ident is not None]
        for thread in others:
            thread.join(None if ends_at is None else max(0.0, ends_at - time.monotonic()))
        self._abandoned.set()
        calls = [self._running.get(thread) for thread in others if thread.is_alive()]
        return ["between two handlers" if call is None else call.handler for call in calls]


def _name(handler: Handler) -> str:
    """How a handler is called in logs: its qualified name, or its class's for a callable object."""
    return getattr(handler, "__qualname__", None) or type(handler).__qualname__
