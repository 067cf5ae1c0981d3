"""Constant-product arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lasersell_sync.sandbox.markets.pools import (
    FeeSchedule,
    Reserves,
    buy_fill,
    max_sell_tokens,
    price_lamports,
    sell_fill,
    tokens_for_budget,
    trade_to_reach,
)

FEES = FeeSchedule(lp_bps=20, protocol_bps=5, creator_bps=5)
POOLS = st.builds(Reserves, st.integers(10**9, 10**15), st.integers(10**9, 10**12))


@given(POOLS, st.integers(1, 10**12))
def test_buying_and_selling_back_never_gains(pool: Reserves, budget: int) -> None:
    """A round trip costs at least the fees, so no sequence of trades drains a pool."""
    tokens = tokens_for_budget(pool, FEES, budget)
    bought = buy_fill(pool, FEES, tokens)
    after = Reserves(pool.tokens - tokens, pool.lamports + bought.raw_lamports)
    assert sell_fill(after, FEES, tokens).total_lamports <= bought.total_lamports


@given(POOLS, st.integers(1, 10**12))
def test_a_budget_buys_the_most_it_can(pool: Reserves, budget: int) -> None:
    """The cost stays within the budget, and one token more would not."""
    tokens = tokens_for_budget(pool, FEES, budget)
    assert buy_fill(pool, FEES, tokens).total_lamports <= budget
    if tokens + 1 < pool.tokens:
        assert buy_fill(pool, FEES, tokens + 1).total_lamports > budget


@given(POOLS, st.sampled_from([100, 200, 500, 1_000]))
def test_bands_are_exact(pool: Reserves, bps: int) -> None:
    """Selling a band's tokens moves the price by at most its slippage, and one token more by more."""
    tokens = max_sell_tokens(pool, bps)
    assert Fraction(tokens, pool.tokens + tokens) <= Fraction(bps, 10_000)
    assert Fraction(tokens + 1, pool.tokens + tokens + 1) > Fraction(bps, 10_000)


@given(POOLS, st.integers(0, 10**15))
def test_fees_never_exceed_a_sale(pool: Reserves, tokens: int) -> None:
    """Even dust is sold for nothing at worst, never for less, and every lamport is accounted for."""
    fill = sell_fill(pool, FEES, tokens)
    fees = fill.lp_fee_lamports + fill.protocol_fee_lamports + fill.creator_fee_lamports
    assert fill.total_lamports == fill.raw_lamports - fees >= 0


@pytest.mark.parametrize("ratio", [(3, 2), (101, 100), (99, 100), (1, 2)])
def test_a_trade_reaches_the_price_it_is_meant_for(ratio: tuple[int, int]) -> None:
    """The trade worked out for a price ratio moves the price by that ratio, to a thousandth."""
    pool = Reserves(206_900_000 * 10**6, 85 * 10**9)
    side, tokens = trade_to_reach(pool, *ratio)
    if side == "buy":
        after = Reserves(pool.tokens - tokens, pool.lamports + buy_fill(pool, FEES, tokens).raw_lamports)
    else:
        after = Reserves(pool.tokens + tokens, pool.lamports - sell_fill(pool, FEES, tokens).raw_lamports)
    moved = price_lamports(after, 9) / price_lamports(pool, 9)
    assert moved == pytest.approx(ratio[0] / ratio[1], rel=1e-3)


def test_a_pool_cannot_sell_all_it_has() -> None:
    """Buying every token is refused: it would cost infinitely much."""
    with pytest.raises(ValueError, match="the pool has 10 tokens"):
        buy_fill(Reserves(10, 10), FEES, 10)
