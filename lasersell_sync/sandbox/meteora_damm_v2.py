"""Meteora DAMM v2: a constant-product pool of two vaults under one authority for all pools.

Purchases are ``swap2`` in its exact-out mode (tokens, most that may go in, mode 2), sales ``swap`` (tokens, least that
must come out). Fourteen accounts, in the order of the program's IDL; the optional referral account is the program
itself, as Anchor spells "none". Simplified: one configuration with a full price range, and a fee of 0.25 %, all of
which stays in the pool.
"""

from __future__ import annotations

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.addresses import METEORA_DAMM_V2_PROGRAM, TOKEN_PROGRAM
from lasersell_sync.sandbox.ledger import token_address
from lasersell_sync.sandbox.listings import Call, Listing, readonly, signer, writable
from lasersell_sync.sandbox.pool_venue import PoolVenue
from lasersell_sync.sandbox.pools import FeeSchedule

EXCEEDED_SLIPPAGE = 6003
AMOUNT_IS_ZERO = 6026
INSUFFICIENT_LIQUIDITY = 6030
POOL_DISABLED = 6011
#: ``swap2``'s mode
EXACT_OUT = b"\x02"


class MeteoraDammV2(PoolVenue):
    """The venue."""

    market_type = "meteora_damm_v2"
    route_name = "meteora_damm_v2"
    program = METEORA_DAMM_V2_PROGRAM
    fees = FeeSchedule(lp_bps=25, protocol_bps=0, creator_bps=0)
    buy_call = Call("swap2", tail=EXACT_OUT)
    sell_call = Call("swap")
    mint_indexes = (6, 6)
    user_index = 8
    halted_code = POOL_DISABLED
    zero_code = AMOUNT_IS_ZERO
    slippage_code = EXCEEDED_SLIPPAGE
    empty_code = INSUFFICIENT_LIQUIDITY

    def pool(self, listing: Listing) -> Pubkey:
        """The pool account; of the two mints the larger comes first."""
        config = self.derived(b"config", bytes(8))
        first, second = sorted((bytes(listing.mint), bytes(listing.quote.mint)), reverse=True)
        return self.derived(b"pool", bytes(config), first, second)

    def vault_owner(self, listing: Listing) -> Pubkey:
        """The authority of all vaults."""
        del listing
        return self.derived(b"pool_authority")

    def vaults(self, listing: Listing) -> tuple[Pubkey, Pubkey]:
        """The pool's two vaults."""
        pool = bytes(self.pool(listing))
        base, quote = (self.derived(b"token_vault", bytes(mint), pool) for mint in (listing.mint, listing.quote.mint))
        return base, quote

    def market_context(self, listing: Listing, user: Pubkey) -> dict[str, object]:
        """The pool."""
        del user
        return {"market_type": self.market_type, "meteora_damm_v2": {"pool": str(self.pool(listing))}}

    def buy_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        """Of ``swap2``: from quote currency to token."""
        return self._accounts(listing, user, (listing.quote.mint, listing.mint))

    def sell_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        """Of ``swap``: from token to quote currency."""
        return self._accounts(listing, user, (listing.mint, listing.quote.mint))

    def _accounts(self, listing: Listing, user: Pubkey, way: tuple[Pubkey, Pubkey]) -> list[AccountMeta]:
        base_vault, quote_vault = self.vaults(listing)
        return [
            readonly(self.vault_owner(listing)),
            writable(self.pool(listing)),
            *(writable(token_address(user, mint)) for mint in way),
            writable(base_vault),
            writable(quote_vault),
            readonly(listing.mint),
            readonly(listing.quote.mint),
            signer(user),
            readonly(TOKEN_PROGRAM),
            readonly(TOKEN_PROGRAM),
            readonly(METEORA_DAMM_V2_PROGRAM),
            readonly(self.derived(b"__event_authority")),
            readonly(METEORA_DAMM_V2_PROGRAM),
        ]
