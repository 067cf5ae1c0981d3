"""After pause() returns, nothing that was begun before still signs, sends or asks."""

from __future__ import annotations

import threading

from lasersell_sync.autosell.signing_gate import PauseBarrier
from tests.support.waiting import PATIENCE_S


def test_pause_waits_for_the_acts_under_way() -> None:
    barrier, begun, go, ended = PauseBarrier(), threading.Event(), threading.Event(), threading.Event()

    def act() -> None:
        with barrier.act() as may_begin:
            assert may_begin
            begun.set()
            assert go.wait(PATIENCE_S)
            ended.set()

    acting = threading.Thread(target=act)
    acting.start()
    assert begun.wait(PATIENCE_S)
    assert barrier.pause(0.02) is False
    assert barrier.is_paused
    threading.Timer(0.05, go.set).start()
    assert barrier.pause(PATIENCE_S)
    assert ended.is_set()
    acting.join(PATIENCE_S)


def test_act_while_paused_may_not_begin_and_does_not_block_resume() -> None:
    barrier = PauseBarrier()
    assert barrier.pause(PATIENCE_S)
    with barrier.act() as may_begin:
        assert not may_begin
    barrier.resume()
    with barrier.act() as may_begin:
        assert may_begin


def test_pause_within_an_act_of_the_same_thread_does_not_wait_for_it() -> None:
    barrier = PauseBarrier()
    with barrier.act() as outer, barrier.act() as inner:
        assert outer
        assert inner
        assert barrier.pause(PATIENCE_S)
    barrier.resume()
    assert barrier.pause(PATIENCE_S)


def test_act_that_raises_is_over() -> None:
    barrier = PauseBarrier()
    try:
        with barrier.act():
            raise ValueError("in the middle")
    except ValueError:
        pass
    assert barrier.pause(PATIENCE_S)
