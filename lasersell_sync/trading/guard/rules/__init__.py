"""The rules: what must be true of a transaction before it is signed. A module has those of one subject.

A rule gets the decoded transaction, what it is expected to be, and the limits, and yields every ``Offence`` that it
finds: a first one that is permitted must not hide a second. A rule that only holds when something else does leaves that
to the rule above it: all must pass.
"""

from __future__ import annotations

from typing import Final

from lasersell_sync.trading.guard.rules.accounts import ACCOUNT_RULES
from lasersell_sync.trading.guard.rules.fees import FEE_RULES, NO_BLOCKHASH
from lasersell_sync.trading.guard.rules.identity import IDENTITY_RULES
from lasersell_sync.trading.guard.rules.lamports import LAMPORT_RULES, TOKEN_ACCOUNT_RENT_LAMPORTS
from lasersell_sync.trading.guard.rules.opaque import OPAQUE_RULES
from lasersell_sync.trading.guard.rules.partner import PARTNER_RULES
from lasersell_sync.trading.guard.rules.price import PRICE_RULES
from lasersell_sync.trading.guard.rules.programs import PROGRAM_RULES
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, Rule
from lasersell_sync.trading.guard.rules.signers import SIGNER_RULES
from lasersell_sync.trading.guard.rules.tokens import TOKEN_RULES
from lasersell_sync.trading.guard.rules.trade import TRADE_RULES

__all__ = ["ENCODING", "NO_BLOCKHASH", "RULES", "TOKEN_ACCOUNT_RENT_LAMPORTS", "Limits", "Offence", "Rule"]

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
