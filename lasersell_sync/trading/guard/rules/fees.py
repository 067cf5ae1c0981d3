"""What the network is paid, and what it lets a transaction use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lasersell_sync.trading.guard.decoded import ComputeBudget, Decoded, Instruction
from lasersell_sync.trading.guard.expected import SELL, Expected
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["FEE_RULES", "NO_BLOCKHASH", "ComputeBudget", "compute_budget", "network_fee_lamports"]

_SIGNATURE_LAMPORTS = 5_000
_DEFAULT_UNITS = 200_000
_MAX_UNITS = 1_400_000
_MICROLAMPORTS = 1_000_000
#: No market trades with less: the cheapest swap takes twice as many.
_LEAST_UNITS = 10_000
#: Every program that a transaction calls counts, and no market's is smaller.
_LEAST_LOADED_BYTES = 65_536
#: Rule and problem.
NO_BLOCKHASH: Final = ("blockhash", "its blockhash is all zeros, so that no block takes it")
_HEAP_BYTES = range(32 * 1024, 256 * 1024 + 1, 1024)
_PERCENT = 100
_BUDGET_PROGRAM = "compute_budget."
_PRICE = f"{_BUDGET_PROGRAM}set_compute_unit_price"
_UNIT_LIMIT = f"{_BUDGET_PROGRAM}set_compute_unit_limit"
_HEAP = f"{_BUDGET_PROGRAM}request_heap_frame"
_LOADED = f"{_BUDGET_PROGRAM}set_loaded_accounts_data_size_limit"


def compute_budget(tx: Decoded) -> ComputeBudget:
    """By the header of version 1, which ignores instructions, or by the instructions of the older versions."""
    if tx.budget is None:  # several rules ask, and a sale waits
        tx.budget = _compute_budget(tx)
    return tx.budget


def _compute_budget(tx: Decoded) -> ComputeBudget:
    if tx.config is not None:
        fee, units, loaded_bytes, heap_bytes = tx.config
        return ComputeBudget(fee or 0, units or 0, heap_bytes, loaded_bytes)
    said = tx.by_kind
    units = said[_UNIT_LIMIT][0].u32(1) if _UNIT_LIMIT in said else None
    fee = 0
    if _PRICE in said:
        paid_units = min(_DEFAULT_UNITS * len(tx.instructions) if units is None else units, _MAX_UNITS)
        fee = -(-said[_PRICE][0].u64(1) * paid_units // _MICROLAMPORTS)
    heap_bytes = said[_HEAP][0].u32(1) if _HEAP in said else None
    loaded_bytes = said[_LOADED][0].u32(1) if _LOADED in said else None
    return ComputeBudget(fee, units, heap_bytes, loaded_bytes)


def _repeated(tx: Decoded) -> Instruction | None:
    """The first of two instructions that set the same limit; a version 1 transaction has none that counts."""
    if tx.config is not None or len(tx.by_kind) == len(tx.instructions):  # which are all of different kinds
        return None
    for kind, items in tx.by_kind.items():
        if len(items) > 1 and kind.startswith(_BUDGET_PROGRAM):
            return items[0]
    return None


def _program(tx: Decoded) -> bytes | None:
    """The Compute Budget program, where an instruction of it sets a limit that counts."""
    if tx.config is not None:
        return None
    said = (items[0].program_key for kind, items in tx.by_kind.items() if kind.startswith(_BUDGET_PROGRAM))
    return next(said, None)


@rule("priority_fee", "the priority fee is capped", is_kept_in_report_mode=True)
def _priority_fee(tx: Decoded, trade: Expected, limits: Limits) -> Iterable[Offence]:
    repeated = _repeated(tx)
    if repeated is not None:
        return (Offence("it sets a compute budget twice", repeated.program_key),)
    fee = compute_budget(tx).priority_fee_lamports
    if fee <= limits.max_priority_fee_lamports:
        return ()
    cap = max(limits.max_priority_fee_lamports, _share_of_proceeds(tx, trade, limits))
    if fee <= cap:
        return ()
    remedy = "if that is right: SigningGuard(max_priority_fee_lamports=...)"
    return (Offence(f"the priority fee is {fee} lamports, {cap} at most", _program(tx), remedy, amount=fee),)


def _share_of_proceeds(tx: Decoded, trade: Expected, limits: Limits) -> int:
    """One percent of what an exit should bring, in lamports; 0 where that is not known, or not SOL."""
    if trade.side != SELL or any(swap.got_mint != limits.known.wrapped_sol for swap in tx.swaps):
        return 0
    sold = sum(swap.most_in for swap in tx.swaps) or trade.max_tokens
    return 0 if sold is None else trade.reference_of(sold) // _PERCENT


@rule("compute_budget", "the limits that it sets let the trade run")
def _limits_of_budget(tx: Decoded, _: Expected, __: Limits) -> Iterable[Offence]:
    budget = compute_budget(tx)
    units, heap_bytes, loaded_bytes = budget.unit_limit, budget.heap_bytes, budget.loaded_bytes
    found = []
    if units is not None and units < _LEAST_UNITS:
        found.append(Offence(f"{units} compute units are too few for any trade", _program(tx)))
    if heap_bytes is not None and heap_bytes not in _HEAP_BYTES:
        found.append(Offence(f"a heap of {heap_bytes} bytes is not one that the network gives", _program(tx)))
    if loaded_bytes is not None and loaded_bytes < _LEAST_LOADED_BYTES:
        found.append(Offence(f"{loaded_bytes} bytes of accounts are too few for any market's program", _program(tx)))
    return found


@rule(NO_BLOCKHASH[0], "a transaction that was built for a known trade names a block")
def _blockhash(tx: Decoded, trade: Expected, _: Limits) -> Iterable[Offence]:
    # Text alone may come from an archive or a simulation, where the blockhash is often left out.
    return () if trade.wallet is None or any(tx.blockhash) else (Offence(NO_BLOCKHASH[1]),)


def network_fee_lamports(tx: Decoded) -> int:
    """What the network takes for a transaction: for each signature, and the priority fee."""
    return _SIGNATURE_LAMPORTS * tx.signers + compute_budget(tx).priority_fee_lamports


FEE_RULES = (_priority_fee, _limits_of_budget, _blockhash)
