"""What an automatic seller tells the health of its session."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from lasersell_sync.autosell.position_state import UNDECIDED_AFTER_S
from lasersell_sync.autosell.seller_health import seller_concerns
from lasersell_sync.runtime.callback_executor import CallbackExecutor
from lasersell_sync.session.health import Concern, Concerns
from lasersell_sync.trading.sending.outcome import SellOutcome, TxResult
from tests.support.selling import Rig
from tests.support.waiting import PATIENCE_S, until


@pytest.fixture
def callbacks() -> Iterator[CallbackExecutor]:
    made = CallbackExecutor("lasersell-test-calls", logging.getLogger("test"))
    yield made
    made.close()
    assert made.wait_closed(PATIENCE_S) is None


def concerns(callbacks: CallbackExecutor, **more: Any) -> list[Concern]:
    known: dict[str, Any] = {"is_paused": False, "take_ups": (), "undecided": (), "held_back_purchases": 0}
    return seller_concerns(**{**known, **more}, callbacks=callbacks)


def test_seller_that_works_has_no_concerns(callbacks: CallbackExecutor) -> None:
    assert concerns(callbacks) == []


def test_pause_and_held_back_purchases_are_noted_and_no_problem(callbacks: CallbackExecutor) -> None:
    paused, held_back = concerns(callbacks, is_paused=True, held_back_purchases=2)
    assert "seller.resume()" in paused.text
    assert held_back.text.startswith("2 copied purchases wait")
    assert not paused.is_problem
    assert not held_back.is_problem


def test_undecided_transaction_is_a_problem(callbacks: CallbackExecutor) -> None:
    undecided = TxResult(signature="sig", outcome=SellOutcome.UNKNOWN, detail="no node has answered")
    (concern,) = concerns(callbacks, undecided=[undecided])
    assert concern.is_problem
    assert "sig" in concern.text
    assert "no node has answered" in concern.text


def test_exit_that_is_taken_up_is_noted_and_becomes_a_problem_after_a_minute(
    callbacks: CallbackExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    rig.opened()
    rig.exit()
    rig.settle(SellOutcome.EXPIRED)
    rig.sender.is_reachable = False
    rig.restart()
    take_up = rig.position.take_up
    assert take_up is not None
    (concern,) = concerns(callbacks, take_ups=[take_up])
    assert not concern.is_problem
    assert "request_exit_signal" in concern.text
    monkeypatch.setattr(take_up, "_began_at", take_up._began_at - UNDECIDED_AFTER_S)
    assert concerns(callbacks, take_ups=[take_up])[0].is_problem
    take_up.end()
    assert concerns(callbacks, take_ups=[take_up]) == []


def test_callback_that_is_slow_while_others_wait_is_a_problem(
    callbacks: CallbackExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lasersell_sync.runtime.callback_executor._SLOW_AFTER_S", 0.0)
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go_on.wait(PATIENCE_S)

    callbacks.run([(slow, "the callback on_outcome")])
    assert begun.wait(PATIENCE_S)
    assert concerns(callbacks) == []
    callbacks.run([(lambda: None, "another one")])
    (concern,) = concerns(callbacks)
    go_on.set()
    assert concern.is_problem
    assert concern.text.startswith("the callback on_outcome has run for")
    assert "1 callbacks wait" in concern.text


def test_callback_that_raised_is_noted_and_no_problem(callbacks: CallbackExecutor) -> None:
    def fail() -> None:
        raise SystemExit

    callbacks.run([(fail, "the callback on_outcome")])
    until(lambda: callbacks.errors)
    (concern,) = concerns(callbacks)
    assert not concern.is_problem
    assert "the callback on_outcome: SystemExit" in concern.text


def test_reporter_that_raises_is_a_problem_and_harms_no_other() -> None:
    registered = Concerns()

    def fail() -> list[Concern]:
        raise RuntimeError("a bug")

    registered.add(fail)
    remove = registered.add(lambda: [Concern("a note", is_problem=False)])
    failed, note = registered.all()
    assert failed.is_problem
    assert note.text == "a note"
    remove()
    assert len(registered.all()) == 1
