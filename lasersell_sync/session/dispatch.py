"""Handlers: who is called for what, on which thread, and what happens when one raises."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

import attrs

from lasersell_sync._backend import HandlerLoop
from lasersell_sync.exceptions import StreamClosed, ThreadDiedError
from lasersell_sync.runtime.locks import Flag, is_held_here, signal_safe_lock
from lasersell_sync.runtime.log import logger, repeat_limit
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.runtime.user_code import passes_through
from lasersell_sync.session.events import EVENT_TYPES, EVERY, HandlerError, HandlerStuck, StreamEvent, event_type
from lasersell_sync.stream.event_queue import EventQueue, Lane

__all__ = ["Dispatcher", "Handler", "HandlerErrorReporter", "HandlerRegistry"]

log = logger("dispatch")


# ── Which errors of handlers are reported at once, and which are counted by a later event ───────────────────────────


@attrs.define
class _Errors:
    """Of one handler."""

    count: int = 0
    told_count: int = 0
    told_at: float = float("-inf")
    #: (event type, error) of the latest, until it is told.
    waiting: tuple[str, BaseException] | None = None


class HandlerErrorReporter:
    """Decides which errors of handlers are told at once: a few of each handler, then one a second.

    Threads: any.
    """

    AT_ONCE: Final = 16
    INTERVAL_S: Final = 1.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Guards the dict and what is in it.
        self._lock = signal_safe_lock()
        self._of: dict[str, _Errors] = {}
        #: Somebody will ask what is due.
        self.is_watched = False

    def add(self, handler: str, event_type: str, error: BaseException) -> HandlerError | None:
        """What to tell now; None when it is told later."""
        with self._lock:
            errors = self._of.setdefault(handler, _Errors())
            errors.count += 1
            errors.waiting = (event_type, error)
            if errors.count > self.AT_ONCE and self._clock() - errors.told_at < self.INTERVAL_S:
                return None
            return self._take(handler, errors)

    def due(self) -> tuple[list[HandlerError], float | None]:
        """(what to tell now, seconds until something else is due or None)."""
        now = self._clock()
        with self._lock:
            waiting = [(name, errors) for name, errors in self._of.items() if errors.waiting is not None]
            due = [(name, errors) for name, errors in waiting if now - errors.told_at >= self.INTERVAL_S]
            told = [self._take(name, errors) for name, errors in due]
            later = [errors.told_at + self.INTERVAL_S - now for _, errors in waiting if errors.waiting is not None]
            self.is_watched = bool(later)
        return told, min(later, default=None)

    def rest(self) -> list[HandlerError]:
        """All that was not told yet, whether due or not."""
        with self._lock:
            return [self._take(name, errors) for name, errors in self._of.items() if errors.waiting is not None]

    @property
    def is_held_here(self) -> bool:
        """True in a signal handler that interrupted a call of this on the same thread."""
        return is_held_here(self._lock)

    def _take(self, handler: str, errors: _Errors) -> HandlerError:
        assert errors.waiting is not None
        event_type, error = errors.waiting
        since_last, errors.told_count = errors.count - errors.told_count, errors.count
        errors.told_at, errors.waiting = self._clock(), None
        return HandlerError(
            handler=handler, event_type=event_type, error=error, count=errors.count, since_last=since_last
        )


# ── Handlers: who is called for what, on which thread, and what happens when one raises ─────────────────────────────


Handler: TypeAlias = Callable[[StreamEvent], object]
Dispatch: TypeAlias = Literal["thread", "per_lane", "inline"]


class HandlerErrors(NamedTuple):
    """What handlers raised.

    Attributes:
        raised: how often.
        last: handler, exception type and event type of the latest one. Its words are in the log.
    """

    raised: int = 0
    last: str = ""


class HandlerRegistry:
    """Handlers by event type, in registration order.

    Threads: any; a change replaces the tuples, so an event that is being handled sees one consistent list.
    """

    def __init__(self) -> None:
        # Guards changes; reading needs no lock.
        self._lock = signal_safe_lock()
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

    def is_empty(self) -> bool:
        """True when no handler is registered."""
        return not any(self._handlers.values())

    def of(self, kind: str) -> tuple[Handler, ...]:
        """The handlers for an event of this type: the specific ones, then those for everything."""
        return self.called.get(kind, ())


class Dispatcher:
    """Calls handlers, and keeps their exceptions from ending anything.

    ``thread``: one thread for both lanes. ``per_lane``: one each, so a slow ``pnl_update`` handler cannot hold up an
    exit signal. ``inline``: on the reader itself; the fastest, and a slow handler stops the reading.

    Args:
        lanes: where the events wait.
        registry: the handlers.
        report: delivers a ``handler_error`` event.
        on_death: told when a dispatcher thread dies of something it cannot survive.
        watch_soon: called when ``watch`` has something to do later, from any thread.

    Threads: owns ``lasersell-dispatch`` (two with ``per_lane``); ``handle`` runs on the reader (inline).
    """

    def __init__(
        self,
        lanes: EventQueue[StreamEvent],
        registry: HandlerRegistry,
        report: Callable[[StreamEvent], None],
        on_death: Callable[[ThreadDiedError], None] | None = None,
        watch_soon: Callable[[], None] | None = None,
    ) -> None:
        self._lanes = lanes
        self._registry = registry
        self._report = report
        self._on_death = on_death
        self._watch_soon = watch_soon
        self._error_reporter = HandlerErrorReporter()
        #: Dispatcher threads.
        self._threads: list[threading.Thread] = []
        #: Every thread that calls handlers (the caller of ``run`` among them), and the lane it serves.
        self._callers: dict[threading.Thread, tuple[HandlerLoop, Lane]] = {}
        #: Since when the call has been running that was reported as stuck; each is reported once.
        self._reported: dict[HandlerLoop, float] = {}
        # Guards the change of ``errors``.
        self._errors_lock = signal_safe_lock()
        #: What handlers have raised so far.
        self.errors = HandlerErrors()
        #: Set when close() has waited long enough: whatever still waits in the lanes is left there.
        self._abandoned = Flag()

    # ── running ──────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, dispatch: Dispatch) -> None:
        """Start the thread or threads."""
        lanes: tuple[Lane, ...] = ("high", "low") if dispatch == "per_lane" else ("any",)
        served = {thread.name for thread in self._threads}  # of a start() for which the system had one thread only
        for lane in lanes:
            if _thread_name(lane) not in served:
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
        thread = threading.Thread(target=self._run_thread, args=(lane,), name=_thread_name(lane), daemon=True)
        thread.start()
        self._threads.append(thread)

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
        caller = HandlerLoop(self._lanes, lane, self._registry.called, self.failed)
        self._callers[threading.current_thread()] = caller, lane
        if self._abandoned.is_set():
            # join() was here before us, and stopped those that it found.
            return
        try:
            with contextlib.suppress(StreamClosed):
                caller.run()
        except BaseException as error:
            if error is self._lanes.error:
                self._report_rest()
            raise
        self._report_rest()

    def _report_rest(self) -> None:
        """The lanes have ended, and the reader, which would ask later, has gone: what was held back is told now."""
        for told in self._error_reporter.rest():
            log.error(
                "handler %s raised %d times, %d of them not reported yet", told.handler, told.count, told.since_last
            )
            if not self._abandoned.is_set():
                self.handle(_handler_error(told))
        repeat_limit.log_sums(all_kinds=True)

    def handle(self, event: StreamEvent) -> None:
        """Call every handler of this event, here and now."""
        for handler in self._registry.of(event.type):
            try:
                handler(event)
            except BaseException as error:  # noqa: BLE001 - user code; the events after it must arrive
                self.failed(handler, event, error)

    def failed(self, handler: Handler, event: StreamEvent, error: BaseException) -> None:
        """Report that a handler raised; what is meant for the thread of ``run`` is raised again."""
        if passes_through(error, began_at=self._began_at()):
            raise error
        name = _name(handler)
        with self._errors_lock:
            self.errors = HandlerErrors(
                raised=self.errors.raised + 1, last=f"{name} raised {type(error).__name__} for {event.type}"
            )
        log.error("handler %s raised for %s", name, event.type, exc_info=error)
        if event.type == HandlerError.type:
            # A handler of handler_error that raises would call itself for ever.
            return
        told = self._error_reporter.add(name, event.type, error)
        if told is not None:
            self._tell(told)
        elif self._watch_soon is not None and not self._error_reporter.is_watched:
            self._error_reporter.is_watched = True
            self._watch_soon()

    def _tell(self, told: HandlerError) -> None:
        self._report(_handler_error(told))

    def _began_at(self) -> float | None:
        """When the handler that runs on this thread was called."""
        caller, _ = self._callers.get(threading.current_thread(), (None, None))
        call = None if caller is None else caller.running
        return None if call is None else call[2]

    # ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────

    def watch(self, stuck_after_s: float) -> float | None:
        """Report handlers that have run for too long; seconds until the next one might (None: none is running).

        Called on the reader, so with inline dispatch a stuck handler holds up this watch too.
        """
        now = time.monotonic()
        dues: list[float] = []
        due, due_s = self._error_reporter.due()
        for told in due:
            self._tell(told)
        if due_s is not None:
            dues.append(due_s)
        for thread, (caller, lane) in list(self._callers.items()):
            call = caller.running
            if call is None:
                continue
            handler, event, since = call
            due_s = since + stuck_after_s - now
            if due_s > 0:
                dues.append(due_s)
            elif self._reported.get(caller) != since:
                # Told first: whoever sees it in health() can find its stack in the log.
                self._report_stuck(thread, lane, _name(handler), event.type, now - since)
                self._reported[caller] = since
        return min(dues, default=None)

    def report_rest(self) -> None:
        """Report what was held back: the stream ends, and nothing will be due later. Called on the reader."""
        for told in self._error_reporter.rest():
            self._tell(told)

    @property
    def is_interrupted(self) -> bool:
        """True in a signal handler that interrupted a call on this thread which holds what the reader may wait for."""
        return self._error_reporter.is_held_here

    def stuck(self) -> tuple[str, ...]:
        """Names of the handlers that were reported and still run."""
        calls = [(caller.running, since) for caller, since in list(self._reported.items())]
        return tuple(_name(call[0]) for call, since in calls if call is not None and call[2] == since)

    def _report_stuck(self, thread: threading.Thread, lane: Lane, handler: str, kind: str, seconds: float) -> None:
        frame = sys._current_frames().get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "(gone)"
        log.error("handler %s has been handling %s for %.0f s:\n%s", handler, kind, seconds, stack)
        told = HandlerStuck(handler=handler, event_type=kind, seconds=seconds, stack=stack)
        event: StreamEvent = StreamEvent(HandlerStuck.type, told, None, time.monotonic_ns())
        if lane == "low":
            self._lanes.put_high(event)
        elif lane == "high":
            self._lanes.put_low(event, HandlerStuck.type, None)

    def join(self, timeout_s: float | None) -> list[str]:
        """Wait for the threads to finish what waits; then leave the rest. Names of the handlers that still run.

        On a dispatcher thread (a handler closes the session) that thread is not waited for.
        """
        budget = TimeBudget(timeout_s)
        # A handler on the first lane's thread may close the session before the second one has even started; that one
        # will find the lanes finished.
        others = [t for t in self._threads.copy() if t is not threading.current_thread() and t.ident is not None]
        for thread in others:
            thread.join(budget.remaining_s())
        self._abandoned.set()
        for caller, _ in list(self._callers.values()):
            caller.stop()
        return [self._current_call(thread) for thread in others if thread.is_alive()]

    def _current_call(self, thread: threading.Thread) -> str:
        caller, _ = self._callers.get(thread, (None, None))
        call = None if caller is None else caller.running
        return "between two handlers" if call is None else _name(call[0])


def _handler_error(told: HandlerError) -> StreamEvent:
    return StreamEvent(HandlerError.type, told, None, time.monotonic_ns())


def _thread_name(lane: Lane) -> str:
    return "lasersell-dispatch" if lane == "any" else f"lasersell-dispatch-{lane}"


def _name(handler: Handler) -> str:
    """How a handler is called in logs: its qualified name, or its class's for a callable object."""
    return getattr(handler, "__qualname__", None) or type(handler).__qualname__
