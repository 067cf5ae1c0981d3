"""Warnings when nobody takes what waits in the lanes."""

from __future__ import annotations

from typing import Any

import pytest

from lasersell_sync.stream.event_queue import EventQueue
from lasersell_sync.stream.sink import ConsumerWatch


class Rig:
    def __init__(self, **options: Any) -> None:
        self.now = 10.0
        self.lanes: EventQueue[int] = EventQueue(high_capacity=4, low_capacity=4, chosen=False, **options)
        self.watch = ConsumerWatch(self.lanes, lambda: self.now)

    def fill(self, count: int = 10) -> None:
        for number in range(count):
            self.lanes.put_high(number)


def test_consumer_watch_stopped_reading_is_warned_once_with_numbers(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.lanes.choose()
    rig.fill()
    assert rig.lanes.full()
    rig.watch.note_reading(reading=False)
    assert rig.watch.tick(followed=False) == 1.0
    rig.now += 2.5
    assert rig.watch.stopped_s() == 2.5
    assert rig.watch.tick(followed=True) is None
    assert rig.watch.tick(followed=True) is None
    assert [r.getMessage() for r in caplog.records] == [
        "reading stopped 2.5 s ago, for 10 events wait for the consumer: take them faster, or raise high_capacity"
    ]
    rig.watch.note_reading(reading=True)
    assert rig.watch.stopped_s() is None
    assert caplog.records[-1].getMessage() == "reading goes on after 2.5 s: there is room in the lanes again"


def test_consumer_watch_short_stops_are_not_warned(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    for _ in range(100):
        rig.watch.note_reading(reading=False)
        rig.now += 0.9
        rig.watch.tick(followed=False)
        rig.watch.note_reading(reading=True)
    assert not caplog.records


def test_consumer_watch_dropped_events_are_warned_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """Not at all beside somebody who follows them, such as an AutoSeller."""
    rig = Rig()
    rig.fill()
    rig.watch.tick(followed=True)
    assert not caplog.records
    rig.now += 61
    rig.fill()
    for _ in range(100):
        rig.fill(1)
        rig.watch.tick(followed=False)
    assert len(caplog.records) == 1
    assert "4 wait, and 17 older ones were dropped" in caplog.records[0].getMessage()


def test_consumer_watch_lossless_lanes_without_a_consumer_stop_for_a_second(caplog: pytest.LogCaptureFixture) -> None:
    """Time for one to come; then those who follow get everything, and the lanes keep their newest."""
    rig = Rig(low_lane="lossless")
    for number in range(10):
        rig.lanes.put_low(number, "trade_tick", 7)
    assert rig.lanes.full()
    rig.watch.note_reading(reading=False)
    rig.now += 1.0
    assert rig.watch.tick(followed=True) == 0.0
    assert not rig.lanes.full()
    rig.lanes.put_low(10, "trade_tick", 7)
    assert rig.lanes.dropped == 1
    rig.lanes.choose()
    assert rig.lanes.full()


def test_consumer_watch_lanes_that_wait_for_their_consumer_drop_nothing() -> None:
    """As long as nobody follows (a replay)."""
    rig = Rig(low_lane="lossless")
    rig.watch.waits_for_consumer = True
    rig.fill()
    rig.watch.note_reading(reading=False)
    rig.now += 60
    rig.watch.tick(followed=False)
    assert rig.lanes.full()
    rig = Rig(low_lane="lossless")
    rig.watch.waits_for_consumer = True
    rig.fill()
    rig.watch.note_reading(reading=False)
    rig.now += 60
    rig.watch.tick(followed=True)
    assert not rig.lanes.full()
