"""When to ask whether the other side is alive, and when to give a link up."""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from lasersell_sync.stream.options import StreamOptions

__all__ = ["Keepalive", "OpenPings", "StopWatch", "UnreadLink", "kernel_verdict"]


# ── When to ask whether the other side is alive ─────────────────────────────────────────────────────────────────────


class _Question:
    """Ask after ``interval_s`` of silence, give up ``answer_s`` after asking; any news starts anew."""

    def __init__(self, interval_s: float, answer_s: float, now: float) -> None:
        self._interval_s = interval_s
        self._answer_s = answer_s
        self._heard_at = now
        self.asked_at: float | None = None

    def heard(self, now: float) -> None:
        self._heard_at = now
        self.asked_at = None

    def due_at(self) -> float:
        """When to ask, or, once asked, when to give up."""
        return self._heard_at + self._interval_s if self.asked_at is None else self.asked_at + self._answer_s

    def stale_at(self) -> float | None:
        """When half of the time for an answer has gone by; None before asking."""
        return None if self.asked_at is None else self.asked_at + self._answer_s / 2

    def silent_s(self) -> float:
        return self._interval_s + self._answer_s


class Keepalive:
    """Two questions on the monotonic clock, independent of whether data arrives.

    Transport: a WebSocket ping after ``ping_interval_s`` without a byte; any byte is an answer. Application: a ``ping``
    message after ``app_ping_interval_s`` without a message; it finds a server whose transport answers and whose
    application does not. While the reader does not read (a full lane), silence means nothing: ``heard`` is called then.

    Threads: the reader.
    """

    def __init__(self, options: StreamOptions) -> None:
        now = time.monotonic()
        self._transport = _Question(options.ping_interval_s, options.pong_timeout_s, now)
        self._app = (
            None
            if options.app_ping_interval_s is None
            else _Question(options.app_ping_interval_s, options.app_pong_timeout_s, now)
        )
        self._serial = 0

    def bytes_came(self, at: float | None = None) -> None:
        """A sign of life of the transport, now or at a moment of the monotonic clock."""
        self._transport.heard(time.monotonic() if at is None else at)

    def message_came(self, at: float | None = None) -> None:
        """A sign of life of the application."""
        if self._app is not None:
            self._app.heard(time.monotonic() if at is None else at)

    @property
    def round_s(self) -> float:
        """How long one question takes from the first silence to its verdict, at the most."""
        return (self._app or self._transport).silent_s()

    @property
    def asking(self) -> bool:
        """True while an answer is awaited."""
        return self._transport.asked_at is not None or (self._app is not None and self._app.asked_at is not None)

    def wants_ping(self) -> bool:
        """True when a WebSocket ping is due."""
        return self._transport.asked_at is None and self._transport.due_at() <= time.monotonic()

    def wants_app_ping(self) -> bool:
        """True when an application ping is due."""
        return self._app is not None and self._app.asked_at is None and self._app.due_at() <= time.monotonic()

    def ping_payload(self) -> bytes:
        """Payload of the next WebSocket ping; its time starts now."""
        self._transport.asked_at = time.monotonic()
        self._serial += 1
        return struct.pack(">Qd", self._serial, self._transport.asked_at)

    def app_ping_sent(self) -> None:
        """An application ping went out; its time starts now."""
        if self._app is not None:
            self._app.asked_at = time.monotonic()

    def round_trip_s(self, payload: bytes) -> float | None:
        """How long ago the WebSocket ping with this payload was sent; None when it is not our last one."""
        if len(payload) != 16:
            return None
        serial, asked_at = struct.unpack(">Qd", payload)
        return time.monotonic() - float(asked_at) if serial == self._serial else None

    def due_in_s(self) -> float:
        """Seconds until the next thing to do or to notice."""
        moments: list[float] = []
        now = time.monotonic()
        for question in (self._transport, self._app):
            if question is not None:
                moments.append(question.due_at())
                stale_at = question.stale_at()
                if stale_at is not None and stale_at > now:
                    moments.append(stale_at)
        return max(0.0, min(moments) - now)

    def stale(self) -> bool:
        """True when an answer has been due for more than half its time."""
        now = time.monotonic()
        marks = [question.stale_at() for question in (self._transport, self._app) if question is not None]
        return any(mark is not None and mark <= now for mark in marks)

    def verdict(self) -> str | None:
        """Why the link should be given up now; None while there is hope."""
        now = time.monotonic()
        if self._transport.asked_at is not None and self._transport.due_at() <= now:
            return f"no sign of life for {self._transport.silent_s():g} s"
        if self._app is not None and self._app.asked_at is not None and self._app.due_at() <= now:
            return f"the transport answers, but no message came for {self._app.silent_s():g} s, not even to a ping"
        return None


class StopWatch:
    """Notices that this process, or the whole machine, stood still: our own timer is far too late.

    A link that was alive before a suspension is most likely dead after it, and nobody will say so for minutes. The
    boot-time clock runs on while a machine is suspended and the monotonic clock does not (Linux); a stopped process
    sees the monotonic clock jump. The wall clock has no part in it.

    Threads: the reader.
    """

    #: Drift between two clocks that are read one after the other.
    TOLERANCE_S = 1.0

    def __init__(self, stall_after_s: float) -> None:
        self._stall_after_s = stall_after_s
        #: No wait that was late by less is worth a look.
        self.strange_after_s = min(stall_after_s, self.TOLERANCE_S)

    def stood_still_s(
        self, left_at: tuple[float, float], back_at: tuple[float, float], planned_s: float | None
    ) -> float | None:
        """For how long everything stood still during a wait; None when it did not.

        Args:
            left_at: before the wait, by the monotonic and the boot-time clock.
            back_at: after it.
            planned_s: how long it should have taken at the most; None for ever.
        """
        waited_s, passed_s = back_at[0] - left_at[0], back_at[1] - left_at[1]
        if passed_s - waited_s > self.TOLERANCE_S:
            return passed_s - waited_s
        if planned_s is not None and waited_s - planned_s > self._stall_after_s:
            return waited_s - planned_s
        return None


class OpenPings:
    """Application pings without an answer yet, ours and the user's, in the order of sending.

    The server answers in order, so each ``pong`` belongs to the oldest. Pongs to our own are swallowed.

    Threads: the connection's write lock guards it.
    """

    def __init__(self) -> None:
        self._open: deque[tuple[bool, float]] = deque(maxlen=1024)

    def sent(self, *, own: bool) -> None:
        """A ping went out."""
        self._open.append((own, time.monotonic()))

    def answered(self) -> tuple[bool, float | None]:
        """(whether the pong answers one of our own, seconds it took); for one that nobody asked for (False, None)."""
        if not self._open:
            return False, None
        own, sent_at = self._open.popleft()
        return own, time.monotonic() - sent_at

    def forget(self) -> None:
        """The link is gone, and the answers with it."""
        self._open.clear()


# ── Judges a link that is not read, because the consumer is slow ────────────────────────────────────────────────────


#: The beginning of TCP_INFO (linux/tcp.h): tcpi_state, and tcpi_unacked in segments.
_INFO = struct.Struct("=B23xI")
#: States in which an error, or the peer, has ended the connection.
_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8


class _Verdict(Protocol):
    def __call__(self, *, unacknowledged_is_dead: bool) -> str | None: ...


class UnreadLink:
    """Writes a WebSocket ping now and then, and looks whether the peer's machine acknowledges it.

    Args:
        verdict: as ``kernel_verdict``, of the link.
        ping: writes one.
        interval_s: between two pings.
        answer_s: how long the acknowledgement may take.

    Threads: the reader.
    """

    def __init__(
        self,
        *,
        verdict: _Verdict,
        ping: Callable[[], None],
        interval_s: float,
        answer_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verdict = verdict
        self._ping = ping
        self._interval_s = interval_s
        self._answer_s = answer_s
        self._clock = clock
        self._asked_at: float | None = None
        self._next_at = clock() + interval_s
        #: Why the link is dead; None while nothing says so.
        self.problem: str | None = None

    def begin(self) -> None:
        """Reading has stopped."""
        self._asked_at = None
        self._next_at = self._clock() + self._interval_s

    def look(self) -> float | None:
        """Ask or judge what is due; seconds until something else is (None: the link is known to be dead)."""
        now = self._clock()
        if self.problem is not None:
            return None
        if now < self._next_at:
            return self._next_at - now
        if self._asked_at is None:
            self.problem = self._verdict(unacknowledged_is_dead=False)
            if self.problem is None:
                self._ping()
            self._asked_at, self._next_at = now, now + self._answer_s
        else:
            self.problem = self._verdict(unacknowledged_is_dead=True)
            self._asked_at, self._next_at = None, now + self._interval_s
        return None if self.problem is not None else max(0.0, self._next_at - now)


def kernel_verdict(sock: socket.socket, *, unacknowledged_is_dead: bool) -> str | None:
    """Why a TCP connection is dead, as far as the kernel knows; None when nothing says so, or on another system.

    Changes nothing: what has arrived stays to be read.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except OSError as error:
        return error.strerror or str(error)
    state, unacknowledged = _INFO.unpack(info)
    if state == _TCP_CLOSE:
        return "the connection was reset"
    if state == _TCP_CLOSE_WAIT:
        return "the server ended the connection"
    if unacknowledged_is_dead and unacknowledged > 0:
        return "the server's machine no longer acknowledges what is sent"
    return None
