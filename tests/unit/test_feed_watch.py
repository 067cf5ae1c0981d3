"""A feed that falls silent behind a living link."""

from __future__ import annotations

import pytest

from lasersell_sync.session.health import FeedWatch


class Feed:
    def __init__(self, silent_after_s: float | None = None) -> None:
        self.now = 50.0
        self.watch = FeedWatch(silent_after_s, lambda: self.now)

    def look(self, count: int, positions: int = 2, pnl_flush_ms: int = 500) -> object:
        event, due_s = self.watch.look(count=count, positions=positions, pnl_flush_ms=pnl_flush_ms)
        return due_s if event is None else event


@pytest.mark.parametrize(("flush_ms", "limit_s"), [(0, 30.0), (500, 30.0), (2000, 60.0)])
def test_feed_silent_after_thirty_flushes_and_thirty_seconds(flush_ms: int, limit_s: float) -> None:
    feed = Feed()
    assert feed.look(5, pnl_flush_ms=flush_ms) == limit_s
    feed.now += limit_s - 0.5
    assert feed.look(5, pnl_flush_ms=flush_ms) == 0.5
    assert feed.watch.silent_s() is None
    feed.now += 0.5
    event, _ = feed.watch.look(count=5, positions=2, pnl_flush_ms=flush_ms)
    assert event is not None
    assert (event.silent_seconds, event.positions) == (limit_s, 2)
    assert feed.watch.silent_s() == limit_s


def test_feed_silent_is_told_once_and_ends_with_the_next_message() -> None:
    feed = Feed(3.0)
    feed.look(5)
    feed.now += 3
    feed.look(5)
    feed.now += 100
    assert feed.look(5) is None
    assert feed.watch.silent_s() == 103.0
    assert feed.look(6) == 3.0
    assert feed.watch.silent_s() is None


def test_feed_without_positions_owes_nothing() -> None:
    """The silence counts from the first position on."""
    feed = Feed(3.0)
    for _ in range(10):
        feed.now += 10
        assert feed.look(0, positions=0) is None
    assert feed.look(0, positions=1) == 3.0


def test_feed_restart_begins_anew() -> None:
    feed = Feed(3.0)
    feed.look(5)
    feed.now += 2.5
    feed.watch.restart()
    feed.now += 2.5
    assert feed.look(5) == pytest.approx(0.5)
