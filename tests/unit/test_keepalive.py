"""Keepalive on a clock of its own: asking, giving up, staleness, standstill, whose pong it is."""

from __future__ import annotations

from typing import Any

import pytest

from lasersell_sync import StreamOptions
from lasersell_sync.stream import keepalive as module
from lasersell_sync.stream.keepalive import Keepalive, OpenPings, StopWatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock; set its only item."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def keepalive(**options: Any) -> Keepalive:
    return Keepalive(StreamOptions(ping_interval_s=5, pong_timeout_s=3, **options))


def test_a_silent_transport_is_asked_then_stale_then_given_up(clock: list[float]) -> None:
    """Asked after the interval, stale at half the time for an answer, given up at its end; any byte starts anew."""
    alive = keepalive(app_ping_interval_s=None)
    assert alive.due_in_s() == 5
    clock[0] += 5
    assert alive.wants_ping()
    first = alive.ping_payload()
    assert not alive.wants_ping()
    assert alive.due_in_s() == 1.5
    clock[0] += 1.5
    assert alive.stale()
    assert alive.verdict() is None
    assert alive.round_trip_s(first) == 1.5
    assert alive.round_trip_s(b"unsolicited") is None
    alive.bytes_came()
    assert not alive.stale()
    assert alive.due_in_s() == 5
    clock[0] += 5
    alive.ping_payload()
    assert alive.round_trip_s(first) is None
    clock[0] += 3
    assert "no sign of life for 8 s" in str(alive.verdict())


def test_a_mute_application_is_found_though_its_transport_answers(clock: list[float]) -> None:
    """Bytes do not count here, only messages."""
    alive = keepalive(app_ping_interval_s=10.0, app_pong_timeout_s=5.0)
    for _ in range(10):
        clock[0] += 1
        alive.bytes_came()
    assert alive.wants_app_ping()
    alive.app_ping_sent()
    for _ in range(5):
        assert alive.verdict() is None
        clock[0] += 1
        alive.bytes_came()
    assert alive.stale()
    assert "the transport answers" in str(alive.verdict())
    alive.message_came()
    assert alive.verdict() is None
    assert not alive.stale()


def test_a_late_timer_is_a_standstill() -> None:
    """Late by more than the limit: stopped. Late by less, or an endless wait: not."""
    watch = StopWatch(stall_after_s=3.0)
    for planned, waited, expected in (
        (5.0, 5.5, None),
        (5.0, 7.9, None),
        (5.0, 9.0, 4.0),
        (None, 1000.0, None),
        (0.0, 60.0, 60.0),
    ):
        assert watch.stood_still_s((1000.0, 1000.0), (1000.0 + waited, 1000.0 + waited), planned) == expected


def test_a_suspended_machine_shows_in_the_boot_clock() -> None:
    """The monotonic clock stands still in a suspension; the boot-time clock does not."""
    watch = StopWatch(stall_after_s=3.0)
    assert watch.stood_still_s((1000.0, 5000.0), (1001.0, 5001.2), 5.0) is None
    assert watch.stood_still_s((1000.0, 5000.0), (1001.0, 5601.0), 5.0) == 600


def test_steps_of_the_wall_clock_mean_nothing(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour forwards or backwards moves no timer."""
    alive = keepalive()
    for step in (3600, -7200):
        monkeypatch.setattr(module.time, "time", lambda step=step: step)
        assert alive.verdict() is None
        assert alive.due_in_s() == 5


def test_pongs_belong_to_pings_in_order(clock: list[float]) -> None:
    """Ours are ours, the user's are the user's, unasked ones are nobody's; a new link starts empty."""
    pings = OpenPings()
    pings.sent(own=False)
    clock[0] += 1
    pings.sent(own=True)
    clock[0] += 1
    assert pings.answered() == (False, 2.0)
    assert pings.answered() == (True, 1.0)
    assert pings.answered() == (False, None)
    pings.sent(own=True)
    pings.forget()
    assert pings.answered() == (False, None)
