"""Deadlines on an own clock: once each, in order, never for watched, kept while there is no link."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from lasersell_sync.positions import PositionHandle, PositionKey
from lasersell_sync.runtime import timeouts
from lasersell_sync.session import deadlines
from lasersell_sync.session.deadlines import SLACK, DeadlineClock
from tests.support.waiting import PATIENCE_S, until


def handle(account: str, *, watched: bool = False) -> PositionHandle:
    return PositionHandle(
        position_id=1,
        token_account=account,
        wallet_pubkey="w",
        mint="m",
        tokens=1,
        entry_quote_units=1,
        watched=watched,
    )


class Fired:
    """Records what fires; answers as told."""

    def __init__(self) -> None:
        self.keys: queue.Queue[str] = queue.Queue()
        self.answer = True

    def __call__(self, key: PositionKey) -> bool:
        self.keys.put(key.token_account)
        return self.answer

    def next(self) -> str:
        return self.keys.get(timeout=PATIENCE_S)


def test_no_thread_without_a_deadline() -> None:
    """Nothing starts before the first deadline is armed."""
    clock = DeadlineClock(lambda key: True)
    clock.start(handle("a"), age_s=None)
    assert not any(thread.name == "lasersell-deadlines" for thread in threading.enumerate())
    clock.set_timeout(1000)
    assert any(thread.name == "lasersell-deadlines" for thread in threading.enumerate())
    clock.stop()


def test_the_oldest_fires_first_and_each_once() -> None:
    """By age, whatever the order of arrival; fired ones stay fired through a change of the timeout."""
    fired = Fired()
    clock = DeadlineClock(fired)
    clock.start(handle("young"), age_s=100)
    clock.start(handle("old"), age_s=200)
    clock.start(handle("new"), age_s=0)
    clock.start(handle("watched", watched=True), age_s=1000)
    clock.set_timeout(50)
    assert [fired.next(), fired.next()] == ["old", "young"]
    clock.set_timeout(0.001)
    assert fired.next() == "new"
    clock.set_timeout(0.002)
    with pytest.raises(queue.Empty):
        fired.keys.get(timeout=0.05)
    clock.stop()


def test_a_second_start_does_not_move_the_deadline_and_cancel_removes_it() -> None:
    """A position announced again keeps its start; a cancelled one starts anew."""
    now = [0.0]
    clock = DeadlineClock(lambda key: True, clock=lambda: now[0])
    clock.set_timeout(100)
    clock.start(handle("a"), age_s=10)
    now[0] = 20.0
    clock.start(handle("a"), age_s=0)
    assert clock.remaining_s(handle("a").key) == 70.0
    clock.cancel(handle("a").key)
    assert clock.remaining_s(handle("a").key) is None
    clock.start(handle("a"), age_s=None)
    assert clock.remaining_s(handle("a").key) == 100.0
    clock.stop()


def test_what_cannot_be_asked_for_waits_for_the_link_without_spinning() -> None:
    """Refused once, silent until ``retry_due``; then it fires again, and only then counts as done."""
    fired = Fired()
    fired.answer = False
    clock = DeadlineClock(fired)
    clock.set_timeout(0.001)
    clock.start(handle("a"), age_s=1)
    assert fired.next() == "a"
    with pytest.raises(queue.Empty):
        fired.keys.get(timeout=0.05)
    fired.answer = True
    clock.retry_due()
    assert fired.next() == "a"
    until(lambda: clock.remaining_s(handle("a").key) is None)
    clock.retry_due()
    with pytest.raises(queue.Empty):
        fired.keys.get(timeout=0.05)
    clock.stop()


def test_a_link_that_comes_back_while_it_is_found_missing_is_not_missed() -> None:
    """The word that there is a link again may come while the answer that there is none is on its way."""
    fired = Fired()
    fired.answer = False

    def fire(key: PositionKey) -> bool:
        asked = fired(key)
        fired.answer = True
        clock.retry_due()
        return asked

    clock = DeadlineClock(fire)
    clock.set_timeout(0.001)
    clock.start(handle("a"), age_s=1)
    assert [fired.next(), fired.next()] == ["a", "a"]
    until(lambda: clock.remaining_s(handle("a").key) is None)
    clock.stop()


def test_a_request_that_cannot_be_given_away_is_tried_again_without_a_word_of_the_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The send buffer was full on a link that lives on: nobody calls ``retry_due``."""
    monkeypatch.setattr(deadlines, "TRY_AGAIN_S", 0.01)
    fired = Fired()
    fired.answer = False
    clock = DeadlineClock(fired)
    clock.set_timeout(0.001)
    clock.start(handle("a"), age_s=1)
    assert [fired.next() for _ in range(3)] == ["a"] * 3
    fired.answer = True
    until(lambda: clock.remaining_s(handle("a").key) is None)
    clock.stop()


def test_a_deadline_started_anew_while_the_old_one_fires_is_not_done_with_it() -> None:
    """The position was opened again: what fired was the deadline of the opening before."""
    fired: queue.Queue[str] = queue.Queue()

    def fire(key: PositionKey) -> bool:
        if fired.empty():
            clock.cancel(key)
            clock.start(handle("a"), age_s=1)
        fired.put(key.token_account)
        return True

    clock = DeadlineClock(fire)
    clock.set_timeout(0.001)
    clock.start(handle("a"), age_s=1)
    until(lambda: fired.qsize() == 2)
    until(lambda: clock.remaining_s(handle("a").key) is None)
    clock.stop()


def test_a_deadline_counts_the_time_of_a_suspended_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread waits on a clock that stood still; it looks at the boot-time clock by itself, and on reconnects."""
    monkeypatch.setattr(deadlines, "LOOK_AGAIN_S", 0.01)
    suspended_s = [0.0]
    monkeypatch.setattr(timeouts.time, "clock_gettime", lambda _: timeouts.time.monotonic() + suspended_s[0])
    fired = Fired()
    clock = DeadlineClock(fired)
    clock.set_timeout(10_000)
    clock.start(handle("a"), age_s=None)
    suspended_s[0] = 9_000.0
    assert (clock.remaining_s(handle("a").key) or 0.0) < 1_001
    suspended_s[0] = 10_001.0
    assert fired.next() == "a"
    clock.stop()


def test_the_boot_time_clock_is_the_systems() -> None:
    assert timeouts.boot_time_s() == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=5)


def test_a_thread_that_cannot_be_started_is_started_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is raised on the reader, and the deadline is met once the system has a thread again."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    fired = Fired()
    clock = DeadlineClock(fired)
    clock.set_timeout(0.001)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        clock.start(handle("a"), age_s=1)
        assert clock.tick() is not None
    assert "can't start new thread" in caplog.text
    assert clock.tick() is None
    assert fired.next() == "a"
    clock.stop()


def test_a_fire_that_raises_is_logged_and_the_next_deadline_comes(caplog: pytest.LogCaptureFixture) -> None:
    """The timer thread survives whatever firing does."""
    seen: queue.Queue[str] = queue.Queue()

    def fire(key: PositionKey) -> bool:
        seen.put(key.token_account)
        if key.token_account == "a":
            raise RuntimeError("boom")
        return True

    clock = DeadlineClock(fire)
    clock.start(handle("a"), age_s=10)
    clock.start(handle("b"), age_s=5)
    clock.set_timeout(1)
    assert [seen.get(timeout=PATIENCE_S), seen.get(timeout=PATIENCE_S)] == ["a", "b"]
    clock.stop()
    assert "boom" in caplog.text


def test_stop_is_idempotent_and_works_from_inside_fire() -> None:
    """A deadline whose exit request closes the session must not wait for itself."""
    done = threading.Event()

    def fire(key: PositionKey) -> bool:
        clock.stop()
        done.set()
        return True

    clock = DeadlineClock(fire)
    clock.set_timeout(0.001)
    clock.start(handle("a"), age_s=1)
    assert done.wait(PATIENCE_S)
    clock.stop()


def test_positions_that_come_and_go_leave_nothing_behind() -> None:
    """Trades without a deadline, or with one far away: memory is bounded by what is open."""
    for timeout_s in (0.0, 10_000.0):
        clock = DeadlineClock(lambda key: True)
        clock.set_timeout(timeout_s)
        for n in range(10 * SLACK):
            clock.start(handle(str(n)), age_s=None)
            clock.cancel(handle(str(n)).key)
        assert len(clock._order) <= SLACK + 2
        clock.stop()
