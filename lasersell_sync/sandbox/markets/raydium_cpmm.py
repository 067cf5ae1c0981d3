"""Raydium CPMM: a constant-product pool of two vaults under one authority for all pools.

Purchases are ``swap_base_output`` (most that may go in, tokens out), sales ``swap_base_input`` (tokens in, least that
must come out). Thirteen accounts, in the order of the program's IDL; input and output change places with the
direction. Simplified: one configuration (index 0) with a fee of 0.25 %, all of which stays in the pool, where the real
program sets a part of it aside for protocol and fund.
"""

from __future__ import annotations

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import RAYDIUM_CPMM_PROGRAM, TOKEN_PROGRAM
from lasersell_sync.sandbox.chain.ledger import token_address
from lasersell_sync.sandbox.markets.listings import Call, Listing, readonly, signer, writable
from lasersell_sync.sandbox.markets.pool_venue import PoolVenue
from lasersell_sync.sandbox.markets.pools import FeeSchedule

NOT_APPROVED = 6000
EMPTY_SUPPLY = 6004
EXCEEDED_SLIPPAGE = 6005
ZERO_TRADING_TOKENS = 6006


class RaydiumCpmm(PoolVenue):
    """The venue."""

    market_type = "raydium_cpmm"
    route_name = "raydium_cpmm"
    program = RAYDIUM_CPMM_PROGRAM
    fees = FeeSchedule(lp_bps=25, protocol_bps=0, creator_bps=0)
    buy_call = Call("swap_base_output", limit_first=True)
    sell_call = Call("swap_base_input")
    mint_indexes = (11, 10)
    user_index = 0
    halted_code = NOT_APPROVED
    zero_code = ZERO_TRADING_TOKENS
    slippage_code = EXCEEDED_SLIPPAGE
    least_tokens_code = EXCEEDED_SLIPPAGE
    empty_code = EMPTY_SUPPLY

    def _config(self) -> Pubkey:
        return self.derived(b"amm_config", b"\x00\x00")

    def pool(self, listing: Listing) -> Pubkey:
        """The pool state; the two mints stand in the order of their bytes."""
        first, second = sorted((bytes(listing.mint), bytes(listing.quote.mint)))
        return self.derived(b"pool", bytes(self._config()), first, second)

    def vault_owner(self, listing: Listing) -> Pubkey:
        """The authority of all vaults."""
        del listing
        return self.derived(b"vault_and_lp_mint_auth_seed")

    def vaults(self, listing: Listing) -> tuple[Pubkey, Pubkey]:
        """The pool's two vaults."""
        pool = bytes(self.pool(listing))
        base, quote = (self.derived(b"pool_vault", pool, bytes(mint)) for mint in (listing.mint, listing.quote.mint))
        return base, quote

    def market_context(self, listing: Listing, user: Pubkey) -> dict[str, object]:
        """Pool, configuration, and where the user's quote currency is."""
        context = {
            "pool": str(self.pool(listing)),
            "config": str(self._config()),
            "quote_mint": str(listing.quote.mint),
            "user_quote_account": str(token_address(user, listing.quote.mint)),
        }
        return {"market_type": self.market_type, "raydium_cpmm": context}

    def buy_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        """Of ``swap_base_output``: from quote currency to token."""
        return self._accounts(listing, user, (listing.quote.mint, listing.mint), self.vaults(listing)[::-1])

    def sell_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        """Of ``swap_base_input``: from token to quote currency."""
        return self._accounts(listing, user, (listing.mint, listing.quote.mint), self.vaults(listing))

    def _accounts(
        self, listing: Listing, user: Pubkey, mints: tuple[Pubkey, Pubkey], vaults: tuple[Pubkey, Pubkey]
    ) -> list[AccountMeta]:
        return [
            signer(user),
            readonly(self.vault_owner(listing)),
            readonly(self._config()),
            writable(self.pool(listing)),
            *(writable(token_address(user, mint)) for mint in mints),
            *(writable(vault) for vault in vaults),
            readonly(TOKEN_PROGRAM),
            readonly(TOKEN_PROGRAM),
            *(readonly(mint) for mint in mints),
            writable(self.derived(b"observation", bytes(self.pool(listing)))),
        ]
