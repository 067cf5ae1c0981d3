"""Meteora DBC (dynamic bonding curve). Graduates to Meteora DAMM v2.

Its instructions are meteora.py's, with fifteen accounts. Simplified: the configuration's curve is one constant-product
segment with virtual reserves, where a real one may have many; its fee of 1 % waits in the vault.
"""

from __future__ import annotations

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import METEORA_DBC_PROGRAM
from lasersell_sync.sandbox.markets.curve_venue import CurveVenue
from lasersell_sync.sandbox.markets.listings import Listing, readonly
from lasersell_sync.sandbox.markets.meteora import MeteoraVenue
from lasersell_sync.sandbox.markets.pools import FeeSchedule

EXCEEDED_SLIPPAGE = 6003
AMOUNT_IS_ZERO = 6024
POOL_IS_COMPLETED = 6025
SWAP_DISABLED = 6013


class MeteoraDbc(MeteoraVenue, CurveVenue):
    """The venue."""

    market_type = "meteora_dbc"
    route_name = "meteora_dbc"
    program = METEORA_DBC_PROGRAM
    fees = FeeSchedule(lp_bps=0, protocol_bps=20, creator_bps=80)
    graduates_to = "meteora_damm_v2"
    mint_indexes = (7, 7)
    user_index = 9
    halted_code = SWAP_DISABLED
    zero_code = AMOUNT_IS_ZERO
    slippage_code = EXCEEDED_SLIPPAGE
    least_tokens_code = EXCEEDED_SLIPPAGE
    complete_code = POOL_IS_COMPLETED

    def config(self, listing: Listing) -> Pubkey:
        """One for each quote currency; a real one is a keypair's account."""
        return self.derived(b"sandbox_config", bytes(listing.quote.mint))

    def market_context(self, listing: Listing, user: Pubkey) -> dict[str, object]:
        """Pool, configuration and quote currency."""
        del user
        context = {
            "pool": str(self.pool(listing)),
            "config": str(self.config(listing)),
            "quote_mint": str(listing.quote.mint),
        }
        return {"market_type": self.market_type, "meteora_dbc": context}

    def pool_accounts(self, listing: Listing) -> list[AccountMeta]:
        """Its configuration stands before the pool."""
        return [readonly(self.config(listing)), *super().pool_accounts(listing)]
