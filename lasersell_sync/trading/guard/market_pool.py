"""Where a position trades, by its announcement: program, pool, quote currency."""

from __future__ import annotations

import attrs

from lasersell_sync.messages import MarketContext
from lasersell_sync.trading.guard.addresses import derived_address, from_text

__all__ = ["AnnouncedMarket", "announced_market", "graduated_pool"]

#: The members of ``MarketContext``, by ``market_type`` without underscores: both spellings occur.
_MEMBERS = {
    "pumpfun": ("pump_fun", "pumpfun"),
    "pumpswap": ("pump_swap", "pumpswap"),
    "meteoradbc": ("meteora_dbc", "meteora_dbc"),
    "meteoradammv2": ("meteora_damm_v2", "meteora_damm_v2"),
    "raydiumlaunchpad": ("raydium_launchpad", "raydium_launchpad"),
    "raydiumcpmm": ("raydium_cpmm", "raydium_cpmm"),
}


@attrs.define(eq=False)
class AnnouncedMarket:
    """Where a position trades.

    Attributes:
        program: the market's name, as in ``programs.json``.
        pool: the market's account of this token; None: the announcement does not say.
        quote_mint: what it is traded against; None: the announcement does not say.
    """

    program: str
    pool: bytes | None
    quote_mint: bytes | None


def announced_market(context: MarketContext | None) -> AnnouncedMarket | None:
    """What the wire's ``market_context`` says; None for a market that nobody knows.

    Raises:
        ValueError: a pool or mint that is not an address.
    """
    names = None if context is None else _MEMBERS.get(context.market_type.replace("_", ""))
    if names is None:
        return None
    program, member = names
    facts = getattr(context, member)
    pool, quote = getattr(facts, "pool", None), getattr(facts, "quote_mint", None)
    return AnnouncedMarket(
        program, None if pool is None else from_text(pool), None if quote is None else from_text(quote)
    )


def graduated_pool(pump_fun: bytes, pump_swap: bytes, mint: bytes, quote_mint: bytes) -> bytes:
    """The PumpSwap pool to which Pump.fun itself moves a coin: nobody else can open one at this address.

    Args:
        pump_fun: the program's address.
        pump_swap: the program's address.
        mint: the coin.
        quote_mint: what it is traded against.
    """
    opener = derived_address(pump_fun, b"pool-authority", mint)
    return derived_address(pump_swap, b"pool", b"\0\0", opener, mint, quote_mint)
