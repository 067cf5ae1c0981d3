"""The two Raydium markets: LaunchLab's bonding curve, and the CPMM pool that its tokens graduate to."""

from __future__ import annotations

from collections.abc import Sequence

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import (
    RAYDIUM_CPMM_PROGRAM,
    RAYDIUM_LAUNCHPAD_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
)
from lasersell_sync.sandbox.chain.anchor import Call
from lasersell_sync.sandbox.chain.instructions import readonly, signer, writable
from lasersell_sync.sandbox.chain.ledger import token_address
from lasersell_sync.sandbox.markets.anchor_venue import AnchorVenue
from lasersell_sync.sandbox.markets.curve_venue import CurveVenue
from lasersell_sync.sandbox.markets.listings import Listing, TradeForm
from lasersell_sync.sandbox.markets.pool_venue import PoolVenue
from lasersell_sync.sandbox.markets.pools import FeeSchedule

_NO_SHARE_FEE = bytes(8)


class RaydiumVenue(AnchorVenue):
    """What the two Raydium programs share."""

    def vaults(self, listing: Listing) -> tuple[Pubkey, Pubkey]:
        """The pool's two vaults."""
        pool = bytes(self.pool(listing))
        base, quote = (self.derived(b"pool_vault", pool, bytes(mint)) for mint in (listing.mint, listing.quote.mint))
        return base, quote

    def market_context(self, listing: Listing, user: Pubkey) -> dict[str, object]:
        """Pool, configurations, and where the user's quote currency is."""
        context = {
            "pool": str(self.pool(listing)),
            **{name: str(address) for name, address in self.configs(listing).items()},
            "quote_mint": str(listing.quote.mint),
            "user_quote_account": str(token_address(user, listing.quote.mint)),
        }
        return {"market_type": self.market_type, self.market_type: context}

    def configs(self, listing: Listing) -> dict[str, Pubkey]:
        """The configurations that the wire names."""
        raise NotImplementedError


class RaydiumLaunchpad(RaydiumVenue, CurveVenue):
    """Raydium LaunchLab: a bonding curve with virtual reserves. Graduates to Raydium CPMM.

    Purchases are ``buy_exact_out`` (tokens, most that may go in), sales ``sell_exact_in`` (tokens, least that must come
    out), each followed by a share-fee rate of 0. Fifteen accounts, in the order of the program's IDL; today's forms
    have the three behind them that the program has asked for since its creator fees, and may spend an exact price
    (``buy_exact_in``). Simplified: one platform, whose fee of 1 % and the protocol's 0.25 % wait in the vault.
    """

    market_type = "raydium_launchpad"
    route_name = "raydium_launchpad"
    program = RAYDIUM_LAUNCHPAD_PROGRAM
    fees = FeeSchedule(lp_bps=0, protocol_bps=25, creator_bps=100)
    graduates_to = "raydium_cpmm"
    buy_call = Call("buy_exact_out", tail=_NO_SHARE_FEE)
    sell_call = Call("sell_exact_in", tail=_NO_SHARE_FEE)
    event_names = ("TradeEvent", "TradeEvent")
    mint_indexes = (9, 9)
    user_index = 0
    halted_code = 6000  # NotApproved
    zero_code = 6003  # InvalidInput
    slippage_code = 6006  # ExceededSlippage
    complete_code = 6005  # PoolFunding

    def _config(self, listing: Listing) -> Pubkey:
        # Constant-product curve, index 0.
        return self.derived(b"global_config", bytes(listing.quote.mint), b"\x00", b"\x00\x00")

    def _platform(self) -> Pubkey:
        # The platform's admin is nobody: this platform exists here alone.
        return self.derived(b"platform_config", bytes(32))

    def pool(self, listing: Listing) -> Pubkey:
        """The pool state."""
        return self.derived(b"pool", bytes(listing.mint), bytes(listing.quote.mint))

    def vault_owner(self, listing: Listing) -> Pubkey:
        """The authority of all vaults."""
        del listing
        return self.derived(b"vault_auth_seed")

    def configs(self, listing: Listing) -> dict[str, Pubkey]:
        """Of the curve and of the platform."""
        return {"config": self._config(listing), "platform": self._platform()}

    def buy_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        """Of ``buy_exact_out``."""
        base_vault, quote_vault = self.vaults(listing)
        return [
            signer(user),
            readonly(self.vault_owner(listing)),
            readonly(self._config(listing)),
            readonly(self._platform()),
            writable(self.pool(listing)),
            writable(token_address(user, listing.mint)),
            writable(token_address(user, listing.quote.mint)),
            writable(base_vault),
            writable(quote_vault),
            readonly(listing.mint),
            readonly(listing.quote.mint),
            readonly(TOKEN_PROGRAM),
            readonly(TOKEN_PROGRAM),
            readonly(self.derived(b"__event_authority")),
            readonly(RAYDIUM_LAUNCHPAD_PROGRAM),
        ]

    def sell_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        """Of ``sell_exact_in``: the same."""
        return self.buy_accounts(listing, user)

    # -- today's forms

    def today_buys(self) -> Sequence[TradeForm]:
        """With the accounts that fees go to; for tokens, or for an exact price."""
        exact_in = Call("buy_exact_in", limit_first=True, tail=_NO_SHARE_FEE)
        return (
            TradeForm(self.buy_call, 9, 0, self._accounts_with_fees),
            TradeForm(exact_in, 9, 0, self._accounts_with_fees, exact_quote=True),
        )

    def today_sells(self) -> Sequence[TradeForm]:
        """With the accounts that fees go to."""
        return (TradeForm(self.sell_call, 9, 0, self._accounts_with_fees),)

    def _accounts_with_fees(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        vaults = (
            self.derived(bytes(owner), bytes(listing.quote.mint)) for owner in (self._platform(), listing.creator)
        )
        return [*self.buy_accounts(listing, user), readonly(SYSTEM_PROGRAM), *map(writable, vaults)]


class RaydiumCpmm(RaydiumVenue, PoolVenue):
    """Raydium CPMM: a constant-product pool of two vaults under one authority for all pools.

    Purchases are ``swap_base_output`` (most that may go in, tokens out), sales ``swap_base_input`` (tokens in, least
    that must come out). Thirteen accounts, in the order of the program's IDL; input and output change places with the
    direction. Simplified: one configuration (index 0) with a fee of 0.25 %, all of which stays in the pool, where the
    real program sets a part of it aside for protocol and fund.
    """

    market_type = "raydium_cpmm"
    route_name = "raydium_cpmm"
    program = RAYDIUM_CPMM_PROGRAM
    fees = FeeSchedule(lp_bps=25, protocol_bps=0, creator_bps=0)
    buy_call = Call("swap_base_output", limit_first=True)
    sell_call = Call("swap_base_input")
    mint_indexes = (11, 10)
    user_index = 0
    halted_code = 6000  # NotApproved
    zero_code = 6006  # ZeroTradingTokens
    slippage_code = 6005  # ExceededSlippage
    empty_code = 6004  # EmptySupply

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

    def configs(self, listing: Listing) -> dict[str, Pubkey]:
        """One for all pools."""
        del listing
        return {"config": self._config()}

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
