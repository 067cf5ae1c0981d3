"""The world that ``test_selling.py`` plays in: it sells, it dies where it is told to, and it notices what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from lasersell_sync.trading.sending.outcome import SellOutcome
from tests.properties.model_chain import Mood
from tests.properties.virtual_time import in_place_of_time
from tests.properties.world import World

#: More than any of these stories passes.
BOUNDARIES = range(36)


@pytest.fixture(params=[True, False], ids=["moments named", "no moments"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(names_moments=request.param, reannounces=True)
    logging.disable(logging.CRITICAL)
    with in_place_of_time(made.clock):
        try:
            made.buy(1_000, 100)
            made.start()
            made.deliver()
            yield made
        finally:
            made.close()
            logging.disable(logging.NOTSET)


def test_whole_position_that_is_signalled_is_sold_once(world: World):
    world.want_whole()
    world.calm_down()
    world.check_the_end()
    assert (world.chain.tokens, world.chain.sold_of(1)) == (0, 1_000)
    assert [report.outcome for report in world.reports] == [SellOutcome.CONFIRMED]


@pytest.mark.parametrize("boundaries", BOUNDARIES)
def test_seller_that_dies_at_any_boundary_sells_everything_once(world: World, boundaries: int):
    """Before and after each commit, each arrival, each report: the next process ends what this one began."""
    assert world.process is not None
    world.process.kills.left = boundaries
    world.want_whole()
    world.deliver()
    world.advance(2)
    world.land(0)
    world.advance(2)
    world.calm_down()
    if world.chain.tokens:  # the signal died with the process, before it was written down
        world.want_whole()
        world.calm_down()
    world.check_the_end()
    assert (world.chain.tokens, world.chain.sold_of(1)) == (0, 1_000)


@pytest.mark.parametrize("mood", [Mood.AHEAD, Mood.ODD_ITEMS, Mood.ABSURD, Mood.NO_HISTORY])
def test_level_that_one_node_of_two_lies_about_is_sold_once(world: World, mood: Mood):
    """Its transaction lands late; what one node says of it meanwhile must bring no other."""
    world.want_level(0)
    world.advance(2)
    world.nodes[1].mood = mood
    world.advance(25)
    world.land(0)
    world.advance(100, lands=True)
    assert world.nodes[1].lies_told
    world.calm_down()
    world.check_the_end()
    assert world.chain.sold_of(1) == 300


def test_level_that_one_node_has_not_indexed_while_the_other_is_silent_is_sold_once(world: World):
    """By the stale one, the blockhash is dead and the transaction unknown."""
    world.want_level(0)
    world.advance(2)
    world.land(0)
    world.nodes[0].mood, world.nodes[1].mood = Mood.SILENT, Mood.STALE_INDEX
    world.advance(50)
    assert world.nodes[1].lies_told
    world.calm_down()
    world.check_the_end()
    assert world.chain.sold_of(1) == 300


def test_sale_of_an_opening_that_nobody_signalled_is_noticed(world: World):
    """A check that never fails proves nothing."""
    assert world.process is not None
    world.sell_a_leg(100)
    world.openings[1].others = 0
    world.calm_down()
    with pytest.raises(AssertionError, match="of opening 1, 100 of 0 were sold"):
        world.check()


def test_transaction_without_a_record_is_noticed(world: World):
    assert world.process is not None
    world.process.has_recorded = lambda _: False  # type: ignore[method-assign]
    world.want_whole()
    world.deliver()
    with pytest.raises(AssertionError, match="is not in the journal"):
        world.check()
