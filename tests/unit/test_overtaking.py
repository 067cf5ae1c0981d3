"""The exit of a whole position overtakes its parts, sells what they leave, and holds purchases back."""

from __future__ import annotations

import attrs
import pytest

from lasersell_sync.autosell.exit_key import ExitKey, ExitsUnderWay
from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.trading.sending.outcome import SellOutcome
from lasersell_sync.trading.solana.account_history import Finding, Verdict
from tests.support.selling import Rig, on_another_block

CONFIRMED, FAILED, EXPIRED, UNKNOWN = (
    SellOutcome.CONFIRMED, SellOutcome.FAILED_ONCHAIN, SellOutcome.EXPIRED, SellOutcome.UNKNOWN,
)  # fmt: skip


@pytest.fixture
def rig() -> Rig:
    made = Rig(with_api=True)
    made.opened()
    return made


@pytest.mark.parametrize("reason", ["stop_loss", "trailing_stop", "deadline", "graduation", "manual"])
def test_whole_exit_overtakes_a_level_that_is_not_proven(rig: Rig, reason: str) -> None:
    """The level is followed to its end, and nothing is built in its place."""
    rig.level(0)
    rig.exit(attrs.evolve(rig.signal, reason=reason, unsigned_tx_b64=on_another_block(rig.signal.unsigned_tx_b64)))
    level, whole = rig.sender.sent
    rig.settle(EXPIRED, level)
    assert rig.outcomes == [("level 0", EXPIRED)]
    assert rig.api is not None
    assert rig.api.requests == []
    rig.sender.amount = 0
    rig.settle(CONFIRMED, whole)
    rig.lines.advance(5)
    assert rig.outcomes == [("level 0", EXPIRED), ("whole", CONFIRMED)]


def test_whole_exit_overtakes_a_level_that_asks_rest(rig: Rig) -> None:
    """What is built for the level then comes too late."""
    assert rig.api is not None
    rig.api.failures = 1_000
    rig.level(0)
    rig.settle(EXPIRED)
    rig.exit()
    rig.api.failures = 0
    rig.lines.advance(30)
    assert len(rig.sender.sent) == 2
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("level 0", EXPIRED), ("whole", CONFIRMED)]


def test_whole_exit_overtakes_a_slice(rig: Rig) -> None:
    ended: list[SellOutcome] = []
    rig.do(
        lambda: rig.position.sell_leg(
            "1", rig.signal.mint, position_id=1, tokens=10, slippage_bps=150, pays=None,
            on_end=lambda report: ended.append(report.outcome),
        )
    )  # fmt: skip
    rig.exit()
    leg, whole = rig.sender.sent
    rig.settle(CONFIRMED, leg)
    assert ended == [CONFIRMED]
    rig.settle(FAILED, whole)
    assert len(rig.stream.asked) == 1


def test_whole_exit_that_a_level_overtakes_on_the_chain_asks_again(rig: Rig) -> None:
    """The level landed first: there is less than the transaction was to sell."""
    rig.level(0)
    rig.exit()
    level, whole = rig.sender.sent
    rig.settle(CONFIRMED, level)
    rig.settle(FAILED, whole)
    rig.exit()
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("level 0", CONFIRMED), ("whole", CONFIRMED)]


def test_tokens_that_an_overtaken_level_leaves_are_sold_until_the_account_is_empty(rig: Rig) -> None:
    rig.level(0, tokens=1_000)
    rig.exit()
    level, whole = rig.sender.sent
    rig.sender.amount = 1_000
    rig.settle(CONFIRMED, whole)
    assert rig.reports == []
    assert len(rig.stream.asked) == 1
    rig.settle(EXPIRED, level)
    rig.exit()
    rig.sender.amount = 0
    rig.settle(CONFIRMED)
    rig.lines.advance(2)
    assert rig.outcomes == [("level 0", EXPIRED), ("whole", CONFIRMED)]
    assert rig.reports[-1].transactions == 2


def test_more_tokens_than_the_level_leaves_are_not_sold(rig: Rig) -> None:
    """Somebody has bought: nobody signalled that."""
    rig.level(0, tokens=1_000)
    rig.exit()
    rig.sender.amount = 1_001
    rig.settle(CONFIRMED, rig.sender.sent[1])
    assert rig.outcomes == [("whole", CONFIRMED)]
    assert rig.stream.asked == []
    assert "1001 tokens" in str(rig.problems[0])


def test_rest_of_a_position_that_is_opened_again_is_not_asked_for(rig: Rig) -> None:
    rig.level(0, tokens=1_000)
    rig.exit()
    rig.sender.amount = 1_000
    rig.sender.is_reachable = False
    rig.settle(CONFIRMED, rig.sender.sent[1])
    rig.closed()
    rig.opened()
    rig.sender.is_reachable = True
    rig.lines.advance(90)
    assert rig.stream.asked == []
    assert rig.outcomes == [("whole", CONFIRMED)]


def test_rest_that_nobody_sells_ends_as_sold_with_a_remark(rig: Rig) -> None:
    rig.level(0, tokens=1_000)
    rig.exit()
    rig.sender.amount = 1_000
    rig.settle(CONFIRMED, rig.sender.sent[1])
    rig.lines.advance(60)
    assert rig.outcomes == [("whole", CONFIRMED)]
    assert "may still be there" in rig.reports[0].detail


def test_overtaken_level_whose_tokens_the_whole_exit_sold_ends_expired(rig: Rig) -> None:
    """The balance fell, but not by the level's transaction: that is no contradiction."""
    rig.level(0, tokens=1_000)
    rig.exit()
    level, whole = rig.sender.sent
    rig.sender.amount = 0
    rig.settle(CONFIRMED, whole)
    rig.lines.advance(2)
    rig.stream.fell_by = 10**9
    rig.settle(EXPIRED, level)
    assert rig.outcomes == [("whole", CONFIRMED), ("level 0", EXPIRED)]


def test_exits_of_another_opening_wait_for_no_earlier_transaction(rig: Rig) -> None:
    rig.exit()
    rig.closed()
    rig.opened(200)
    rig.level(0)
    old, new = rig.sender.sent
    rig.settle(CONFIRMED, new)
    rig.settle(EXPIRED, old)
    assert [(each.key.part, each.key.generation, each.outcome) for each in rig.reports] == [
        ("level 0", 2, CONFIRMED), ("whole", 1, EXPIRED),
    ]  # fmt: skip
    assert rig.stream.asked == []


def test_error_while_a_level_is_overtaken_does_not_bring_it_back(rig: Rig) -> None:
    rig.level(0)
    rig.sender.bugs.append(RuntimeError("a bug"))
    rig.exit()
    rig.lines.advance(5)
    level, whole = rig.sender.sent
    rig.settle(EXPIRED, level)
    assert rig.api is not None
    assert rig.api.requests == []
    rig.sender.amount = 0
    rig.settle(CONFIRMED, whole)
    rig.lines.advance(5)
    assert rig.outcomes == [("level 0", EXPIRED), ("whole", CONFIRMED)]


# ── what parts have left, after a restart ──


@pytest.fixture
def landed(rig: Rig) -> Rig:
    """The sale of the whole position has landed, a level may land still, and the process died before it looked."""
    rig.level(0, tokens=1_000)
    rig.exit()
    rig.sender.amount = 1_000
    rig.sender.is_reachable = False
    rig.settle(CONFIRMED, rig.sender.sent[1])
    assert (rig.reports, rig.stream.asked) == ([], [])
    rig.sender.is_reachable = True
    return rig


def test_rest_is_sold_after_a_restart_with_the_proof(landed: Rig) -> None:
    level, _whole = landed.sender.sent
    landed.restart()
    assert landed.sender.histories == []  # the level may land
    landed.settle(EXPIRED, level)
    (history,) = landed.sender.histories
    assert history.recorded.amounts == {1_000}
    assert history.recorded.since == 9
    assert len(landed.stream.asked) == 1
    landed.exit()
    landed.sender.amount = 0
    landed.settle(CONFIRMED)
    landed.lines.advance(2)
    assert landed.outcomes == [("level 0", EXPIRED), ("whole", CONFIRMED)]


def test_rest_after_a_restart_is_not_asked_for_without_the_proof(landed: Rig) -> None:
    landed.sender.is_reachable = False
    landed.restart()
    landed.settle(EXPIRED, landed.sender.sent[0])
    landed.lines.advance(55)
    assert (landed.stream.asked, landed.problems) == ([], [])
    landed.lines.advance(5)
    assert "waits for a proof" in str(landed.problems[0])


def test_rest_that_was_sold_meanwhile_ends_the_exit_after_a_restart(landed: Rig) -> None:
    landed.sender.amount = 0
    landed.restart()
    landed.settle(CONFIRMED, landed.sender.sent[0])
    assert landed.stream.asked == []
    assert landed.outcomes == [("level 0", CONFIRMED), ("whole", CONFIRMED)]
    assert (landed.reports[-1].detail, landed.reports[-1].slot) == ("", 9)


def test_rest_that_somebody_touched_is_reported_after_a_restart(landed: Rig) -> None:
    landed.sender.verdict = Verdict(Finding.TOUCHED, "somebody touched it in slot 7")
    landed.restart()
    landed.settle(EXPIRED, landed.sender.sent[0])
    assert landed.stream.asked == []
    assert landed.outcomes[-1] == ("whole", CONFIRMED)
    assert "somebody touched it in slot 7" in landed.reports[-1].detail
    assert "new signal" in str(landed.problems[0])


def test_rest_of_a_sale_that_lands_after_the_restart_needs_the_proof(rig: Rig) -> None:
    rig.level(0, tokens=1_000)
    rig.exit()
    level, whole = rig.sender.sent
    rig.sender.amount = 1_000
    rig.restart()
    rig.settle(CONFIRMED, whole)
    assert (rig.reports, rig.stream.asked, rig.sender.histories) == ([], [], [])
    rig.settle(EXPIRED, level)
    assert len(rig.sender.histories) == len(rig.stream.asked) == 1


def test_sale_of_the_rest_that_was_under_way_is_followed_and_looked_after(landed: Rig) -> None:
    """It died when a transaction of what is left was signed."""
    landed.settle(EXPIRED, landed.sender.sent[0])
    landed.lines.advance(2)
    landed.exit()
    assert len(landed.sender.sent) == 3
    landed.restart()
    assert landed.sender.tracked == [landed.sender.sent[2]]
    landed.settle(EXPIRED)
    assert len(landed.sender.histories) == 1
    landed.exit()
    landed.sender.amount = 0
    landed.settle(CONFIRMED)
    landed.lines.advance(2)
    assert landed.outcomes[-1] == ("whole", CONFIRMED)


def test_signal_that_repeats_the_landed_sale_leaves_the_rest_to_the_proof(rig: Rig) -> None:
    """The server sends to a new session what it sent to the last one."""
    rig.level(0, tokens=1_000)
    signal = rig.exit()
    level, whole = rig.sender.sent
    rig.sender.amount = 1_000
    rig.sender.is_reachable = False
    rig.settle(CONFIRMED, whole)
    rig.restart()
    rig.settle(EXPIRED, level)
    rig.exit(signal)
    assert (rig.outcomes, rig.sender.sent) == ([("level 0", EXPIRED)], [level, whole])
    rig.sender.is_reachable = True
    rig.lines.advance(5)
    assert rig.stream.asked


def test_new_signal_after_a_restart_sells_the_rest_without_the_proof(landed: Rig) -> None:
    landed.sender.is_reachable = False
    landed.restart()
    landed.settle(EXPIRED, landed.sender.sent[0])
    landed.sender.is_reachable = True
    landed.exit()
    assert landed.outcomes == [("level 0", EXPIRED), ("whole", CONFIRMED)]
    landed.sender.amount = 0
    landed.settle(CONFIRMED)
    assert [(one.key.generation, one.outcome) for one in landed.reports][-2:] == [(1, CONFIRMED), (2, CONFIRMED)]


def error_and_recovery(rig: Rig) -> None:
    def bug() -> None:
        raise RuntimeError("a bug")

    rig.lines.put("", lambda: rig.position.do(bug))
    rig.lines.run()
    rig.lines._tasks.popleft()
    rig.do(lambda: None)


def test_rest_after_an_error_is_no_more_than_the_parts_have_left(landed: Rig) -> None:
    landed.sender.is_reachable = False
    error_and_recovery(landed)
    landed.sender.is_reachable, landed.sender.amount = True, 1_001
    landed.lines.advance(5)
    assert landed.stream.asked == []
    assert "1001 tokens" in str(landed.problems[0])


def test_rest_is_looked_for_again_after_an_error(landed: Rig) -> None:
    landed.sender.is_reachable = False
    error_and_recovery(landed)
    assert landed.reports == []
    landed.sender.is_reachable = True
    landed.lines.advance(5)
    assert landed.stream.asked
    landed.exit()
    landed.sender.amount = 0
    landed.settle(CONFIRMED)
    landed.lines.advance(2)
    assert landed.outcomes == [("whole", CONFIRMED)]


# ── purchases ──


def test_purchase_waits_until_no_exit_of_the_token_can_land(rig: Rig) -> None:
    freed: list[str] = []
    key = rig.key()

    def hold_back() -> bool:
        return rig.services.under_way.hold_back(key.wallet, key.mint, lambda: freed.append("now"))

    assert not hold_back()
    rig.level(0)
    rig.exit()
    assert hold_back()
    assert not rig.services.under_way.hold_back(key.wallet, "another mint", lambda: None)
    rig.settle(CONFIRMED, rig.sender.sent[1])
    assert freed == []
    rig.settle(EXPIRED, rig.sender.sent[0])
    assert freed == ["now"]
    assert not hold_back()


def test_purchase_after_a_restart_waits_for_what_the_earlier_process_sent(rig: Rig) -> None:
    rig.exit()
    rig.services = attrs.evolve(rig.services, under_way=ExitsUnderWay())
    rig.restart()
    key = rig.key()
    assert rig.services.under_way.hold_back(key.wallet, key.mint, lambda: None)


def test_purchases_of_other_wallets_and_tokens_are_not_held_back() -> None:
    under_way, freed = ExitsUnderWay(), list[int]()
    keys = [ExitKey("w", "a", "m", part, 1) for part in ("whole", "level 0")]
    for key in keys:
        under_way.set_live(key, is_live=True)
    assert under_way.hold_back("w", "m", lambda: freed.append(1))
    assert not under_way.hold_back("v", "m", lambda: freed.append(2))
    assert not under_way.hold_back("w", "n", lambda: freed.append(3))
    assert under_way.waiting() == 1
    for key in keys:
        assert freed == []
        under_way.set_live(key, is_live=False)
    assert (freed, under_way.waiting()) == ([1], 0)


# ── answers to questions of an exit that has ended ──


@pytest.mark.parametrize("is_reopened", [True, False])
def test_answer_to_a_question_of_an_ended_exit_is_dropped_and_reported(rig: Rig, is_reopened: bool) -> None:
    rig.exit()
    rig.settle(EXPIRED)
    rig.closed()
    if is_reopened:
        rig.opened(55)
    rig.exit()
    assert len(rig.sender.sent) == 1
    (problem,) = rig.problems
    assert isinstance(problem, TxSubmitError)
    assert problem.kind == "late_answer"
    # There is one answer to one question.
    rig.exit()
    assert len(rig.sender.sent) == 2


@pytest.mark.parametrize(("trigger", "is_dropped"), [(0, True), (1, False)])
def test_stop_loss_of_the_new_opening_is_no_answer(rig: Rig, trigger: int, is_dropped: bool) -> None:
    """A server that answers with the reason of before repeats its trigger."""

    def stop(triggered_at_ms: int) -> None:
        tx_b64 = on_another_block(rig.signal.unsigned_tx_b64)
        rig.exit(attrs.evolve(rig.signal, reason="stop_loss", triggered_at_ms=triggered_at_ms, unsigned_tx_b64=tx_b64))

    stop(rig.signal.triggered_at_ms)
    rig.settle(EXPIRED)
    rig.closed()
    rig.opened(55)
    stop(rig.signal.triggered_at_ms + trigger)
    assert len(rig.sender.sent) == 2 - is_dropped
    assert len(rig.problems) == is_dropped


def test_levels_of_the_new_opening_are_no_answers(rig: Rig) -> None:
    rig.exit()
    rig.settle(EXPIRED)
    rig.closed()
    rig.opened(55)
    rig.level(0)
    assert len(rig.sender.sent) == 2
    assert rig.problems == []


def test_answer_for_an_opening_that_is_to_be_sold_too_is_used(rig: Rig) -> None:
    """The position of now is asked for as well, and there is only one to build a transaction of."""
    rig.exit()
    rig.settle(EXPIRED)
    rig.closed()
    rig.opened(55)
    rig.exit(attrs.evolve(rig.signal, reason="stop_loss", triggered_at_ms=rig.signal.triggered_at_ms + 1), age_s=11)
    assert len(rig.stream.asked) == 2
    rig.exit()
    assert len(rig.sender.sent) == 2
    assert rig.problems == []


def test_repeated_signal_of_an_earlier_opening_is_not_reported_as_sold(rig: Rig) -> None:
    """After a restart and a re-purchase, its transaction is known by its signature."""
    signal = rig.exit()
    rig.settle(CONFIRMED)
    rig.closed()
    rig.restart()
    rig.opened(55)
    rig.exit(signal)
    assert len(rig.sender.sent) == 1
    assert [(each.key.generation, each.outcome) for each in rig.reports] == [(1, CONFIRMED), (2, EXPIRED)]
    assert "repeats the transaction" in rig.reports[-1].detail
    rig.exit()
    rig.settle(CONFIRMED)
    assert rig.reports[-1].outcome is CONFIRMED
