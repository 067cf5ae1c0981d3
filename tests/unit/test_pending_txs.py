"""Whom a transaction wakes when it is added, and when its copies are due."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import pytest

from lasersell_sync.runtime.fork_guard import ProcessGuard
from lasersell_sync.trading.sending.outcome import SellOutcome
from lasersell_sync.trading.sending.tracked_tx import UNDECIDED_AFTER_S, Answer, Listener, TrackedTx
from lasersell_sync.trading.sending.tx_tracker import TxTracker
from lasersell_sync.trading.solana.rpc_node import Landing, Statuses
from tests.support.waiting import PATIENCE_S, until

RESEND_S = 2.0


class World:
    """Transactions by a clock that stands still, and a thread that waits for copies, as the sender's does."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.pending = TxTracker(
            ProcessGuard("a test"), ["first", "second"], resend_s=RESEND_S, run=lambda _: None, clock=lambda: self.now
        )
        self.notified = 0
        notify_all = self.pending._changed.notify_all

        def count() -> None:
            self.notified += 1
            notify_all()

        self.pending._changed.notify_all = count  # type: ignore[method-assign]
        self.waiter = threading.Thread(target=self.pending.wait_for_copies, args=(None,), daemon=True)

    def wait_for_copies(self) -> None:
        self.waiter.start()
        until(lambda: self.pending._sleeps_until == math.inf)

    def add(self, number: int, *, sent: bool = True) -> TrackedTx:
        tx_b64 = "AA==" if sent else None
        tracked, _ = self.pending.add(str(number), "blockhash", tx_b64=tx_b64, listener=Listener())
        self.pending.wake()
        return tracked


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.pending.close()
    if made.waiter.ident is not None:
        made.waiter.join(PATIENCE_S)
        assert not made.waiter.is_alive()


def test_add_three_hundred_at_once_only_the_first_wakes(world: World) -> None:
    world.wait_for_copies()
    world.add(0)
    until(lambda: world.pending._sleeps_until == world.now + RESEND_S)
    for number in range(1, 300):
        world.add(number)
    assert world.notified == 1


def test_add_with_an_earlier_moment_wakes_again(world: World) -> None:
    """One that is only watched is reported after a minute; one that is sent has copies before that."""
    world.wait_for_copies()
    world.add(1, sent=False)
    until(lambda: world.pending._sleeps_until == world.now + UNDECIDED_AFTER_S)
    world.add(2)
    until(lambda: world.pending._sleeps_until == world.now + RESEND_S)
    assert world.notified == 2


def test_add_while_nothing_is_under_way_wakes_who_asks_nodes() -> None:
    pending = TxTracker(ProcessGuard("a test"), ["first"], resend_s=RESEND_S, run=lambda _: None)
    asked: list[object] = []
    poller = threading.Thread(target=lambda: asked.append(pending.wait_for_some(0.0)), daemon=True)
    poller.start()
    until(lambda: pending._changed._waiters)  # type: ignore[attr-defined] # of a Condition
    tracked, _ = pending.add("1", "blockhash", tx_b64="AA==", listener=Listener())
    pending.wake()
    poller.join(PATIENCE_S)
    assert asked == [[tracked]]
    pending.close()


def test_due_copies_those_of_one_moment_come_together_and_settled_ones_not_at_all(world: World) -> None:
    txs = []
    for number in range(300):
        txs.append(world.add(number))
        world.now += 0.00001
    for tracked in txs:
        for lane in range(2):
            world.pending.answered(tracked, lane, Answer.REFUSED if tracked is txs[7] else Answer.ACCEPTED)
    assert txs[7].result is not None
    assert txs[7].result.outcome is SellOutcome.REJECTED
    assert world.pending.due_copies() == []
    world.now = 1_000.0 + RESEND_S
    copies = world.pending.due_copies()
    assert copies == [(tracked, lane) for tracked in txs if tracked is not txs[7] for lane in range(2)]
    assert world.pending.due_copies() == []
    world.now += RESEND_S
    assert world.pending.due_copies() == [], "a lane whose answer is awaited gets no further copy"
    for tracked in txs:
        world.pending.answered(tracked, 0, Answer.ACCEPTED)
    world.now += RESEND_S
    assert world.pending.due_copies() == [(tracked, 0) for tracked in txs if tracked is not txs[7]]


def test_settled_transactions_only_the_newest_are_remembered(world: World) -> None:
    world.pending._nodes = ("node",)
    for number in range(1_100):
        tracked = world.add(number)
        statuses = Statuses(slot=1, landings=[Landing(1, "confirmed", None)], searched_history=False)
        world.pending.saw_statuses(0, [tracked], statuses, None)
        assert tracked.result is not None
    assert len(world.pending._settled) == 1_024
    assert world.add(1_099).result is not None
    assert world.add(0).result is None


def test_accepted_copy_clears_what_its_target_had_failed_with(world: World) -> None:
    tracked = world.add(1)
    world.pending.answered(tracked, 0, Answer.UNCERTAIN, "first: no answer in time")
    world.pending.answered(tracked, 1, Answer.UNCERTAIN, "second: no answer in time")
    world.pending.answered(tracked, 0, Answer.ACCEPTED)
    detail = world.pending.result_of(tracked).detail
    assert "first: " not in detail
    assert "second: no answer in time" in detail
