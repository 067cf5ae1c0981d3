"""The rules: what must be true of a transaction before it is signed. A module has those of one subject.

A rule gets the decoded transaction, what it is expected to be, and the limits, and finds every ``Offence``: a first one
that is permitted must not hide a second. A rule that only holds when something else does leaves that to the rule above
it: all must pass.

A sale waits for all of them, and most have nothing to say about it. A rule that looks at some kinds of instructions
alone names them, and is asked where there are such. The others return ``()`` before they look any closer.
"""

from __future__ import annotations

import functools
from typing import Final

from lasersell_sync.trading.guard.rules.accounts import ACCOUNT_RULES, SIGNER_RULES
from lasersell_sync.trading.guard.rules.fees import FEE_RULES, NO_BLOCKHASH, PARTNER_RULES
from lasersell_sync.trading.guard.rules.identity import IDENTITY_RULES
from lasersell_sync.trading.guard.rules.lamports import LAMPORT_RULES
from lasersell_sync.trading.guard.rules.opaque import OPAQUE_RULES
from lasersell_sync.trading.guard.rules.programs import PROGRAM_RULES
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, Rule
from lasersell_sync.trading.guard.rules.tokens import TOKEN_RULES
from lasersell_sync.trading.guard.rules.trade import PRICE_RULES, TRADE_RULES

__all__ = ["ENCODING", "NO_BLOCKHASH", "RULES", "Limits", "Offence", "Rule", "rules_for"]

#: Found by ``wire_tx.parse``, before there is anything that a rule could look at.
ENCODING: Final = ("encoding", "the bytes are exactly one transaction, in its one spelling, and fit into a packet")
#: In this order; the error names the first that is broken.
RULES: Final[tuple[Rule, ...]] = (
    *SIGNER_RULES,
    *PROGRAM_RULES,
    *OPAQUE_RULES,
    *TRADE_RULES,
    *PRICE_RULES,
    *IDENTITY_RULES,
    *ACCOUNT_RULES,
    *LAMPORT_RULES,
    *PARTNER_RULES,
    *FEE_RULES,
    *TOKEN_RULES,
)


@functools.lru_cache(maxsize=256)
def rules_for(kinds: tuple[str, ...]) -> tuple[Rule, ...]:
    """The rules that have something to say about a transaction with instructions of these kinds, in their order."""
    return tuple(rule for rule in RULES if rule.kinds is None or not rule.kinds.isdisjoint(kinds))
