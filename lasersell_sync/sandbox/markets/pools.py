"""Constant-product arithmetic: what a buy costs, what a sale returns, how far a sale moves the price; and routing fees.

Pure functions over integers; tokens in smallest units, money in lamports. Roundings go against the trader, as in the
real programs, so no sequence of trades takes value out of a pool by rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

from lasersell_sync.sandbox.markets.currencies import Currency

BPS = 10_000


@dataclass(frozen=True, slots=True)
class FeeSchedule:
    """A market's fees in basis points of the lamports that change hands before fees."""

    lp_bps: int
    protocol_bps: int
    creator_bps: int


@dataclass(frozen=True, slots=True)
class Reserves:
    """What the price is computed from: ``tokens`` and ``lamports`` (virtual ones for a bonding curve)."""

    tokens: int
    lamports: int


@dataclass(frozen=True, slots=True)
class Fill:
    """One trade: ``raw_lamports`` before fees, the fees, and ``total_lamports`` the trader pays or receives."""

    tokens: int
    raw_lamports: int
    lp_fee_lamports: int
    protocol_fee_lamports: int
    creator_fee_lamports: int
    total_lamports: int


def ceil_div(numerator: int, denominator: int) -> int:
    """Integer division rounded up."""
    return -(-numerator // denominator)


def _fill(fees: FeeSchedule, tokens: int, raw_lamports: int, *, sign: int) -> Fill:
    lp = ceil_div(raw_lamports * fees.lp_bps, BPS)
    protocol = ceil_div(raw_lamports * fees.protocol_bps, BPS)
    creator = ceil_div(raw_lamports * fees.creator_bps, BPS)
    if sign < 0 and lp + protocol + creator > raw_lamports:
        # Dust: the rounded-up fees would exceed the sale; the trader gets nothing rather than paying on top.
        lp, protocol, creator = 0, raw_lamports, 0
    return Fill(tokens, raw_lamports, lp, protocol, creator, raw_lamports + sign * (lp + protocol + creator))


def buy_fill(reserves: Reserves, fees: FeeSchedule, tokens: int) -> Fill:
    """What buying exactly ``tokens`` costs. Raises ValueError if the pool has not that many."""
    if not 0 <= tokens < reserves.tokens:
        raise ValueError(f"the pool has {reserves.tokens} tokens, cannot sell {tokens}")
    raw = ceil_div(reserves.lamports * tokens, reserves.tokens - tokens)
    return _fill(fees, tokens, raw, sign=1)


def sell_fill(reserves: Reserves, fees: FeeSchedule, tokens: int) -> Fill:
    """What selling exactly ``tokens`` returns."""
    raw = reserves.lamports * tokens // (reserves.tokens + tokens)
    return _fill(fees, tokens, raw, sign=-1)


def tokens_for_budget(reserves: Reserves, fees: FeeSchedule, budget_lamports: int) -> int:
    """The most tokens whose total cost, fees included, stays within the budget."""
    low, high = 0, reserves.tokens - 1
    while low < high:
        middle = (low + high + 1) // 2
        if buy_fill(reserves, fees, middle).total_lamports <= budget_lamports:
            low = middle
        else:
            high = middle - 1
    return low


def max_sell_tokens(reserves: Reserves, slippage_bps: int) -> int:
    """The most tokens one sale can hold while its price impact stays within ``slippage_bps``.

    A sale of ``t`` into ``T`` tokens of reserve gets the share ``T / (T + t)`` of the spot price, an impact of
    ``t / (T + t)``; solved for ``t``. Fees are not slippage and are left out.
    """
    return reserves.tokens * slippage_bps // (BPS - slippage_bps)


def price_lamports(reserves: Reserves, decimals: int) -> int:
    """Spot price in lamports for one whole token (``10 ** decimals`` smallest units), rounded down."""
    one_token: int = 10**decimals
    return reserves.lamports * one_token // reserves.tokens


def market_cap_lamports(reserves: Reserves, supply: int) -> int:
    """Spot value of ``supply`` smallest units in lamports, rounded down."""
    return reserves.lamports * supply // reserves.tokens


def trade_to_reach(reserves: Reserves, ratio_numerator: int, ratio_denominator: int) -> tuple[str, int]:
    """The trade that moves the spot price by a ratio: (``"buy"`` or ``"sell"``, tokens).

    Price goes with the square of the lamport reserve while the product stays constant.
    """
    wanted = max(1, isqrt(reserves.lamports * reserves.lamports * ratio_numerator // ratio_denominator))
    wanted_tokens = ceil_div(reserves.tokens * reserves.lamports, wanted)
    if wanted >= reserves.lamports:
        return "buy", max(0, reserves.tokens - wanted_tokens)
    return "sell", wanted_tokens - reserves.tokens


@dataclass(frozen=True, slots=True)
class RoutingFee:
    """``bps`` of a trade, and at least ``least_lamports`` of one for SOL; USD1 has no least fee."""

    bps: int
    least_lamports: int

    def of(self, units: int, quote: Currency) -> int:
        """The fee of a trade that moves so many quote units."""
        share = ceil_div(units * self.bps, BPS)
        return max(share, self.least_lamports) if quote.is_native else share

    def budget_without(self, units: int, quote: Currency) -> int:
        """What is left for the market when a purchase may take so many quote units, its fee included; at least 0."""
        left = units * BPS // (BPS + self.bps)
        return max(0, min(left, units - self.of(left, quote)))


#: Of direct trades.
NO_ROUTING_FEE = RoutingFee(0, 0)
