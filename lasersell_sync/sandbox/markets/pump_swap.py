"""PumpSwap: a constant-product pool of a token against wrapped SOL.

Instruction data: 8 bytes discriminator, then two u64: tokens and the wrapped-SOL limit. Account order as in the
program's current IDL. The reserves are the balances of the pool's two token accounts. Fees: 0.30 %, of which the
liquidity providers' part stays in the pool; the creator's is cashback for the trader of a cashback coin. Simplified:
the fees that the second generation leaves in the pool count as reserves.
"""

from __future__ import annotations

from collections.abc import Sequence

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import (
    ASSOCIATED_TOKEN_PROGRAM,
    PUMP_BUYBACK_FEE_RECIPIENT,
    PUMP_FEES_PROGRAM,
    PUMP_FUN_PROGRAM,
    PUMP_SWAP_FEE_RECIPIENT,
    PUMP_SWAP_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
)
from lasersell_sync.sandbox.chain.anchor import Call, derived_address
from lasersell_sync.sandbox.chain.instructions import readonly, signer, writable
from lasersell_sync.sandbox.chain.ledger import Ledger, token_address
from lasersell_sync.sandbox.chain.runtime import Invocation
from lasersell_sync.sandbox.markets.anchor_venue import open_account
from lasersell_sync.sandbox.markets.listings import Listing, TradeForm
from lasersell_sync.sandbox.markets.pool_venue import PoolVenue
from lasersell_sync.sandbox.markets.pools import FeeSchedule, Fill
from lasersell_sync.sandbox.markets.pump_fun import ask_pump_fees, fee_config

ZERO_BASE_AMOUNT = 6001
TOO_LITTLE_POOL_TOKEN_LIQUIDITY = 6003
EXCEEDED_SLIPPAGE = 6004
DISABLED = 6013
BUY_SLIPPAGE_BELOW_MIN_BASE_AMOUNT_OUT = 6040
CASHBACK_COIN_NOT_SUPPORTED = 6079
#: Behind the numbers of a purchase: whether its volume counts for rewards.
_TRACK_VOLUME = b"\x01"


class PumpSwap(PoolVenue):
    """The venue."""

    market_type = "pump_swap"
    route_name = "pumpswap"
    program = PUMP_SWAP_PROGRAM
    sol_only = True
    has_cashback = True
    fees = FeeSchedule(lp_bps=20, protocol_bps=5, creator_bps=5)
    buy_call = Call("buy")
    sell_call = Call("sell")
    event_names = ("BuyEvent", "SellEvent")
    mint_indexes = (3, 3)
    user_index = 1
    halted_code = DISABLED
    zero_code = ZERO_BASE_AMOUNT
    slippage_code = EXCEEDED_SLIPPAGE
    least_tokens_code = BUY_SLIPPAGE_BELOW_MIN_BASE_AMOUNT_OUT
    cashback_code = CASHBACK_COIN_NOT_SUPPORTED
    empty_code = TOO_LITTLE_POOL_TOKEN_LIQUIDITY

    def pool(self, listing: Listing) -> Pubkey:
        """The pool account; a coin that graduated from Pump.fun has the one that this program opened."""
        mint, opener = bytes(listing.mint), listing.creator
        if listing.graduated:
            opener = derived_address(PUMP_FUN_PROGRAM, b"pool-authority", mint)
        return self.derived(b"pool", b"\x00\x00", bytes(opener), mint, bytes(listing.quote.mint))

    def vault_owner(self, listing: Listing) -> Pubkey:
        """The pool itself."""
        return self.pool(listing)

    def vaults(self, listing: Listing) -> tuple[Pubkey, Pubkey]:
        """The pool's associated accounts."""
        pool = self.pool(listing)
        return token_address(pool, listing.mint), token_address(pool, listing.quote.mint)

    def market_context(self, listing: Listing, user: Pubkey) -> dict[str, object]:
        """Pool and global configuration."""
        del user
        context = {"pool": str(self.pool(listing)), "global_config": str(self.derived(b"global_config"))}
        return {"market_type": self.market_type, "pumpswap": context}

    # -- fees

    def fund(self, ledger: Ledger, listing: Listing, crowd: Pubkey, *, tokens: int, quote: int) -> None:
        """The pool, and the accounts its fees go to."""
        super().fund(ledger, listing, crowd, tokens=tokens, quote=quote)
        for owner in (PUMP_SWAP_FEE_RECIPIENT, self._creator_authority(listing)):
            open_account(ledger, owner, listing.quote.mint, payer=crowd)

    def pay_fees(self, ledger: Ledger, listing: Listing, trader: Pubkey, payer: Pubkey, fill: Fill) -> None:
        """To the protocol, and to the token's creator or as cashback; a second-generation trade keeps both."""
        quote, protocol = listing.quote.mint, token_address(PUMP_SWAP_FEE_RECIPIENT, listing.quote.mint)
        pool_vault = self.vaults(listing)[1]
        if ledger.names(pool_vault) and not ledger.names(protocol):
            if payer != pool_vault:
                ledger.move_tokens(payer, pool_vault, fill.protocol_fee_lamports + fill.creator_fee_lamports)
            return
        ledger.move_tokens(payer, protocol, fill.protocol_fee_lamports)
        cashback, creator = (
            self._cashback_account(trader, quote),
            token_address(self._creator_authority(listing), quote),
        )
        takes_cashback = listing.cashback and ledger.names(cashback) and ledger.token_account(cashback) is not None
        ledger.move_tokens(payer, cashback if takes_cashback else creator, fill.creator_fee_lamports)

    def _volume_account(self, trader: Pubkey) -> Pubkey:
        return self.derived(b"user_volume_accumulator", bytes(trader))

    def cashback_owner(self, listing: Listing, user: Pubkey) -> Pubkey | None:
        """The trader's volume account."""
        return self._volume_account(user) if listing.cashback else None

    def _cashback_account(self, trader: Pubkey, quote: Pubkey) -> Pubkey:
        return token_address(self._volume_account(trader), quote)

    def _creator_authority(self, listing: Listing) -> Pubkey:
        return self.derived(b"creator_vault", bytes(listing.creator))

    def ask_fees(self, invocation: Invocation, listing: Listing, tokens: int) -> None:
        """Its fees come from the fee program."""
        ask_pump_fees(invocation, PUMP_SWAP_PROGRAM, self.reserves(invocation.ledger, listing), tokens)

    # -- accounts

    def _first_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        mints = (listing.mint, listing.quote.mint)
        return [
            writable(self.pool(listing)),
            signer(user),
            readonly(self.derived(b"global_config")),
            *map(readonly, mints),
            *(writable(token_address(user, mint)) for mint in mints),
            *map(writable, self.vaults(listing)),
        ]

    def _common_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        quote = listing.quote.mint
        return [
            *self._first_accounts(listing, user),
            readonly(PUMP_SWAP_FEE_RECIPIENT),
            writable(token_address(PUMP_SWAP_FEE_RECIPIENT, quote)),
            readonly(TOKEN_PROGRAM),
            readonly(TOKEN_PROGRAM),
            readonly(SYSTEM_PROGRAM),
            readonly(ASSOCIATED_TOKEN_PROGRAM),
            readonly(self.derived(b"__event_authority")),
            readonly(PUMP_SWAP_PROGRAM),
            writable(token_address(self._creator_authority(listing), quote)),
            readonly(self._creator_authority(listing)),
        ]

    def _fee_accounts(self) -> list[AccountMeta]:
        return [readonly(fee_config(PUMP_SWAP_PROGRAM)), readonly(PUMP_FEES_PROGRAM)]

    def buy_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        """Of ``buy``."""
        return [
            *self._common_accounts(listing, user),
            writable(self.derived(b"global_volume_accumulator")),
            writable(self._volume_account(user)),
            *self._fee_accounts(),
        ]

    def sell_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        """Of ``sell``."""
        return [*self._common_accounts(listing, user), *self._fee_accounts()]

    # -- today's forms

    def today_buys(self) -> Sequence[TradeForm]:
        """With trailing accounts, and the second generation; for tokens, or for an exact price."""
        quote_in = Call("buy_exact_quote_in", limit_first=True, tail=_TRACK_VOLUME)
        second = Call("buy_exact_quote_in_v2", limit_first=True)
        return (
            TradeForm(Call("buy", tail=_TRACK_VOLUME), 3, 1, self._buy_with_trailing),
            TradeForm(quote_in, 3, 1, self._buy_with_trailing, exact_quote=True),
            TradeForm(Call("buy_v2"), 3, 1, self._v2_accounts, takes_cashback=False),
            TradeForm(second, 3, 1, self._v2_accounts, exact_quote=True, takes_cashback=False),
        )

    def today_sells(self) -> Sequence[TradeForm]:
        """With trailing accounts, and the second generation."""
        return (
            TradeForm(Call("sell"), 3, 1, self._sell_with_trailing),
            TradeForm(Call("sell_v2"), 3, 1, self._v2_accounts, takes_cashback=False),
        )

    def _trailing(self, listing: Listing) -> list[AccountMeta]:
        quote = listing.quote.mint
        return [
            readonly(self.derived(b"pool-v2", bytes(listing.mint))),
            readonly(PUMP_BUYBACK_FEE_RECIPIENT),
            writable(token_address(PUMP_BUYBACK_FEE_RECIPIENT, quote)),
        ]

    def _buy_with_trailing(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        cashback = [writable(self._cashback_account(user, listing.quote.mint))] if listing.cashback else []
        return [*self.buy_accounts(listing, user), *cashback, *self._trailing(listing)]

    def _sell_with_trailing(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        cashback = [self._cashback_account(user, listing.quote.mint), self._volume_account(user)]
        named = [writable(address) for address in cashback] if listing.cashback else []
        return [*self.sell_accounts(listing, user), *named, *self._trailing(listing)]

    def _v2_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        quote = listing.quote.mint
        return [
            *self._first_accounts(listing, user),
            readonly(TOKEN_PROGRAM),
            readonly(TOKEN_PROGRAM),
            readonly(SYSTEM_PROGRAM),
            writable(self._volume_account(user)),
            readonly(fee_config(PUMP_SWAP_PROGRAM)),
            writable(token_address(PUMP_BUYBACK_FEE_RECIPIENT, quote)),
            readonly(self.derived(b"__event_authority")),
            readonly(PUMP_SWAP_PROGRAM),
        ]
