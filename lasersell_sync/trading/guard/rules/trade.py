"""What is traded: token, side, amount, cost."""

from __future__ import annotations

from lasersell_sync.trading.guard.decoded import Decoded, shown
from lasersell_sync.trading.guard.expected import BUY, SELL, Expected
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["TRADE_RULES"]


@rule("mint", "it trades the expected token, against SOL or USD1")
def _mint(tx: Decoded, trade: Expected, limits: Limits) -> Offence | None:
    if not tx.swaps and not any(item.is_trusted for item in tx.unlisted):
        return Offence("no instruction of a market is in it: nothing is traded", trade.mint)
    if trade.mint is not None and trade.mint not in tx.keys:
        return Offence(f"{shown(trade.mint)} is not among its accounts", trade.mint, "pass the signal it came with")
    for swap in tx.swaps:
        token = swap.got_mint if swap.is_purchase else swap.paid_mint
        if trade.mint is not None and token != trade.mint:
            return Offence(
                f"instruction {swap.instruction.number} trades {shown(token)}, not {shown(trade.mint)}", token
            )
        if not swap.is_purchase and swap.got_mint not in limits.known.currencies:
            return Offence(f"instruction {swap.instruction.number} pays in {shown(swap.got_mint)}", swap.got_mint)
    return None


@rule("side", "a sale sells and a purchase buys")
def _side(tx: Decoded, trade: Expected, _: Limits) -> Offence | None:
    if trade.side is None:
        return None
    for swap in tx.swaps:
        side = BUY if swap.is_purchase else SELL
        if side != trade.side:
            return Offence(f"instruction {swap.instruction.number} is a {side}, not a {trade.side}", swap.got_mint)
    if trade.side == BUY and not tx.swaps:
        return Offence("no instruction says what the purchase may cost", trade.mint)
    return None


@rule("amount", "a sale sells no more than was asked for")
def _amount(tx: Decoded, trade: Expected, _: Limits) -> Offence | None:
    if trade.max_tokens is None:
        return None
    sold = 0
    for swap in tx.swaps:
        if not swap.is_purchase:
            sold += swap.most_in
    if sold > trade.max_tokens:
        return Offence(f"it sells {sold} tokens, {trade.max_tokens} at most", trade.mint)
    return None


@rule("spend", "what a purchase can cost is capped")
def _spend(tx: Decoded, trade: Expected, limits: Limits) -> Offence | None:
    for currency, most in tx.spending.items():
        unit, own_cap = _UNITS[currency], limits.max_buy[currency]
        remedy = f"set what a purchase may cost: SigningGuard(max_buy_{unit}=...)"
        if trade.currency is not None and currency != trade.currency:
            return Offence(f"it spends {currency}, where {trade.currency} was to be spent", trade.mint)
        if own_cap is None and not trade.asked_by_user:
            return Offence(f"it may spend {most} {unit}, and the guard was given no cap", trade.mint, remedy)
        for cap, whose in ((own_cap, "the guard's cap"), (trade.max_spend, "the order with its slippage")):
            if cap is not None and most > cap:
                return Offence(f"it may spend {most} {unit}, {whose} is {cap}", trade.mint, remedy)
    return None


_UNITS = {"SOL": "lamports", "USD1": "usd1_units"}


TRADE_RULES = (_mint, _side, _amount, _spend)
