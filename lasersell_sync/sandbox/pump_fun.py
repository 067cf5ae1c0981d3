"""The Pump.fun bonding curve: a market priced by virtual reserves, paid in plain lamports.

Instruction data: 8 bytes discriminator, then two u64: tokens and the lamport limit. Account order as in the program's
current IDL. Fees: 1 %, of which a part goes to the token's creator. Graduates to PumpSwap.
"""

from __future__ import annotations

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.addresses import (
    PUMP_FEES_PROGRAM,
    PUMP_FUN_FEE_RECIPIENT,
    PUMP_FUN_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
)
from lasersell_sync.sandbox.curve_venue import CurveVenue
from lasersell_sync.sandbox.ledger import Ledger, token_address
from lasersell_sync.sandbox.listings import Call, Listing, readonly, signer, writable
from lasersell_sync.sandbox.pools import FeeSchedule, Fill
from lasersell_sync.sandbox.pump_fees import ask_pump_fees, fee_config
from lasersell_sync.sandbox.runtime import Invocation

TOO_MUCH_SOL_REQUIRED = 6002
TOO_LITTLE_SOL_RECEIVED = 6003
BONDING_CURVE_COMPLETE = 6005
BUY_ZERO_AMOUNT = 6020
SELL_ZERO_AMOUNT = 6022
NOT_ENOUGH_TOKENS_TO_SELL = 6023
#: The program cannot be halted for one token; this is its "not authorized".
HALTED = 6000


class PumpFun(CurveVenue):
    """The venue."""

    market_type = "pump_fun"
    route_name = "pumpfun"
    program = PUMP_FUN_PROGRAM
    fees = FeeSchedule(lp_bps=0, protocol_bps=95, creator_bps=5)
    graduates_to = "pump_swap"
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
    short_code = NOT_ENOUGH_TOKENS_TO_SELL

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
        self.take_quote(ledger, listing, trader, fill.raw_lamports)
        self._pay_fees(ledger, listing, trader, fill)

    def pay_sale(self, ledger: Ledger, listing: Listing, trader: Pubkey, fill: Fill) -> None:
        """Everything out of the curve: proceeds to the trader, fees to the protocol and the token's creator."""
        self.give_quote(ledger, listing, trader, fill.total_lamports)
        self._pay_fees(ledger, listing, self.pool(listing), fill)

    def _pay_fees(self, ledger: Ledger, listing: Listing, payer: Pubkey, fill: Fill) -> None:
        ledger.move_lamports(payer, PUMP_FUN_FEE_RECIPIENT, fill.protocol_fee_lamports)
        ledger.move_lamports(payer, self._creator_vault(listing), fill.creator_fee_lamports)

    def ask_fees(self, invocation: Invocation, listing: Listing, tokens: int) -> None:
        """Its fees come from the fee program."""
        ask_pump_fees(invocation, PUMP_FUN_PROGRAM, self.reserves(invocation.ledger, listing), tokens)

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
            writable(self.derived(b"user_volume_accumulator", bytes(user))),
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
