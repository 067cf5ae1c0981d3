"""The Pump.fun bonding curve: a market priced by virtual reserves, paid in plain lamports.

Instruction data: 8 bytes discriminator, then two u64: tokens and the lamport limit. Account order as in the program's
current IDL. Fees: 1 %, of which a part goes to the token's creator.
"""

from __future__ import annotations

import struct

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.addresses import (
    PUMP_FEES_PROGRAM,
    PUMP_FUN_FEE_RECIPIENT,
    PUMP_FUN_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
)
from lasersell_sync.sandbox.instructions import create_token_account
from lasersell_sync.sandbox.ledger import BondingCurve, InsufficientFunds, Ledger, token_address
from lasersell_sync.sandbox.listings import Listing, derived_address, discriminator, readonly, signer, writable
from lasersell_sync.sandbox.pools import FeeSchedule, Fill, Reserves, buy_fill, price_lamports, sell_fill
from lasersell_sync.sandbox.runtime import Anchor, Invocation, Swap, check_anchor_accounts, custom

SUPPLY = 1_000_000_000 * 10**6
#: A fresh curve on mainnet: 1 073 million virtual tokens and 30 virtual SOL; 793.1 million tokens are for sale.
GENESIS_VIRTUAL_TOKENS = 1_073_000_000 * 10**6
GENESIS_VIRTUAL_LAMPORTS = 30 * 10**9
GENESIS_REAL_TOKENS = 793_100_000 * 10**6
#: Where the sandbox's story begins: part of the way up, so that the price has room both ways.
START_VIRTUAL_LAMPORTS = 50 * 10**9

TOO_MUCH_SOL_REQUIRED = 6002
TOO_LITTLE_SOL_RECEIVED = 6003
BONDING_CURVE_COMPLETE = 6005
BUY_ZERO_AMOUNT = 6020
SELL_ZERO_AMOUNT = 6022
NOT_ENOUGH_TOKENS_TO_SELL = 6023

_BUY = discriminator("buy")
_SELL = discriminator("sell")
_ARGUMENTS = struct.Struct("<QQ")
_MINT_INDEX = 2
_USER_INDEX = 6


class PumpFun:
    """The venue. Stateless: a curve's state lives in the ledger."""

    market_type = "pump_fun"
    route_name = "pumpfun"
    program = PUMP_FUN_PROGRAM
    fees = FeeSchedule(lp_bps=0, protocol_bps=95, creator_bps=5)

    def open(self, ledger: Ledger, listing: Listing, crowd: Pubkey) -> None:
        """Genesis: a curve that the crowd has already bought from."""
        ledger.create_mint(listing.mint, decimals=listing.decimals)
        curve = self.pool(listing)
        virtual_tokens = GENESIS_VIRTUAL_TOKENS * GENESIS_VIRTUAL_LAMPORTS // START_VIRTUAL_LAMPORTS
        real_tokens = GENESIS_REAL_TOKENS - (GENESIS_VIRTUAL_TOKENS - virtual_tokens)
        real_lamports = START_VIRTUAL_LAMPORTS - GENESIS_VIRTUAL_LAMPORTS
        for owner in (curve, crowd):
            account = token_address(owner, listing.mint)
            ledger.open_token_account(account, mint=listing.mint, owner=owner, payer=crowd)
        # 206.9 million tokens wait on the curve's account for the graduation pool; they are not for sale.
        on_curve = real_tokens + SUPPLY - GENESIS_REAL_TOKENS
        ledger.mint_tokens(token_address(curve, listing.mint), on_curve)
        ledger.mint_tokens(token_address(crowd, listing.mint), SUPPLY - on_curve)
        ledger.put_curve(curve, BondingCurve(virtual_tokens, START_VIRTUAL_LAMPORTS, real_tokens, real_lamports))
        ledger.move_lamports(crowd, curve, real_lamports)

    def pool(self, listing: Listing) -> Pubkey:
        """The bonding-curve account."""
        return derived_address(PUMP_FUN_PROGRAM, b"bonding-curve", bytes(listing.mint))

    def pool_token_account(self, listing: Listing) -> Pubkey:
        """The curve's own token account."""
        return token_address(self.pool(listing), listing.mint)

    def market_context(self, listing: Listing) -> dict[str, object]:
        """``pumpfun`` has no members."""
        del listing
        return {"market_type": self.market_type, "pumpfun": {}}

    def reserves(self, ledger: Ledger, listing: Listing) -> Reserves:
        """The curve's virtual reserves."""
        curve = self._curve(ledger, listing)
        return Reserves(curve.virtual_tokens, curve.virtual_lamports)

    def buyable_tokens(self, ledger: Ledger, listing: Listing) -> int:
        """What is left for sale."""
        return self._curve(ledger, listing).real_tokens

    def _curve(self, ledger: Ledger, listing: Listing) -> BondingCurve:
        curve = ledger.curve(self.pool(listing))
        if curve is None:
            raise custom(Anchor.ACCOUNT_NOT_INITIALIZED)
        return curve

    # -- instructions

    def buy_instructions(self, listing: Listing, user: Pubkey, tokens: int, max_lamports: int) -> list[Instruction]:
        """Token account, then ``buy``."""
        data = _BUY + _ARGUMENTS.pack(tokens, max_lamports)
        return [
            create_token_account(user, listing.mint),
            Instruction(PUMP_FUN_PROGRAM, data, self._buy_accounts(listing, user)),
        ]

    def sell_instructions(self, listing: Listing, user: Pubkey, tokens: int, min_lamports: int) -> list[Instruction]:
        """``sell``."""
        data = _SELL + _ARGUMENTS.pack(tokens, min_lamports)
        return [Instruction(PUMP_FUN_PROGRAM, data, self._sell_accounts(listing, user))]

    def _common_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        return [
            readonly(derived_address(PUMP_FUN_PROGRAM, b"global")),
            writable(PUMP_FUN_FEE_RECIPIENT),
            readonly(listing.mint),
            writable(self.pool(listing)),
            writable(self.pool_token_account(listing)),
            writable(token_address(user, listing.mint)),
            signer(user),
            readonly(SYSTEM_PROGRAM),
        ]

    def _program_accounts(self) -> list[AccountMeta]:
        event_authority = derived_address(PUMP_FUN_PROGRAM, b"__event_authority")
        return [readonly(event_authority), readonly(PUMP_FUN_PROGRAM)]

    def _fee_accounts(self) -> list[AccountMeta]:
        fee_config = derived_address(PUMP_FEES_PROGRAM, b"fee_config", bytes(PUMP_FUN_PROGRAM))
        return [readonly(fee_config), readonly(PUMP_FEES_PROGRAM)]

    def _creator_vault(self, listing: Listing) -> Pubkey:
        return derived_address(PUMP_FUN_PROGRAM, b"creator-vault", bytes(listing.creator))

    def _buy_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        volume = derived_address(PUMP_FUN_PROGRAM, b"global_volume_accumulator")
        user_volume = derived_address(PUMP_FUN_PROGRAM, b"user_volume_accumulator", bytes(user))
        return [
            *self._common_accounts(listing, user),
            readonly(TOKEN_PROGRAM),
            writable(self._creator_vault(listing)),
            *self._program_accounts(),
            writable(volume),
            writable(user_volume),
            *self._fee_accounts(),
        ]

    def _sell_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        return [
            *self._common_accounts(listing, user),
            writable(self._creator_vault(listing)),
            readonly(TOKEN_PROGRAM),
            *self._program_accounts(),
            *self._fee_accounts(),
        ]

    # -- execution

    def execute(self, invocation: Invocation, listings: dict[Pubkey, Listing]) -> None:
        """Run ``buy`` or ``sell``."""
        tag, body = invocation.data[:8], invocation.data[8:]
        if tag not in (_BUY, _SELL):
            raise custom(Anchor.INSTRUCTION_FALLBACK_NOT_FOUND)
        if len(body) < _ARGUMENTS.size:
            raise custom(Anchor.INSTRUCTION_DID_NOT_DESERIALIZE)
        tokens, limit_lamports = _ARGUMENTS.unpack_from(body)
        if len(invocation.accounts) <= _USER_INDEX:
            raise custom(Anchor.ACCOUNT_NOT_ENOUGH_KEYS)
        listing = listings.get(invocation.accounts[_MINT_INDEX].pubkey)
        if listing is None or listing.market_type != self.market_type:
            raise custom(Anchor.ACCOUNT_NOT_INITIALIZED)
        user = invocation.accounts[_USER_INDEX].pubkey
        wanted = self._buy_accounts(listing, user) if tag == _BUY else self._sell_accounts(listing, user)
        check_anchor_accounts(invocation.accounts, wanted)
        trade = self.buy if tag == _BUY else self.sell
        invocation.swaps.append(trade(invocation.ledger, listing, user, tokens, limit_lamports))

    def buy(self, ledger: Ledger, listing: Listing, trader: Pubkey, tokens: int, max_lamports: int) -> Swap:
        """Take tokens off the curve; a buy larger than what is left gets what is left, as on mainnet."""
        curve = self._curve(ledger, listing)
        account = self._trader_account(ledger, listing, trader)
        if curve.complete:
            raise custom(BONDING_CURVE_COMPLETE)
        tokens = min(tokens, curve.real_tokens)
        if tokens == 0:
            raise custom(BUY_ZERO_AMOUNT)
        fill = buy_fill(Reserves(curve.virtual_tokens, curve.virtual_lamports), self.fees, tokens)
        if fill.total_lamports > max_lamports:
            raise custom(TOO_MUCH_SOL_REQUIRED)
        try:
            ledger.move_lamports(trader, self.pool(listing), fill.raw_lamports)
            self._pay_fees(ledger, listing, trader, fill)
        except InsufficientFunds as error:
            raise custom(1) from error  # the System program's answer to the transfer inside
        ledger.move_tokens(self.pool_token_account(listing), account, tokens)
        after = BondingCurve(
            curve.virtual_tokens - tokens,
            curve.virtual_lamports + fill.raw_lamports,
            curve.real_tokens - tokens,
            curve.real_lamports + fill.raw_lamports,
        )
        ledger.put_curve(self.pool(listing), after)
        return self._swap(ledger, listing, "buy", trader, fill)

    def sell(self, ledger: Ledger, listing: Listing, trader: Pubkey, tokens: int, min_lamports: int) -> Swap:
        """Put tokens back on the curve."""
        curve = self._curve(ledger, listing)
        account = self._trader_account(ledger, listing, trader)
        if curve.complete:
            raise custom(BONDING_CURVE_COMPLETE)
        if tokens == 0:
            raise custom(SELL_ZERO_AMOUNT)
        fill = sell_fill(Reserves(curve.virtual_tokens, curve.virtual_lamports), self.fees, tokens)
        try:
            ledger.move_tokens(account, self.pool_token_account(listing), tokens)
        except InsufficientFunds as error:
            raise custom(NOT_ENOUGH_TOKENS_TO_SELL) from error
        if fill.total_lamports < min_lamports or fill.raw_lamports > curve.real_lamports:
            raise custom(TOO_LITTLE_SOL_RECEIVED)
        ledger.move_lamports(self.pool(listing), trader, fill.raw_lamports)
        self._pay_fees(ledger, listing, trader, fill)
        after = BondingCurve(
            curve.virtual_tokens + tokens,
            curve.virtual_lamports - fill.raw_lamports,
            curve.real_tokens + tokens,
            curve.real_lamports - fill.raw_lamports,
        )
        ledger.put_curve(self.pool(listing), after)
        return self._swap(ledger, listing, "sell", trader, fill)

    def _trader_account(self, ledger: Ledger, listing: Listing, trader: Pubkey) -> Pubkey:
        address = token_address(trader, listing.mint)
        if ledger.token_account(address) is None:
            raise custom(Anchor.ACCOUNT_NOT_INITIALIZED)
        return address

    def _pay_fees(self, ledger: Ledger, listing: Listing, payer: Pubkey, fill: Fill) -> None:
        ledger.move_lamports(payer, PUMP_FUN_FEE_RECIPIENT, fill.protocol_fee_lamports)
        ledger.move_lamports(payer, self._creator_vault(listing), fill.creator_fee_lamports)

    def _swap(self, ledger: Ledger, listing: Listing, side: str, trader: Pubkey, fill: Fill) -> Swap:
        price = price_lamports(self.reserves(ledger, listing), listing.decimals)
        account = token_address(trader, listing.mint)
        return Swap(listing.mint, side, trader, account, fill.tokens, fill.total_lamports, price)
