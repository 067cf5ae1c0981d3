"""What the network is paid."""

from __future__ import annotations

from collections.abc import Iterator

from lasersell_sync.trading.guard.decoded import Decoded
from lasersell_sync.trading.guard.expected import Expected
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["FEE_RULES"]

_DEFAULT_UNITS = 200_000
_MAX_UNITS = 1_400_000
_MICROLAMPORTS = 1_000_000


@rule("priority_fee", "the priority fee is capped", is_kept_in_report_mode=True)
def _priority_fee(tx: Decoded, _: Expected, limits: Limits) -> Iterator[Offence]:
    prices = tx.by_kind.get("compute_budget.set_compute_unit_price", ())
    unit_limits = tx.by_kind.get("compute_budget.set_compute_unit_limit", ())
    if not prices:
        return
    key = prices[0].program_key
    if len(prices) > 1 or len(unit_limits) > 1:
        yield Offence("it sets a compute budget twice", key)
        return
    units = unit_limits[0].u32(1) if unit_limits else _DEFAULT_UNITS * len(tx.instructions)
    fee = -(-prices[0].u64(1) * min(units, _MAX_UNITS) // _MICROLAMPORTS)
    if fee > limits.max_priority_fee_lamports:
        yield Offence(
            f"the priority fee is {fee} lamports, {limits.max_priority_fee_lamports} at most", key,
            "if that is right: SigningGuard(max_priority_fee_lamports=...)", amount=fee,
        )  # fmt: skip


FEE_RULES = (_priority_fee,)
