"""What became of a transaction: five answers, none of which is yes or no."""

from __future__ import annotations

from enum import Enum
from typing import NoReturn

import attrs

__all__ = ["SellOutcome", "TxResult"]


class SellOutcome(Enum):
    """What became of a transaction, as far as it is known.

    It has no truth value: ``if outcome:`` would take a transaction that failed for one that sold.
    """

    #: Landed without an error, at commitment ``confirmed``.
    CONFIRMED = "confirmed"
    #: Landed with an error: it cost its fee and changed nothing else.
    FAILED_ONCHAIN = "failed_onchain"
    #: It has not landed, and it is proven that it never will (``trading.expiry``).
    EXPIRED = "expired"
    #: Nobody took it: refused before anything was sent, or by everyone it was sent to.
    REJECTED = "rejected"
    #: Not known (yet). It may still land.
    UNKNOWN = "unknown"

    @property
    def is_dead(self) -> bool:
        """True when it is proven that this transaction has sold nothing and never will."""
        return self in {SellOutcome.FAILED_ONCHAIN, SellOutcome.EXPIRED, SellOutcome.REJECTED}

    @property
    def is_final(self) -> bool:
        """True when it will not change any more."""
        return self is not SellOutcome.UNKNOWN

    def __bool__(self) -> NoReturn:
        raise TypeError("an outcome is neither true nor false: compare it, outcome is SellOutcome.CONFIRMED")


@attrs.frozen(kw_only=True)
class TxResult:
    """What is known of one signed transaction.

    Attributes:
        signature: base58.
        outcome: what became of it.
        slot: where it landed, when it did.
        detail: in words: the chain's error, the refusals, or what is still missing for a proof.
        accepted_by: label of the first target that took it (``rpc``, ``helius sender``, ``astralane``), or None.

    Threads: immutable, any.
    """

    signature: str
    outcome: SellOutcome
    slot: int | None = None
    detail: str = ""
    accepted_by: str | None = None
