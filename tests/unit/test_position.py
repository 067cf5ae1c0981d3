"""The rules of selling one position: at most one live transaction of an exit, none forgotten, none signed blind."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lasersell_sync.autosell.services import SellPolicy, SellTerms
from lasersell_sync.exceptions import JournalError, UnsafeTransactionError
from lasersell_sync.trading.keys.signer import Signer
from lasersell_sync.trading.sending.outcome import SellOutcome
from tests.support.examples import examples
from tests.support.selling import Rig, on_another_block, that_also_pays_a_stranger

CONFIRMED, FAILED, EXPIRED, REJECTED, UNKNOWN = (
    SellOutcome.CONFIRMED,
    SellOutcome.FAILED_ONCHAIN,
    SellOutcome.EXPIRED,
    SellOutcome.REJECTED,
    SellOutcome.UNKNOWN,
)


@pytest.fixture
def rig() -> Rig:
    made = Rig(with_api=True)
    made.opened()
    return made


# ── the plain way ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_signal_is_written_down_signed_and_sent_once(rig: Rig):
    rig.exit()
    assert len(rig.sender.sent) == 1
    (record,) = rig.journal.unfinished()
    assert (record.state, record.attempts[0].signature) == ("signed", rig.sender.sent[0])
    rig.settle(CONFIRMED)
    (report,) = rig.reports
    assert (report.outcome, report.slot, report.transactions) == (CONFIRMED, 9, 1)
    assert (report.signature, report.tokens) == (rig.sender.sent[0], rig.signal.position_tokens)
    assert rig.journal.unfinished() == rig.journal.unreported() == []
    assert rig.stream.asked == []


def test_the_same_signal_a_hundred_times_is_one_sale(rig: Rig):
    signal = rig.exit()
    for _ in range(100):
        rig.exit(signal)
    rig.settle(CONFIRMED)
    for _ in range(100):
        rig.exit(signal)
    assert len(rig.sender.sent) == 1
    assert rig.outcomes == [("whole", CONFIRMED)]


def test_fresh_transactions_wait_until_the_old_one_is_proven_dead(rig: Rig):
    """The server refreshes in the middle: nothing is sent until then, and then the newest transaction is."""
    rig.exit()
    for _ in range(5):
        newest = rig.exit()
    assert len(rig.sender.sent) == 1
    rig.settle(EXPIRED)
    assert len(rig.sender.sent) == 2
    assert rig.stream.asked == []
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", CONFIRMED)]
    rig.exit(newest)
    assert len(rig.sender.sent) == 2


@pytest.mark.parametrize("outcome", [FAILED, EXPIRED, REJECTED])
def test_what_is_dead_is_asked_for_anew_with_more_slippage(rig: Rig, outcome: SellOutcome):
    """+20, then +40 basis points each, up to the policy's limit; given up and told after its number of tries."""
    rig.exit()
    for _ in range(10):
        rig.settle(outcome)
        rig.exit()
    rig.settle(outcome)
    bps = [slippage_bps for _, slippage_bps in rig.stream.asked]
    assert bps == [2020, 2060, 2100, 2140, 2180, 2220, 2260, 2300, 2340, 2380]
    assert len(rig.sender.sent) == len(set(rig.sender.sent)) == 11
    (report,) = rig.reports
    assert (report.outcome, report.transactions) == (outcome, 11)
    assert "given up after 11 transactions" in report.detail
    assert SellPolicy().slippage_bps(50) == 2_500


def test_an_unanswered_question_is_asked_again_and_then_given_up():
    rig = Rig(policy=SellPolicy(refresh_wait_s=1.5, max_unanswered=3))
    rig.opened()
    rig.exit()
    rig.settle(EXPIRED)
    assert len(rig.stream.asked) == 1
    rig.stream.is_linked = False
    rig.lines.advance(60)  # no link: nothing counts
    assert rig.reports == []
    rig.stream.is_linked = True
    rig.lines.advance(10)
    assert rig.outcomes == [("whole", EXPIRED)]
    assert "asked 3 times" in rig.reports[0].detail
    # A later signal begins it anew.
    rig.exit()
    rig.settle(CONFIRMED)
    assert rig.outcomes[1:] == [("whole", CONFIRMED)]


def test_an_old_signal_is_refreshed_rather_than_sent(rig: Rig):
    rig.exit(age_s=11)
    assert rig.sender.sent == []
    assert [bps for _, bps in rig.stream.asked] == [2_000]
    rig.exit()
    assert len(rig.sender.sent) == 1


def test_a_signal_that_is_old_by_the_servers_clock_is_refreshed_once(rig: Rig):
    """An answer to our own question is taken however the two clocks differ, or it would be asked for for ever."""
    rig.stream.clock_ms = rig.signal.triggered_at_ms + 60_000.0
    rig.exit()
    assert rig.sender.sent == []
    rig.exit()
    assert len(rig.sender.sent) == 1
    assert len(rig.stream.asked) == 1


def test_a_server_that_repeats_a_dead_transaction_does_not_make_a_loop(rig: Rig):
    """The same bytes are the same transaction: it is not sent again, and another one is asked for a second later."""
    signal = rig.exit()
    rig.settle(FAILED)
    rig.exit(attrs.evolve(signal, triggered_at_ms=signal.triggered_at_ms + 1))
    rig.lines.advance(0.5)
    assert len(rig.sender.sent) == 1
    rig.exit()
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", CONFIRMED)]


# ── nothing signed blind ─────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_guard_refuses_is_not_signed_and_told(rig: Rig):
    """A transaction that pays a stranger as well; the next signal has its own chance."""
    rig.exit(attrs.evolve(rig.signal, unsigned_tx_b64=that_also_pays_a_stranger(rig.signal.unsigned_tx_b64)))
    (report,) = rig.reports
    assert report.outcome is REJECTED
    assert isinstance(report.error, UnsafeTransactionError)
    assert (rig.sender.sent, report.signature, report.transactions) == ([], None, 0)
    rig.exit()
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", REJECTED), ("whole", CONFIRMED)]


def test_garbage_is_told_not_raised(rig: Rig):
    rig.exit(attrs.evolve(rig.signal, unsigned_tx_b64="bm90IGEgdHJhbnNhY3Rpb24="))
    assert rig.outcomes == [("whole", REJECTED)]


def test_a_dry_run_signs_and_sends_nothing():
    rig = Rig(is_dry_run=True)
    rig.opened()
    rig.exit()
    assert rig.sender.sent == []
    (report,) = rig.reports
    assert (report.outcome, report.is_dry_run) == (UNKNOWN, True)
    rig.exit(attrs.evolve(rig.signal, unsigned_tx_b64=that_also_pays_a_stranger(rig.signal.unsigned_tx_b64)))
    assert rig.outcomes[-1] == ("whole", REJECTED)
    rig.exit(age_s=60)
    assert (rig.stream.asked, rig.sender.sent) == ([], [])
    assert "too old" in rig.reports[-1].detail


def test_a_dry_run_uses_no_key(monkeypatch: pytest.MonkeyPatch):
    """What is not signed cannot get out."""
    monkeypatch.setattr(Signer, "sign", lambda *_, **__: pytest.fail("it was signed"))
    rig = Rig(is_dry_run=True)
    rig.opened()
    rig.exit()
    assert rig.outcomes == [("whole", UNKNOWN)]


# ── parts of a position ──────────────────────────────────────────────────────────────────────────────────────────


def test_levels_take_turns(rig: Rig):
    """One level at a time."""
    rig.level(0)
    rig.level(1)
    assert len(rig.sender.sent) == 1
    rig.settle(CONFIRMED)
    assert len(rig.sender.sent) == 2
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("level 0", CONFIRMED), ("level 1", CONFIRMED)]


def test_a_dead_level_is_built_anew_for_the_same_amount(rig: Rig):
    """``request_exit_signal`` would sell everything, so the REST API is asked, and the guard compares with that."""
    rig.level(3, tokens=1_234)
    rig.settle(EXPIRED)
    (request,) = rig.api.requests
    assert (request.amount_tokens, request.slippage_bps, request.output.value) == (1_234, 2_020, "SOL")
    assert rig.stream.asked == []
    assert len(rig.sender.sent) == 2
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("level 3", CONFIRMED)]


def test_a_level_that_comes_again_for_another_amount_keeps_its_own(rig: Rig):
    """What is written down is sold: a server that adds up what it believes unsold does not change that."""
    rig.level(0, tokens=1_000)
    rig.level(0, tokens=2_500)
    rig.settle(EXPIRED)
    assert [request.amount_tokens for request in rig.api.requests] == [1_000]
    rig.settle(CONFIRMED)
    assert [(report.key.part, report.tokens) for report in rig.reports] == [("level 0", 1_000)]
    assert len(rig.sender.sent) == 2


def test_an_api_that_fails_is_asked_again(rig: Rig):
    rig.api.failures = 2
    rig.level(3)
    rig.settle(FAILED)
    assert len(rig.sender.sent) == 1
    rig.lines.advance(5)
    assert len(rig.sender.sent) == 2
    assert len(rig.api.requests) == 3


def test_without_an_api_a_dead_level_is_told():
    rig = Rig()
    rig.opened()
    rig.level(0)
    rig.settle(EXPIRED)
    assert rig.outcomes == [("level 0", EXPIRED)]
    assert "exit_api" in rig.reports[0].detail
    assert rig.stream.asked == []


# ── openings and closes ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_exit_that_was_sold_stays_sold_and_the_next_opening_is_another(rig: Rig):
    rig.exit()
    rig.settle(CONFIRMED)
    rig.opened()  # announced again after a reconnect
    rig.sender.amount = 0
    rig.exit()
    assert len(rig.sender.sent) == 1
    rig.closed()
    rig.opened()  # bought again, for the very same price
    rig.exit()
    assert len(rig.sender.sent) == 2
    rig.settle(CONFIRMED)
    assert [report.key.generation for report in rig.reports] == [1, 2]


@pytest.mark.parametrize("moment", [8, None], ids=["opened at the same moment", "moment not told"])
@pytest.mark.parametrize("is_landed", [True, False])
def test_an_announcement_with_a_smaller_entry_is_no_other_opening(rig: Rig, moment: int | None, is_landed: bool):
    """A level was sold, the stream reconnects in the middle of the next one, and the server tells it once more.

    Or just after that has landed, of which the server does not know yet.
    """
    rig.opened(100, opened_at_ms=7)
    rig.closed()
    rig.opened(100, opened_at_ms=moment)
    rig.level(0)
    rig.settle(CONFIRMED)
    rig.level(1)
    if is_landed:
        rig.settle(CONFIRMED)
    rig.opened(70, opened_at_ms=moment)
    rig.level(1)
    if not is_landed:
        rig.settle(CONFIRMED)
    rig.opened(40, opened_at_ms=moment)
    rig.level(0)
    assert rig.outcomes == [("level 0", CONFIRMED), ("level 1", CONFIRMED)]
    assert len(rig.sender.sent) == 2


def test_a_purchase_in_the_middle_of_a_levels_sale_is_no_other_opening(rig: Rig):
    """The entry grows, and the server does not tell when the position was opened."""
    rig.level(0)
    rig.opened(150)
    rig.level(0)
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("level 0", CONFIRMED)]
    assert (len(rig.sender.sent), rig.stream.asked) == (1, [])


@pytest.mark.parametrize("entry", [150, 50])
def test_another_entry_after_the_whole_was_sold_is_another_opening(rig: Rig, entry: int):
    """Its close was missed, and the server does not tell moments; a level of before is none of it."""
    rig.level(0)
    rig.settle(CONFIRMED)
    rig.exit()
    rig.settle(CONFIRMED)
    rig.opened(entry)
    rig.level(0)
    rig.settle(CONFIRMED)
    assert [(report.key.part, report.key.generation) for report in rig.reports] == [
        ("level 0", 1), ("whole", 1), ("level 0", 2),
    ]  # fmt: skip


def test_another_moment_with_the_same_entry_is_another_opening(rig: Rig):
    """Bots buy for fixed amounts; the close was missed with the link."""
    rig.opened(100, opened_at_ms=7)
    rig.level(0)
    rig.settle(CONFIRMED)
    rig.exit()
    rig.settle(CONFIRMED)
    rig.opened(100, opened_at_ms=8)
    rig.level(0)
    rig.settle(CONFIRMED)
    assert [(report.key.part, report.key.generation) for report in rig.reports] == [
        ("level 0", 1), ("whole", 1), ("level 0", 2),
    ]  # fmt: skip


def test_a_purchase_while_a_fresh_transaction_is_awaited_is_no_other_opening(rig: Rig):
    """The answer sells the exit that it was asked for."""
    rig.exit()
    rig.settle(EXPIRED)
    rig.opened(150)
    rig.exit()
    rig.settle(CONFIRMED)
    assert [(report.outcome, report.key.generation) for report in rig.reports] == [(CONFIRMED, 1)]


@pytest.mark.parametrize("is_live", [True, False])
def test_what_an_earlier_opening_left_unfinished_ends_with_the_next_one(rig: Rig, is_live: bool):
    """Its close was missed: the answer to its question would be a sale of the new position."""
    rig.opened(100, opened_at_ms=7)
    rig.exit()
    if not is_live:
        rig.settle(EXPIRED)
    rig.opened(55, opened_at_ms=8)
    if is_live:
        assert rig.reports == []
        rig.settle(EXPIRED)
    assert rig.outcomes == [("whole", EXPIRED)]
    if not is_live:
        rig.exit()
        assert [getattr(each, "kind", None) for each in rig.problems] == ["late_answer"]
    rig.exit()
    rig.settle(CONFIRMED)
    assert [report.key.generation for report in rig.reports] == [1, 2]


def test_tokens_that_are_there_again_are_sold_though_no_opening_was_seen(rig: Rig):
    """All was sold, the close and the next opening were missed, and the chain says that there is something to sell."""
    rig.exit()
    rig.settle(CONFIRMED)
    rig.sender.amount = 5
    rig.exit()
    rig.settle(CONFIRMED)
    assert [report.key.generation for report in rig.reports] == [1, 2]


def test_without_an_answer_from_the_chain_what_was_sold_stays_sold(rig: Rig):
    rig.exit()
    rig.settle(CONFIRMED)
    rig.sender.is_reachable = False
    rig.exit()
    assert len(rig.sender.sent) == 1


def test_a_close_ends_what_cannot_land_and_waits_for_what_can(rig: Rig):
    rig.level(0)
    rig.level(1)
    rig.closed()
    assert rig.outcomes == [("level 1", EXPIRED)]
    rig.settle(FAILED)
    assert rig.outcomes == [("level 1", EXPIRED), ("level 0", FAILED)]
    assert rig.api.requests == []


def test_a_close_ends_a_question(rig: Rig):
    rig.exit()
    rig.settle(EXPIRED)
    rig.closed()
    rig.lines.advance(100)
    assert rig.outcomes == [("whole", EXPIRED)]
    assert len(rig.stream.asked) == 1


# ── pause, overlap, journal ──────────────────────────────────────────────────────────────────────────────────────


def test_while_paused_nothing_is_signed(rig: Rig):
    rig.is_paused = True
    rig.exit()
    rig.lines.advance(100)
    assert rig.sender.sent == []
    assert rig.stream.asked == []
    rig.is_paused = False
    rig.do(rig.position.unpaused)
    assert len(rig.sender.sent) == 1


def test_pausing_in_the_middle_of_a_question(rig: Rig):
    """The answer waits; what was sent before is still followed."""
    rig.exit()
    rig.settle(EXPIRED)
    rig.is_paused = True
    rig.exit()
    assert len(rig.sender.sent) == 1
    rig.is_paused = False
    rig.do(rig.position.unpaused)
    assert len(rig.sender.sent) == 2


def test_overlapping_is_for_whole_positions_and_for_those_who_ask_for_it():
    rig = Rig(policy=SellPolicy(overlap_full_exit=True, overlap_after_s=10), with_api=True)
    rig.opened()
    rig.level(0)
    rig.lines.advance(30)
    assert (rig.stream.asked, rig.api.requests) == ([], [])
    rig.settle(CONFIRMED)
    rig.exit()
    rig.lines.advance(9)
    assert rig.stream.asked == []
    rig.lines.advance(1)
    assert [bps for _, bps in rig.stream.asked] == [2_020]
    rig.exit()
    assert len(rig.sender.open) == 2
    first, second = rig.sender.open
    rig.settle(CONFIRMED, first)
    rig.settle(FAILED, second)
    assert rig.outcomes == [("level 0", CONFIRMED), ("whole", CONFIRMED)]


def test_strict_is_the_default(rig: Rig):
    rig.exit()
    rig.lines.advance(1_000)
    assert rig.stream.asked == []
    assert len(rig.sender.sent) == 1


def test_an_overlap_that_comes_to_nothing_leaves_the_first_one_in_charge():
    """No answer, or one that the guard refuses: the exit is not told dead while its first transaction may land."""
    rig = Rig(policy=SellPolicy(overlap_full_exit=True, overlap_after_s=1, max_unanswered=2))
    rig.opened()
    rig.exit()
    rig.lines.advance(20)
    assert rig.reports == []
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", CONFIRMED)]

    rig = Rig(policy=SellPolicy(overlap_full_exit=True, overlap_after_s=1))
    rig.opened()
    rig.exit()
    rig.lines.advance(1)
    rig.exit(attrs.evolve(rig.signal, unsigned_tx_b64=that_also_pays_a_stranger(rig.signal.unsigned_tx_b64)))
    assert rig.reports == []
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", CONFIRMED)]


@pytest.mark.parametrize("method", ["begun", "signed", "settled", "asking", "finished"])
def test_what_cannot_be_written_down_is_not_done_and_not_lost(rig: Rig, method: str, monkeypatch: pytest.MonkeyPatch):
    """Every step waits for the journal, and goes on when it can write again."""
    real = getattr(rig.journal, method)
    # A new exit is written down before its next signature.
    refusals = [JournalError("full", "sales.journal", "no room")] * (1 if method == "begun" else 3)

    def refusing(*args: Any, **kwargs: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(rig.journal, method, refusing)

    def again() -> None:
        for _ in range(4):
            rig.lines.advance(2)

    rig.exit()
    if method == "begun":
        assert rig.sender.sent == []
    again()
    if not rig.sender.sent:  # its signal was used up by the first try
        rig.exit()
    rig.settle(EXPIRED)
    again()
    rig.exit()
    again()
    rig.settle(CONFIRMED)
    again()
    assert refusals == []
    assert rig.outcomes == [("whole", CONFIRMED)]
    assert len(rig.sender.sent) == 2
    assert [bps for _, bps in rig.stream.asked][-1] in {2_000, 2_020}


# ── errors that nobody thought of ────────────────────────────────────────────────────────────────────────────────


def raising_once(real: Any, *, late: bool) -> Any:
    """What raises at its first call, before it has done anything or when it has done all."""
    left = [RuntimeError("a bug")]

    def raising(*args: Any, **kwargs: Any) -> Any:
        done = real(*args, **kwargs) if late else None
        if left:
            raise left.pop()
        return done if late else real(*args, **kwargs)

    return raising


PLACES = {
    "journal": ("begun", "signed", "settled", "asking", "finished"),
    "sender": ("submit_for",),
    "stream": ("ask_for_exit", "server_time_ms"),
}


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize(("tool", "method"), [(tool, name) for tool, names in PLACES.items() for name in names])
def test_an_error_anywhere_costs_no_exit_and_no_second_sale(
    rig: Rig, tool: str, method: str, late: bool, monkeypatch: pytest.MonkeyPatch
):
    """What was written down is taken up by that, and what is not known to be dead is waited for."""
    monkeypatch.setattr(getattr(rig, tool), method, raising_once(getattr(getattr(rig, tool), method), late=late))

    def go_on() -> None:
        for _ in range(3):
            rig.lines.advance(2)
            assert len(rig.sender.open) <= 1

    rig.exit()
    go_on()
    for outcome in (EXPIRED, CONFIRMED):
        while not rig.sender.open:  # the error used up a signal
            rig.exit()
            go_on()
        rig.settle(outcome)
        go_on()
    assert [type(error) for error in rig.lines.errors] == [RuntimeError]
    assert len(rig.sender.sent) == len(set(rig.sender.sent))
    assert set(rig.outcomes) == {("whole", CONFIRMED)}
    assert rig.journal.unfinished() == []
    rig.sender.amount = 0
    rig.exit()
    assert rig.sender.open == []


def test_after_an_error_a_transaction_that_may_have_left_is_waited_for(rig: Rig):
    """The sender raised when the bytes were on their way, or before that: nobody knows."""
    for bugs in (rig.sender.bugs, rig.sender.early_bugs):
        bugs.append(RuntimeError("a bug"))
        rig.exit()
        rig.lines.run()
        (record,) = rig.journal.unfinished()
        assert rig.sender.open == [record.attempts[-1].signature]
        rig.exit()
        rig.lines.advance(60)
        assert len(rig.journal.find(rig.key()).attempts) == len(record.attempts)
        assert rig.stream.asked == []
        if bugs is rig.sender.bugs:
            rig.settle(CONFIRMED)
            rig.closed()
            rig.opened()
        else:
            break
    rig.settle(EXPIRED)
    rig.exit()
    rig.settle(CONFIRMED)
    assert [(report.key.generation, report.outcome) for report in rig.reports] == [(1, CONFIRMED), (2, CONFIRMED)]


def test_errors_in_a_row_are_followed_by_longer_pauses(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    """Up to half a minute; a transaction that is sent ends the row."""

    def raising(*_: object) -> None:
        raise RuntimeError("a bug")

    rig.exit()
    rig.settle(EXPIRED)
    with monkeypatch.context() as patch:
        patch.setattr(rig.stream, "ask_for_exit", raising)
        moments: list[float] = []
        for _ in range(4_000):
            known = len(rig.lines.errors)
            rig.lines.advance(0.25)
            moments += [rig.lines.now] * (len(rig.lines.errors) - known)
    pauses = [round(later - sooner) for sooner, later in itertools.pairwise(moments)]
    assert pauses[-1] == 30
    assert pauses == sorted(pauses)
    assert 30 <= len(moments) <= 60
    rig.lines.advance(31)
    rig.exit()
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", CONFIRMED)]


def test_what_waits_behind_an_error_keeps_its_transaction():
    """There is nobody to build a level anew; the one that failed had no fault of theirs."""
    rig = Rig()
    rig.opened()
    rig.level(0)
    rig.level(1)
    rig.sender.early_bugs.append(RuntimeError("a bug"))
    rig.settle(CONFIRMED)
    rig.lines.run()
    rig.settle(EXPIRED)
    assert rig.outcomes == [("level 0", CONFIRMED), ("level 1", EXPIRED)]
    rig.sender.bugs.append(RuntimeError("a bug"))
    rig.level(2)
    rig.level(3)
    rig.lines.run()
    rig.settle(CONFIRMED)
    rig.settle(CONFIRMED)
    assert rig.outcomes[2:] == [("level 2", CONFIRMED), ("level 3", CONFIRMED)]


@pytest.mark.parametrize("late", [False, True])
def test_a_leg_that_meets_an_error_ends_and_is_told_once(rig: Rig, late: bool):
    """Its caller waits for it; nobody sells it a second time."""
    ended: list[Any] = []
    (rig.sender.bugs if late else rig.sender.early_bugs).append(RuntimeError("a bug"))
    rig.do(
        lambda: rig.position.sell_leg(
            "1", rig.signal.mint, position_id=1, tokens=77, slippage_bps=150, pays=None, on_end=ended.append
        )
    )
    rig.lines.advance(5)
    rig.settle(CONFIRMED if late else EXPIRED)
    rig.lines.advance(100)
    assert [report.outcome for report in ended] == [CONFIRMED if late else EXPIRED]
    assert len(rig.api.requests) == 1


# ── after the death of a process ─────────────────────────────────────────────────────────────────────────────────


def test_a_sent_transaction_is_followed_by_the_next_process(rig: Rig):
    rig.exit()
    rig.restart()
    assert rig.sender.tracked == rig.sender.sent
    rig.exit()
    assert len(rig.sender.sent) == 1
    rig.settle(EXPIRED)
    assert len(rig.sender.sent) == 2
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", CONFIRMED)]


def test_an_exit_that_was_only_written_down_is_asked_for_again(rig: Rig):
    rig.is_paused = True
    rig.exit()
    rig.level(0)
    rig.is_paused = False
    rig.restart()
    assert [bps for _, bps in rig.stream.asked] == [2_000]
    rig.exit()
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("level 0", EXPIRED), ("whole", CONFIRMED)]


def test_an_empty_token_account_has_nothing_left_to_sell(rig: Rig):
    rig.is_paused = True
    rig.exit()
    rig.is_paused = False
    rig.sender.amount = 0
    rig.restart()
    assert rig.outcomes == [("whole", EXPIRED)]
    assert "nothing is left" in rig.reports[0].detail
    assert rig.stream.asked == []


def test_a_node_that_lags_behind_the_tokens_ends_no_exit():
    """It has not seen the account yet, and says that it holds nothing."""
    rig = Rig(terms=SellTerms(sell_unannounced=True))
    rig.opened(slot=11)
    rig.is_paused = True
    rig.exit()
    rig.is_paused = False
    rig.sender.amount, rig.sender.slot = 0, 10
    rig.restart()
    rig.lines.advance(30)
    assert (rig.reports, rig.stream.asked) == ([], [])
    rig.sender.amount, rig.sender.slot = 1, 12
    rig.lines.advance(15)
    assert rig.stream.asked
    rig.exit()
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", CONFIRMED)]


def test_a_node_that_lags_behind_the_last_transaction_is_not_believed(rig: Rig):
    """The failed one landed in block 9: what a node says of block 8 is the past, whatever it says."""
    rig.exit()
    rig.settle(FAILED)
    rig.sender.slot = 8
    for rig.sender.amount in (0, 1):
        rig.restart()
        asked = len(rig.stream.asked)
        rig.lines.advance(30)
        assert (rig.reports, len(rig.stream.asked)) == ([], asked)
    rig.sender.slot = 9
    rig.lines.advance(1)
    assert len(rig.stream.asked) == asked + 1


def test_what_a_lagging_node_says_of_before_the_sale_brings_no_second_one(rig: Rig):
    """All was sold in block 9; in block 8 the tokens are there."""
    rig.exit()
    rig.settle(CONFIRMED)
    rig.sender.amount, rig.sender.slot = 5, 8
    rig.exit()
    assert len(rig.sender.sent) == 1
    rig.sender.slot = 9
    rig.exit()
    assert len(rig.sender.sent) == 2


def test_without_an_answer_from_the_chain_nothing_is_begun(rig: Rig):
    rig.is_paused = True
    rig.exit()
    rig.is_paused = False
    rig.sender.is_reachable = False
    rig.restart()
    rig.lines.advance(30)
    assert rig.stream.asked == []
    rig.sender.is_reachable = True
    rig.lines.advance(15)
    assert rig.stream.asked


def test_a_landing_that_was_recorded_and_not_told_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    """Killed between two writes: the sale is not made again."""
    rig.exit()

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rig.journal, "finished", dies)
        with pytest.raises(KeyboardInterrupt):
            rig.settle(CONFIRMED)
    rig.restart()
    assert rig.outcomes == [("whole", CONFIRMED)]
    assert len(rig.sender.sent) == 1


def test_the_number_of_dead_transactions_outlives_the_process(rig: Rig):
    rig.exit()
    rig.settle(FAILED)
    rig.exit()
    rig.settle(FAILED)
    rig.restart()
    assert [bps for _, bps in rig.stream.asked] == [2_020, 2_060, 2_060]


# ── legs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_leg_sells_its_amount_at_its_slippage_and_is_not_repeated(rig: Rig):
    ended: list[Any] = []

    def leg(part: str, tokens: int) -> None:
        rig.position.sell_leg(
            part, rig.signal.mint, position_id=1, tokens=tokens, slippage_bps=150, pays=None, on_end=ended.append
        )
        rig.lines.run()

    leg("1", 77)
    assert [(request.amount_tokens, request.slippage_bps) for request in rig.api.requests] == [(77, 150)]
    rig.settle(FAILED)
    assert [report.outcome for report in ended] == [FAILED]
    assert len(rig.api.requests) == 1
    leg("2", 78)
    rig.restart()
    rig.settle(EXPIRED)
    assert len(rig.api.requests) == 2
    assert rig.outcomes[-1] == ("leg 2", EXPIRED)


# ── whatever happens ─────────────────────────────────────────────────────────────────────────────────────────────


class Selling(RuleBasedStateMachine):
    """Signals, results, closes, openings, pauses and deaths in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(with_api=True, policy=SellPolicy(max_refreshes=3, max_unanswered=4))
        self.rig.opened()
        self.sold: list[str] = []
        self.owner: dict[str, tuple[str, int]] = {}
        self.entry = 100

    def note(self) -> None:
        for record in self.rig.journal.exits():
            for attempt in record.attempts:
                self.owner.setdefault(attempt.signature, (record.key.part, record.key.generation))

    @rule()
    def the_server_wants_it_all_sold(self) -> None:
        self.rig.exit()

    @rule(index=st.integers(0, 2))
    def the_server_wants_a_level_sold(self, index: int) -> None:
        self.rig.level(index)

    @precondition(lambda self: self.rig.sender.open)
    @rule(outcome=st.sampled_from([CONFIRMED, FAILED, EXPIRED, REJECTED]), which=st.integers(0, 9))
    def a_transaction_settles(self, outcome: SellOutcome, which: int) -> None:
        self.note()
        signature = self.rig.sender.open[which % len(self.rig.sender.open)]
        if outcome is CONFIRMED:
            self.sold.append(signature)
        self.rig.settle(outcome, signature)

    @rule(seconds=st.sampled_from([0.5, 2.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.rig.lines.advance(seconds)

    @rule()
    def the_position_closes(self) -> None:
        self.rig.closed()

    @rule(again=st.booleans())
    def the_position_is_announced(self, again: bool) -> None:
        self.entry += not again
        self.rig.opened(self.entry)

    @rule()
    def the_user_pauses_or_goes_on(self) -> None:
        self.rig.is_paused = not self.rig.is_paused
        if not self.rig.is_paused:
            self.rig.do(self.rig.position.unpaused)

    @rule(late=st.booleans(), index=st.none() | st.integers(0, 2))
    def a_signal_ends_in_an_error(self, late: bool, index: int | None) -> None:
        """If it comes so far; the next one that does otherwise."""
        bugs = self.rig.sender.bugs if late else self.rig.sender.early_bugs
        bugs.append(RuntimeError("a bug"))
        self.rig.exit() if index is None else self.rig.level(index)
        self.rig.lines.run()
        bugs.clear()

    @rule(amount=st.integers(0, 1))
    def the_process_dies_and_the_next_one_begins(self, amount: int) -> None:
        self.note()
        self.rig.sender.amount = amount
        self.rig.restart()

    @invariant()
    def one_transaction_may_land(self) -> None:
        """Of each exit, and of the position but where the whole of it has overtaken a part."""
        self.note()
        owners = [self.owner[signature] for signature in self.rig.sender.open]
        assert len(set(owners)) == len(owners)
        assert len({generation for part, generation in owners if part == "whole"}) == len(
            [part for part, _ in owners if part == "whole"]
        )
        live = [a for r in self.rig.journal.exits() for a in r.attempts if a.outcome is None]
        assert {attempt.signature for attempt in live} == set(self.rig.sender.open)

    @invariant()
    def nothing_is_sold_twice(self) -> None:
        """The whole of a position sells again what parts that it has overtaken may have left."""
        self.note()
        signed = set(self.owner.values())
        for (part, generation), times in Counter(self.owner[signature] for signature in self.sold).items():
            has_parts = any(of == generation and name != "whole" for name, of in signed)
            assert times == 1 or (part == "whole" and has_parts)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """Whoever is not finished has something that will move it: a live transaction, a timer, a pause, or its turn."""
        unfinished = self.rig.journal.unfinished()
        assert {record.id for record in unfinished} == {sale.record.id for sale in self.rig.position.live_sales}
        if unfinished and not self.rig.sender.open and not self.rig.is_paused:
            assert self.rig.lines._later

    @invariant()
    def every_end_is_told(self) -> None:
        assert self.rig.journal.unreported() == []


TestSelling = Selling.TestCase
TestSelling.settings = settings(
    max_examples=examples(30), stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_another_block_is_another_transaction():
    """What these tests build on."""
    tx_b64 = Rig().signal.unsigned_tx_b64
    assert len({on_another_block(tx_b64) for _ in range(3)}) == 3
