"""The fee program of the two pump markets, which they call in every trade to learn what they charge."""

from __future__ import annotations

import struct

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import PUMP_FEES_PROGRAM
from lasersell_sync.sandbox.chain.runtime import Anchor, Invocation, custom
from lasersell_sync.sandbox.markets.listings import derived_address, discriminator, readonly
from lasersell_sync.sandbox.markets.pools import Reserves, market_cap_lamports

#: Every token of pump.fun has as many, in smallest units.
_SUPPLY = 1_000_000_000 * 10**6
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
    cap = market_cap_lamports(reserves, _SUPPLY)
    invocation.call(get_fees(program, is_pump_pool=True, market_cap_lamports=cap, trade_lamports=worth))


def execute(invocation: Invocation) -> None:
    """Run one instruction; its caller knows here what it returns. Raises ``ProgramError``."""
    if invocation.data[:8] != discriminator("get_fees"):
        raise custom(Anchor.INSTRUCTION_FALLBACK_NOT_FOUND)
    if len(invocation.data) < 8 + _GET_FEES.size:
        raise custom(Anchor.INSTRUCTION_DID_NOT_DESERIALIZE)
    if invocation.address(0) != fee_config(invocation.address(1)):
        raise custom(Anchor.CONSTRAINT_SEEDS)
