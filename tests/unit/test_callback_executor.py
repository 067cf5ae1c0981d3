"""Callbacks of the user run in order on a thread of their own, and stop nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from lasersell_sync.runtime import callback_executor
from lasersell_sync.runtime.callback_executor import CallbackExecutor
from tests.support.waiting import PATIENCE_S, until

log = logging.getLogger("lasersell_sync.test")


@pytest.fixture
def executor() -> Iterator[CallbackExecutor]:
    made = CallbackExecutor("lasersell-test-calls", log)
    yield made
    made.close()
    made.wait_closed(PATIENCE_S)


def test_callbacks_run_in_order_on_the_named_thread(executor: CallbackExecutor) -> None:
    seen: list[tuple[int, str]] = []
    for number in range(100):
        call = (lambda number=number: seen.append((number, threading.current_thread().name)), "a note")
        executor.run([call])
    until(lambda: len(seen) == 100)
    assert seen == [(number, "lasersell-test-calls") for number in range(100)]


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_callback_raises_anything_the_next_one_still_runs(
    executor: CallbackExecutor, error: BaseException, caplog: Any
) -> None:
    def raises() -> None:
        raise error

    done = threading.Event()
    executor.run([(raises, "the bad one"), (done.set, "the good one")])
    assert done.wait(PATIENCE_S)
    assert "the bad one failed" in caplog.text


def test_close_lets_waiting_callbacks_run_and_takes_no_more(executor: CallbackExecutor) -> None:
    go, seen = threading.Event(), []
    executor.run([(lambda: go.wait(PATIENCE_S), "the slow one"), (lambda: seen.append(1), "waiting")])
    executor.close()
    executor.run([(lambda: seen.append(2), "too late")])
    assert executor.wait_closed(0.01) == "the slow one"
    go.set()
    assert executor.wait_closed(PATIENCE_S) is None
    assert seen == [1]


def test_slow_callback_is_named_while_others_wait(
    executor: CallbackExecutor, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(callback_executor, "_SLOW_AFTER_S", 0.0)
    go, begun = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go.wait(PATIENCE_S)

    executor.run([(slow, "the slow one")])
    assert begun.wait(PATIENCE_S)
    executor.run([(begun.clear, "behind it")])
    assert "the slow one has run for" in caplog.text
    assert "1 callbacks wait behind it" in caplog.text
    go.set()


def test_thread_that_cannot_be_started_now_is_started_with_the_next_call(
    executor: CallbackExecutor, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def refuses(_self: object) -> None:
        raise RuntimeError("can't start new thread")

    seen: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuses)
        executor.run([(lambda: seen.append(1), "the first")])
    assert "cannot be started now" in caplog.text
    assert executor.waiting == 1
    executor.run([(lambda: seen.append(2), "the second")])
    until(lambda: seen == [1, 2])


def test_close_in_a_callback_does_not_wait_for_itself(executor: CallbackExecutor) -> None:
    ended: list[object] = []

    def closes() -> None:
        executor.close()
        ended.append(executor.wait_closed(None))

    executor.run([(closes, "it closes")])
    until(lambda: ended == [None])
