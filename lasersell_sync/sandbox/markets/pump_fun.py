"""The Pump.fun bonding curve: a market priced by virtual reserves, paid in plain lamports.

Instruction data: 8 bytes discriminator, then two u64: tokens and the lamport limit. Account order as in the program's
current IDL. Today's forms have two accounts behind the IDL's own, or spend an exact price, or are of the second
generation, which names the accounts of the quote currency, though a coin paired with SOL still moves lamports, or of
the third, whose 17 accounts leave fees on the curve. Fees: 1 %, of which a part goes to the token's creator, or as
cashback to the trader's volume account. Graduates to PumpSwap. The fee program, which both pump markets call in every
trade to learn what they charge, is here too.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import (
    ASSOCIATED_TOKEN_PROGRAM,
    PUMP_BUYBACK_FEE_RECIPIENT,
    PUMP_FEES_PROGRAM,
    PUMP_FUN_FEE_RECIPIENT,
    PUMP_FUN_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
)
from lasersell_sync.sandbox.chain.anchor import Anchor, Call, derived_address, discriminator
from lasersell_sync.sandbox.chain.instructions import create_account, readonly, signer, writable
from lasersell_sync.sandbox.chain.ledger import Ledger, token_address
from lasersell_sync.sandbox.chain.runtime import Invocation, custom
from lasersell_sync.sandbox.markets.curve_venue import CurveVenue
from lasersell_sync.sandbox.markets.listings import SUPPLY, Listing, TradeForm
from lasersell_sync.sandbox.markets.pools import FeeSchedule, Fill, Reserves, market_cap_lamports

TOO_MUCH_SOL_REQUIRED = 6002
TOO_LITTLE_SOL_RECEIVED = 6003
BONDING_CURVE_COMPLETE = 6005
BUY_ZERO_AMOUNT = 6020
SELL_ZERO_AMOUNT = 6022
NOT_ENOUGH_TOKENS_TO_SELL = 6023
BUY_SLIPPAGE_BELOW_MIN_TOKENS_OUT = 6042
CASHBACK_COIN_NOT_SUPPORTED = 6094
#: The program cannot be halted for one token; this is its "not authorized".
HALTED = 6000
#: Behind the numbers of a purchase: whether its volume counts for rewards.
_TRACK_VOLUME = b"\x01"
_VOLUME_ACCOUNT_BYTES = 137


class PumpFun(CurveVenue):
    """The venue."""

    market_type = "pump_fun"
    route_name = "pumpfun"
    program = PUMP_FUN_PROGRAM
    fees = FeeSchedule(lp_bps=0, protocol_bps=95, creator_bps=5)
    graduates_to = "pump_swap"
    pool_follows_from_token = True
    sol_only = True
    has_cashback = True
    buy_call = Call("buy")
    sell_call = Call("sell")
    event_names = ("TradeEvent", "TradeEvent")
    mint_indexes = (2, 2)
    user_index = 6
    halted_code = HALTED
    zero_code = BUY_ZERO_AMOUNT
    sell_zero_code = SELL_ZERO_AMOUNT
    slippage_code = TOO_MUCH_SOL_REQUIRED
    sell_slippage_code = TOO_LITTLE_SOL_RECEIVED
    complete_code = BONDING_CURVE_COMPLETE
    least_tokens_code = BUY_SLIPPAGE_BELOW_MIN_TOKENS_OUT
    short_code = NOT_ENOUGH_TOKENS_TO_SELL
    cashback_code = CASHBACK_COIN_NOT_SUPPORTED

    def pool(self, listing: Listing) -> Pubkey:
        """The bonding-curve account."""
        return self.derived(b"bonding-curve", bytes(listing.mint))

    def vault_owner(self, listing: Listing) -> Pubkey:
        """The curve itself."""
        return self.pool(listing)

    def vaults(self, listing: Listing) -> tuple[Pubkey, Pubkey]:
        """The curve's token account; its lamports are on the curve account."""
        return token_address(self.pool(listing), listing.mint), self.pool(listing)

    def market_context(self, listing: Listing, user: Pubkey) -> dict[str, object]:
        """``pumpfun`` has no members."""
        del listing, user
        return {"market_type": self.market_type, "pumpfun": {}}

    # -- plain lamports

    def spends_tokens(self, listing: Listing) -> bool:
        """No: lamports."""
        del listing
        return False

    def open_purse(self, ledger: Ledger, listing: Listing, payer: Pubkey) -> None:
        """Nothing to open."""

    def take_quote(self, ledger: Ledger, listing: Listing, trader: Pubkey, amount: int) -> None:
        """Lamports to the curve."""
        ledger.move_lamports(trader, self.pool(listing), amount)

    def give_quote(self, ledger: Ledger, listing: Listing, trader: Pubkey, amount: int) -> None:
        """Lamports from the curve."""
        ledger.move_lamports(self.pool(listing), trader, amount)

    def pay_buy(self, ledger: Ledger, listing: Listing, trader: Pubkey, fill: Fill) -> None:
        """The price to the curve, the fees to the protocol and the token's creator."""
        if ledger.names(self.pool(listing)) and not ledger.names(PUMP_FUN_FEE_RECIPIENT):
            self.take_quote(ledger, listing, trader, fill.total_lamports)  # the third generation leaves fees there
            return
        self.take_quote(ledger, listing, trader, fill.raw_lamports)
        self._pay_fees(ledger, listing, trader, trader, fill)

    def pay_sale(self, ledger: Ledger, listing: Listing, trader: Pubkey, fill: Fill) -> None:
        """Everything out of the curve: proceeds to the trader, fees to the protocol and the token's creator."""
        self.give_quote(ledger, listing, trader, fill.total_lamports)
        if not ledger.names(self.pool(listing)) or ledger.names(PUMP_FUN_FEE_RECIPIENT):
            self._pay_fees(ledger, listing, self.pool(listing), trader, fill)

    def _pay_fees(self, ledger: Ledger, listing: Listing, payer: Pubkey, trader: Pubkey, fill: Fill) -> None:
        ledger.move_lamports(payer, PUMP_FUN_FEE_RECIPIENT, fill.protocol_fee_lamports)
        volume, creator = self._volume_account(trader), self._creator_vault(listing)
        # A sale that does not name the volume account leaves its cashback to the creator.
        fee_target = volume if listing.cashback and ledger.names(volume) else creator
        ledger.move_lamports(payer, fee_target, fill.creator_fee_lamports)

    def _volume_account(self, trader: Pubkey) -> Pubkey:
        return self.derived(b"user_volume_accumulator", bytes(trader))

    def ask_fees(self, invocation: Invocation, listing: Listing, tokens: int) -> None:
        """Its fees come from the fee program; and a wallet's first trade opens the account that counts its volume."""
        if listing.today:
            self._open_volume_account(invocation)
        ask_pump_fees(invocation, PUMP_FUN_PROGRAM, self.reserves(invocation.ledger, listing), tokens)

    def _open_volume_account(self, invocation: Invocation) -> None:
        payer = next(meta.pubkey for meta in invocation.accounts if meta.is_signer)
        address, ledger = self._volume_account(payer), invocation.ledger
        named = any(meta.pubkey == address for meta in invocation.accounts)
        if named and ledger.allocated(address) is None:
            rent_lamports = ledger.rent_lamports(_VOLUME_ACCOUNT_BYTES)
            create = create_account(payer, address, rent_lamports, space=_VOLUME_ACCOUNT_BYTES, owner=PUMP_FUN_PROGRAM)
            invocation.call(create, signed_for=[address])

    # -- accounts

    def _common_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        return [
            readonly(self.derived(b"global")),
            writable(PUMP_FUN_FEE_RECIPIENT),
            readonly(listing.mint),
            writable(self.pool(listing)),
            writable(self.pool_token_account(listing)),
            writable(token_address(user, listing.mint)),
            signer(user),
            readonly(SYSTEM_PROGRAM),
        ]

    def _program_accounts(self) -> list[AccountMeta]:
        return [readonly(self.derived(b"__event_authority")), readonly(PUMP_FUN_PROGRAM)]

    def _fee_accounts(self) -> list[AccountMeta]:
        return [readonly(fee_config(PUMP_FUN_PROGRAM)), readonly(PUMP_FEES_PROGRAM)]

    def _creator_vault(self, listing: Listing) -> Pubkey:
        return self.derived(b"creator-vault", bytes(listing.creator))

    def buy_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        """Of ``buy``."""
        return [
            *self._common_accounts(listing, user),
            readonly(TOKEN_PROGRAM),
            writable(self._creator_vault(listing)),
            *self._program_accounts(),
            writable(self.derived(b"global_volume_accumulator")),
            writable(self._volume_account(user)),
            *self._fee_accounts(),
        ]

    def sell_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        """Of ``sell``."""
        return [
            *self._common_accounts(listing, user),
            writable(self._creator_vault(listing)),
            readonly(TOKEN_PROGRAM),
            *self._program_accounts(),
            *self._fee_accounts(),
        ]

    # -- today's forms

    def today_buys(self) -> Sequence[TradeForm]:
        """With trailing accounts, and the second and third generation; for tokens, or for an exact price."""
        buy, sol_in = Call("buy", tail=_TRACK_VOLUME), Call("buy_exact_sol_in", limit_first=True, tail=_TRACK_VOLUME)
        quote_in, third = (Call(f"buy_exact_quote_in_v{number}", limit_first=True) for number in (2, 3))
        return (
            TradeForm(buy, 2, 6, self._buy_with_trailing),
            TradeForm(sol_in, 2, 6, self._buy_with_trailing, exact_quote=True),
            TradeForm(Call("buy_v2"), 1, 13, self._buy_v2_accounts),
            TradeForm(quote_in, 1, 13, self._buy_v2_accounts, exact_quote=True),
            TradeForm(Call("buy_v3"), 1, 8, self._v3_accounts, takes_cashback=False),
            TradeForm(third, 1, 8, self._v3_accounts, exact_quote=True, takes_cashback=False),
        )

    def today_sells(self) -> Sequence[TradeForm]:
        """With trailing accounts, and the second and third generation."""
        return (
            TradeForm(Call("sell"), 2, 6, self._sell_with_trailing),
            TradeForm(Call("sell_v2"), 1, 13, self._sell_v2_accounts),
            TradeForm(Call("sell_v3"), 1, 8, self._v3_accounts, takes_cashback=False),
        )

    def _trailing(self, listing: Listing) -> list[AccountMeta]:
        second = self.derived(b"bonding-curve-v2", bytes(listing.mint))
        return [readonly(second), writable(PUMP_BUYBACK_FEE_RECIPIENT)]

    def _buy_with_trailing(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        return [*self.buy_accounts(listing, user), *self._trailing(listing)]

    def _sell_with_trailing(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        cashback = [writable(self._volume_account(user))] if listing.cashback else []
        return [*self.sell_accounts(listing, user), *cashback, *self._trailing(listing)]

    def _buy_v2_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        return self._v2_accounts(listing, user, [readonly(self.derived(b"global_volume_accumulator"))])

    def _sell_v2_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        return self._v2_accounts(listing, user, [])

    def _v2_accounts(self, listing: Listing, user: Pubkey, volume: list[AccountMeta]) -> list[AccountMeta]:
        quote, curve, creator = listing.quote.mint, self.pool(listing), self._creator_vault(listing)
        traded = self._volume_account(user)
        sharing = derived_address(PUMP_FEES_PROGRAM, b"sharing-config", bytes(listing.mint))
        return [
            readonly(self.derived(b"global")),
            readonly(listing.mint),
            readonly(quote),
            readonly(TOKEN_PROGRAM),
            readonly(TOKEN_PROGRAM),
            readonly(ASSOCIATED_TOKEN_PROGRAM),
            writable(PUMP_FUN_FEE_RECIPIENT),
            writable(token_address(PUMP_FUN_FEE_RECIPIENT, quote)),
            writable(PUMP_BUYBACK_FEE_RECIPIENT),
            writable(token_address(PUMP_BUYBACK_FEE_RECIPIENT, quote)),
            writable(curve),
            writable(self.pool_token_account(listing)),
            writable(token_address(curve, quote)),
            signer(user),
            writable(token_address(user, listing.mint)),
            writable(token_address(user, quote)),
            writable(creator),
            writable(token_address(creator, quote)),
            readonly(sharing),
            *volume,
            writable(traded),
            writable(token_address(traded, quote)),
            *self._fee_accounts(),
            readonly(SYSTEM_PROGRAM),
            *self._program_accounts(),
        ]

    def _v3_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        quote, curve = listing.quote.mint, self.pool(listing)
        return [
            readonly(self.derived(b"global")),
            readonly(listing.mint),
            readonly(quote),
            readonly(TOKEN_PROGRAM),
            readonly(TOKEN_PROGRAM),
            writable(curve),
            writable(self.pool_token_account(listing)),
            writable(token_address(curve, quote)),
            signer(user),
            writable(token_address(user, listing.mint)),
            writable(token_address(user, quote)),
            writable(self._volume_account(user)),
            readonly(fee_config(PUMP_FUN_PROGRAM)),
            writable(PUMP_BUYBACK_FEE_RECIPIENT),
            readonly(SYSTEM_PROGRAM),
            *self._program_accounts(),
        ]


#: whether it is a pool of the pump creator, the market cap (u128) and the size of the trade in lamports
_GET_FEES = struct.Struct("<?QQQ")


def fee_config(program: Pubkey) -> Pubkey:
    """Where the fees of a pump program are kept."""
    return derived_address(PUMP_FEES_PROGRAM, b"fee_config", bytes(program))


def get_fees(program: Pubkey, *, is_pump_pool: bool, market_cap_lamports: int, trade_lamports: int) -> Instruction:
    """The question what a trade costs."""
    cap_low, cap_high = market_cap_lamports % 2**64, market_cap_lamports // 2**64
    data = discriminator("get_fees") + _GET_FEES.pack(is_pump_pool, cap_low, cap_high, min(trade_lamports, 2**64 - 1))
    return Instruction(PUMP_FEES_PROGRAM, data, [readonly(fee_config(program)), readonly(program)])


def ask_pump_fees(invocation: Invocation, program: Pubkey, reserves: Reserves, tokens: int) -> None:
    """Let a pump program that is at work ask what its trade of so many tokens costs. Raises ``ProgramError``.

    The smaller instructions do not name the fee program: they read its configuration themselves.
    """
    if not any(meta.pubkey == PUMP_FEES_PROGRAM for meta in invocation.accounts):
        return
    worth = reserves.lamports * tokens // reserves.tokens
    cap = market_cap_lamports(reserves, SUPPLY)
    invocation.call(get_fees(program, is_pump_pool=True, market_cap_lamports=cap, trade_lamports=worth))


def execute_pump_fees(invocation: Invocation) -> None:
    """Run one instruction; its caller knows here what it returns. Raises ``ProgramError``."""
    if invocation.data[:8] != discriminator("get_fees"):
        raise custom(Anchor.INSTRUCTION_FALLBACK_NOT_FOUND)
    if len(invocation.data) < 8 + _GET_FEES.size:
        raise custom(Anchor.INSTRUCTION_DID_NOT_DESERIALIZE)
    if invocation.address(0) != fee_config(invocation.address(1)):
        raise custom(Anchor.CONSTRAINT_SEEDS)
