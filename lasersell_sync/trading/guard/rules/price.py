"""What a trade brings at least."""

from __future__ import annotations

from collections.abc import Iterator

from lasersell_sync.trading.guard.decoded import Decoded
from lasersell_sync.trading.guard.expected import Expected
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["PRICE", "PRICE_RULES"]

#: A broken floor is not final: the next transaction may have another price.
PRICE = "price"
_AGAIN = "ask for a fresh transaction; if this price is meant: SigningGuard(max_slippage_bps=...)"


@rule(PRICE, "the least that is accepted is more than nothing, and no less than the known price minus slippage")
def _price(tx: Decoded, trade: Expected, limits: Limits) -> Iterator[Offence]:
    if trade.wallet is None:
        return  # text alone: nobody said what it is for, and people do sell for whatever they get
    sold, least_out = 0, 0
    for swap in tx.swaps:
        if swap.least_out <= 0:
            yield Offence(f"instruction {swap.instruction.number} accepts nothing in return", trade.mint, amount=0)
        if not swap.is_purchase:
            sold += swap.most_in
            least_out += swap.least_out
    if not sold or trade.reference_units is None:
        return
    floor = trade.least_proceeds(sold, limits.max_slippage_bps)
    if least_out < floor:
        yield Offence(
            f"it sells {sold} tokens for at least {least_out} units, {floor} is the floor", trade.mint, _AGAIN,
            amount=floor - least_out,
        )  # fmt: skip


PRICE_RULES = (_price,)
