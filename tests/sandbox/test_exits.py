"""Every condition at work in the exchange: it fires at the tick that reaches it, with a sale that lands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.pools import max_sell_tokens
from lasersell_sync.sandbox.markets.scenario import Action, Scenario, parse_scenario
from lasersell_sync.sandbox.protocol.client_messages import read_strategy
from lasersell_sync.sandbox.protocol.json_fields import Fields
from tests.sandbox.players import ListOutbox, Rig, signed, strategy

#: One token that nobody moves but the tests.
STILL = """
about = "Nothing moves by itself."
[[token]]
symbol = "REST"
market = "{market}"
rest_noise_pct = 0
may_graduate = {may_graduate}
"""
LEVELS = [
    {"profit_pct": 10, "sell_pct": 25},
    {"profit_pct": 20, "sell_pct": 50, "trailing_stop_pct": 5},
    {"profit_pct": 30, "sell_pct": 100},
]


def still(market: str = "pump_swap", may_graduate: str = "false") -> Scenario:
    return parse_scenario(STILL.format(market=market, may_graduate=may_graduate), "still")


class Story:
    """A wallet that holds one token, and a session that is told about it."""

    def __init__(self, terms: dict[str, object], market: str = "pump_swap", **more: Any) -> None:
        self.rig = Rig(scenario=still(market, **more))
        self.wallet = self.rig.wallet()
        self.session, self.outbox = self.rig.session(self.wallet, terms=terms)
        assert self.rig.buy(self.wallet, self.listing).err is None

    @property
    def listing(self) -> Listing:
        return self.rig.token("REST")

    @property
    def profit(self) -> int:
        position = self.rig.exchange.positions.book.records()[0]
        return self.rig.exchange.positions.exits.proceeds(self.listing, position.tokens) - self.entry

    @property
    def entry(self) -> int:
        return self.rig.exchange.positions.book.records()[0].entry_lamports

    @property
    def signals(self) -> list[dict[str, Any]]:
        return self.outbox.messages("exit_signal_with_tx")

    def move(self, multiplier: float) -> None:
        self.rig.price("REST", multiplier)

    def creep(self, multiplier: float, ticks: int = 2_000) -> tuple[int, int]:
        """Move in small steps until something fires: the profits before and at the tick that did it."""
        for _ in range(ticks):
            before = self.profit
            self.move(multiplier)
            if self.signals:
                return before, self.signals[0]["profit_units"]
        pytest.fail("nothing fired")

    def sell(self, signal: dict[str, Any]) -> None:
        assert self.rig.send(signed(signal["unsigned_tx_b64"], self.wallet)).err is None


# -- the boundary tick


def test_target_profit_fires_at_the_tick_that_reaches_it() -> None:
    """The tick before is below entry x target%, the tick itself is not."""
    story = Story(strategy(target=7))
    before, at = story.creep(1.0015)
    assert before * 100 < story.entry * 7 <= at * 100
    assert story.signals[0]["reason"] == "target_profit"


def test_stop_loss_fires_at_the_tick_that_reaches_it() -> None:
    """The tick before is above the stop, the tick itself is not."""
    story = Story(strategy(stop=7))
    before, at = story.creep(0.9985)
    assert -before * 100 < story.entry * 7 <= -at * 100
    assert story.signals[0]["reason"] == "stop_loss"


def test_trailing_stop_fires_at_the_tick_that_reaches_it() -> None:
    """After a peak, the first tick that is trailing% of the entry below it."""
    story = Story(strategy(trailing=4))
    story.move(1.2)
    peak = story.profit
    assert not story.signals
    before, at = story.creep(0.9985)
    assert (peak - before) * 100 < story.entry * 4 <= (peak - at) * 100
    assert story.signals[0]["reason"] == "trailing_stop"


def test_trailing_stop_waits_for_a_profit() -> None:
    """A position that only falls has no peak to trail."""
    story = Story(strategy(trailing=4))
    story.move(0.5)
    assert story.signals == []


def test_breakeven_fires_at_the_tick_that_loses_the_profit() -> None:
    """Once armed, the first tick without profit; unarmed, nothing."""
    unarmed = Story({**strategy(stop=90), "breakeven_trail_pct": 10})
    unarmed.move(1.05)
    unarmed.move(0.7)
    assert unarmed.signals == []
    story = Story({**strategy(stop=90), "breakeven_trail_pct": 10})
    story.move(1.2)
    before, at = story.creep(0.9985)
    assert at <= 0 < before
    assert story.signals[0]["reason"] == "breakeven_trail"


@pytest.mark.parametrize(
    ("terms", "move", "reason"),
    [
        (strategy(target=5), 1.2, "target_profit"),
        (strategy(stop=5), 0.8, "stop_loss"),
        ({**strategy(), "take_profit_levels": [{"profit_pct": 5, "sell_pct": 100}]}, 1.2, "chained_tp"),
    ],
)
@pytest.mark.parametrize(
    "market", ["pump_fun", "pump_swap", "meteora_dbc", "meteora_damm_v2", "raydium_launchpad", "raydium_cpmm"]
)
def test_every_exit_lands_on_every_market(market: str, terms: dict[str, object], move: float, reason: str) -> None:
    """The signal's transaction sells everything, the position closes with the one reason, the tokens are gone."""
    story = Story(terms, market)
    story.move(move)
    (signal,) = story.signals
    assert signal["reason"] == reason
    assert signal["market_context"]["market_type"] == market
    story.sell(signal)
    (closed,) = story.outbox.messages("position_closed")
    assert closed["reason"] == reason
    assert story.rig.exchange.ledger.token_balance(story.wallet.pubkey(), story.listing.mint) == 0


# -- the ladder


def test_a_ladder_sells_in_parts_and_to_the_end() -> None:
    """Each level names its tokens and its index, in wire order; the last one closes the position."""
    story = Story({**strategy(), "take_profit_levels": LEVELS})
    tokens = story.rig.exchange.positions.book.records()[0].tokens
    for index, share in enumerate((4, 2, 1)):
        story.move(1.08)
        while len(story.signals) == index:
            story.move(1.01)
        signal = story.signals[index]
        assert (signal["reason"], signal["level_index"]) == ("chained_tp", index)
        assert signal["sell_tokens"] == tokens // share
        assert signal["position_tokens"] == tokens
        assert list(signal)[-2:] == ["sell_tokens", "level_index"]
        story.sell(signal)
        tokens -= signal["sell_tokens"]
        assert story.rig.exchange.ledger.token_balance(story.wallet.pubkey(), story.listing.mint) == tokens
    assert tokens == 0
    assert [message["reason"] for message in story.outbox.messages("position_closed")] == ["chained_tp"]


def test_a_level_fires_at_the_tick_that_reaches_it() -> None:
    """The tick before is below entry x profit_pct, the tick itself is not."""
    story = Story({**strategy(), "take_profit_levels": LEVELS})
    before, at = story.creep(1.0015)
    assert before * 100 < story.entry * 10 <= at * 100


def test_a_levels_trailing_stop_guards_the_rest() -> None:
    """After the second level the rest is sold when it falls 5 % of the entry below the peak."""
    story = Story({**strategy(), "take_profit_levels": LEVELS})
    story.move(1.27)
    assert [signal["level_index"] for signal in story.signals] == [0, 1]
    for signal in list(story.signals):
        story.sell(signal)
    story.move(0.95)
    assert story.signals[-1]["reason"] == "trailing_stop"
    assert "sell_tokens" not in story.signals[-1]
    story.sell(story.signals[-1])
    assert story.outbox.messages("position_closed")[0]["reason"] == "trailing_stop"


def test_the_rest_sold_by_hand_is_not_the_ladders() -> None:
    """A position that a level has only begun to sell closes as `sold` if its owner sells the rest himself."""
    story = Story({**strategy(), "take_profit_levels": LEVELS[:1]})
    story.move(1.15)
    story.sell(story.signals[0])
    story.rig.sell(story.wallet, story.listing)
    assert story.outbox.messages("position_closed")[0]["reason"] == "sold"


def test_the_liquidity_guard_sells_what_the_pool_absorbs() -> None:
    """In a drained pool a guarded level asks for the widest band's tokens, an unguarded one for its full share."""
    levels = [{"profit_pct": 1e-6, "sell_pct": 100}]
    asked = []
    for guard in (True, False):
        story = Story({**strategy(), "take_profit_levels": levels, "liquidity_guard": guard})
        story.rig.exchange.act(Action(0.0, "pull", "REST", keep_pct=3))
        assert not story.signals, "thin as it is, the pool would return less than was paid"
        story.move(1.9)
        (signal,) = story.signals
        reserves = story.rig.exchange.market.reserves(story.listing)
        asked.append((signal["sell_tokens"], max_sell_tokens(reserves, 1_000), signal["position_tokens"]))
    assert asked[0][0] == asked[0][1] < asked[0][2]
    assert asked[1][0] == asked[1][2]


# -- graduation


@pytest.mark.parametrize(
    ("curve", "pool"),
    [("pump_fun", "pump_swap"), ("meteora_dbc", "meteora_damm_v2"), ("raydium_launchpad", "raydium_cpmm")],
)
def test_graduation_sells_on_the_new_market(curve: str, pool: str) -> None:
    """When the curve is bought out the token trades on its AMM pool, and who asked for it is told to sell there."""
    story = Story({**strategy(target=900), "sell_on_graduation": True}, curve, may_graduate="true")
    story.rig.exchange.act(Action(0.0, "graduate", "REST"))
    assert story.listing.market_type == pool
    (signal,) = story.signals
    assert (signal["reason"], signal["market_context"]["market_type"]) == ("graduation", pool)
    story.sell(signal)
    assert story.outbox.messages("position_closed")[0]["reason"] == "graduation"


def test_graduation_leaves_others_in_peace_and_their_old_sales_useless() -> None:
    """Without sell_on_graduation nothing is signalled; a sale built for the curve fails as "curve complete"."""
    story = Story(strategy(target=900), "pump_fun", may_graduate="true")
    stale = signed(story.rig.sell_order(story.wallet, story.listing), story.wallet)
    story.rig.exchange.act(Action(0.0, "graduate", "REST"))
    assert story.signals == []
    err = story.rig.send(stale, skip_preflight=True).err
    assert err["InstructionError"][1] == {"Custom": 6005}
    story.rig.advance(0.3)
    assert story.rig.sell(story.wallet, story.listing).err is None
    assert story.outbox.messages("position_closed")[0]["reason"] == "sold"


# -- changes on the way


def test_a_strategy_updated_mid_session_acts_at_once() -> None:
    """A target that the position has already passed fires with the update, without waiting for a trade."""
    story = Story(strategy(target=900))
    story.move(1.1)
    assert story.signals == []
    story.rig.say(story.session, {"type": "update_strategy", "strategy": strategy(target=2)})
    assert [signal["reason"] for signal in story.signals] == ["target_profit"]


def test_a_strategy_has_one_meaning_whatever_its_json() -> None:
    """Integers and floats of one value, defaults written or not, give the same strategy."""
    short = read_strategy(Fields({"target_profit_pct": 5, "stop_loss_pct": 2}))
    long = {"target_profit_pct": 5.0, "stop_loss_pct": 2.0, "trailing_stop_pct": 0, "take_profit_levels": []}
    more = {"sell_on_graduation": False, "liquidity_guard": False, "breakeven_trail_pct": None}
    assert read_strategy(Fields(json.loads(json.dumps({**long, **more})))) == short


def test_each_key_follows_its_own_strategy() -> None:
    """Two keys watch one wallet: each is told by its own rules."""
    rig = Rig(api_keys=("a", "b"), scenario=still())
    wallet = rig.wallet(key_id="key-1")
    rig.wallet(key_id="key-2")
    outboxes: list[ListOutbox] = [
        rig.session(wallet, key_id=key_id, terms=terms)[1]
        for key_id, terms in (("key-1", strategy(target=5)), ("key-2", strategy(stop=5)))
    ]
    rig.buy(wallet, rig.token("REST"))
    rig.price("REST", 1.1)
    rig.price("REST", 0.7)
    reasons = [[signal["reason"] for signal in box.messages("exit_signal_with_tx")] for box in outboxes]
    assert reasons == [["target_profit"], ["stop_loss"]]
