"""When several nodes must agree that a transaction is dead, because another one in its place would sell more."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from lasersell_sync.runtime.fork_guard import ProcessGuard
from lasersell_sync.trading.sending.outcome import SellOutcome, TxResult
from lasersell_sync.trading.sending.tx_tracker import (
    CONTRADICTION_AFTER_S,
    LATE_WATCH_S,
    SILENT_AFTER_S,
    UNDECIDED_AFTER_S,
    Listener,
    TxTracker,
)
from lasersell_sync.trading.solana.expiry import BLOCKHASH_LIFE_BLOCKS, STATUS_CACHE_SLOTS, Tip
from lasersell_sync.trading.solana.rpc_node import Landing, Statuses, Unreadable

SIGNATURE, BLOCKHASH = "1" * 64, "1" * 32
BORN = 1_000
LANDED = Landing(BORN + 3, "confirmed", None)
EXPIRED, UNKNOWN, CONFIRMED = SellOutcome.EXPIRED, SellOutcome.UNKNOWN, SellOutcome.CONFIRMED


class World:
    """Two nodes whose answers a test makes up, and a clock that it turns."""

    def __init__(self, *, still_held: Callable[[], bool] | None = None, nodes: int = 2, sent_here: bool = True) -> None:
        self.now = 100.0
        self.results: list[TxResult] = []
        self.undecided: list[TxResult] = []
        self.late: list[TxResult] = []
        self.pending = TxTracker(
            ProcessGuard("test"),
            ["target"],
            [f"node {number}" for number in range(nodes)],
            resend_s=1_000.0,
            run=lambda calls: [callback(result) for callback, result in calls],
            clock=lambda: self.now,
        )
        listener = Listener(
            on_settled=self.results.append,
            on_undecided=self.undecided.append,
            on_late_landing=self.late.append,
            still_held=still_held,
        )
        tx_b64 = "AA==" if sent_here else None
        self.tracked, _ = self.pending.add(SIGNATURE, BLOCKHASH, tx_b64=tx_b64, listener=listener)

    def knows(self, node: int, height: int = BORN) -> None:
        """The node calls the blockhash valid, at this height."""
        self.pending.saw_valid(node, BLOCKHASH, height)
        self.pending.saw_tip(node, Tip(height, height), [self.tracked], confirmed=True)

    def says(self, node: int, height: int, landing: Any = None, *, times: int = 1, history: bool = True) -> None:
        """The node's newest block has this height, and this is what it knows of the transaction."""
        tip = Tip(height, height)
        for _ in range(times):
            self.pending.saw_tip(node, tip, [self.tracked], confirmed=True)
            self.pending.saw_statuses(node, [self.tracked], Statuses(height, [landing], history), tip)

    @property
    def outcome(self) -> SellOutcome | None:
        return self.results[0].outcome if self.results else None


DEAD = BORN + BLOCKHASH_LIFE_BLOCKS


def held() -> bool:
    return True


def sold() -> bool:
    return False


def both_know(world: World, *, ahead: int = 0) -> None:
    world.knows(0)
    world.knows(1, BORN + ahead)


def test_agreement_one_of_two_nodes_calls_it_dead_does_not_settle() -> None:
    world = World(still_held=held)
    both_know(world)
    world.says(0, DEAD, times=5)
    world.says(1, DEAD - 1, times=5)
    assert world.outcome is None
    world.says(1, DEAD, times=2)
    assert world.outcome is EXPIRED


def test_agreement_not_asked_for_one_node_settles() -> None:
    """A whole exit: a second sale of nothing sells nothing."""
    world = World()
    both_know(world)
    world.says(0, DEAD, times=2)
    assert world.outcome is EXPIRED


def test_agreement_only_node_configured_settles() -> None:
    world = World(still_held=sold, nodes=1)
    world.knows(0)
    world.says(0, DEAD, times=2)
    assert world.outcome is EXPIRED


@pytest.mark.parametrize("ahead", [500, 100_000, 2**62])
def test_agreement_heights_ahead_of_one_node_do_not_kill(ahead: int) -> None:
    """The wrong node jumps ahead after it called the blockhash valid; the right one sees the landing."""
    world = World(still_held=held)
    both_know(world)
    world.says(1, BORN + ahead, times=10)
    world.says(0, BORN + 2, times=3)
    assert world.outcome is None
    world.says(0, BORN + 5, LANDED)
    assert world.outcome is CONFIRMED


def test_agreement_heights_of_one_node_wrong_by_a_constant_still_prove() -> None:
    """Its own heights are consistent, so its own bound holds."""
    world = World(still_held=held)
    both_know(world, ahead=500)
    world.says(0, DEAD, times=2)
    world.says(1, DEAD + 499, times=5)
    assert world.outcome is None
    world.says(1, DEAD + 500, times=2)
    assert world.outcome is EXPIRED


def test_agreement_stale_index_of_one_node_does_not_kill() -> None:
    """Its index is two minutes behind and finds nothing beyond the bound; the other one finds the landing."""
    world = World(still_held=held)
    both_know(world)
    world.says(0, DEAD, times=10)
    world.says(1, DEAD, LANDED)
    assert world.outcome is CONFIRMED


def test_agreement_node_that_never_knew_the_blockhash_counts_beyond_the_bound() -> None:
    world = World(still_held=held)
    world.knows(0)
    world.says(0, DEAD, times=2)
    world.says(1, DEAD - 1, times=5)
    assert world.outcome is None
    world.says(1, DEAD, times=2)
    assert world.outcome is EXPIRED


@pytest.mark.parametrize("is_held", [True, False])
def test_agreement_silent_node_is_left_out_only_while_the_tokens_are_held(is_held: bool) -> None:
    world = World(still_held=held if is_held else sold)
    both_know(world)
    world.says(1, BORN + 1)
    world.says(0, DEAD, times=5)
    world.now += SILENT_AFTER_S - 1
    world.says(0, DEAD + 200, times=5)
    assert world.outcome is None, "not silent for long enough"
    world.now += 1
    world.says(0, DEAD + 300)
    assert world.outcome is (EXPIRED if is_held else None)


def test_agreement_silent_node_and_a_raising_look_at_the_tokens_settle_nothing(caplog: Any) -> None:
    def raises() -> bool:
        raise RuntimeError("no session")

    world = World(still_held=raises)
    both_know(world)
    world.now += SILENT_AFTER_S
    with caplog.at_level(logging.ERROR):
        world.says(0, DEAD, times=2)
    assert world.outcome is None
    assert "still held" in caplog.text


def test_agreement_contradiction_ends_unknown_and_says_whom_to_doubt() -> None:
    """Both answer, and one stays below the bound by which the other calls it dead."""
    world = World(still_held=held)
    both_know(world)
    world.says(0, DEAD + 500, times=3)
    world.says(1, BORN + 3)
    world.now += CONTRADICTION_AFTER_S - 1
    world.says(1, BORN + 4)
    world.says(0, DEAD + 700)
    assert world.outcome is None
    world.now += 1
    world.says(1, BORN + 5)
    world.says(0, DEAD + 701)
    assert world.outcome is UNKNOWN
    assert "node 1" in world.results[0].detail
    assert "contradict" in world.results[0].detail


def test_agreement_a_processed_status_starts_the_time_of_a_contradiction_anew() -> None:
    world = World(still_held=held)
    both_know(world)
    world.says(0, DEAD + 500, times=3)
    world.says(1, BORN + 3)
    world.now += CONTRADICTION_AFTER_S - 1
    world.says(1, BORN + 4, Landing(BORN + 3, "processed", None))
    world.says(0, DEAD + 700, times=3)
    world.now += CONTRADICTION_AFTER_S - 1
    world.says(1, BORN + 5)
    world.says(0, DEAD + 701)
    assert world.outcome is None
    world.now += 1
    world.says(1, BORN + 6)
    world.says(0, DEAD + 702)
    assert world.outcome is UNKNOWN


def test_agreement_a_processed_status_starts_the_reads_anew() -> None:
    world = World(still_held=held)
    both_know(world)
    world.says(0, DEAD, times=2)
    world.says(1, DEAD, Landing(BORN + 9, "processed", None))
    world.says(1, DEAD, times=2)
    assert world.outcome is None, "what node 0 said came before the status"
    world.says(0, DEAD + 1, times=2)
    assert world.outcome is EXPIRED


def test_statuses_unreadable_item_says_neither_yes_nor_no() -> None:
    world = World()
    both_know(world)
    world.says(0, DEAD, Unreadable.ITEM, times=10)
    assert world.outcome is None
    world.says(0, DEAD, times=2)
    assert world.outcome is EXPIRED


def test_statuses_from_any_state_beyond_the_bound_count() -> None:
    """Behind one URL stand several nodes: the newest tip is ahead of the state that was searched, and both are beyond."""
    world = World()
    world.knows(0)
    world.says(0, DEAD)
    ahead = Tip(DEAD + 50, DEAD + 50)
    world.pending.saw_tip(0, ahead, [world.tracked], confirmed=True)
    world.pending.saw_statuses(0, [world.tracked], Statuses(DEAD + 1, [None], True), ahead)
    assert world.outcome is EXPIRED


def test_no_history_silence_counts_within_reach_of_the_status_cache() -> None:
    world = World()
    world.knows(0)
    world.says(0, DEAD, times=2, history=False)
    assert world.outcome is EXPIRED


def test_no_history_silence_beyond_the_status_cache_proves_nothing() -> None:
    world = World()
    world.knows(0)
    world.says(0, BORN + STATUS_CACHE_SLOTS + 1, times=9, history=False)
    assert world.outcome is None
    world.says(0, BORN + STATUS_CACHE_SLOTS + 2, LANDED, history=False)
    assert world.outcome is CONFIRMED


def test_no_history_of_a_transaction_of_an_earlier_process_proves_nothing() -> None:
    """Nobody here knows when it was sent, so it may have landed before the cache begins."""
    world = World(sent_here=False)
    world.knows(0)
    world.says(0, DEAD, times=9, history=False)
    assert world.outcome is None


def test_no_history_first_answer_long_after_the_send_shortens_the_reach() -> None:
    """The node was away for 30 s: the transaction may have landed up to 300 slots before its first answer."""
    world = World()
    world.now += 30.0
    world.knows(0)
    world.says(0, DEAD, times=9, history=False)
    assert world.outcome is None


def test_late_landing_is_reported_once_and_counted(caplog: Any) -> None:
    world = World()
    world.knows(0)
    world.says(0, DEAD, times=2)
    assert world.outcome is EXPIRED
    with caplog.at_level(logging.ERROR):
        world.says(1, DEAD, LANDED, times=3)
    assert [late.outcome for late in world.late] == [CONFIRMED]
    assert world.late[0].slot == LANDED.slot
    assert world.pending.late_landings == 1
    assert "has landed in slot" in caplog.text
    assert len(world.results) == 1, "the result stays what it was"


def test_late_landing_is_looked_for_two_minutes() -> None:
    world = World()
    world.knows(0)
    world.says(0, DEAD, times=2)
    other, _ = world.pending.add("2" * 64, BLOCKHASH, tx_b64=None, listener=Listener())
    assert world.pending.wait_for_some(0.0) == [other, world.tracked]
    world.now += LATE_WATCH_S
    assert world.pending.wait_for_some(0.0) == [other]


def test_undecided_for_a_minute_is_reported_each_minute_with_what_is_missing(caplog: Any) -> None:
    world = World()
    world.knows(0)
    world.now += UNDECIDED_AFTER_S - 1
    world.pending.report_undecided()
    assert world.undecided == []
    assert world.pending.undecided() == []
    world.now += 1
    with caplog.at_level(logging.WARNING):
        world.pending.report_undecided()
        world.pending.report_undecided()
    assert len(world.undecided) == 1
    assert f"no block from height {DEAD}" in world.undecided[0].detail
    assert "node 1 did not answer for a minute" in world.undecided[0].detail
    assert len(world.pending.undecided()) == 1
    assert "undecided for 60 s" in caplog.text
    world.now += UNDECIDED_AFTER_S
    world.pending.report_undecided()
    assert len(world.undecided) == 2
