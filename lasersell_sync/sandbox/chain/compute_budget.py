"""Compute units: what a transaction may use, what it bids for them, and what each instruction uses.

The rules are those of Solana's compute-budget program: at most one instruction of each kind, and nonsense makes the
whole transaction invalid. What an instruction uses is a fixed number per kind, close to what the real programs use.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import (
    ASSOCIATED_TOKEN_PROGRAM,
    COMPUTE_BUDGET_PROGRAM,
    LASERSELL_ROUTER_PROGRAM,
    PUMP_FEES_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
)
from lasersell_sync.sandbox.chain.anchor import EVENT_TAG
from lasersell_sync.sandbox.chain.instructions import (
    TOKEN_CLOSE_ACCOUNT,
    TOKEN_SYNC_NATIVE,
    TOKEN_TRANSFER,
    TOKEN_TRANSFER_CHECKED,
)
from lasersell_sync.sandbox.chain.transactions import BudgetHeader

DEFAULT_UNITS_PER_INSTRUCTION = 200_000
MAX_UNITS = 1_400_000
#: One price unit is a millionth of a lamport per compute unit.
_MICROLAMPORTS = 1_000_000

_HEAP_FRAME, _UNIT_LIMIT, _UNIT_PRICE, _DATA_LIMIT = 1, 2, 3, 4
_LAYOUTS = {_HEAP_FRAME: "<I", _UNIT_LIMIT: "<I", _UNIT_PRICE: "<Q", _DATA_LIMIT: "<I"}
_HEAP_BYTES = range(32 * 1024, 256 * 1024 + 1, 1024)

#: Programs that are part of the node; the others are compiled and fail in another way when they run out of units.
BUILTIN_PROGRAMS = {SYSTEM_PROGRAM: 150, COMPUTE_BUDGET_PROGRAM: 150}
_TOKEN_UNITS = {
    TOKEN_TRANSFER: 4_645,
    TOKEN_TRANSFER_CHECKED: 6_200,
    TOKEN_SYNC_NATIVE: 3_045,
    TOKEN_CLOSE_ACCOUNT: 2_916,
}
_ASSOCIATED_TOKEN_UNITS = 15_000
_MARKET_UNITS = 40_000
_ROUTER_UNITS = 12_000
_EVENT_UNITS, _FEES_UNITS = 2_000, 3_000


class InvalidBudget(ValueError):
    """The compute-budget instructions contradict the rules; ``err`` is Solana's JSON form of the transaction error."""

    def __init__(self, err: str | dict[str, Any]) -> None:
        super().__init__(str(err))
        self.err = err


@dataclass(frozen=True, slots=True)
class Budget:
    """What a transaction may use, and what it bids."""

    limit_units: int
    #: what it pays on top of the base fee, however much it really uses
    priority_fee_lamports: int


def read_budget(instructions: Sequence[tuple[Pubkey, bytes]], header: BudgetHeader | None = None) -> Budget:
    """The budget that a transaction asks for. Raises ``InvalidBudget``.

    Args:
        instructions: (program, data) of each.
        header: That of version 1, where compute-budget instructions decide nothing; None: the instructions decide.
    """
    if header is not None:
        return _budget_of_header(instructions, header)
    asked: dict[int, int] = {}
    others = 0
    for index, (program, data) in enumerate(instructions):
        if program != COMPUTE_BUDGET_PROGRAM:
            others += 1
            continue
        kind, value = _request(index, data)
        if kind in asked:
            raise InvalidBudget({"DuplicateInstruction": index})
        asked[kind] = value
    if asked.get(_DATA_LIMIT) == 0:
        raise InvalidBudget("InvalidLoadedAccountsDataSizeLimit")
    limit_units = min(MAX_UNITS, asked.get(_UNIT_LIMIT, others * DEFAULT_UNITS_PER_INSTRUCTION))
    return Budget(limit_units, -(-asked.get(_UNIT_PRICE, 0) * limit_units // _MICROLAMPORTS))


def _budget_of_header(instructions: Sequence[tuple[Pubkey, bytes]], header: BudgetHeader) -> Budget:
    if header.loaded_accounts_bytes == 0:
        raise InvalidBudget("InvalidLoadedAccountsDataSizeLimit")
    if header.heap_bytes is not None and header.heap_bytes not in _HEAP_BYTES:
        raise InvalidBudget("SanitizeFailure")
    others = sum(program != COMPUTE_BUDGET_PROGRAM for program, _ in instructions)
    limit_units = others * DEFAULT_UNITS_PER_INSTRUCTION if header.unit_limit is None else header.unit_limit
    return Budget(min(MAX_UNITS, limit_units), header.priority_fee_lamports or 0)


def _request(index: int, data: bytes) -> tuple[int, int]:
    layout = _LAYOUTS.get(data[0]) if data else None
    if layout is None or len(data) < 1 + struct.calcsize(layout):
        raise InvalidBudget({"InstructionError": [index, "InvalidInstructionData"]})
    kind, (value,) = data[0], struct.unpack_from(layout, data, 1)
    if kind == _HEAP_FRAME and value not in _HEAP_BYTES:
        raise InvalidBudget({"InstructionError": [index, "InvalidInstructionData"]})
    return kind, value


def units_used(program: Pubkey, data: bytes) -> int:
    """What one instruction uses."""
    if program in BUILTIN_PROGRAMS:
        return BUILTIN_PROGRAMS[program]
    if program == TOKEN_PROGRAM:
        return _TOKEN_UNITS.get(data[0] if data else -1, 1_000)
    if program == ASSOCIATED_TOKEN_PROGRAM:
        return _ASSOCIATED_TOKEN_UNITS
    if program == LASERSELL_ROUTER_PROGRAM:
        return _ROUTER_UNITS
    if program == PUMP_FEES_PROGRAM:
        return _FEES_UNITS
    return _EVENT_UNITS if data.startswith(EVENT_TAG) else _MARKET_UNITS
