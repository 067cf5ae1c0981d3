"""Reads the answers of all connections to one target, on one thread."""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
import threading
import time
from collections.abc import Callable

from lasersell_sync.exceptions import ConcurrencyError
from lasersell_sync.runtime import log as _log
from lasersell_sync.runtime.locks import signal_safe_lock
from lasersell_sync.runtime.timeouts import wait_s
from lasersell_sync.trading.sending.send_connection import Ended, SendConnection

__all__ = ["AnswerReader"]

log = _log.logger("trading")


class AnswerReader:
    """Watches connections: advances those that are ready, and ends exchanges whose time is over.

    Args:
        number: of the target; names the thread.
        label: of the target, for the log.
        finish: called with a connection and the exchange that ended on it.
        forget: called with a connection that has ended, after its descriptor was given back.
        clock: monotonic seconds.

    Threads: every method from any. Its own, ``lasersell-send-<number>``, runs from ``start`` until ``stop`` was called
    and no connection is left; it calls ``finish`` and ``forget``.
    """

    def __init__(
        self,
        number: int,
        label: str,
        *,
        finish: Callable[[SendConnection, Ended], None],
        forget: Callable[[SendConnection], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._number = number
        self._label = label
        self._finish = finish
        self._forget = forget
        self._clock = clock
        #: Guards everything below; never held while a socket is used or a callback runs.
        self._lock = signal_safe_lock()
        #: Those whose descriptors were not given back.
        self._watched: set[SendConnection] = set()
        #: What is to be looked at besides what the selector names.
        self._to_look_at: list[SendConnection] = []
        #: No exchange ends before this; monotonic seconds.
        self._earliest_end = math.inf
        self._sleeps_until = math.inf
        self._is_wake_up_due = False
        self._is_stopped = False
        self._thread: threading.Thread | None = None
        self._wake_up: tuple[socket.socket, socket.socket] | None = None
        self._selector: selectors.BaseSelector | None = None

    def start(self) -> None:
        """Start the thread, unless it runs.

        Raises:
            ConcurrencyError: the system has no thread.
        """
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            try:
                if self._wake_up is None:
                    self._wake_up = socket.socketpair()
                    for end in self._wake_up:
                        end.settimeout(0.0)
                if self._selector is None:
                    self._selector = selectors.DefaultSelector()
                    self._selector.register(self._wake_up[0], selectors.EVENT_READ)
                name = f"lasersell-send-{self._number}"
                thread = threading.Thread(target=self._run, args=(self._selector,), name=name, daemon=True)
                thread.start()
            except (RuntimeError, MemoryError, OSError) as error:
                raise ConcurrencyError(f"no thread for copies now: {error or 'out of memory'}") from error
            self._thread = thread

    def watch(self, connection: SendConnection) -> None:
        """Watch a connection until it has ended."""
        with self._lock:
            self._watched.add(connection)
        self.look_at(connection)

    def look_at(self, connection: SendConnection) -> None:
        """Watch for what is of interest now."""
        with self._lock:
            self._to_look_at.append(connection)
        self._wake()

    def expect_end(self, ends_at: float) -> None:
        """End what is under way at this moment, monotonic seconds. ``mind_the_clock`` must be called after it."""
        with self._lock:
            if ends_at < self._earliest_end:
                self._earliest_end = ends_at
                self._is_wake_up_due |= ends_at < self._sleeps_until

    def mind_the_clock(self) -> None:
        """Wake the thread, if it sleeps beyond an expected end.

        Apart from ``expect_end``, so that the bytes to all targets are written before a thread is woken.
        """
        if self._is_wake_up_due:
            self._is_wake_up_due = False
            self._wake()

    def _wake(self) -> None:
        if self._wake_up is not None:
            with contextlib.suppress(OSError):  # full: it wakes anyway
                self._wake_up[1].send(b"\0")

    # ── the thread ──

    def _run(self, selector: selectors.BaseSelector) -> None:
        while self._is_needed():
            try:
                self._turn(selector)
            except BaseException:
                log.exception("%s: reading answers failed", self._label)
        selector.close()
        for end in self._wake_up or ():
            end.close()

    def _is_needed(self) -> bool:
        with self._lock:
            return not self._is_stopped or bool(self._watched)

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
        self._go_on(selector, connection, ended)

    def _go_on(self, selector: selectors.BaseSelector, connection: SendConnection, ended: Ended | None) -> None:
        try:
            self._watch(selector, connection)
        except OSError as error:  # no room in the selector
            log.warning("%s: a connection that cannot be watched is closed: %s", self._label, error)
            ended = connection.give_up(error) or ended
            self._let_go(selector, connection)
        if ended is not None:
            self._finish(connection, ended)
            if connection.is_closed:
                self._let_go(selector, connection)

    def _watch(self, selector: selectors.BaseSelector, connection: SendConnection) -> None:
        """Have the selector watch what is of interest; a connection that ended is let go."""
        if connection.is_closed:
            self._let_go(selector, connection)
            return
        interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.has_unsent else 0)
        if connection.sock not in selector.get_map():
            selector.register(connection.sock, interest, connection)
        elif selector.get_key(connection.sock).events != interest:
            selector.modify(connection.sock, interest, connection)

    def _let_go(self, selector: selectors.BaseSelector, connection: SendConnection) -> None:
        if connection not in self._watched:  # let go before
            return
        if connection.sock in selector.get_map():
            selector.unregister(connection.sock)
        connection.give_back()
        with self._lock:
            self._watched.discard(connection)
        self._forget(connection)

    def _end_what_is_late(self, selector: selectors.BaseSelector) -> None:
        now = self._clock()
        with self._lock:
            if now < self._earliest_end:
                return
            late = [connection for connection in self._watched if connection.ends_at <= now]
        for connection in late:
            self._go_on(selector, connection, connection.give_up(TimeoutError("the time is over")))
        with self._lock:
            self._earliest_end = min((connection.ends_at for connection in self._watched), default=math.inf)

    # ── the end ──

    def stop(self) -> None:
        """End the thread when no connection is left. Idempotent."""
        with self._lock:
            self._is_stopped = True
        self._wake()

    def wait_stopped(self, timeout_s: float) -> bool:
        """Wait for what is under way; whether nothing is left."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(wait_s(timeout_s))
        return not thread.is_alive()

    def close_in_child(self) -> None:
        """Give a forked child's copies of the descriptors back. Takes no lock: the parent's threads may hold it."""
        for connection in list(self._watched):
            connection.give_back()
        for end in self._wake_up or ():
            end.close()
        if self._selector is not None:
            self._selector.close()  # the child's copy of the descriptor; nothing is unregistered: that is shared
