"""How old a signal is: by its receipt, its trigger, two clocks that may differ, and the nodes."""

from __future__ import annotations

import time

import attrs
import pytest

from lasersell_sync.autosell.sale import Age, age_of
from lasersell_sync.trading.sending.outcome import SellOutcome
from lasersell_sync.trading.solana.signing import blockhash_of
from tests.support.selling import Rig

CONFIRMED, EXPIRED = SellOutcome.CONFIRMED, SellOutcome.EXPIRED
YOUNG, OLD, DOUBTFUL = Age.YOUNG, Age.OLD, Age.DOUBTFUL
HOUR_S = 3_600.0


@pytest.mark.parametrize(
    ("received_s", "by_server_s", "by_us_s", "is_answer", "age"),
    [
        (0, 0, 0, False, YOUNG),
        (11, 0, 0, False, OLD),
        (0, 60, 60, False, OLD),
        (0, None, 60, False, YOUNG),
        # The clock of hello_ok is wrong, and ours agrees with the trigger; or the other way round.
        (0, HOUR_S, 1, False, YOUNG),
        (0, -HOUR_S, 1, False, YOUNG),
        (0, 1, HOUR_S, False, YOUNG),
        (0, 1, -HOUR_S, False, YOUNG),
        (0, 60, -HOUR_S, False, OLD),
        # Both differ from the clock of the triggers.
        (0, -HOUR_S, -HOUR_S, False, YOUNG),
        (0, HOUR_S, HOUR_S, False, DOUBTFUL),
        (11, HOUR_S, HOUR_S, False, OLD),
        # An answer may repeat the trigger of the first signal.
        (0, 60, 60, True, DOUBTFUL),
        (0, 9, 9, True, YOUNG),
    ],
)
def test_age_of_a_signal(
    received_s: float, by_server_s: float | None, by_us_s: float, is_answer: bool, age: Age
) -> None:
    assert (
        age_of(received_s=received_s, by_server_s=by_server_s, by_us_s=by_us_s, limit_s=10.0, is_answer=is_answer)
        is age
    )


@pytest.fixture
def rig() -> Rig:
    """Its server's clock is a minute past the trigger of every signal, and its position waits for an answer."""
    made = Rig(with_api=True)
    made.opened()
    made.stream.clock_ms = made.signal.triggered_at_ms + 60_000.0
    made.exit()
    assert made.sender.sent == []
    assert len(made.stream.asked) == 1
    return made


@pytest.mark.parametrize("verdict", [True, None])
def test_answer_with_an_old_trigger_is_signed_if_its_blockhash_is_valid_or_nobody_says(
    rig: Rig, verdict: bool | None
) -> None:
    rig.sender.is_blockhash_valid = verdict
    answer = rig.exit()
    assert rig.sender.blockhashes == [blockhash_of(answer.unsigned_tx_b64)]
    assert len(rig.sender.sent) == 1


def test_answer_with_an_old_trigger_is_signed_after_0_3_s_without_a_word(rig: Rig) -> None:
    rig.sender.is_hanging = True
    rig.exit()
    rig.lines.advance(0.29)
    assert rig.sender.sent == []
    rig.lines.advance(0.02)
    assert len(rig.sender.sent) == 1


def test_answer_whose_blockhash_no_node_takes_is_asked_for_again_at_intervals(rig: Rig) -> None:
    rig.sender.is_blockhash_valid = False
    rig.exit()
    assert rig.sender.sent == []
    assert len(rig.stream.asked) == 1
    rig.lines.advance(1.4)
    assert len(rig.stream.asked) == 1
    rig.lines.advance(0.2)
    assert len(rig.stream.asked) == 2
    rig.sender.is_blockhash_valid = True
    rig.exit()
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", CONFIRMED)]


def test_answer_whose_blockhash_is_never_taken_is_given_up(rig: Rig) -> None:
    rig.sender.is_blockhash_valid = False
    while not rig.reports:
        rig.exit()
        rig.lines.advance(1.6)
        assert rig.lines.now < 200
    assert rig.outcomes == [("whole", EXPIRED)]
    assert len(rig.stream.asked) == rig.services.policy.max_unanswered


def test_answer_that_ends_meanwhile_is_not_signed(rig: Rig) -> None:
    rig.sender.is_hanging = True
    rig.exit()
    rig.closed()
    rig.lines.advance(1)
    assert rig.sender.sent == []


def test_signal_with_a_wrong_clock_of_the_server_is_sold_by_its_receipt() -> None:
    rig = Rig()
    rig.opened()
    now_ms = time.time_ns() // 1_000_000
    rig.stream.clock_ms = now_ms + 3_600_000.0
    rig.exit(attrs.evolve(rig.signal, triggered_at_ms=now_ms))
    assert len(rig.sender.sent) == 1
    assert rig.sender.blockhashes == []


# ── what the session remembers ──


def remembered(rig: Rig, signal: object, age_s: float) -> None:
    came_ns = time.monotonic_ns() - int(age_s * 1e9)
    rig.do(lambda: rig.position.signalled(signal, came_ns, is_remembered=True))  # type: ignore[arg-type]


def test_remembered_old_whole_exit_asks_anew_once_everything_was_heard() -> None:
    rig = Rig()
    rig.opened()
    rig.position._is_catching_up = True
    remembered(rig, rig.signal, 60.0)
    assert rig.stream.asked == []
    rig.do(rig.position.caught_up)
    assert len(rig.stream.asked) == 1


def test_remembered_exit_of_a_position_that_closed_since_asks_nobody() -> None:
    rig = Rig()
    rig.position._is_catching_up = True
    rig.opened()
    remembered(rig, rig.signal, 60.0)
    rig.closed()
    rig.opened(55)
    rig.do(rig.position.caught_up)
    assert (rig.stream.asked, rig.sender.sent) == ([], [])
    assert rig.outcomes == [("whole", EXPIRED)]


@pytest.mark.parametrize(("age_s", "is_sold"), [(60.0, False), (1.0, True)])
def test_remembered_old_level_is_reported_and_not_sold(age_s: float, is_sold: bool) -> None:
    """A second seller of the same session has a journal of its own: the first one has sold it."""
    rig = Rig(with_api=True)
    rig.opened()
    remembered(rig, rig.old_level(0), age_s)
    assert len(rig.sender.sent) == is_sold
    assert rig.outcomes == ([] if is_sold else [("level 0", EXPIRED)])
    assert rig.api is not None
    assert rig.api.requests == []
