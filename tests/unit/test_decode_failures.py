"""Messages that could not be read: what is kept, what is told at once, and what later."""

from __future__ import annotations

import json

import pytest

from lasersell_sync.exceptions import DecodeError
from lasersell_sync.stream.stats import DecodeFailures

LOW = json.dumps({"type": "pnl_update", "position_id": 7, "profit_units": "12"}).encode()
MAYBE_HIGH = (
    b'{"type":"position_opened"}',
    b'{"type" : "exit_signal_with_tx","position_id":7}',
    b"not json",
    b"\x00\xff",
    b"",
    b'{"note":"pnl_update"}',
)


class Failures:
    def __init__(self) -> None:
        self.now = 1000.0
        self.failures = DecodeFailures(lambda: self.now)

    def add(self, payload: bytes) -> object:
        return self.failures.add(DecodeError("why", "$.x", 3), payload)


def test_decode_failures_low_lane_flood_makes_one_event_a_second() -> None:
    rig = Failures()
    first = rig.failures.add(DecodeError("why", "$.x", 3), LOW)
    assert first is not None
    assert (first.count, first.since_last, first.path) == (1, 1, "$.x")
    assert [rig.add(LOW) for _ in range(9_999)] == [None] * 9_999
    assert rig.failures.due() == (None, pytest.approx(1.0))
    rig.now += 1.0
    told, _ = rig.failures.due()
    assert told is not None
    assert (told.count, told.since_last, told.raw) == (10_000, 9_999, LOW)
    assert rig.failures.due() == (None, None)


def test_decode_failures_rest_tells_what_is_not_due_yet_once() -> None:
    rig = Failures()
    assert rig.failures.rest() is None
    for _ in range(100):
        rig.add(LOW)
    told = rig.failures.rest()
    assert told is not None
    assert (told.count, told.since_last) == (100, 99)
    assert rig.failures.rest() is None
    assert rig.failures.due() == (None, None)


@pytest.mark.parametrize("payload", MAYBE_HIGH)
def test_decode_failures_what_may_be_high_lane_is_told_by_itself(payload: bytes) -> None:
    """Also in the middle of a flood of others; and its event counts those that were not told yet."""
    rig = Failures()
    for _ in range(100):
        rig.add(LOW)
    told = rig.failures.add(DecodeError("why", "$.x", 3), payload)
    assert told is not None
    assert (told.count, told.since_last, told.raw) == (101, 100, payload)
    assert rig.failures.due() == (None, None)


def test_decode_failures_flood_of_what_may_be_high_lane_is_bounded() -> None:
    """Nobody knows what they were, and an exit waits behind their events."""
    rig = Failures()
    told = [rig.add(b"not json") for _ in range(20_000)]
    assert sum(one is not None for one in told) == DecodeFailures.BURST
    rig.now += 10
    due, _ = rig.failures.due()
    assert due is not None
    assert (due.count, due.since_last) == (20_000, 20_000 - DecodeFailures.BURST)
    # There is room again.
    assert sum(rig.add(b"not json") is not None for _ in range(20_000)) == 10 * DecodeFailures.PER_S


def test_decode_failures_raw_bytes_live_in_the_kept_ones_only() -> None:
    """An event that somebody keeps does not keep its message's bytes."""
    rig = Failures()
    events = [rig.failures.add(DecodeError("why", "$", 0), b"x" * 2**20) for _ in range(10)]
    kept = rig.failures.kept()
    assert [failure.count for failure in kept] == [7, 8, 9, 10]
    assert sum(len(event.raw) for event in events if event is not None) == 4 * 2**20
    assert [event.size for event in events if event is not None] == [2**20] * 10
    for _ in range(64):
        rig.add(b"small")
    assert len(rig.failures.kept()) == 64
    assert not any(event.raw for event in events if event is not None)


def test_decode_failures_one_too_large_to_keep_is_told_without_its_bytes() -> None:
    rig = Failures()
    rig.add(b"small")
    event = rig.failures.add(DecodeError("why", "$", 0), b"x" * (4 * 2**20 + 1))
    assert event is not None
    assert (event.size, event.raw) == (4 * 2**20 + 1, b"")
    assert [failure.raw for failure in rig.failures.kept()] == [b"small"]
