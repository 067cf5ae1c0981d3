"""Rules about the trade: which instruction, which accounts, the least that it brings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lasersell_sync.trading.guard.decoded import EXCHANGE, OPAQUE, PURCHASE, Decoded, shown
from lasersell_sync.trading.guard.expected import BUY, SELL, Expected
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["PRICE", "PRICE_RULES", "TRADE_RULES"]


# ── What a trade brings at least ────────────────────────────────────────────────────────────────────────────────────


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


# ── What is traded: token, side, amount, cost ───────────────────────────────────────────────────────────────────────


@rule("mint", "it trades the expected token, against SOL or USD1")
def _mint(tx: Decoded, trade: Expected, limits: Limits) -> Iterable[Offence]:
    for swap in tx.trades:
        if swap.token != trade.mint or swap.currency not in limits.known.currencies:
            break
    else:
        if tx.trades:  # and the token is among the accounts, for it is traded
            return ()
    return _wrong_mints(tx, trade, limits)


def _wrong_mints(tx: Decoded, trade: Expected, limits: Limits) -> Iterator[Offence]:
    if not (tx.trades or tx.opaque or any(item.is_trusted for item in tx.unlisted)):
        yield Offence("no instruction of a market is in it: nothing is traded", trade.mint)
    if trade.mint is not None and trade.mint not in tx.keys:
        yield Offence(f"{shown(trade.mint)} is not among its accounts", trade.mint, "pass the signal it came with")
    for swap in tx.trades:
        if trade.mint is not None and swap.token != trade.mint:
            yield Offence(
                f"instruction {swap.instruction.number} trades {shown(swap.token)}, not {shown(trade.mint)}", swap.token
            )
        if swap.currency not in limits.known.currencies:
            remedy = "if you take USDC: SigningGuard(usdc_quotes=True)" if swap.currency == limits.known.usdc else _NO
            yield Offence(
                f"instruction {swap.instruction.number} pays in {shown(swap.currency)}", swap.currency, remedy
            )


@rule("side", "a sale sells and a purchase buys")
def _side(tx: Decoded, trade: Expected, _: Limits) -> Iterable[Offence]:
    if trade.side is None:
        return ()
    found = []
    for swap in tx.trades:
        side = BUY if swap.is_purchase else SELL
        if side != trade.side:
            problem = f"instruction {swap.instruction.number} is a {side}, not a {trade.side}"
            found.append(Offence(problem, swap.got_mint))
    if trade.side == BUY and not tx.swaps and not tx.opaque:
        found.append(Offence("no instruction says what the purchase may cost", trade.mint))
    return found


@rule("amount", "a sale sells no more than was asked for")
def _amount(tx: Decoded, trade: Expected, _: Limits) -> Iterable[Offence]:
    sold = sum(tx.sold.values())
    if trade.max_tokens is None or sold <= trade.max_tokens:
        return ()
    return (Offence(f"it sells {sold} tokens, {trade.max_tokens} at most", trade.mint, amount=sold),)


@rule("spend", "what a purchase can cost is capped", is_kept_in_report_mode=True, kinds=[PURCHASE, EXCHANGE, OPAQUE])
def _spend(tx: Decoded, trade: Expected, limits: Limits) -> Iterator[Offence]:
    if tx.opaque and trade.side == BUY:
        yield from _opaque_spend(trade, limits)
    asked = trade.asked_by_user and trade.side == BUY
    for currency, most in tx.spending.items():
        if not most:
            continue  # all of it is what a hop before it brings
        unit, own_cap = _UNITS[currency], limits.max_buy[currency]
        remedy = f"set what a purchase may cost: SigningGuard(max_buy_{unit}=...)"
        if trade.currency is not None and currency != trade.currency:
            yield Offence(f"it spends {currency}, where {trade.currency} was to be spent", trade.mint)
        if own_cap is None and not asked:
            yield Offence(f"it may spend {most} {unit}, and the guard was given no cap", trade.mint, remedy, most)
        for cap, whose in ((own_cap, "the guard's cap"), (trade.max_spend, "the order with its slippage")):
            if cap is not None and most > cap:
                yield Offence(f"it may spend {most} {unit}, {whose} is {cap}", trade.mint, remedy, most)


def _opaque_spend(trade: Expected, limits: Limits) -> Iterator[Offence]:
    """No instruction says what it costs: the simulation is held against the cap."""
    currency = trade.currency or "SOL"
    if currency not in limits.max_buy:
        yield Offence(f"it would spend {currency}, which the guard does not know", trade.mint)
    elif limits.max_buy[currency] is None and not trade.asked_by_user:
        remedy = f"set what a purchase may cost: SigningGuard(max_buy_{_UNITS[currency]}=...)"
        yield Offence("no instruction says what it may spend, and the guard was given no cap", trade.mint, remedy)


_UNITS = {"SOL": "lamports", "USD1": "usd1_units", "USDC": "usdc_units"}
_NO = "do not sign it: ask for a new one, and tell the service if that is no better"
#: One SOL is 10**9 lamports, and one USD1 10**6 units.
_LAMPORTS_PER_USD1_UNIT = 1_000


@rule("exchange", "SOL is changed into USD1 in a second hop only where the guard was given a rate", kinds=[EXCHANGE])
def _exchange(tx: Decoded, trade: Expected, limits: Limits) -> Iterator[Offence]:
    rate = limits.min_usd1_per_sol
    for swap in tx.swaps:
        if not swap.is_exchange:
            continue
        way = [limits.known.currencies[mint] for mint in (swap.paid_mint, swap.got_mint) if mint is not None]
        what = f"instruction {swap.instruction.number} changes {way[0]} into {way[-1]}"
        if way != ["SOL", "USD1"] or trade.side == BUY:
            yield Offence(what, swap.got_mint)
        elif rate is None:
            remedy = "if that is right: SigningGuard(min_usd1_per_sol=...), the least USD1 for one SOL"
            yield Offence(what, swap.got_mint, remedy)
        elif swap.least_out * _LAMPORTS_PER_USD1_UNIT < swap.most_in * rate:
            yield Offence(
                f"{what}: at least {swap.least_out} units for {swap.most_in} lamports, less than {rate:g} USD1 a SOL",
                swap.got_mint, "ask for a fresh transaction", amount=swap.most_in,
            )  # fmt: skip


@rule("output", "a sale pays the currency that was asked for")
def _output(tx: Decoded, trade: Expected, limits: Limits) -> Iterable[Offence]:
    if trade.output is None or trade.side != SELL or not tx.swaps:
        return ()
    paid = tx.swaps[-1].got_mint
    currency = limits.known.currencies.get(paid) if paid is not None else None
    if currency == trade.output:
        return ()
    return (Offence(f"it pays {currency or shown(paid)}, where {trade.output} was asked for", paid),)


TRADE_RULES = (_mint, _side, _amount, _spend, _exchange, _output)
