"""The six markets, and one line about each instruction of a landed transaction, for people and assertions."""

from __future__ import annotations

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import (
    ASSOCIATED_TOKEN_PROGRAM,
    COMPUTE_BUDGET_PROGRAM,
    LASERSELL_ROUTER_PROGRAM,
    TOKEN_PROGRAM,
)
from lasersell_sync.sandbox.chain.execution import InnerCalls, programs_and_data
from lasersell_sync.sandbox.chain.instructions import (
    TOKEN_CLOSE_ACCOUNT,
    TOKEN_SYNC_NATIVE,
    TOKEN_TRANSFER,
    TOKEN_TRANSFER_CHECKED,
    transferred_lamports,
)
from lasersell_sync.sandbox.chain.transactions import Transaction
from lasersell_sync.sandbox.markets.curve_venue import CurveVenue
from lasersell_sync.sandbox.markets.listings import matching_form
from lasersell_sync.sandbox.markets.meteora import MeteoraDammV2, MeteoraDbc
from lasersell_sync.sandbox.markets.pool_venue import PoolVenue
from lasersell_sync.sandbox.markets.pump_fun import PumpFun
from lasersell_sync.sandbox.markets.pump_swap import PumpSwap
from lasersell_sync.sandbox.markets.raydium import RaydiumCpmm, RaydiumLaunchpad

_CURVES: tuple[CurveVenue, ...] = (PumpFun(), MeteoraDbc(), RaydiumLaunchpad())
_POOLS: tuple[PoolVenue, ...] = (PumpSwap(), MeteoraDammV2(), RaydiumCpmm())
CURVES = {venue.market_type: venue for venue in _CURVES}
POOLS = {venue.market_type: venue for venue in _POOLS}
Venue = CurveVenue | PoolVenue
VENUES: dict[str, Venue] = {**CURVES, **POOLS}


_TOKEN_NAMES = {
    TOKEN_TRANSFER: "transfer",
    TOKEN_TRANSFER_CHECKED: "transfer_checked",
    TOKEN_SYNC_NATIVE: "sync_native",
    TOKEN_CLOSE_ACCOUNT: "close_account",
}
_BUDGET_NAMES = {1: "heap_frame", 2: "unit_limit", 3: "unit_price", 4: "data_size_limit"}
_MARKETS = {venue.program: venue for venue in VENUES.values()}


def summaries(transaction: Transaction, inner: InnerCalls) -> tuple[str, ...]:
    """One line for each instruction; for one of the Router, which market it has called and how."""
    lines = []
    for index, (program, data) in enumerate(programs_and_data(transaction)):
        called = [summarise(call.program, call.data) for call in inner.get(index, ()) if call.program in _MARKETS]
        routed = program == LASERSELL_ROUTER_PROGRAM
        lines.append(f"lasersell_router {called[0] if called else 'failed'}" if routed else summarise(program, data))
    return tuple(lines)


def summarise(program: Pubkey, data: bytes) -> str:
    """E.g. ``pump_fun.buy tokens=5 limit_lamports=7`` or ``system.transfer lamports=1000``."""
    if program in _MARKETS:
        venue = _MARKETS[program]
        for side, forms in (("buy", venue.buy_forms), ("sell", venue.sell_forms)):
            form = matching_form(forms, data)
            numbers = None if form is None else form.call.unpack(data)
            if numbers is not None:
                return f"{venue.market_type}.{side} tokens={numbers[0]} limit_lamports={numbers[1]}"
    lamports = transferred_lamports(program, data)
    if lamports is not None:
        return f"system.transfer lamports={lamports}"
    if program == TOKEN_PROGRAM and data:
        return f"token.{_TOKEN_NAMES.get(data[0], data[0])}"
    if program == ASSOCIATED_TOKEN_PROGRAM:
        return "associated_token.create_idempotent" if data == b"\x01" else "associated_token.create"
    if program == COMPUTE_BUDGET_PROGRAM and data:
        return f"compute_budget.{_BUDGET_NAMES.get(data[0], data[0])}"
    return f"{program} {data.hex()}"
