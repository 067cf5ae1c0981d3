"""Whether a trade is about a position that is known, and on the market where it is known to trade."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from lasersell_sync.messages import PositionOpened
from lasersell_sync.trading.guard.addresses import AnnouncedMarket, from_text, graduated_pool
from lasersell_sync.trading.guard.decoded import Decoded, Swap, shown
from lasersell_sync.trading.guard.expected import SELL, Expected
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["ANNOUNCED", "IDENTITY_RULES"]

ANNOUNCED: Final = "announced"
_ALLOW_ONCE = "if you mean to sell it: seller.allow_once(key)"


@rule(ANNOUNCED, "the position is one that the session or the journal knows")
def _announced(_: Decoded, trade: Expected, __: Limits) -> Iterable[Offence]:
    opened = trade.context.announcement
    if opened is not None:
        return _differences(trade, opened)
    if trade.context.is_announced is not False:
        return ()
    problem = f"no link of this session announced a position of {shown(trade.mint)}, nor does the journal have it"
    return (Offence(problem, trade.mint, f"{_ALLOW_ONCE}, or AutoSeller(sell_unannounced=True)"),)


def _differences(trade: Expected, opened: PositionOpened) -> Iterator[Offence]:
    for name, announced, traded in (
        ("wallet", opened.wallet_pubkey, trade.wallet),
        ("mint", opened.mint, trade.mint),
        ("token account", opened.token_account, trade.token_account),
    ):
        if traded is not None and traded != from_text(announced):
            yield Offence(f"its {name} is {shown(traded)}, and the announcement's is {announced}", traded)


@rule("never_sell", "it does not sell what is never to be sold")
def _never_sell(tx: Decoded, trade: Expected, limits: Limits) -> Iterable[Offence]:
    listed = limits.never_sell if trade.context.never_sell is None else trade.context.never_sell
    if trade.mint not in listed and listed.isdisjoint(tx.sold):
        return ()
    sold = {trade.mint: 0, **tx.sold} if trade.side == SELL else tx.sold
    return [_unsellable(mint) for mint in sold if mint in listed]


def _unsellable(mint: bytes | None) -> Offence:
    remedy = f"{_ALLOW_ONCE}; to sell it always: never_sell=[...] without it"
    return Offence(f"it sells {shown(mint)}, which is never to be sold", mint, remedy)


@rule("pool", "it trades in the pool that was announced, or in the PumpSwap pool of a graduated coin")
def _pool(tx: Decoded, trade: Expected, limits: Limits) -> Iterable[Offence]:
    market = trade.market
    if market is None:
        return ()
    found = [_elsewhere(swap, market) for swap in tx.swaps if not _is_in_market(swap, market, limits)]
    if not tx.swaps and market.pool is not None and market.pool not in tx.keys:
        problem = f"the announced pool {shown(market.pool)} is not among its accounts"
        found.append(Offence(problem, market.pool, _ALLOW_ONCE))
    return found


def _elsewhere(swap: Swap, market: AnnouncedMarket) -> Offence:
    announced = market.program if market.pool is None else f"{market.program} {shown(market.pool)}"
    problem = f"instruction {swap.instruction.number} trades in {_place(swap)}, and the position was announced in "
    return Offence(problem + announced, swap.pool or swap.instruction.program_key, _ALLOW_ONCE)


def _is_in_market(swap: Swap, market: AnnouncedMarket, limits: Limits) -> bool:
    program = swap.instruction.program
    assert program is not None  # a swap is read by its program's list
    if swap.calls_market:
        return market.pool is None or market.pool in (swap.pool, *swap.instruction.accounts)
    if swap.token in limits.known.currencies:
        return True  # a second hop, from currency to currency: the position is in the first one
    if program.name != market.program:
        return _is_graduated(swap, market, limits)
    if market.quote_mint is not None and market.quote_mint != swap.currency:
        return False
    if market.pool is None or market.pool == swap.pool:
        return True
    return swap.pool is None and market.pool in swap.instruction.accounts


def _is_graduated(swap: Swap, market: AnnouncedMarket, limits: Limits) -> bool:
    program, token, currency = swap.instruction.program, swap.token, swap.currency
    if program is None or market.program != "pump_fun" or program.name != "pump_swap":
        return False
    if token is None or currency is None or swap.pool is None:
        return False
    pump_fun = next(known.address for known in limits.known.programs.values() if known.name == "pump_fun")
    return swap.pool == graduated_pool(pump_fun, program.address, token, currency)


def _place(swap: Swap) -> str:
    program = swap.instruction.program
    name = "" if program is None else program.name
    return name if swap.pool is None else f"{name} {shown(swap.pool)}"


IDENTITY_RULES = (_announced, _never_sell, _pool)
