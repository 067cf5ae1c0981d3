"""A part of a position is built anew only when nothing speaks against the death of its transaction."""

from __future__ import annotations

import pytest

from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.trading.sending.outcome import SellOutcome, TxResult
from tests.support.selling import Rig

CONFIRMED, EXPIRED, UNKNOWN = SellOutcome.CONFIRMED, SellOutcome.EXPIRED, SellOutcome.UNKNOWN


@pytest.fixture
def rig() -> Rig:
    made = Rig(with_api=True)
    made.opened()
    return made


def test_level_needs_the_word_of_every_node_and_whole_exit_needs_one(rig: Rig) -> None:
    rig.level(0)
    assert rig.sender.listening[rig.sender.sent[0]]["still_held"]()
    rig.settle(CONFIRMED)
    rig.exit()
    assert "still_held" not in rig.sender.listening[rig.sender.sent[1]]


def test_level_after_a_restart_leaves_out_no_silent_node(rig: Rig) -> None:
    """Nobody watched the tokens while no process ran."""
    rig.level(0)
    signature = rig.sender.sent[0]
    rig.restart()
    assert rig.sender.tracked == [signature]
    assert rig.sender.listening[signature]["still_held"]() is False


def test_level_expired_although_the_balance_fell_ends_unknown(rig: Rig) -> None:
    rig.level(0, tokens=1_000)
    rig.stream.fell_by = 1_000
    rig.settle(EXPIRED)
    assert rig.outcomes == [("level 0", UNKNOWN)]
    assert "fallen by 1000" in rig.reports[0].detail
    assert rig.api is not None
    assert rig.api.requests == [], "no other transaction is built"


def test_level_expired_while_the_balance_holds_is_built_anew(rig: Rig) -> None:
    rig.level(0, tokens=1_000)
    rig.stream.fell_by = 999
    rig.settle(EXPIRED)
    assert rig.api is not None
    assert [request.amount_tokens for request in rig.api.requests] == [1_000]


def test_level_contradiction_of_nodes_ends_unknown_and_is_never_begun_anew(rig: Rig) -> None:
    signal = rig.level(0)
    rig.settle(UNKNOWN)
    assert rig.outcomes == [("level 0", UNKNOWN)]
    rig.level(0, tokens=signal.sell_tokens or 0)
    rig.restart()
    assert len(rig.sender.sent) == 1
    assert rig.outcomes == [("level 0", UNKNOWN)]


@pytest.mark.parametrize("fell_by", [0, 1_000])
def test_level_contradiction_is_remembered_by_the_next_process(
    rig: Rig, fell_by: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between the verdict and the end of the exit."""
    rig.level(0, tokens=1_000)
    rig.stream.fell_by = fell_by
    with monkeypatch.context() as patch:
        patch.setattr(rig.position, "_finish", lambda *_, **__: None)
        rig.settle(EXPIRED if fell_by else UNKNOWN)
    assert rig.reports == []
    rig.restart()
    assert rig.outcomes == [("level 0", UNKNOWN)]
    assert len(rig.sender.sent) == 1
    assert rig.api is not None
    assert rig.api.requests == []


def test_undecided_and_late_landings_reach_on_problem(rig: Rig) -> None:
    rig.exit()
    callbacks = rig.sender.listening[rig.sender.sent[0]]
    callbacks["on_undecided"](TxResult(signature="s", outcome=UNKNOWN, detail="no node has answered"))
    callbacks["on_late_landing"](TxResult(signature="s", outcome=CONFIRMED, slot=7, detail="it was called dead"))
    undecided, late = rig.problems
    assert isinstance(undecided, TxSubmitError)
    assert isinstance(late, TxSubmitError)
    assert (undecided.kind, late.kind) == ("confirm_timeout", "late_landing")
    assert "no node has answered" in str(undecided)
    assert "slot 7" in str(late)


# ── pauses and processes that died ───────────────────────────────────────────────────────────────────────────────


def test_pause_between_the_question_and_its_answer_signs_nothing(rig: Rig) -> None:
    """The answer of the REST API that was asked before the pause is asked for again after it."""
    rig.level(0)
    assert rig.api is not None
    rig.api.on_build = rig.barrier.pause
    rig.settle(EXPIRED)
    assert len(rig.api.requests) == 1
    assert len(rig.sender.sent) == 1
    rig.api.on_build = None
    rig.barrier.resume()
    rig.do(rig.position.unpaused)
    assert len(rig.api.requests) == 2
    assert len(rig.sender.sent) == 2


def test_level_in_a_dry_run_asks_nobody() -> None:
    rig = Rig(with_api=True, is_dry_run=True)
    rig.opened()
    rig.exit(rig.old_level(0), age_s=60)
    assert rig.api is not None
    assert rig.api.requests == []
    assert rig.stream.asked == []
    assert rig.outcomes == [("level 0", UNKNOWN)]


def test_slice_that_a_killed_process_left_waiting_ends_and_is_not_sold(rig: Rig) -> None:
    """Another exit has a live transaction, so the slice would get its turn later, at the policy's slippage."""
    rig.level(0)
    rig.do(
        lambda: rig.position.sell_leg(
            "1/1", rig.signal.mint, position_id=1, tokens=10, slippage_bps=5, pays=None, on_end=lambda _: None
        )
    )
    rig.restart()
    assert rig.outcomes == [("leg 1/1", EXPIRED)]
    rig.settle(CONFIRMED)
    assert rig.api is not None
    assert rig.api.requests == []
    assert len(rig.sender.sent) == 1
