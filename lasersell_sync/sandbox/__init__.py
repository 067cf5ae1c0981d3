"""A local exchange to trade on with play money.

``Sandbox`` serves the stream, the REST API and Solana JSON-RPC on loopback. It shares no code with the client: it is
the other side of the wire, written from the protocol alone.
"""

from __future__ import annotations

try:
    import base58 as _base58
    import h11 as _h11
    import websockets as _websockets
    import werkzeug as _werkzeug
except ImportError as error:
    raise ImportError(
        "the sandbox needs extra packages: in a checkout, pip install '.[sandbox]'; "
        "from PyPI, pip install 'lasersell-sync[sandbox]'",
        name=error.name,
    ) from error

from lasersell_sync.sandbox.chain.transaction_history import TransactionRecord
from lasersell_sync.sandbox.exchange.position_book import PositionRecord
from lasersell_sync.sandbox.exchange.sessions import SessionRecord
from lasersell_sync.sandbox.markets.scenario import (
    DEFAULT_SCENARIO,
    Scenario,
    ScenarioError,
    load_scenario,
    parse_scenario,
    shipped_scenarios,
)
from lasersell_sync.sandbox.protocol.policies import Policies
from lasersell_sync.sandbox.sandbox import MintInfo, Sandbox
from lasersell_sync.sandbox.script import Script
from lasersell_sync.sandbox.servers.faults import CORRUPT_FRAMES, Faults

del _base58, _h11, _websockets, _werkzeug

__all__ = [
    "CORRUPT_FRAMES",
    "DEFAULT_SCENARIO",
    "Faults",
    "MintInfo",
    "Policies",
    "PositionRecord",
    "Sandbox",
    "Scenario",
    "ScenarioError",
    "Script",
    "SessionRecord",
    "TransactionRecord",
    "load_scenario",
    "parse_scenario",
    "shipped_scenarios",
]
