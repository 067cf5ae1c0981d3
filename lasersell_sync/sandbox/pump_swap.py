"""PumpSwap: a constant-product pool of a token against wrapped SOL.

Instruction data: 8 bytes discriminator, then two u64: tokens and the wrapped-SOL limit. Account order as in the
program's current IDL. The reserves are the balances of the pool's two token accounts. Fees: 0.30 %, of which the
liquidity providers' part stays in the pool.
"""

from __future__ import annotations

import struct

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.addresses import (
    ASSOCIATED_TOKEN_PROGRAM,
    PUMP_FEES_PROGRAM,
    PUMP_SWAP_FEE_RECIPIENT,
    PUMP_SWAP_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
    WRAPPED_SOL_MINT,
)
from lasersell_sync.sandbox.instructions import close_token_account, create_token_account, sync_native, transfer
from lasersell_sync.sandbox.ledger import InsufficientFunds, Ledger, token_address
from lasersell_sync.sandbox.listings import Listing, derived_address, discriminator, readonly, signer, writable
from lasersell_sync.sandbox.pools import FeeSchedule, Fill, Reserves, buy_fill, price_lamports, sell_fill
from lasersell_sync.sandbox.runtime import Anchor, Invocation, Swap, check_anchor_accounts, custom

SUPPLY = 1_000_000_000 * 10**6
#: A pool as a graduated token finds it.
START_POOL_TOKENS = 206_900_000 * 10**6
START_POOL_LAMPORTS = 85 * 10**9
#: Wrapped SOL the crowd trades with.
CROWD_LAMPORTS = 100_000 * 10**9

ZERO_BASE_AMOUNT = 6001
TOO_LITTLE_POOL_TOKEN_LIQUIDITY = 6003
EXCEEDED_SLIPPAGE = 6004

_BUY = discriminator("buy")
_SELL = discriminator("sell")
_ARGUMENTS = struct.Struct("<QQ")
_USER_INDEX = 1
_MINT_INDEX = 3


class PumpSwap:
    """The venue. Stateless: a pool's state is its token accounts."""

    market_type = "pump_swap"
    route_name = "pumpswap"
    program = PUMP_SWAP_PROGRAM
    fees = FeeSchedule(lp_bps=20, protocol_bps=5, creator_bps=5)

    def open(self, ledger: Ledger, listing: Listing, crowd: Pubkey) -> None:
        """Genesis: the pool, the fee accounts, and a crowd with tokens and wrapped SOL."""
        ledger.create_mint(listing.mint, decimals=listing.decimals)
        pool = self.pool(listing)
        for owner in (pool, crowd):
            self._open_account(ledger, owner, listing.mint, payer=crowd)
        for owner in (pool, crowd, PUMP_SWAP_FEE_RECIPIENT, self._creator_authority(listing)):
            self._open_account(ledger, owner, WRAPPED_SOL_MINT, payer=crowd)
        ledger.mint_tokens(token_address(pool, listing.mint), START_POOL_TOKENS)
        ledger.mint_tokens(token_address(crowd, listing.mint), SUPPLY - START_POOL_TOKENS)
        for owner, lamports in ((pool, START_POOL_LAMPORTS), (crowd, CROWD_LAMPORTS)):
            ledger.move_lamports(crowd, token_address(owner, WRAPPED_SOL_MINT), lamports)
            ledger.sync_native(token_address(owner, WRAPPED_SOL_MINT))

    def _open_account(self, ledger: Ledger, owner: Pubkey, mint: Pubkey, *, payer: Pubkey) -> None:
        address = token_address(owner, mint)
        if ledger.token_account(address) is None:
            ledger.open_token_account(address, mint=mint, owner=owner, payer=payer)

    def pool(self, listing: Listing) -> Pubkey:
        """The pool account."""
        seeds = (b"pool", b"\x00\x00", bytes(listing.creator), bytes(listing.mint), bytes(WRAPPED_SOL_MINT))
        return derived_address(PUMP_SWAP_PROGRAM, *seeds)

    def pool_token_account(self, listing: Listing) -> Pubkey:
        """The pool's account of the traded token."""
        return token_address(self.pool(listing), listing.mint)

    def _pool_quote_account(self, listing: Listing) -> Pubkey:
        return token_address(self.pool(listing), WRAPPED_SOL_MINT)

    def _creator_authority(self, listing: Listing) -> Pubkey:
        return derived_address(PUMP_SWAP_PROGRAM, b"creator_vault", bytes(listing.creator))

    def _global_config(self) -> Pubkey:
        return derived_address(PUMP_SWAP_PROGRAM, b"global_config")

    def market_context(self, listing: Listing) -> dict[str, object]:
        """Pool and global configuration."""
        context = {"pool": str(self.pool(listing)), "global_config": str(self._global_config())}
        return {"market_type": self.market_type, "pumpswap": context}

    def reserves(self, ledger: Ledger, listing: Listing) -> Reserves:
        """The balances of the pool's two accounts."""
        base = ledger.token_account(self.pool_token_account(listing))
        quote = ledger.token_account(self._pool_quote_account(listing))
        if base is None or quote is None:
            raise custom(Anchor.ACCOUNT_NOT_INITIALIZED)
        return Reserves(base.amount, quote.amount)

    def buyable_tokens(self, ledger: Ledger, listing: Listing) -> int:
        """All but the last token."""
        return self.reserves(ledger, listing).tokens - 1

    # -- instructions

    def buy_instructions(self, listing: Listing, user: Pubkey, tokens: int, max_lamports: int) -> list[Instruction]:
        """Wrap the limit, ``buy``, and unwrap what was not needed."""
        wrapped = token_address(user, WRAPPED_SOL_MINT)
        data = _BUY + _ARGUMENTS.pack(tokens, max_lamports)
        return [
            create_token_account(user, WRAPPED_SOL_MINT),
            transfer(user, wrapped, max_lamports),
            sync_native(wrapped),
            create_token_account(user, listing.mint),
            Instruction(PUMP_SWAP_PROGRAM, data, self._buy_accounts(listing, user)),
            close_token_account(wrapped, user),
        ]

    def sell_instructions(self, listing: Listing, user: Pubkey, tokens: int, min_lamports: int) -> list[Instruction]:
        """``sell`` into a wrapped-SOL account, and unwrap it."""
        data = _SELL + _ARGUMENTS.pack(tokens, min_lamports)
        return [
            create_token_account(user, WRAPPED_SOL_MINT),
            Instruction(PUMP_SWAP_PROGRAM, data, self._sell_accounts(listing, user)),
            close_token_account(token_address(user, WRAPPED_SOL_MINT), user),
        ]

    def _common_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        return [
            writable(self.pool(listing)),
            signer(user),
            readonly(self._global_config()),
            readonly(listing.mint),
            readonly(WRAPPED_SOL_MINT),
            writable(token_address(user, listing.mint)),
            writable(token_address(user, WRAPPED_SOL_MINT)),
            writable(self.pool_token_account(listing)),
            writable(self._pool_quote_account(listing)),
            readonly(PUMP_SWAP_FEE_RECIPIENT),
            writable(token_address(PUMP_SWAP_FEE_RECIPIENT, WRAPPED_SOL_MINT)),
            readonly(TOKEN_PROGRAM),
            readonly(TOKEN_PROGRAM),
            readonly(SYSTEM_PROGRAM),
            readonly(ASSOCIATED_TOKEN_PROGRAM),
            readonly(derived_address(PUMP_SWAP_PROGRAM, b"__event_authority")),
            readonly(PUMP_SWAP_PROGRAM),
            writable(token_address(self._creator_authority(listing), WRAPPED_SOL_MINT)),
            readonly(self._creator_authority(listing)),
        ]

    def _fee_accounts(self) -> list[AccountMeta]:
        fee_config = derived_address(PUMP_FEES_PROGRAM, b"fee_config", bytes(PUMP_SWAP_PROGRAM))
        return [readonly(fee_config), readonly(PUMP_FEES_PROGRAM)]

    def _buy_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        volume = derived_address(PUMP_SWAP_PROGRAM, b"global_volume_accumulator")
        user_volume = derived_address(PUMP_SWAP_PROGRAM, b"user_volume_accumulator", bytes(user))
        accounts = self._common_accounts(listing, user)
        return [*accounts, writable(volume), writable(user_volume), *self._fee_accounts()]

    def _sell_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        return [*self._common_accounts(listing, user), *self._fee_accounts()]

    # -- execution

    def execute(self, invocation: Invocation, listings: dict[Pubkey, Listing]) -> None:
        """Run ``buy`` or ``sell``."""
        tag, body = invocation.data[:8], invocation.data[8:]
        if tag not in (_BUY, _SELL):
            raise custom(Anchor.INSTRUCTION_FALLBACK_NOT_FOUND)
        if len(body) < _ARGUMENTS.size:
            raise custom(Anchor.INSTRUCTION_DID_NOT_DESERIALIZE)
        tokens, limit_lamports = _ARGUMENTS.unpack_from(body)
        if len(invocation.accounts) <= _MINT_INDEX:
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
        """Tokens out, wrapped SOL in."""
        base, quote = self._trader_accounts(ledger, listing, trader)
        if tokens == 0:
            raise custom(ZERO_BASE_AMOUNT)
        reserves = self.reserves(ledger, listing)
        if tokens >= reserves.tokens:
            raise custom(TOO_LITTLE_POOL_TOKEN_LIQUIDITY)
        fill = buy_fill(reserves, self.fees, tokens)
        if fill.total_lamports > max_lamports:
            raise custom(EXCEEDED_SLIPPAGE)
        try:
            ledger.move_tokens(quote, self._pool_quote_account(listing), fill.raw_lamports + fill.lp_fee_lamports)
            self._pay_fees(ledger, listing, quote, fill)
        except InsufficientFunds as error:
            raise custom(1) from error  # the Token program's answer to the transfer inside
        ledger.move_tokens(self.pool_token_account(listing), base, tokens)
        return self._swap(ledger, listing, "buy", trader, fill)

    def sell(self, ledger: Ledger, listing: Listing, trader: Pubkey, tokens: int, min_lamports: int) -> Swap:
        """Tokens in, wrapped SOL out."""
        base, quote = self._trader_accounts(ledger, listing, trader)
        if tokens == 0:
            raise custom(ZERO_BASE_AMOUNT)
        fill = sell_fill(self.reserves(ledger, listing), self.fees, tokens)
        if fill.total_lamports < min_lamports:
            raise custom(EXCEEDED_SLIPPAGE)
        try:
            ledger.move_tokens(base, self.pool_token_account(listing), tokens)
        except InsufficientFunds as error:
            raise custom(1) from error
        pool_quote = self._pool_quote_account(listing)
        ledger.move_tokens(pool_quote, quote, fill.total_lamports)
        self._pay_fees(ledger, listing, pool_quote, fill)
        return self._swap(ledger, listing, "sell", trader, fill)

    def _trader_accounts(self, ledger: Ledger, listing: Listing, trader: Pubkey) -> tuple[Pubkey, Pubkey]:
        accounts = token_address(trader, listing.mint), token_address(trader, WRAPPED_SOL_MINT)
        if any(ledger.token_account(address) is None for address in accounts):
            raise custom(Anchor.ACCOUNT_NOT_INITIALIZED)
        return accounts

    def _pay_fees(self, ledger: Ledger, listing: Listing, payer: Pubkey, fill: Fill) -> None:
        protocol = token_address(PUMP_SWAP_FEE_RECIPIENT, WRAPPED_SOL_MINT)
        creator = token_address(self._creator_authority(listing), WRAPPED_SOL_MINT)
        ledger.move_tokens(payer, protocol, fill.protocol_fee_lamports)
        ledger.move_tokens(payer, creator, fill.creator_fee_lamports)

    def _swap(self, ledger: Ledger, listing: Listing, side: str, trader: Pubkey, fill: Fill) -> Swap:
        price = price_lamports(self.reserves(ledger, listing), listing.decimals)
        account = token_address(trader, listing.mint)
        return Swap(listing.mint, side, trader, account, fill.tokens, fill.total_lamports, price)
