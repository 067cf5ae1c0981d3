"""The fee program of the two pump markets, which they call in every trade to learn what they charge."""

from __future__ import annotations

import struct

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.addresses import PUMP_FEES_PROGRAM
from lasersell_sync.sandbox.listings import derived_address, discriminator, readonly
from lasersell_sync.sandbox.runtime import Anchor, Invocation, custom

#: whether it is a pool of the pump creator, the market cap and the size of the trade in lamports
_GET_FEES = struct.Struct("<?QQQ")


def fee_config(program: Pubkey) -> Pubkey:
    """Where the fees of a pump program are kept."""
    return derived_address(PUMP_FEES_PROGRAM, b"fee_config", bytes(program))


def get_fees(program: Pubkey, *, is_pump_pool: bool, market_cap_lamports: int, trade_lamports: int) -> Instruction:
    """The question what a trade costs."""
    cap_low, cap_high = market_cap_lamports % 2**64, market_cap_lamports // 2**64
    data = discriminator("get_fees") + _GET_FEES.pack(is_pump_pool, cap_low, cap_high, min(trade_lamports, 2**64 - 1))
    return Instruction(PUMP_FEES_PROGRAM, data, [readonly(fee_config(program)), readonly(program)])


def execute(invocation: Invocation) -> None:
    """Run one instruction; its caller knows here what it returns. Raises ``ProgramError``."""
    if invocation.data[:8] != discriminator("get_fees"):
        raise custom(Anchor.INSTRUCTION_FALLBACK_NOT_FOUND)
    if len(invocation.data) < 8 + _GET_FEES.size:
        raise custom(Anchor.INSTRUCTION_DID_NOT_DESERIALIZE)
    if invocation.address(0) != fee_config(invocation.address(1)):
        raise custom(Anchor.CONSTRAINT_SEEDS)
