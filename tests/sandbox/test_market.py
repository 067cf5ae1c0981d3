"""Listings, the crowd, and seeded price stories."""

from __future__ import annotations

from fractions import Fraction

import pytest

from lasersell_sync.sandbox.chain.ledger import Ledger
from lasersell_sync.sandbox.markets.listings import SUPPLY
from lasersell_sync.sandbox.markets.market import Market
from lasersell_sync.sandbox.markets.price_paths import PPM, PRICE_PATHS, PricePath
from lasersell_sync.sandbox.markets.scenario import load_scenario
from lasersell_sync.sandbox.markets.venues import VENUES
from tests.sandbox.players import Rig


def path(story: str, seed: str, ticks: int = 200) -> list[float]:
    """A price path's price, relative to its start, at every tick."""
    price_path, price, prices = PricePath(PRICE_PATHS[story], seed), 1.0, []
    for _ in range(ticks):
        step = price_path.step()
        price = price * step.numerator / step.denominator
        prices.append(price)
    return prices


@pytest.mark.parametrize("story", sorted(PRICE_PATHS))
def test_one_seed_tells_one_story(story: str) -> None:
    """The same seed gives the same price path to the last digit, another seed another one."""
    assert path(story, "7") == path(story, "7")
    assert path(story, "7") != path(story, "8")


@pytest.mark.parametrize("seed", ["1", "2", "3", "many"])
def test_stories_keep_their_promise(seed: str) -> None:
    """A climb ends 40 to 80 % up within ten seconds; a fall 30 to 45 % down; a peak rises 45 % and comes back."""
    climb, fall, peak = (path(story, seed) for story in ("climb", "fall", "peak"))
    assert 1.38 < climb[99] < 1.82
    assert min(climb) > 0.98
    assert 0.53 < fall[84] < 0.72
    assert max(fall) < 1.02
    assert max(peak) > 1.42
    assert peak[-1] < 0.95


def test_a_tape_rests_after_its_story() -> None:
    """When the story is told the price only breathes."""
    price_path = PricePath(PRICE_PATHS["climb"], "1")
    for _ in range(100):
        assert not price_path.resting
        price_path.step()
    assert price_path.resting
    steps = [price_path.step() for _ in range(200)]
    assert all(abs(step.numerator * PPM // step.denominator - PPM) < 30_000 for step in steps)


def test_the_catalogue_depends_on_the_seed_alone() -> None:
    """One seed lists the same mints always, another seed others; all markets and stories are there."""
    one, same, other = (Market(Ledger(), seed=seed, scenario=load_scenario("default")) for seed in (1, 1, 2))
    assert list(one.listings) == list(same.listings)
    assert not set(one.listings) & set(other.listings)
    markets = [listing.market_type for listing in one.listings.values()]
    assert min(markets.count("pump_fun"), markets.count("pump_swap")) >= 2
    assert set(markets) == set(VENUES)
    assert {listing.price_path for listing in one.listings.values()} == {"climb", "fall", "peak"}
    assert next(iter(one.listings.values())).price_path == "climb"


def test_a_tape_starts_with_the_first_buy_and_goes_home_with_the_last_sale(rig: Rig) -> None:
    """Prices stand still until a user buys; when the last user has sold they walk back to where they began."""
    listing, market = rig.listing("pump_fun", "climb"), rig.exchange.market
    home = market.reserves(listing)
    rig.advance(5)
    assert market.reserves(listing) == home
    wallet = rig.wallet()
    rig.buy(wallet, listing)
    rig.advance(6)
    assert market.reserves(listing).lamports > home.lamports * 1.1
    rig.sell(wallet, listing)
    rig.advance(5)
    assert market.reserves(listing).lamports == pytest.approx(home.lamports, rel=2e-3)
    assert rig.exchange.run_due() is None, "nothing may be planned once the market is at rest"


def test_nobody_else_moves_a_pool(rig: Rig) -> None:
    """A story in one mint leaves the others alone."""
    market = rig.exchange.market
    busy = rig.listing("pump_fun", "climb")
    quiet = {mint: market.reserves(item) for mint, item in market.listings.items() if item is not busy}
    rig.buy(rig.wallet(), busy)
    rig.advance(3)
    assert {mint: market.reserves(market.listings[mint]) for mint in quiet} == quiet


@pytest.mark.parametrize("market_type", ["pump_fun", "pump_swap"])
def test_a_price_can_be_moved_by_hand(rig: Rig, market_type: str) -> None:
    """A multiplier is one trade that moves the pool's price by it."""
    listing = rig.listing(market_type, "climb")
    before = rig.exchange.market.reserves(listing)
    rig.multiply_price(listing.mint, Fraction(3, 2))
    after = rig.exchange.market.reserves(listing)
    moved = after.lamports * before.tokens / (after.tokens * before.lamports)
    assert moved == pytest.approx(1.5, rel=2e-3)


def test_no_multiplier_completes_a_curve(rig: Rig) -> None:
    """However large the multiplier, the curve keeps tokens for sale: graduation is another storey."""
    listing = rig.listing("pump_fun", "climb")
    rig.multiply_price(listing.mint, Fraction(1_000))
    assert rig.exchange.market.venue(listing).buyable_tokens(rig.exchange.ledger, listing) > 0


def test_lamports_are_conserved(rig: Rig) -> None:
    """Trades move lamports and never make any: all that leaves the ledger is the network's fees."""
    wallet = rig.wallet()
    total = rig.exchange.ledger.total_lamports()
    for market_type in ("pump_fun", "pump_swap"):
        listing = rig.listing(market_type, "climb")
        rig.buy(wallet, listing)
        rig.advance(3)
        rig.sell(wallet, listing)
    fees = sum(record.fee_lamports for record in rig.exchange.chain.records())
    assert [record.err for record in rig.exchange.chain.records()] == [None] * 4
    assert rig.exchange.ledger.total_lamports() == total - fees


def test_prices_and_caps_are_the_pools(rig: Rig) -> None:
    """price is reserve over reserve for one whole token, cap the same for the whole supply, both rounded down."""
    wallet = rig.wallet()
    _, outbox = rig.session(wallet)
    for listing in rig.listings:
        rig.buy(wallet, listing, lamports=10**8 if listing.quote.is_native else 10**7)
    rig.advance(0.35)
    updates = {update["position_id"]: update for update in outbox.messages("pnl_update")}
    assert len(updates) == len(rig.listings) == 10
    for record in rig.exchange.positions.book.records():
        listing = next(item for item in rig.listings if str(item.mint) == record.mint)
        reserves, update = rig.exchange.market.reserves(listing), updates[record.position_id]
        assert update["token_price_quote"] == reserves.lamports * 10**6 // reserves.tokens
        assert update["market_cap_quote"] == reserves.lamports * SUPPLY // reserves.tokens
        assert update["proceeds_units"] == rig.exchange.positions.exits.proceeds(listing, record.tokens)


def test_the_crowd_is_many_traders_drawn_by_the_seed() -> None:
    """Ticks of the crowd have many makers, none of them a user, and the same ones for the same seed."""
    crowds = []
    for seed in (1, 1, 2):
        fresh = Rig(seed=seed)
        wallet = fresh.wallet()
        _, outbox = fresh.session(wallet)
        fresh.buy(wallet, fresh.listing("pump_swap", "climb"))
        fresh.advance(10)
        crowds.append([tick["maker"] for tick in outbox.messages("trade_tick") if "tx_signature" not in tick])
    assert len(set(crowds[0])) > 15
    assert crowds[0] == crowds[1]
    assert not set(crowds[0]) & set(crowds[2])
