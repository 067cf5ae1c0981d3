"""The connections to one target: kept, warm, and each with one request under way.

Whoever has a request writes it straight into an idle connection. One thread reads all answers; further threads, as many
as connections are opened at once, do what may block: names, TCP, proxies and TLS.
"""

from __future__ import annotations

import contextlib
import logging
import math
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lasersell_sync import _log
from lasersell_sync.exceptions import ConcurrencyError
from lasersell_sync.locks import signal_safe_lock
from lasersell_sync.timeouts import TimeBudget, wait_s
from lasersell_sync.trading._http_answer import HttpAnswer, HttpFailure
from lasersell_sync.trading.send_connection import Ended, Exchange, SendConnection

if TYPE_CHECKING:
    from lasersell_sync.trading._http import HttpPool

__all__ = ["SendConnections"]

log = _log.logger("trading")

#: Connections that are opened at once to one target.
_OPENERS: Final = 4
#: For one connection; the look-up of a name comes on top.
_OPEN_S: Final = 5.0
#: A target that refuses further connections beside those it has is not asked for more before so many seconds.
_MORE_AFTER_S: Final = 1.0
_WARNS_AGAIN_AFTER_S: Final = 30.0


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
        self._warned_at = -math.inf
        #: No exchange ends before this; monotonic seconds.
        self._earliest_end = math.inf
        self._sleeps_until = math.inf
        self._is_wake_up_due = False
        #: What the reader has to look at besides what its selector names.
        self._to_look_at: list[SendConnection] = []
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._wake_up: tuple[socket.socket, socket.socket] | None = None
        self._selector: selectors.BaseSelector | None = None

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
        with self._lock:
            connection = self._idle.pop() if self._idle else None
            if connection is None:
                (self._waiting.appendleft if first else self._waiting.append)(exchange)
        if connection is None:
            self._open_more()
        else:
            self._serve(connection, exchange)

    def mind_the_clock(self) -> None:
        """Wake the reader, if it sleeps for longer than what was posted may take. To be called after ``post``.

        Apart from it, so that the bytes to all targets are written before a thread is woken.
        """
        if self._is_wake_up_due:
            self._is_wake_up_due = False
            self._wake()

    def _serve(self, connection: SendConnection | None, exchange: Exchange | None = None) -> None:
        """Give a connection what waits, until something is under way on it; idle when nothing waits."""
        try:
            while connection is not None and (exchange := exchange or self._next_for(connection)) is not None:
                wire = exchange.wire()
                if wire is None:
                    exchange = None
                elif self._begin(connection, exchange, wire):
                    return
                else:
                    connection = self._another(exchange)
        except BaseException:
            if connection is not None:
                connection.close()
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
        with self._lock:
            if exchange.ends_at < self._earliest_end:
                self._earliest_end = exchange.ends_at
                self._is_wake_up_due |= exchange.ends_at < self._sleeps_until
        if connection.has_unsent:
            self._look_at(connection)
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
        self._look_at(connection)
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

    # ── the reader ──

    def _start(self) -> None:
        """Start the reader, unless it runs.

        Raises:
            ConcurrencyError: closed, or the system has no thread.
        """
        if self._is_closed:
            raise ConcurrencyError("this TxSender is closed: make a new one")
        if self._thread is None:
            self._start_reader()

    def _start_reader(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name=f"lasersell-send-{self._number}", daemon=True)
            try:
                if self._wake_up is None:
                    self._wake_up = socket.socketpair()
                    for end in self._wake_up:
                        end.settimeout(0.0)
                thread.start()
            except (RuntimeError, MemoryError, OSError) as error:
                raise ConcurrencyError(f"no thread for copies now: {error or 'out of memory'}") from error
            self._thread = thread

    def _wake(self) -> None:
        if self._wake_up is not None:
            with contextlib.suppress(OSError):  # full: it wakes anyway
                self._wake_up[1].send(b"\0")

    def _look_at(self, connection: SendConnection) -> None:
        """Have the reader watch it, or watch it otherwise."""
        with self._lock:
            self._to_look_at.append(connection)
        self._wake()

    def _run(self) -> None:
        assert self._wake_up is not None
        with selectors.DefaultSelector() as selector:
            self._selector = selector
            selector.register(self._wake_up[0], selectors.EVENT_READ)
            while self._is_needed():
                try:
                    self._turn(selector)
                except BaseException:
                    log.exception("%s: reading answers failed", self._label)
        for end in self._wake_up:
            end.close()

    def _is_needed(self) -> bool:
        with self._lock:
            return not self._is_closed or bool(self._all)

    def _turn(self, selector: selectors.BaseSelector) -> None:
        ready = [key.data for key, _ in selector.select(self._sleep_s())]
        if None in ready:
            self._forget_wake_ups()
        with self._lock:
            self._sleeps_until = -math.inf
            ready += self._to_look_at
            self._to_look_at = []
        for connection in ready:
            if connection is not None:
                self._advance(selector, connection)
        self._end_what_is_late(selector)

    def _sleep_s(self) -> float | None:
        with self._lock:
            if self._to_look_at:
                return 0.0
            self._sleeps_until = self._earliest_end
            return None if self._earliest_end == math.inf else wait_s(self._earliest_end - self._clock())

    def _forget_wake_ups(self) -> None:
        assert self._wake_up is not None
        with contextlib.suppress(OSError):
            while self._wake_up[0].recv(4096):
                pass

    def _advance(self, selector: selectors.BaseSelector, connection: SendConnection) -> None:
        ended = None
        try:
            ended = connection.advance()
        except OSError as error:
            log.debug("%s: %s", self._label, error)
        self._watch(selector, connection)
        if ended is not None:
            self._finish(selector, connection, ended)

    def _watch(self, selector: selectors.BaseSelector, connection: SendConnection) -> None:
        """Have the selector watch what is of interest; a connection that ended is let go."""
        if connection.sock.fileno() < 0:  # let go before
            return
        is_known = connection.sock in selector.get_map()
        if connection.is_closed:
            if is_known:
                selector.unregister(connection.sock)
            connection.give_back()
            self._forget(connection)
            return
        interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.has_unsent else 0)
        if not is_known:
            selector.register(connection.sock, interest, connection)
        elif selector.get_key(connection.sock).events != interest:
            selector.modify(connection.sock, interest, connection)

    def _forget(self, connection: SendConnection) -> None:
        with self._lock:
            self._all.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
        self._open_more()

    def _finish(self, selector: selectors.BaseSelector, connection: SendConnection, ended: Ended) -> None:
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
        if connection.is_closed:
            self._watch(selector, connection)
        else:
            self._serve(connection)

    def _end_what_is_late(self, selector: selectors.BaseSelector) -> None:
        now = self._clock()
        with self._lock:
            if now < self._earliest_end:
                return
            late = [connection for connection in self._all if connection.ends_at <= now]
        for connection in late:
            ended = connection.give_up()
            self._watch(selector, connection)
            if ended is not None:
                self._finish(selector, connection, ended)
        with self._lock:
            self._earliest_end = min((connection.ends_at for connection in self._all), default=math.inf)

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
        self._wake()

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait for what is under way; whether nothing is left."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(wait_s(timeout_s))
        return not thread.is_alive()

    def close_in_child(self) -> None:
        """Give a forked child's copies of the descriptors back. Takes no lock: the parent's threads may hold it."""
        for connection in list(self._all):
            connection.give_back()
        for end in self._wake_up or ():
            end.close()
        if self._selector is not None:
            self._selector.close()  # the child's copy of the descriptor; nothing is unregistered: that is shared
