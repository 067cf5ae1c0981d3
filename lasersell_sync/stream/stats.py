"""What a connection counts: messages, bytes, losses, and messages that could not be read."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from lasersell_sync.exceptions import DecodeError
from lasersell_sync.stream.connection_events import DecodeFailure
from lasersell_sync.stream.event_queue import LOW_LANE_CLASSES

if TYPE_CHECKING:
    from lasersell_sync._backend import MessagePipeline, ReceiveLoop

__all__ = ["Counters", "DecodeFailures", "StreamStats"]


# ── What a connection counts, and the snapshot of it that a user gets ───────────────────────────────────────────────


@attrs.frozen(kw_only=True)
class StreamStats:
    """Counters since the connection was made, and times of now.

    Attributes:
        sessions: sessions opened; one more than the reconnects.
        frames_received, bytes_received: from the socket, after TLS.
        messages_received: decoded and delivered, unknown types included.
        unknown_messages: of a type that this version does not know.
        decode_errors: messages that could not be read; each was reported, in a flood many by one event.
        commands_sent: messages written to the socket or waiting for it.
        send_buffer_bytes: waiting for the socket now.
        dropped, conflated: low-lane messages lost or replaced because the consumer is slower than the stream.
        high_dropped: high-lane events lost because nobody had chosen a way to consume yet.
        late: low-lane messages about a position whose close had come already; not delivered.
        duplicates: exit signals that came a second time; each was delivered once.
        contradictions: messages that contradict an earlier one of their connection: an id that two token accounts have.
        waiting: messages or events in the lanes now.
        idle_seconds: since the last byte arrived; None before the first.
        round_trip_seconds: of the last answered keepalive ping; None before the first.
        app_round_trip_seconds: of the last answered application ping; None before the first.
        clock_offset_ms: the server's clock minus this machine's wall clock, from that ping; None before the first.
    """

    sessions: int
    frames_received: int
    bytes_received: int
    messages_received: int
    unknown_messages: int
    decode_errors: int
    commands_sent: int
    send_buffer_bytes: int
    dropped: int
    conflated: int
    high_dropped: int
    late: int
    duplicates: int
    contradictions: int
    waiting: int
    idle_seconds: float | None
    round_trip_seconds: float | None
    app_round_trip_seconds: float | None
    clock_offset_ms: float | None


class _Counted(NamedTuple):
    """What the links before the present one brought, and who counts what it brings."""

    frames: int
    bytes: int
    messages: int
    last_received: float | None
    pipeline: MessagePipeline | None
    receive_loop: ReceiveLoop | None


class Counters:
    """What the reader counts; written by it alone, read by anyone."""

    __slots__ = (
        "_counted",
        "app_round_trip_s",
        "clock_offset_ms",
        "contradictions",
        "decode_errors",
        "duplicates",
        "late",
        "round_trip_s",
        "unknown",
    )

    def __init__(self) -> None:
        self._counted = _Counted(0, 0, 0, None, None, None)
        self.unknown = self.decode_errors = self.late = self.duplicates = self.contradictions = 0
        self.round_trip_s: float | None = None
        self.app_round_trip_s: float | None = None
        self.clock_offset_ms: float | None = None

    def follow(self, pipeline: MessagePipeline, receive_loop: ReceiveLoop) -> None:
        """Count what these count from now on, on top of what was counted before."""
        # In one step, for whoever reads meanwhile.
        self._counted = _Counted(self.frames, self.bytes, self.messages, self.last_received, pipeline, receive_loop)

    @property
    def frames(self) -> int:
        """From the socket."""
        before = self._counted
        return before.frames + (before.pipeline.frames if before.pipeline is not None else 0)

    @property
    def bytes(self) -> int:
        """From the socket, after TLS."""
        before = self._counted
        return before.bytes + (before.receive_loop.received_bytes if before.receive_loop is not None else 0)

    @property
    def messages(self) -> int:
        """Decoded."""
        before = self._counted
        return before.messages + (before.pipeline.messages if before.pipeline is not None else 0)

    @property
    def last_received(self) -> float | None:
        """When the latest bytes came, by the monotonic clock; None before the first."""
        before = self._counted
        received_ns = before.receive_loop.received_ns if before.receive_loop is not None else 0
        return received_ns / 1e9 if received_ns else before.last_received


# ── Messages that could not be read ─────────────────────────────────────────────────────────────────────────────────


#: A message that says so near its beginning is of the low lane, whatever else is wrong with it.
_LOW_LANE: Final = re.compile(rb'"type"\s*:\s*"(?:%b)"' % b"|".join(cls.type.encode() for cls in LOW_LANE_CLASSES))
_TYPE_WITHIN: Final = 4096


class DecodeFailures:
    """Keeps the latest failures raw, and decides which are told at once.

    A message that may have been of the high lane is told by an event of its own, a burst of them and then so many a
    second. All others wait for the next event, at most one a second, which tells how many there were.

    Threads: the reader; ``kept`` from any.
    """

    #: Kept raw; nothing else holds a message's bytes.
    MAX_MESSAGES: Final = 64
    MAX_BYTES: Final = 4 * 2**20
    #: Events of their own at once, and per second after that.
    BURST: Final = 1024
    PER_S: Final = 64.0
    #: Between two events of the others.
    INTERVAL_S: Final = 1.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: deque[DecodeFailure] = deque()
        self._bytes = 0
        self._count = 0
        self._told_count = 0
        self._told_at = float("-inf")
        #: The latest that was not told yet.
        self._pending: DecodeFailure | None = None
        self._budget = float(self.BURST)
        self._budget_at = clock()

    def add(self, error: DecodeError, payload: bytes) -> DecodeFailure | None:
        """Keep a message that could not be read; the event that tells it, or None when a later one will."""
        self._count += 1
        failure = DecodeFailure(
            reason=error.reason,
            path=error.path,
            offset=error.offset,
            count=self._count,
            since_last=self._count - self._told_count,
            size=len(payload),
            raw=payload if len(payload) <= self.MAX_BYTES else b"",
        )
        self._keep(failure)
        is_low_lane = _LOW_LANE.search(payload, 0, _TYPE_WITHIN) is not None
        if self._may_tell_now(is_low_lane=is_low_lane):
            return self._told(failure)
        self._pending = failure
        return None

    def due(self) -> tuple[DecodeFailure | None, float | None]:
        """(the event, None) when one is due now; else (None, seconds until one is, or None without news)."""
        if self._pending is None:
            return None, None
        wait_s = self._told_at + self.INTERVAL_S - self._clock()
        if wait_s > 0:
            return None, wait_s
        return self._told(self._pending), None

    def rest(self) -> DecodeFailure | None:
        """The event for what was not told yet, whether due or not; None without news."""
        return None if self._pending is None else self._told(self._pending)

    def kept(self) -> list[DecodeFailure]:
        """The latest, oldest first."""
        return list(self._kept)

    def _keep(self, failure: DecodeFailure) -> None:
        if failure.size > self.MAX_BYTES:
            return
        self._kept.append(failure)
        self._bytes += failure.size
        while len(self._kept) > self.MAX_MESSAGES or self._bytes > self.MAX_BYTES:
            oldest = self._kept.popleft()
            self._bytes -= oldest.size
            # An event may be kept by anyone, its message's bytes by nobody.
            oldest.forget_raw()

    def _may_tell_now(self, *, is_low_lane: bool) -> bool:
        now = self._clock()
        if is_low_lane:
            return now - self._told_at >= self.INTERVAL_S
        self._budget = min(self._budget + (now - self._budget_at) * self.PER_S, float(self.BURST))
        self._budget_at = now
        if self._budget < 1:
            return False
        self._budget -= 1
        return True

    def _told(self, failure: DecodeFailure) -> DecodeFailure:
        self._told_count = failure.count
        self._told_at = self._clock()
        self._pending = None
        return failure
