"""Of every opening no more is sold than was signalled for it, whatever comes in whichever order, and nothing is forgotten.

``LASERSELL_EXAMPLES=10000 python -m pytest -n0 tests/properties/test_selling.py --hypothesis-show-statistics`` runs it
longer. The seed of a failure is printed.
"""

from __future__ import annotations

import logging
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.properties.model_chain import TRUE_MOODS, Mood
from tests.properties.virtual_time import in_place_of_time
from tests.properties.world import World
from tests.support.examples import examples

TOKENS = st.sampled_from([1_000, 777, 2_000])


class Selling(RuleBasedStateMachine):
    """One token account, from its first purchase on."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self._logged = logging.root.manager.disable
        logging.disable(logging.CRITICAL)

    @initialize(names_moments=st.booleans(), reannounces=st.booleans())
    def begin(self, names_moments: bool, reannounces: bool) -> None:
        self.world = World(names_moments=names_moments, reannounces=reannounces)
        self._time = in_place_of_time(self.world.clock)
        self._time.__enter__()
        self.world.buy(1_000, 100)
        self.world.start()
        self.world.deliver()

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self.world.calm_down()
                self.world.check_the_end()
        finally:
            if hasattr(self, "world"):
                self.world.close()
                self._time.__exit__(None, None, None)
            logging.disable(self._logged)

    # -- the server

    @precondition(lambda self: self.world.is_linked and self.world.chain.tokens)
    @rule(delivered=st.booleans())
    def the_whole_position_is_signalled(self, delivered: bool) -> None:
        self.world.want_whole()
        self.world.deliver(1_000 if delivered else 0)

    @precondition(lambda self: self.world.is_linked and self.world.chain.tokens)
    @rule(index=st.integers(0, 2), delivered=st.booleans())
    def a_level_is_signalled(self, index: int, delivered: bool) -> None:
        self.world.want_level(index)
        self.world.deliver(1_000 if delivered else 0)

    @precondition(lambda self: self.world.is_linked and self.world.chain.tokens)
    @rule(percent=st.sampled_from([20, 50]), delivered=st.booleans())
    def a_slice_is_signalled(self, percent: int, delivered: bool) -> None:
        self.world.want_slice(percent)
        self.world.deliver(1_000 if delivered else 0)

    @rule()
    def the_position_is_announced_again(self) -> None:
        self.world.announce_again()
        self.world.deliver()

    @rule(count=st.integers(1, 3))
    def the_link_brings_some_messages(self, count: int) -> None:
        self.world.deliver(count)

    @precondition(lambda self: self.world.is_linked)
    @rule()
    def the_link_is_lost(self) -> None:
        self.world.lose_link()

    @precondition(lambda self: not self.world.is_linked and self.world.process is not None)
    @rule(delivered=st.booleans())
    def the_link_is_there_again(self, delivered: bool) -> None:
        self.world.connect()
        self.world.deliver(1_000 if delivered else 0)

    @rule(answers=st.booleans())
    def the_server_answers_questions_or_does_not(self, answers: bool) -> None:
        self.world.answers_questions = answers

    # -- the chain and its nodes

    @precondition(lambda self: self.world.chain.may_land())
    @rule(which=st.integers(0, 9), fails=st.booleans(), delivered=st.booleans())
    def a_transaction_lands(self, which: int, fails: bool, delivered: bool) -> None:
        self.world.land(which, fails=fails)
        self.world.deliver(1_000 if delivered else 0)

    @rule(mood=st.sampled_from(TRUE_MOODS))
    def a_true_node_changes_its_mood(self, mood: Mood) -> None:
        self.world.nodes[0].mood = mood

    @rule(mood=st.sampled_from(Mood))
    def a_lying_node_changes_its_mood(self, mood: Mood) -> None:
        self.world.nodes[1].mood = mood

    @rule(mood=st.sampled_from(["takes", "takes and is silent", "is away", "refuses"]))
    def the_target_changes_its_mood(self, mood: str) -> None:
        self.world.target.mood = mood

    @rule(mood=st.sampled_from(["builds", "fails", "late"]))
    def the_rest_api_changes_its_mood(self, mood: str) -> None:
        self.world.api.mood = mood

    @rule(seconds=st.sampled_from([0.5, 2.0, 12.0, 40.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    # -- the user

    @precondition(lambda self: self.world.chain.tokens)
    @rule(delivered=st.booleans())
    def the_user_sells_by_hand(self, delivered: bool) -> None:
        self.world.sell_by_hand()
        self.world.deliver(1_000 if delivered else 0)

    @precondition(lambda self: self.world.may_buy())
    @rule(tokens=TOKENS, entry=st.sampled_from([100, 150, 50]), delivered=st.booleans())
    def the_account_is_opened_again(self, tokens: int, entry: int, delivered: bool) -> None:
        self.world.buy(tokens, entry)
        self.world.deliver(1_000 if delivered else 0)

    @precondition(lambda self: self.world.chain.tokens)
    @rule()
    def more_is_bought(self) -> None:
        self.world.top_up(500)
        self.world.deliver()

    @precondition(lambda self: self.world.process is not None and self.world.chain.tokens > 100)
    @rule()
    def the_user_sells_a_leg(self) -> None:
        self.world.sell_a_leg(100)

    @precondition(lambda self: self.world.process is not None)
    @rule()
    def the_user_pauses_or_goes_on(self) -> None:
        assert self.world.process is not None
        (self.world.resume if self.world.process.seller.is_paused else self.world.pause)()

    @precondition(lambda self: self.world.process is not None)
    @rule(is_slow=st.booleans())
    def the_disk_is_slow_or_fast(self, is_slow: bool) -> None:
        assert self.world.process is not None
        self.world.process.is_disk_slow = is_slow

    # -- deaths

    @precondition(lambda self: self.world.process is not None)
    @rule()
    def the_process_dies(self) -> None:
        self.world.kill()

    @precondition(lambda self: self.world.process is not None)
    @rule(boundaries=st.integers(0, 12))
    def the_process_is_to_die_soon(self, boundaries: int) -> None:
        assert self.world.process is not None
        self.world.process.kills.left = boundaries

    @precondition(lambda self: self.world.process is None)
    @rule(is_linked=st.booleans(), delivered=st.booleans())
    def the_next_process_begins(self, is_linked: bool, delivered: bool) -> None:
        self.world.start(is_linked=is_linked)
        self.world.deliver(1_000 if delivered else 0)

    # -- what must be true

    @invariant()
    def no_more_is_sold_than_was_signalled(self) -> None:
        if hasattr(self, "world"):
            self.world.check()


TestSelling: Any = Selling.TestCase
TestSelling.settings = settings(
    max_examples=examples(60),
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
