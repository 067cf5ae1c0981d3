"""What the two Meteora programs share: their vaults, their swap instructions, and the accounts of those."""

from __future__ import annotations

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import TOKEN_PROGRAM
from lasersell_sync.sandbox.chain.ledger import token_address
from lasersell_sync.sandbox.markets.anchor_venue import AnchorVenue
from lasersell_sync.sandbox.markets.listings import Call, Listing, readonly, signer, writable

__all__ = ["MeteoraVenue"]

#: ``swap2``'s mode
EXACT_OUT = b"\x02"


class MeteoraVenue(AnchorVenue):
    """A pool or curve of two vaults under one authority for all of its program.

    Purchases are ``swap2`` in its exact-out mode (tokens, most that may go in, mode 2), sales ``swap`` (tokens, least
    that must come out). Their accounts stand in the order of the programs' IDLs; the optional referral account is the
    program itself, as Anchor spells "none".
    """

    buy_call = Call("swap2", tail=EXACT_OUT)
    sell_call = Call("swap")
    event_names = ("EvtSwap2", "EvtSwap2")

    def config(self, listing: Listing) -> Pubkey:
        """The configuration that the listing's pool is derived from."""
        raise NotImplementedError

    def pool(self, listing: Listing) -> Pubkey:
        """The pool account; of the two mints the larger comes first."""
        first, second = sorted((bytes(listing.mint), bytes(listing.quote.mint)), reverse=True)
        return self.derived(b"pool", bytes(self.config(listing)), first, second)

    def vault_owner(self, listing: Listing) -> Pubkey:
        """The authority of all vaults."""
        del listing
        return self.derived(b"pool_authority")

    def vaults(self, listing: Listing) -> tuple[Pubkey, Pubkey]:
        """The pool's two vaults."""
        pool = bytes(self.pool(listing))
        base, quote = (self.derived(b"token_vault", bytes(mint), pool) for mint in (listing.mint, listing.quote.mint))
        return base, quote

    def pool_accounts(self, listing: Listing) -> list[AccountMeta]:
        """What a swap names between the authority and the user's accounts."""
        return [writable(self.pool(listing))]

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
            *self.pool_accounts(listing),
            *(writable(token_address(user, mint)) for mint in way),
            writable(base_vault),
            writable(quote_vault),
            readonly(listing.mint),
            readonly(listing.quote.mint),
            signer(user),
            readonly(TOKEN_PROGRAM),
            readonly(TOKEN_PROGRAM),
            readonly(self.program),
            readonly(self.derived(b"__event_authority")),
            readonly(self.program),
        ]
