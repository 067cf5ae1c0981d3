"""The six markets."""

from __future__ import annotations

from lasersell_sync.sandbox.markets.curve_venue import CurveVenue
from lasersell_sync.sandbox.markets.meteora_damm_v2 import MeteoraDammV2
from lasersell_sync.sandbox.markets.meteora_dbc import MeteoraDbc
from lasersell_sync.sandbox.markets.pool_venue import PoolVenue
from lasersell_sync.sandbox.markets.pump_fun import PumpFun
from lasersell_sync.sandbox.markets.pump_swap import PumpSwap
from lasersell_sync.sandbox.markets.raydium_cpmm import RaydiumCpmm
from lasersell_sync.sandbox.markets.raydium_launchpad import RaydiumLaunchpad

_CURVES: tuple[CurveVenue, ...] = (PumpFun(), MeteoraDbc(), RaydiumLaunchpad())
_POOLS: tuple[PoolVenue, ...] = (PumpSwap(), MeteoraDammV2(), RaydiumCpmm())
CURVES = {venue.market_type: venue for venue in _CURVES}
POOLS = {venue.market_type: venue for venue in _POOLS}
VENUES: dict[str, CurveVenue | PoolVenue] = {**CURVES, **POOLS}
