"""Meteora DBC (dynamic bonding curve). Graduates to Meteora DAMM v2.

Purchases are ``swap2`` in its exact-out mode (tokens, most that may go in, mode 2), sales ``swap`` (tokens, least that
must come out). Fifteen accounts, in the order of the program's IDL; the optional referral account is the program
itself, as Anchor spells "none". Simplified: the configuration's curve is one constant-product segment with virtual
reserves, where a real one may have many; its fee of 1 % waits in the vault.
"""

from __future__ import annotations

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.addresses import METEORA_DBC_PROGRAM, TOKEN_PROGRAM
from lasersell_sync.sandbox.curve_venue import CurveVenue
from lasersell_sync.sandbox.ledger import token_address
from lasersell_sync.sandbox.listings import Call, Listing, readonly, signer, writable
from lasersell_sync.sandbox.pools import FeeSchedule

EXCEEDED_SLIPPAGE = 6003
AMOUNT_IS_ZERO = 6024
POOL_IS_COMPLETED = 6025
SWAP_DISABLED = 6013
#: ``swap2``'s mode
EXACT_OUT = b"\x02"


class MeteoraDbc(CurveVenue):
    """The venue."""

    market_type = "meteora_dbc"
    route_name = "meteora_dbc"
    program = METEORA_DBC_PROGRAM
    fees = FeeSchedule(lp_bps=0, protocol_bps=20, creator_bps=80)
    graduates_to = "meteora_damm_v2"
    buy_call = Call("swap2", tail=EXACT_OUT)
    sell_call = Call("swap")
    mint_indexes = (7, 7)
    user_index = 9
    halted_code = SWAP_DISABLED
    zero_code = AMOUNT_IS_ZERO
    slippage_code = EXCEEDED_SLIPPAGE
    complete_code = POOL_IS_COMPLETED

    def _config(self, listing: Listing) -> Pubkey:
        # A real configuration is a keypair's account; here there is one for each quote currency.
        return self.derived(b"sandbox_config", bytes(listing.quote.mint))

    def pool(self, listing: Listing) -> Pubkey:
        """The pool account; of the two mints the larger comes first."""
        first, second = sorted((bytes(listing.mint), bytes(listing.quote.mint)), reverse=True)
        return self.derived(b"pool", bytes(self._config(listing)), first, second)

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
        """Pool, configuration and quote currency."""
        del user
        context = {
            "pool": str(self.pool(listing)),
            "config": str(self._config(listing)),
            "quote_mint": str(listing.quote.mint),
        }
        return {"market_type": self.market_type, "meteora_dbc": context}

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
            readonly(self._config(listing)),
            writable(self.pool(listing)),
            *(writable(token_address(user, mint)) for mint in way),
            writable(base_vault),
            writable(quote_vault),
            readonly(listing.mint),
            readonly(listing.quote.mint),
            signer(user),
            readonly(TOKEN_PROGRAM),
            readonly(TOKEN_PROGRAM),
            readonly(METEORA_DBC_PROGRAM),
            readonly(self.derived(b"__event_authority")),
            readonly(METEORA_DBC_PROGRAM),
        ]
