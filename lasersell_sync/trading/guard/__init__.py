"""What may be signed: rules over a decoded transaction (docs/safety.md).

``programs.json`` lists programs and instructions, ``decoded`` reads a transaction by it, ``expected`` knows what the
signal or request was about and what a session knows about the position, ``rules`` has one function a rule, and
``signing_guard`` applies them.
"""

from __future__ import annotations

from lasersell_sync.trading.guard.expected import TradeContext
from lasersell_sync.trading.guard.report import GuardReport, Verdict
from lasersell_sync.trading.guard.rules import NO_BLOCKHASH
from lasersell_sync.trading.guard.signing_guard import CheckedTransaction, SigningGuard, read_unsigned

__all__ = [
    "NO_BLOCKHASH",
    "CheckedTransaction",
    "GuardReport",
    "SigningGuard",
    "TradeContext",
    "Verdict",
    "read_unsigned",
]
