"""What the network is paid, and what it lets a transaction use."""

from __future__ import annotations

from collections.abc import Iterator
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


def compute_budget(tx: Decoded) -> ComputeBudget:
    """By the header of version 1, which ignores instructions, or by the instructions of the older versions."""
    if tx.budget is None:  # several rules ask, and a sale waits
        tx.budget = _compute_budget(tx)
    return tx.budget


def _compute_budget(tx: Decoded) -> ComputeBudget:
    if tx.config is not None:
        fee, units, loaded_bytes, heap_bytes = tx.config
        return ComputeBudget(None, fee or 0, units or 0, heap_bytes, loaded_bytes)
    price = _only(tx, "set_compute_unit_price")
    limit = _only(tx, "set_compute_unit_limit")
    heap = _only(tx, "request_heap_frame")
    loaded = _only(tx, "set_loaded_accounts_data_size_limit")
    units = None if limit is None else limit.u32(1)
    fee = 0
    if price is not None:
        paid_units = min(_DEFAULT_UNITS * len(tx.instructions) if units is None else units, _MAX_UNITS)
        fee = -(-price.u64(1) * paid_units // _MICROLAMPORTS)
    program = next((item.program_key for item in (price, limit, heap, loaded) if item is not None), None)
    return ComputeBudget(
        program, fee, units, None if heap is None else heap.u32(1), None if loaded is None else loaded.u32(1)
    )


def _only(tx: Decoded, name: str) -> Instruction | None:
    found = tx.by_kind.get(f"compute_budget.{name}")
    return None if found is None else found[0]


@rule("priority_fee", "the priority fee is capped", is_kept_in_report_mode=True)
def _priority_fee(tx: Decoded, trade: Expected, limits: Limits) -> Iterator[Offence]:
    budget = compute_budget(tx)
    if tx.config is None:
        for kind, items in tx.by_kind.items():
            if len(items) > 1 and kind.startswith("compute_budget."):
                yield Offence("it sets a compute budget twice", items[0].program_key)
                return
    if budget.priority_fee_lamports <= limits.max_priority_fee_lamports:
        return
    cap = max(limits.max_priority_fee_lamports, _share_of_proceeds(tx, trade, limits))
    if budget.priority_fee_lamports > cap:
        yield Offence(
            f"the priority fee is {budget.priority_fee_lamports} lamports, {cap} at most", budget.program,
            "if that is right: SigningGuard(max_priority_fee_lamports=...)", amount=budget.priority_fee_lamports,
        )  # fmt: skip


def _share_of_proceeds(tx: Decoded, trade: Expected, limits: Limits) -> int:
    """One percent of what an exit should bring, in lamports; 0 where that is not known, or not SOL."""
    if trade.side != SELL or any(swap.got_mint != limits.known.wrapped_sol for swap in tx.swaps):
        return 0
    sold = sum(swap.most_in for swap in tx.swaps) or trade.max_tokens
    return 0 if sold is None else trade.reference_of(sold) // _PERCENT


@rule("compute_budget", "the limits that it sets let the trade run")
def _limits_of_budget(tx: Decoded, _: Expected, __: Limits) -> Iterator[Offence]:
    budget = compute_budget(tx)
    if budget.unit_limit is not None and budget.unit_limit < _LEAST_UNITS:
        yield Offence(f"{budget.unit_limit} compute units are too few for any trade", budget.program)
    if budget.heap_bytes is not None and budget.heap_bytes not in _HEAP_BYTES:
        yield Offence(f"a heap of {budget.heap_bytes} bytes is not one that the network gives", budget.program)
    if budget.loaded_bytes is not None and budget.loaded_bytes < _LEAST_LOADED_BYTES:
        yield Offence(f"{budget.loaded_bytes} bytes of accounts are too few for any market's program", budget.program)


@rule(NO_BLOCKHASH[0], "a transaction that was built for a known trade names a block")
def _blockhash(tx: Decoded, trade: Expected, _: Limits) -> Iterator[Offence]:
    # Text alone may come from an archive or a simulation, where the blockhash is often left out.
    if trade.wallet is not None and not any(tx.blockhash):
        yield Offence(NO_BLOCKHASH[1])


def network_fee_lamports(tx: Decoded) -> int:
    """What the network takes for a transaction: for each signature, and the priority fee."""
    return _SIGNATURE_LAMPORTS * tx.signers + compute_budget(tx).priority_fee_lamports


FEE_RULES = (_priority_fee, _limits_of_budget, _blockhash)
