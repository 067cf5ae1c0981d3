"""The two Meteora markets: a dynamic bonding curve (DBC), and the DAMM v2 pool that its tokens graduate to."""

from __future__ import annotations

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import METEORA_DAMM_V2_PROGRAM, METEORA_DBC_PROGRAM, TOKEN_PROGRAM
from lasersell_sync.sandbox.chain.anchor import Call
from lasersell_sync.sandbox.chain.instructions import readonly, signer, writable
from lasersell_sync.sandbox.chain.ledger import token_address
from lasersell_sync.sandbox.markets.anchor_venue import AnchorVenue
from lasersell_sync.sandbox.markets.curve_venue import CurveVenue
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.pool_venue import PoolVenue
from lasersell_sync.sandbox.markets.pools import FeeSchedule

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


class MeteoraDbc(MeteoraVenue, CurveVenue):
    """Meteora DBC (dynamic bonding curve), with fifteen accounts. Graduates to Meteora DAMM v2.

    Simplified: the configuration's curve is one constant-product segment with virtual reserves, where a real one may
    have many; its fee of 1 % waits in the vault.
    """

    market_type = "meteora_dbc"
    route_name = "meteora_dbc"
    program = METEORA_DBC_PROGRAM
    fees = FeeSchedule(lp_bps=0, protocol_bps=20, creator_bps=80)
    graduates_to = "meteora_damm_v2"
    mint_indexes = (7, 7)
    user_index = 9
    halted_code = 6013  # SwapDisabled
    zero_code = 6024  # AmountIsZero
    slippage_code = 6003  # ExceededSlippage
    complete_code = 6025  # PoolIsCompleted

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


class MeteoraDammV2(MeteoraVenue, PoolVenue):
    """Meteora DAMM v2: a constant-product pool of two vaults under one authority for all pools, with fourteen accounts.

    Simplified: one configuration with a full price range, and a fee of 0.25 %, all of which stays in the pool.
    """

    market_type = "meteora_damm_v2"
    route_name = "meteora_damm_v2"
    program = METEORA_DAMM_V2_PROGRAM
    fees = FeeSchedule(lp_bps=25, protocol_bps=0, creator_bps=0)
    mint_indexes = (6, 6)
    user_index = 8
    halted_code = 6011  # PoolDisabled
    zero_code = 6026  # AmountIsZero
    slippage_code = 6003  # ExceededSlippage
    empty_code = 6030  # InsufficientLiquidity

    def config(self, listing: Listing) -> Pubkey:
        """One for all pools."""
        del listing
        return self.derived(b"config", bytes(8))

    def market_context(self, listing: Listing, user: Pubkey) -> dict[str, object]:
        """The pool."""
        del user
        return {"market_type": self.market_type, "meteora_damm_v2": {"pool": str(self.pool(listing))}}
