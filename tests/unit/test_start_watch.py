"""What was set up and not started is reported once, and stays in the list until it is started."""

from __future__ import annotations

import logging

import pytest

from lasersell_sync.session.health import OVERDUE_AFTER_S, StartWatch


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_start_watch_reports_once_what_is_overdue(caplog: pytest.LogCaptureFixture):
    clock = Clock()
    watch = StartWatch(clock)
    assert watch.tick() is None
    settle = watch.expect("the engine stands. Call start()")
    clock.now = OVERDUE_AFTER_S - 1
    watch.expect("the second one, too")
    assert watch.tick() == pytest.approx(1.0)
    assert watch.problems() == ()
    clock.now = OVERDUE_AFTER_S
    assert watch.tick() == pytest.approx(OVERDUE_AFTER_S - 1)
    assert watch.problems() == ("the engine stands. Call start()",)
    clock.now = 10 * OVERDUE_AFTER_S
    assert watch.tick() is None
    assert watch.tick() is None
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "the engine stands. Call start()"),
        (logging.WARNING, "the second one, too"),
    ]
    settle()
    settle()
    assert watch.problems() == ("the second one, too",)


def test_start_watch_says_nothing_of_what_was_started_in_time(caplog: pytest.LogCaptureFixture):
    clock = Clock()
    watch = StartWatch(clock)
    watch.expect("never seen")()
    clock.now = 100.0
    assert watch.tick() is None
    assert watch.problems() == ()
    assert caplog.records == []
