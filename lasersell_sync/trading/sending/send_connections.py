"""The connections to one target: kept, warm, and each with one request under way.

Whoever has a request writes it straight into an idle connection. One thread (``answer_reader``) reads all answers;
further threads, as many as connections are opened at once, do what may block: names, TCP, proxies and TLS.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lasersell_sync.exceptions import ConcurrencyError
from lasersell_sync.network.http_framing import HttpAnswer, HttpFailure
from lasersell_sync.runtime import log as _log
from lasersell_sync.runtime.locks import signal_safe_lock
from lasersell_sync.runtime.timeouts import TimeBudget, boot_time_s, wait_s
from lasersell_sync.trading.sending.answer_reader import AnswerReader
from lasersell_sync.trading.sending.send_connection import Ended, Exchange, SendConnection

if TYPE_CHECKING:
    from lasersell_sync.network.http_pool import HttpPool

__all__ = ["SendConnections"]

log = _log.logger("trading")

#: Connections that are opened at once to one target.
_OPENERS: Final = 4
#: For one connection; the look-up of a name comes on top.
_OPEN_S: Final = 5.0
#: A target that refuses further connections beside those it has is not asked for more before so many seconds.
_MORE_AFTER_S: Final = 1.0
_WARNS_AGAIN_AFTER_S: Final = 30.0
#: Two clocks are read one after the other, so they differ a little at each look.
_LEAST_SUSPENSION_S: Final = 1.0


class SendConnections:
    """All connections to one target.

    Args:
        number: of the target; names the threads.
        label: of the target, for the log.
        pool: what opens connections to it and reads its answers; called when it is needed, for it takes long to load.
        limit: connections at once; what finds none waits.
        timeout_s: seconds for a request from its first byte on.

    Threads: every method from any. Its own: ``lasersell-send-<number>`` reads, from the first request to ``close``;
    ``lasersell-open-<number>_<n>``, up to four, open connections and end when none is wanted.
    """

    def __init__(
        self,
        number: int,
        label: str,
        pool: Callable[[], HttpPool],
        *,
        limit: int,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._number = number
        self._label = label
        self._pool = pool
        self._limit = limit
        self._timeout_s = timeout_s
        self._clock = clock
        self._reader = AnswerReader(number, label, finish=self._finish, forget=self._forget, clock=clock)
        #: Guards everything below; never held while a socket is used or an exchange is ended.
        self._lock = threading.Condition(signal_safe_lock())
        self._all: set[SendConnection] = set()
        #: The one that was used last is last, and used first: it is the warmest.
        self._idle: list[SendConnection] = []
        self._waiting: deque[Exchange] = deque()
        self._openers = 0
        self._threads_opened = 0
        #: As many connections are opened though nobody waits for them.
        self._wanted = 0
        self._no_more_before = -math.inf
        #: What the idle connections have outlived.
        self._suspended_s = _suspended_s()
        self._warned_at = -math.inf
        self._is_closed = False

    # ── requests ──

    def post(self, exchange: Exchange, *, first: bool = False) -> None:
        """Write a request, or keep it until a connection is free; returns at once.

        Args:
            exchange: it; its end may come before this returns.
            first: before all that wait.

        Raises:
            ConcurrencyError: closed, or the system has no thread for the reader.
        """
        self._start()
        self._drop_what_was_suspended()
        with self._lock:
            self._require_open()
            connection = self._idle.pop() if self._idle else None
            if connection is None:
                (self._waiting.appendleft if first else self._waiting.append)(exchange)
        if connection is None:
            self._open_more()
        else:
            self._serve(connection, exchange)

    def mind_the_clock(self) -> None:
        """To be called after ``post``, when the bytes to all targets are written."""
        self._reader.mind_the_clock()

    def _serve(self, connection: SendConnection | None, exchange: Exchange | None = None) -> None:
        """Give a connection what waits, until something is under way on it; idle when nothing waits."""
        given = exchange
        try:
            while connection is not None and (exchange := exchange or self._next_for(connection)) is not None:
                wire = exchange.wire()
                if wire is None:
                    exchange = None
                elif self._begin(connection, exchange, wire):
                    return
                else:
                    connection = self._another(exchange)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if exchange is not None and exchange is not given:  # nobody else knows of it
                self._end(exchange, HttpFailure("send", f"not sent: {type(error).__name__}", sent=True))
            raise

    def _next_for(self, connection: SendConnection) -> Exchange | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if not self._is_closed:
                self._idle.append(connection)
                self._lock.notify_all()
                return None
        connection.close()
        return None

    def _begin(self, connection: SendConnection, exchange: Exchange, wire: bytes) -> bool:
        """Whether it is done with: under way, or broken; False: not begun, for the connection was broken before."""
        now = self._clock()
        if exchange.ends_at == math.inf:
            exchange.ends_at = now + self._timeout_s
        try:
            if not connection.begin(exchange, wire, now=now):
                return False
        except OSError as error:
            self._end(exchange, self._pool().broken(error, status=None, limit_s=self._timeout_s))
            return True
        self._reader.expect_end(exchange.ends_at)
        if connection.has_unsent:
            self._reader.look_at(connection)
        return True

    def _another(self, exchange: Exchange) -> SendConnection | None:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            self._waiting.appendleft(exchange)
        self._open_more()
        return None

    def _end(self, exchange: Exchange, outcome: HttpAnswer | HttpFailure) -> bool:
        try:
            return exchange.ended(outcome)
        except BaseException:
            log.exception("%s: an answer was not understood", self._label)
            return False

    def _start(self) -> None:
        """Start the reader, unless it runs.

        Raises:
            ConcurrencyError: closed, or the system has no thread.
        """
        self._require_open()
        self._reader.start()

    def _require_open(self) -> None:
        if self._is_closed:
            raise ConcurrencyError("this TxSender is closed: make a new one")

    # ── opening ──

    def want_all(self) -> None:
        """Open as many connections as there may be, in the background."""
        self._start()
        with self._lock:
            self._wanted = self._limit
        self._open_more()

    def wait_opened(self, budget: TimeBudget) -> None:
        """Wait until no connection is being opened."""
        with self._lock:
            self._lock.wait_for(lambda: self._openers == 0 or self._is_closed, wait_s(budget.remaining_s()))

    def _open_more(self) -> None:
        """Start openers where connections are wanted."""
        problem: Exception | None = None
        lost: list[Exchange] = []
        with self._lock:
            while problem is None and self._openers < _OPENERS and self._wants_another(self._openers):
                self._openers += 1
                self._threads_opened += 1
                name = f"lasersell-open-{self._number}_{self._threads_opened % _OPENERS}"
                try:
                    threading.Thread(target=self._open_wanted, name=name, daemon=True).start()
                except (RuntimeError, MemoryError) as error:
                    self._openers -= 1
                    problem = error
                    lost = self._lost_without_openers()
        for exchange in lost:
            self._end(exchange, HttpFailure("send", f"no thread to connect: {problem or 'out of memory'}", sent=False))

    def _wants_another(self, being_opened: int) -> bool:
        count = len(self._all) + being_opened
        if self._is_closed or count >= self._limit or (self._all and self._clock() < self._no_more_before):
            return False
        return count < self._wanted or len(self._waiting) > being_opened

    def _lost_without_openers(self) -> list[Exchange]:
        """What waits for a connection though none is there, none is being opened, and the last attempt failed."""
        if self._all or self._openers:
            return []
        lost = list(self._waiting)
        self._waiting.clear()
        return lost

    def _open_wanted(self) -> None:
        """An opener's thread."""
        failure: HttpFailure | None = None
        while failure is None:
            try:
                failure = self._open_one()
            except BaseException as error:
                log.exception("%s: opening a connection failed", self._label)
                failure = HttpFailure("send", f"no connection: {type(error).__name__}", sent=False)
            with self._lock:
                if failure is None and self._wants_another(self._openers - 1):
                    continue
                self._openers -= 1
                self._lock.notify_all()
                if failure is None:
                    return
                self._no_more_before = self._clock() + _MORE_AFTER_S
                lost = self._lost_without_openers()
                is_told = bool(lost or self._is_closed or (self._openers and not self._all))
        if not is_told:
            self._note_failure(failure)
        for exchange in lost:
            self._end(exchange, failure)

    def _open_one(self) -> HttpFailure | None:
        """Why not."""
        try:
            pool = self._pool()
            sock = pool.connect(timeout_s=min(_OPEN_S, self._timeout_s))
        except HttpFailure as failure:
            return failure
        except ConcurrencyError as error:  # somebody closed the process's connections in this moment
            return HttpFailure("send", error.problem, sent=False)
        connection = SendConnection(sock, max_body_bytes=pool.max_body_bytes, opened_at=self._clock())
        with self._lock:
            if self._is_closed:  # the reader may have ended
                connection.give_back()
                return None
            self._all.add(connection)
            self._reader.watch(connection)
        self._serve(connection)
        self.mind_the_clock()
        return None

    def _note_failure(self, failure: HttpFailure) -> None:
        """A warning where no exchange ends that says so itself."""
        now = self._clock()
        is_known = now - self._warned_at < _WARNS_AGAIN_AFTER_S
        self._warned_at = self._warned_at if is_known else now
        log.log(
            logging.DEBUG if is_known else logging.WARNING,
            "%s: no further connection than the %d that are open (connections=%d): %s",
            self._label, len(self._all), self._limit, failure.problem,
        )  # fmt: skip

    # ── keeping warm ──

    def keep_warm(self, every_s: float, make: Callable[[], Exchange]) -> float:
        """Use the connection that was idle for longest, if its turn has come; the next moment, by the monotonic clock.

        Every connection has its turn once in ``every_s``, one after the other, so that a target with a rate limit does
        not get all of them at once. Those that the target closed meanwhile are opened again.

        Args:
            every_s: seconds.
            make: the request to use it with.
        """
        now, connection = self._clock(), None
        self._drop_what_was_suspended()
        with self._lock:
            if self._is_closed:
                return now + every_s
            gap_s = every_s / max(1, len(self._all))
            oldest = min(self._idle, key=lambda each: each.last_used_at, default=None)
            if oldest is not None and now - oldest.last_used_at >= max(every_s / 2, gap_s / 2):
                self._idle.remove(oldest)
                connection = oldest
            is_empty = not self._all
        if connection is not None:
            self._serve(connection, make())
            self.mind_the_clock()
        elif is_empty:
            with contextlib.suppress(ConcurrencyError):
                self.post(make())
        with contextlib.suppress(ConcurrencyError):
            self.want_all()
        return now + gap_s

    def _drop_what_was_suspended(self) -> None:
        """Close idle connections if the machine was suspended: routers forget them, and nobody says so."""
        suspended_s = _suspended_s()
        if suspended_s - self._suspended_s < _LEAST_SUSPENSION_S:
            return
        with self._lock:
            self._suspended_s = suspended_s
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # ── what the reader brings ──

    def _forget(self, connection: SendConnection) -> None:
        with self._lock:
            self._all.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
        self._open_more()

    def _finish(self, connection: SendConnection, ended: Ended) -> None:
        exchange, framing, outcome = ended
        answer: HttpAnswer | HttpFailure
        try:
            if isinstance(outcome, OSError):
                raise self._pool().broken(outcome, status=framing.status, limit_s=self._timeout_s)
            answer, is_reusable = (outcome, True) if isinstance(outcome, HttpAnswer) else self._pool().read(outcome)
        except HttpFailure as failure:
            answer, is_reusable = failure, False
        if not (self._end(exchange, answer) and is_reusable):
            connection.close()
        if not connection.is_closed:
            self._serve(connection)

    # ── the end ──

    def close(self) -> None:
        """No further requests, and what waits is dropped; what is under way ends by itself. Idempotent."""
        with self._lock:
            self._is_closed = True
            dropped = list(self._waiting)
            self._waiting.clear()
            idle, self._idle = self._idle, []
            self._lock.notify_all()
        for connection in idle:
            connection.close()
        for exchange in dropped:
            self._end(exchange, HttpFailure("send", "closed", sent=False))
        self._reader.stop()

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait for what is under way; whether nothing is left."""
        return self._reader.wait_stopped(timeout_s)

    def close_in_child(self) -> None:
        """Give a forked child's copies of the descriptors back. Takes no lock: the parent's threads may hold it."""
        self._reader.close_in_child()


def _suspended_s() -> float:
    """Seconds for which the machine has been suspended so far, and some constant."""
    return boot_time_s() - time.monotonic()
