"""Virtual time: flowing, waiting, standing still; and an exchange that plays every moment on it."""

from __future__ import annotations

import itertools

import pytest

from lasersell_sync.sandbox.chain.clock import VirtualClock
from tests.sandbox.players import Rig


class Wall:
    """A real clock that somebody else moves."""

    def __init__(self) -> None:
        self.s = 500.0

    def __call__(self) -> float:
        return self.s


def test_time_flows_at_its_speed() -> None:
    """At speed 60 a real second is a virtual minute; what may be played is not what is being played."""
    wall = Wall()
    clock = VirtualClock(wall, speed=60, start_ms=1_000_000)
    wall.s += 2
    assert clock.target_s() == 120
    assert clock.now_s() == 0
    clock.move_to(90)
    assert clock.now_ms() == 1_090_000
    clock.move_to(30)
    assert clock.now_s() == 90, "never back"
    assert clock.real_wait_s(180) == pytest.approx(1.0)
    assert clock.real_wait_s(90) == 0


def test_time_waits_for_a_beginning() -> None:
    """A waiting clock stands still, however long, and then flows from where it stood."""
    wall = Wall()
    clock = VirtualClock(wall, waiting=True)
    wall.s += 1_000
    assert (clock.target_s(), clock.real_wait_s(1), clock.flowing) == (0, None, False)
    clock.begin()
    clock.begin()
    wall.s += 3
    assert clock.target_s() == 3


def test_time_may_be_moved_by_hand_alone() -> None:
    """A manual clock follows nothing but advance."""
    wall = Wall()
    clock = VirtualClock(wall, flowing=False)
    wall.s += 1_000
    assert clock.target_s() == 0
    clock.advance(2.5)
    assert (clock.target_s(), clock.real_wait_s(2), clock.real_wait_s(3)) == (2.5, 0.0, None)


def test_what_comes_from_outside_is_dated_before_what_is_planned() -> None:
    """An event from outside happens now, or at its grain, but never after a moment that is still to be played."""
    wall = Wall()
    clock = VirtualClock(wall)
    wall.s += 1.26
    clock.date_outside_event(next_due_s=None)
    assert clock.now_s() == pytest.approx(1.26)
    wall.s += 1
    clock.date_outside_event(next_due_s=1.5)
    assert clock.now_s() == 1.5
    grainy = VirtualClock(wall, grain_s=0.5)
    wall.s += 1.26
    grainy.date_outside_event(next_due_s=None)
    assert grainy.now_s() == 1.0


def test_a_slow_machine_slows_time_down() -> None:
    """Time that could not be played is not made up for."""
    wall = Wall()
    clock = VirtualClock(wall, speed=10)
    wall.s += 100
    clock.move_to(50)
    clock.stay()
    assert clock.target_s() == 50
    wall.s += 1
    assert clock.target_s() == 60


@pytest.mark.parametrize("speed", [0.5, 1, 30])
def test_messages_carry_the_moments_they_were_planned_for(speed: float) -> None:
    """However late and in whatever jumps the machine gets to it, updates are dated 100 virtual ms apart."""
    rig = Rig(speed=speed)
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    _, outbox = rig.session(wallet)
    rig.advance(3 / speed)
    rig.exchange.send_transaction(rig.buy_order(wallet, listing), skip_preflight=True)
    for jump_s in (0.2, 0.9, 0.05, 1.4):
        rig.now_s += jump_s / speed
        rig.exchange.run_due()
    times = [message["server_time_ms"] for message in outbox.messages("pnl_update")]
    assert len(times) >= 10
    assert {later - earlier for earlier, later in itertools.pairwise(times)} == {100}


def test_an_hour_at_high_speed_is_an_hour() -> None:
    """At speed 3600 a tenth of a second plays six minutes: ten updates and one snapshot for each of their seconds."""
    rig = Rig(speed=3600)
    wallet, listing = rig.wallet(), rig.listing("pump_swap", "peak")
    _, outbox = rig.session(wallet)
    order = rig.buy_order(wallet, listing)
    rig.exchange.send_transaction(order, skip_preflight=True)
    rig.advance(0.1)
    counts = {kind: sum(kind in frame for frame in outbox.frames) for kind in ('"pnl_update"', '"liquidity_snapshot"')}
    # Six minutes, less the 0.4 s in which the purchase landed.
    assert counts == {'"pnl_update"': 3_596, '"liquidity_snapshot"': 359}
