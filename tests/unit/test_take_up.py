"""After a restart: an unfinished exit goes on only for the opening that it belongs to, and only with a proof."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from lasersell_sync.autosell.journal import Attempt, ExitRecord
from lasersell_sync.autosell.position_state import recorded_of
from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.trading.sending.outcome import SellOutcome
from lasersell_sync.trading.solana.account_history import Finding, Verdict
from tests.support.selling import Rig

CONFIRMED, FAILED, EXPIRED, UNKNOWN = (
    SellOutcome.CONFIRMED, SellOutcome.FAILED_ONCHAIN, SellOutcome.EXPIRED, SellOutcome.UNKNOWN,
)  # fmt: skip
TOUCHED = Verdict(Finding.TOUCHED, "somebody touched it in slot 7")


@pytest.fixture
def rig() -> Rig:
    """Its whole exit was asked for when the process died."""
    made = Rig(with_api=True)
    made.opened(opened_at_ms=1)
    made.exit()
    made.settle(FAILED)
    assert len(made.stream.asked) == 1
    made.stream.asked.clear()
    return made


# ── the way to a proof ──


def test_take_up_waits_for_the_announcement(rig: Rig) -> None:
    rig.restart(announced=False)
    assert rig.sender.histories == []
    rig.opened(opened_at_ms=1)
    assert len(rig.sender.histories) == 1
    assert len(rig.stream.asked) == 1


def test_take_up_waits_for_no_announcement_longer_than_the_grace(rig: Rig) -> None:
    rig.restart(announced=False)
    rig.lines.advance(2.9)
    assert rig.stream.asked == []
    rig.lines.advance(0.2)
    assert len(rig.stream.asked) == 1


def test_take_up_asks_nothing_before_all_that_is_remembered_was_heard(rig: Rig) -> None:
    """The announcement may be followed by a close."""
    rig.sender._open.clear()
    rig._begin()
    rig.position._is_catching_up = True
    rig.position.expect_restore()
    rig.opened(opened_at_ms=1)
    rig.lines.advance(30)
    assert rig.sender.histories == []
    rig.closed()
    rig.do(rig.position.caught_up)
    rig.lines.advance(30)
    assert rig.sender.histories == []
    assert rig.outcomes == [("whole", FAILED)] or rig.outcomes == [("whole", EXPIRED)]


def test_take_up_of_an_opening_that_was_opened_again_ends_the_old_exit(rig: Rig) -> None:
    rig.restart(announced=False)
    rig.opened(55, opened_at_ms=2)
    rig.lines.advance(100)
    assert (rig.sender.histories, rig.stream.asked) == ([], [])
    assert [(each.key.part, each.key.generation) for each in rig.reports] == [("whole", 1)]


def test_take_up_without_a_moment_is_decided_by_the_chain(rig: Rig) -> None:
    """The same entry, no moment, no close seen: for the journal it is the same opening."""
    rig.sender.verdict = TOUCHED
    rig.restart(announced=False)
    rig.opened()
    rig.lines.advance(100)
    assert rig.stream.asked == []
    (report,) = rig.reports
    assert report.key.generation == 1
    assert "somebody touched it in slot 7" in report.detail
    assert "new signal" in report.detail


def test_take_up_waits_until_every_transaction_is_decided() -> None:
    rig = Rig(with_api=True)
    rig.opened()
    rig.level(0)
    rig.exit()
    rig.restart()
    rig.lines.advance(30)
    assert rig.sender.histories == []
    first, second = rig.sender.open
    rig.settle(EXPIRED, first)
    assert rig.sender.histories == []
    rig.settle(EXPIRED, second)
    assert len(rig.sender.histories) == 1
    assert len(rig.stream.asked) == 1


def test_take_up_of_a_landed_sale_needs_no_proof() -> None:
    rig = Rig()
    rig.opened()
    rig.exit()
    rig.restart()
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", CONFIRMED)]
    rig.lines.advance(100)
    assert rig.sender.histories == []


def test_take_up_with_a_new_signal_needs_no_proof(rig: Rig) -> None:
    """The server wants the position of now sold."""
    rig.sender.is_reachable = False
    rig.restart()
    rig.exit()
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", CONFIRMED)]
    assert rig.position.take_up is None


def test_take_up_is_not_waited_for_by_a_level_of_now(rig: Rig) -> None:
    rig.sender.is_reachable = False
    rig.restart()
    rig.level(0)
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("level 0", CONFIRMED)]


def test_take_up_compares_with_what_has_landed_since_it_first_asked(rig: Rig) -> None:
    """Otherwise a level's own sale looked like somebody else's, and the stop loss ended unsold."""
    rig.sender.is_reachable = False
    rig.restart()
    before = rig.sender.histories[-1].recorded
    rig.level(0, tokens=1_000)
    rig.settle(CONFIRMED)
    rig.sender.is_reachable = True
    rig.lines.advance(20)
    now = rig.sender.histories[-1].recorded
    assert now.amounts == {amount - 1_000 for amount in before.amounts}
    assert now.own - before.own == {rig.sender.sent[-1]}
    assert rig.stream.asked


def test_take_up_does_not_follow_an_answer_from_before_a_levels_sale(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The level is signed and lands between the question and its answer."""
    rig.sender.verdict = TOUCHED
    answers: list[Callable[[], None]] = []
    ask = rig.services.questions.history
    rig.restart(announced=False)
    monkeypatch.setattr(
        rig.services.questions, "history", lambda *asked: answers.append(lambda: ask(*asked)), raising=True
    )
    rig.opened(opened_at_ms=1)
    rig.level(0, tokens=1_000)
    rig.settle(CONFIRMED)
    rig.sender.verdict, late = TOUCHED, answers.pop(0)
    late()
    rig.lines.run()
    assert rig.outcomes == [("level 0", CONFIRMED)]
    rig.sender.verdict = None
    answers.pop(0)()
    rig.lines.run()
    assert len(rig.stream.asked) == 1


@pytest.mark.parametrize("is_live", [True, False])
def test_take_up_of_a_level_ends_with_a_report(is_live: bool) -> None:
    """Nothing is built in place of its transaction, which is followed to its end."""
    rig = Rig(with_api=True)
    rig.opened()
    rig.is_paused = not is_live
    rig.level(0)
    rig.is_paused = False
    rig.restart()
    if is_live:
        assert rig.reports == []
        rig.settle(EXPIRED)
    rig.lines.advance(100)
    assert rig.outcomes == [("level 0", EXPIRED)]
    assert rig.api is not None
    assert rig.api.requests == []
    rig.level(0)
    rig.settle(CONFIRMED)
    assert rig.outcomes[1:] == [("level 0", CONFIRMED)]


def test_take_up_after_a_second_death_still_needs_the_proof(rig: Rig) -> None:
    rig.sender.is_reachable = False
    rig.restart()
    rig.restart()
    rig.lines.advance(30)
    assert rig.stream.asked == []
    rig.sender.is_reachable = True
    rig.lines.advance(30)
    assert rig.stream.asked


def test_take_up_after_an_error_still_needs_the_proof(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.sender.verdict = TOUCHED
    rig.restart(announced=False)

    def bug() -> None:
        raise RuntimeError("a bug")

    rig.lines.put("", lambda: rig.position.do(bug))
    rig.lines.run()
    rig.lines._tasks.popleft()
    rig.do(lambda: None)
    rig.lines.advance(30)
    assert rig.stream.asked == []
    assert rig.outcomes == [("whole", EXPIRED)] or rig.outcomes == [("whole", FAILED)]


def test_take_up_while_paused_asks_nobody_for_a_transaction(rig: Rig) -> None:
    rig.is_paused = True
    rig.restart()
    rig.lines.advance(30)
    assert rig.stream.asked == []
    rig.is_paused = False
    rig.do(rig.position.unpaused)
    assert len(rig.stream.asked) == 1


# ── without a proof ──


def test_undecided_take_up_is_reported_each_minute(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.sender.is_reachable = False
    rig.restart(announced=False)
    rig.lines.advance(59)
    assert rig.problems == []
    rig.lines.advance(2)
    assert len(rig.problems) == 1
    rig.lines.advance(120)
    assert len(rig.problems) == 3
    problem = rig.problems[0]
    assert isinstance(problem, TxSubmitError)
    assert problem.kind == "confirm_timeout"
    assert "request_exit_signal" in str(problem)
    take_up = rig.position.take_up
    assert take_up is not None
    assert "whole" in take_up.waits_for
    rig.sender.is_reachable = True
    rig.lines.advance(30)
    rig.lines.advance(200)
    assert len(rig.problems) == 3


def test_take_up_asks_nodes_ever_more_rarely(rig: Rig) -> None:
    rig.sender.is_reachable = False
    rig.restart()
    rig.lines.advance(600)
    assert 20 < len(rig.sender.histories) < 60


# ── what is compared ──


def record(number: int = 1, tokens: int = 1_000, attempts: tuple[Attempt, ...] = (), **more: Any) -> ExitRecord:
    known: dict[str, Any] = {
        "key": Rig().key("whole" if number == 1 else f"level {number}"), "position_id": 1, "reason": "r",
        "state": "asking", "outcome": None, "detail": "", "is_reported": False, "began_ms": 10**6, "changed_ms": 10**6,
    }  # fmt: skip
    return ExitRecord(id=number, tokens=tokens, attempts=attempts, **{**known, **more})


def attempt(outcome: SellOutcome, *, signed_ms: int, slot: int | None = None, name: str = "sig") -> Attempt:
    return Attempt(signature=name, blockhash="hash", signed_ms=signed_ms, outcome=outcome, slot=slot)


@pytest.mark.parametrize(
    ("outcome", "signed_ms", "amounts"),
    [
        (CONFIRMED, 10**6 + 1, {700}),
        (CONFIRMED, 10**6 - 1, {700, 1_000}),  # the signal may have counted it
        (CONFIRMED, 10**6 - 300_001, {1_000}),
        (UNKNOWN, 10**6 + 1, {700, 1_000}),
        (FAILED, 10**6 + 1, {1_000}),
        (EXPIRED, 10**6 - 1, {1_000}),
    ],
)
def test_recorded_amount_is_what_was_recorded_minus_what_landed(
    outcome: SellOutcome, signed_ms: int, amounts: set[int]
) -> None:
    level = record(2, 300, (attempt(outcome, signed_ms=signed_ms),))
    whole = record()
    assert recorded_of(whole, [whole, level], (), None).amounts == amounts


def test_recorded_amounts_of_a_whole_exit_that_landed_are_what_its_parts_may_have_left() -> None:
    """Those that had transactions when it began, and that did not land; each of them all or nothing."""
    began = 10**6
    whole = record(attempts=(attempt(CONFIRMED, signed_ms=began, slot=70, name="whole"),))
    over = {"state": "finished", "outcome": EXPIRED}
    parts = [
        record(2, 300, (attempt(EXPIRED, signed_ms=began - 10),), **over, changed_ms=began + 10),
        record(3, 50, (attempt(UNKNOWN, signed_ms=began - 10),)),
        record(4, 7, (attempt(EXPIRED, signed_ms=began - 90),), **over, changed_ms=began - 1),  # it had ended before
        record(5, 3, (attempt(CONFIRMED, signed_ms=began - 10),)),
        record(6, 2),  # nothing of it was signed
    ]
    assert recorded_of(whole, [whole, *parts], (), None).amounts == {300, 50, 350}
    assert recorded_of(whole, [whole], (), None).amounts == frozenset()


def test_recorded_facts_are_those_of_the_opening() -> None:
    level = record(2, 300, (attempt(FAILED, signed_ms=10**6, slot=70, name="failed"),))
    whole = record(attempts=(attempt(EXPIRED, signed_ms=10**6, name="dead"),))
    recorded = recorded_of(whole, [whole, level], ["dead", "failed", "older"], 50)
    assert (recorded.slot, recorded.began_s) == (50, 1_000.0)
    assert recorded.landed == {"failed": 70}
    assert recorded.dead == {"dead"}
    assert recorded.own == {"dead", "failed", "older"}
    assert recorded_of(attrs.evolve(whole, slot=60), [whole], [], 50).slot == 60


def test_exit_remembers_where_the_server_saw_its_tokens() -> None:
    """What is announced after the restart says nothing about what was touched before."""
    rig = Rig()
    rig.opened(slot=40)
    rig.stream.slot = 45
    rig.exit()
    rig.settle(FAILED)
    rig.restart(announced=False)
    rig.stream.slot = 99
    rig.opened(slot=99)
    (history,) = rig.sender.histories
    assert history.recorded.slot == 45
    assert history._announced() == 99
