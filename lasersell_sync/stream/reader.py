"""The reader thread: connect, serve, reconnect; it owns the link and the connection's state.

It waits in one ``select`` on the socket and a wake-up descriptor, with the time of the next thing due as its limit:
nothing polls, and an idle connection costs nothing between keepalives.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from lasersell_sync.exceptions import (
    LaserSellError,
    ProtocolError,
    SessionLimitError,
    StreamClosed,
    ThreadDiedError,
    TransportError,
)
from lasersell_sync.messages import ClientMessage, HelloOk
from lasersell_sync.retry import reconnect_retrying
from lasersell_sync.runtime.locks import Flag, signal_safe_lock
from lasersell_sync.runtime.log import logger, repeat_limit
from lasersell_sync.runtime.timeouts import TimeBudget, boot_time_s, wait_s
from lasersell_sync.stream.connected_loop import ConnectedLoop
from lasersell_sync.stream.connection_events import (
    Closed,
    CommandDropped,
    Connected,
    Degraded,
    Disconnected,
    Failed,
    Reconnecting,
)
from lasersell_sync.stream.lifecycle import ConnectionState, Lifecycle, ReconnectRules, Wait
from lasersell_sync.stream.options import StreamOptions
from lasersell_sync.stream.sink import Sink, Taps
from lasersell_sync.stream.stats import Counters, DecodeFailures
from lasersell_sync.stream.transport import Link, open_link
from lasersell_sync.stream.waiter import Aborted, Waiter, WakeUp, new_selector
from lasersell_sync.stream.writer import FrameWriter

__all__ = ["Reader"]

log = logger("stream")

RECEIVE_BUFFER_BYTES: Final = 256 * 1024


class Reader:
    """Owns the thread ``lasersell-reader``, the link, and the connection's state.

    Threads: ``start``, ``stop``, ``wake``, ``run_soon``, ``join`` from any; everything else is the reader's own.
    """

    def __init__(
        self,
        *,
        url: str,
        api_key: str,
        options: StreamOptions,
        writer: FrameWriter,
        counters: Counters,
        wake_up: WakeUp,
        sink: Sink,
    ) -> None:
        self.sink = sink
        self.lifecycle = Lifecycle(
            ReconnectRules(
                initial_backoff_s=options.initial_backoff_s,
                max_backoff_s=options.max_backoff_s,
                stable_after_s=options.stable_after_s,
                max_degraded_backoff_s=options.max_degraded_backoff_s,
                max_session_limit_backoff_s=options.max_session_limit_backoff_s,
            )
        )
        self.counters = counters
        self.hello: HelloOk | None = None
        #: When it came, by the boot-time clock.
        self.hello_at = 0.0
        #: When the session was opened.
        self.opened_at = 0.0
        #: Messages that could not be read.
        self.decode_failures = DecodeFailures()
        #: Why the link is to be given up once everything that reached the socket was read; None: it is not.
        self.give_up: str | None = None
        self.taps: Taps[bytes, int] = Taps()
        #: Set once the first session is open, or will never be.
        self.ready = threading.Event()
        #: Why the connection ended, when it failed.
        self.error: BaseException | None = None
        self._url = url
        self._api_key = api_key
        self.options = options
        self.writer = writer
        writer.on_dropped = self._report_dropped
        self._stopping = Flag()
        self.wake_up = wake_up
        self._waiter = Waiter(self.wake_up, self._stopping.is_set)
        self._jobs: deque[Callable[[], None]] = deque()
        # Guards the hand-over of jobs to a reader that is about to end.
        self._jobs_lock = signal_safe_lock()
        self._ended = False
        self._link: Link | None = None
        self._death: ThreadDiedError | None = None
        self._wait = Wait(0.0, ConnectionState.BACKOFF)
        self._told_degraded = False
        self._lost_at: float | None = None
        self.buffer = memoryview(bytearray(RECEIVE_BUFFER_BYTES))
        self._thread = threading.Thread(target=self._run, name="lasersell-reader", daemon=True)

    # ── other threads ────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin; ``ready`` tells when the first session is open or refused."""
        self._thread.start()

    def stop(self) -> None:
        """End soon: the socket is down within ``close_timeout_s``, whatever the reader is waiting for."""
        self._stopping.set()
        self.wake()

    def look_soon(self) -> None:
        """Call ``tick`` soon: something may be due that was not when it was called last."""
        self.run_soon(_nothing)

    def wake(self) -> None:
        """End the reader's current wait."""
        self.wake_up.set()

    def fail(self, error: ThreadDiedError) -> None:
        """End with this error: another thread of the connection died, and what it did is not done any more."""
        self._death = error
        self.stop()

    @property
    def cause(self) -> BaseException | None:
        """Why the connection ended or is about to; None for a ``close()``, and while it lives."""
        return self.error or self._death

    def join(self, timeout_s: float | None) -> bool:
        """Wait for the thread to end; False when it did not. On the reader itself: True at once."""
        if self.is_current_thread():
            return True
        self._thread.join(wait_s(timeout_s))
        return not self._thread.is_alive()

    @property
    def started(self) -> bool:
        """True once ``start`` was called."""
        return self._thread.ident is not None

    def force_down(self) -> None:
        """Take the socket down now, from any thread: for a reader that user code holds up."""
        link = self._link
        if link is not None:
            link.close()

    def let_go(self) -> None:
        """In a forked child: close its copies of the descriptors; waits for nothing."""
        link, self._link = self._link, None
        if link is not None:
            link.let_go()
        self.wake_up.let_go()

    def is_current_thread(self) -> bool:
        """True on the reader thread itself (an inline handler)."""
        return threading.current_thread() is self._thread

    def run_soon(self, job: Callable[[], None]) -> None:
        """Run ``job`` on the reader between two reads; on the caller's thread when the reader has ended."""
        with self._jobs_lock:
            if not self._ended:
                self._jobs.append(job)
                self.wake()
                return
        job()

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._sessions()
        except (Aborted, StreamClosed):
            pass
        except BaseException as caught:  # noqa: BLE001 - whatever ends this thread must reach every consumer
            error = caught
            if not isinstance(caught, (LaserSellError, OSError)):
                # A SystemExit or a bug of ours must not be raised as such in the user's threads.
                error = ThreadDiedError.caused_by(threading.current_thread().name, caught)
        self._finish(error)

    def _sessions(self) -> None:
        """Session after session until ``stop`` or a final error; tenacity owns the repetition."""
        reconnect_retrying(
            stop_event=self._stopping,
            sleep=self._back_off,
            wait_s=self._decide_wait,
            should_retry=lambda error: not self._stopping.is_set() and not self.lifecycle.is_final(error),
            before_sleep=lambda state: self._tell_reconnecting(state.outcome.exception() if state.outcome else None),
        )(self._session)

    def _session(self) -> None:
        """One attempt: connect, and serve until the link is lost (which raises) or ``stop`` (which returns)."""
        # tenacity looks at its stop condition only after a failure, so a stop during the wait ends up here.
        if self._stopping.is_set():
            return
        if self.lifecycle.state is not ConnectionState.CONNECTING:
            self.lifecycle.go(ConnectionState.CONNECTING)
        self.give_up = None
        budget = TimeBudget(self.options.connect_timeout_s)
        try:
            link = open_link(
                self._url,
                self._api_key,
                ssl_context=self.options.ssl_context,
                proxy=self.options.proxy,
                pins=self.options.pins,
                budget=budget,
                waiter=self._waiter,
            )
            self._link = link
            try:
                ConnectedLoop(self, link, budget).run()
            finally:
                self._link = None
                self.sink.consumer.note_reading(reading=True)
                self.writer.end(self.counters.last_received)
                link.close()
        except Aborted:
            return
        except Exception as error:
            self._note_loss(error)
            raise

    def _note_loss(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        now = time.monotonic()
        if not self.lifecycle.in_session:
            self.lifecycle.attempt_failed(error, live_s=None)
            return
        self.lifecycle.attempt_failed(error, live_s=now - self.opened_at)
        # The gap begins with the last byte, not with the moment at which its absence was noticed.
        self._lost_at = self.counters.last_received or now
        log.warning("the link was lost: %s", error)
        # Before it is told: whoever hears of it must not find the session still live.
        self.lifecycle.go(ConnectionState.BACKOFF)
        ending = error.__cause__ if isinstance(error, SessionLimitError) else error
        close_code = ending.close_code if isinstance(ending, (ProtocolError, TransportError)) else None
        code = error.code if isinstance(error, SessionLimitError) else None
        self.sink.event(Disconnected(reason=str(error), close_code=close_code, code=code))

    def _report_dropped(self, command: ClientMessage, reason: str) -> None:
        position = getattr(command, "token_account", None) or getattr(command, "position_id", None)
        log.warning("%s for %s is dropped: %s", command.type, position, reason)
        self.sink.event(CommandDropped(command=command.type, position=position, reason=reason))

    def _decide_wait(self, error: BaseException) -> float:
        self._wait = self.lifecycle.wait_after(error)
        return self._wait.seconds

    def _tell_reconnecting(self, error: BaseException | None) -> None:
        newly_degraded = self._wait.state is ConnectionState.DEGRADED and not self._told_degraded
        self._told_degraded = self._wait.state is ConnectionState.DEGRADED
        if self.lifecycle.state is not self._wait.state:
            self.lifecycle.go(self._wait.state)
        attempt = self.lifecycle.attempts_since_loss + 1
        wait_s, words = self._wait.seconds, str(error) if error else ""
        log.info("attempt %d in %.3f s (%s)", attempt, wait_s, words)
        if newly_degraded:
            losses = self.lifecycle.quick_losses
            log.warning("the server dropped %d sessions in a row at once; waiting longer from now on", losses)
            self.sink.event(Degraded(losses=losses, wait_seconds=wait_s, last_error=words))
        self.sink.event(Reconnecting(attempt=attempt, wait_seconds=wait_s, last_error=words))

    def _back_off(self, seconds: float) -> None:
        """Sleep, but wake for ``stop``, and do the jobs that come meanwhile."""
        budget = TimeBudget(seconds)
        with new_selector() as selector:
            selector.register(self.wake_up, selectors.EVENT_READ)
            while not self._stopping.is_set() and not budget.expired():
                self.run_jobs()
                due_s = self.tick()
                left_s = budget.remaining_s() or 0.0
                selector.select(left_s if due_s is None else min(left_s, due_s))
                self.wake_up.drain()

    def greeted(self, hello: HelloOk) -> None:
        """Limits, session id and the server's clock follow the latest ``hello_ok``, in mid-session too."""
        self.hello_at = boot_time_s()
        self.hello = hello

    def opened(self, hello: HelloOk) -> None:
        """The session is open: tell everyone who waits."""
        gap_s = 0.0 if self._lost_at is None else time.monotonic() - self._lost_at
        attempts = self.lifecycle.attempts_since_loss + 1
        self.opened_at = time.monotonic()
        self.greeted(hello)
        self.lifecycle.opened()
        self.writer.go_live()
        self.sink.event(
            Connected(hello=hello, attempts=attempts, reconnected=self.lifecycle.sessions > 1, gap_seconds=gap_s)
        )
        log.info("session %d is open after %d attempt(s)", hello.session_id, attempts)

    def tick(self) -> float | None:
        """Do what is due without bytes of the link; seconds until something will be (None: nothing)."""
        failure, failure_due_s = self.decode_failures.due()
        if failure is not None:
            self.sink.event(failure)
        dues = (self.sink.tick(), failure_due_s, repeat_limit.log_sums())
        return min((due for due in dues if due is not None), default=None)

    def run_jobs(self) -> bool:
        """What other threads asked to be done here; True when there was something."""
        had_jobs = bool(self._jobs)
        while self._jobs:
            self._jobs.popleft()()
        return had_jobs

    @property
    def stopping(self) -> bool:
        """True once ``stop`` was called."""
        return self._stopping.is_set()

    def _finish(self, error: BaseException | None) -> None:
        if error is not None and self._stopping.is_set() and isinstance(error, (LaserSellError, OSError)):
            # The link broke while it was being closed: the user asked for the end and gets it.
            error = None
        error = self._death or error
        self.error = error
        self.writer.end()
        with self._jobs_lock:
            self._ended = True
        self.run_jobs()
        self.lifecycle.go(ConnectionState.CLOSED if error is None else ConnectionState.FAILED)
        if error is not None and self.lifecycle.sessions:
            log.error("the stream has failed: %s", error, exc_info=None if isinstance(error, LaserSellError) else error)
        repeat_limit.log_sums(all_kinds=True)
        untold = self.decode_failures.rest()
        try:
            if untold is not None:
                self.sink.event(untold)
            self.sink.event(Closed() if error is None else Failed(error=error))
        finally:
            self.sink.finish(error)
            self.ready.set()
            self.wake_up.close()


def _nothing() -> None:
    """A job that only makes the reader look."""
