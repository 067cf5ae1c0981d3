"""What an automatic seller tells its user."""

from __future__ import annotations

import attrs

from lasersell_sync.autosell.exits import ExitKey
from lasersell_sync.trading.outcome import SellOutcome

__all__ = ["BuyReport", "SellReport"]


@attrs.frozen(kw_only=True)
class SellReport:
    """What became of one exit.

    Attributes:
        key: which exit.
        outcome: ``UNKNOWN`` when the seller was closed first; the journal knows how to go on.
        reason: why the server signalled it, its own word.
        tokens: what was to be sold, in atomic units.
        signature: of the transaction that decided it, base58; None when none was signed.
        slot: where that landed, or None.
        transactions: how many were signed for it.
        detail: in words.
        error: what refused it, when something did (``UnsafeTransactionError``, for one).
        is_dry_run: nothing was signed or sent.

    Threads: immutable, any.
    """

    key: ExitKey
    outcome: SellOutcome
    reason: str
    tokens: int
    signature: str | None = None
    slot: int | None = None
    transactions: int = 0
    detail: str = ""
    error: Exception | None = None
    is_dry_run: bool = False


@attrs.frozen(kw_only=True)
class BuyReport:
    """What became of one copy of a watched wallet's purchase.

    Attributes:
        wallet, mint, watched_wallet: base58, as in the signal.
        outcome: what became of it; the server is told ``success`` only for ``CONFIRMED``.
        signature: base58; None when nothing was signed.
        slot: where it landed, or None.
        detail: in words.
        error: what refused it, when something did.
        is_dry_run: nothing was signed or sent.

    Threads: immutable, any.
    """

    wallet: str
    mint: str
    watched_wallet: str
    outcome: SellOutcome
    signature: str | None = None
    slot: int | None = None
    detail: str = ""
    error: Exception | None = None
    is_dry_run: bool = False
