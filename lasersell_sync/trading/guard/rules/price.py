"""What a trade brings at least."""

from __future__ import annotations

from collections.abc import Iterable

from lasersell_sync.trading.guard.decoded import Decoded
from lasersell_sync.trading.guard.expected import Expected
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["PRICE", "PRICE_RULES"]

#: A broken floor is not final: the next transaction may have another price.
PRICE = "price"
_AGAIN = "ask for a fresh transaction; if this price is meant: SigningGuard(max_slippage_bps=...)"


@rule(PRICE, "the least that is accepted is more than nothing, and no less than the known price minus slippage")
def _price(tx: Decoded, trade: Expected, limits: Limits) -> Iterable[Offence]:
    if trade.wallet is None:
        return ()  # text alone: nobody said what it is for, and people do sell for whatever they get
    found = []
    for swap in tx.swaps:
        if swap.least_out <= 0:
            problem = f"instruction {swap.instruction.number} accepts nothing in return"
            found.append(Offence(problem, trade.mint, amount=0))
    if trade.reference_units is not None:
        found += _below_floor(tx, trade, limits)
    return found


def _below_floor(tx: Decoded, trade: Expected, limits: Limits) -> Iterable[Offence]:
    sold, least_out = sum(tx.sold.values()), sum(swap.least_out for swap in tx.swaps if not swap.is_purchase)
    floor = trade.least_proceeds(sold, limits.max_slippage_bps)
    if not sold or least_out >= floor:
        return ()
    problem = f"it sells {sold} tokens for at least {least_out} units, {floor} is the floor"
    return (Offence(problem, trade.mint, _AGAIN, amount=floor - least_out),)


PRICE_RULES = (_price,)
