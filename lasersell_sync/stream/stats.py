"""What a connection counts, and the snapshot of it that a user gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import attrs

if TYPE_CHECKING:
    from lasersell_sync._backend import Intake, Pump

__all__ = ["Counters", "StreamStats"]


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
    pump: Pump | None
    intake: Intake | None


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

    def follow(self, pump: Pump, intake: Intake) -> None:
        """Count what these count from now on, on top of what was counted before."""
        # In one step, for whoever reads meanwhile.
        self._counted = _Counted(self.frames, self.bytes, self.messages, self.last_received, pump, intake)

    @property
    def frames(self) -> int:
        """From the socket."""
        before = self._counted
        return before.frames + (before.pump.frames if before.pump is not None else 0)

    @property
    def bytes(self) -> int:
        """From the socket, after TLS."""
        before = self._counted
        return before.bytes + (before.intake.received_bytes if before.intake is not None else 0)

    @property
    def messages(self) -> int:
        """Decoded."""
        before = self._counted
        return before.messages + (before.pump.messages if before.pump is not None else 0)

    @property
    def last_received(self) -> float | None:
        """When the latest bytes came, by the monotonic clock; None before the first."""
        before = self._counted
        received_ns = before.intake.received_ns if before.intake is not None else 0
        return received_ns / 1e9 if received_ns else before.last_received
