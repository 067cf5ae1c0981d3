"""Meteora DAMM v2: a constant-product pool of two vaults under one authority for all pools.

Its instructions are meteora.py's, with fourteen accounts. Simplified: one configuration with a full price range, and a
fee of 0.25 %, all of which stays in the pool.
"""

from __future__ import annotations

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import METEORA_DAMM_V2_PROGRAM
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.meteora import MeteoraVenue
from lasersell_sync.sandbox.markets.pool_venue import PoolVenue
from lasersell_sync.sandbox.markets.pools import FeeSchedule

EXCEEDED_SLIPPAGE = 6003
AMOUNT_IS_ZERO = 6026
INSUFFICIENT_LIQUIDITY = 6030
POOL_DISABLED = 6011


class MeteoraDammV2(MeteoraVenue, PoolVenue):
    """The venue."""

    market_type = "meteora_damm_v2"
    route_name = "meteora_damm_v2"
    program = METEORA_DAMM_V2_PROGRAM
    fees = FeeSchedule(lp_bps=25, protocol_bps=0, creator_bps=0)
    mint_indexes = (6, 6)
    user_index = 8
    halted_code = POOL_DISABLED
    zero_code = AMOUNT_IS_ZERO
    slippage_code = EXCEEDED_SLIPPAGE
    least_tokens_code = EXCEEDED_SLIPPAGE
    empty_code = INSUFFICIENT_LIQUIDITY

    def config(self, listing: Listing) -> Pubkey:
        """One for all pools."""
        del listing
        return self.derived(b"config", bytes(8))

    def market_context(self, listing: Listing, user: Pubkey) -> dict[str, object]:
        """The pool."""
        del user
        return {"market_type": self.market_type, "meteora_damm_v2": {"pool": str(self.pool(listing))}}
