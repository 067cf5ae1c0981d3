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
        key: which exit; ``wallet`` and ``mint`` are parts of it.
        outcome: ``UNKNOWN`` after ``close()`` (the journal has what the next start needs), in a dry run, and when the
            nodes contradict each other about a part of a position.
        reason: why the server signalled it, its own word.
        tokens: what was to be sold, in atomic units.
        signature: of the transaction that decided it, base58; None when none was signed.
        slot: where that landed, or None.
        transactions: how many were signed for it.
        detail: in words.
        error: what refused it, when something did (``UnsafeTransactionError``, for one).
        is_dry_run: nothing was signed or sent.
        quote_currency: what the two amounts below are counted in (``SOL``, ``USD1``, …); None: not known.
        profit_units: proceeds minus entry of the part that is sold, net of slippage and routing fee (docs/protocol.md
            §6). It is the newest exit signal's ``profit_units``: the server's estimate when the signal fired, not read
            from the landed transaction, without network fee and tip. None unless ``CONFIRMED``, and where no signal
            said it (a leg, an exit that an earlier process sold).
        proceeds_units: entry of the part that is sold plus ``profit_units``: what the sale should have brought. None
            like ``profit_units``, and when the position was not announced.

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
    quote_currency: str | None = None
    profit_units: int | None = None
    proceeds_units: int | None = None

    @property
    def wallet(self) -> str:
        """The selling wallet, base58."""
        return self.key.wallet

    @property
    def mint(self) -> str:
        """The token, base58."""
        return self.key.mint


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
