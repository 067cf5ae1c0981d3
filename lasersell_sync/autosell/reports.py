"""What an AutoSeller reports to its user: ends of exits and purchases, and refusals that can be decided."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from lasersell_sync.autosell.exit_key import ExitKey
from lasersell_sync.exceptions import BrokenRule, ConfigurationError, UnsafeTransactionError
from lasersell_sync.runtime.locks import signal_safe_lock
from lasersell_sync.trading.sending.outcome import SellOutcome

__all__ = ["BuyReport", "Permission", "Refusal", "Refusals", "SellReport"]


# ── What an automatic seller tells its user ─────────────────────────────────────────────────────────────────────────


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
            6). It is the newest exit signal's ``profit_units``: the server's estimate when the signal fired, not read
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


# ── Exits that the guard refused: what was wrong, and what the user permits once ────────────────────────────────────


@attrs.frozen(kw_only=True)
class Refusal:
    """What the guard refused.

    Attributes:
        key: the exit; None for a copied purchase, which has no second chance.
        wallet, mint: base58.
        error: all broken rules.
        refused_at_ms: Unix milliseconds of this machine's clock.
        was_signed: True in report mode, unless it is a dry run: the guard would have refused it, and it was signed.

    Threads: immutable, any.
    """

    key: ExitKey | None
    wallet: str
    mint: str
    error: UnsafeTransactionError
    refused_at_ms: int
    was_signed: bool = False

    @property
    def can_be_allowed(self) -> bool:
        """Whether ``allow_once`` takes it: no sale needs what is refused for good, and bytes must be a transaction."""
        return self.key is not None and not any(
            offence.is_final or offence.rule == "encoding" for offence in self.error.offences
        )


@attrs.frozen
class Permission:
    """What a user permits for one transaction of one exit: the offences of a refusal, and no worse ones."""

    offences: tuple[BrokenRule, ...]

    def covers(self, offence: BrokenRule) -> bool:
        """Whether it was refused before, for the same account and program, with at least this amount."""
        return not offence.is_final and any(_is_no_worse(offence, known) for known in self.offences)


def _is_no_worse(offence: BrokenRule, known: BrokenRule) -> bool:
    if (offence.rule, offence.account, offence.instruction) != (known.rule, known.account, known.instruction):
        return False
    if not set(offence.accounts) <= set(known.accounts):
        return False
    if offence.amount is None or known.amount is None:
        return offence.amount is known.amount
    return offence.amount <= known.amount


class Refusals:
    """The newest refusal of each exit, and the permissions that are not used yet.

    Threads: any.
    """

    def __init__(self) -> None:
        # Guards both dicts.
        self._lock = signal_safe_lock()
        self._by_key: dict[ExitKey, Refusal] = {}
        self._permissions: dict[ExitKey, Permission] = {}

    def add(self, refusal: Refusal) -> None:
        """An exit was refused, maybe once more."""
        if refusal.key is not None:
            with self._lock:
                self._by_key[refusal.key] = refusal

    def drop(self, key: ExitKey) -> None:
        """The exit goes on, or is over: there is nothing to decide."""
        with self._lock:
            self._by_key.pop(key, None)
            self._permissions.pop(key, None)

    def drop_position(self, wallet: str, token_account: str, *, below: int | None = None) -> None:
        """As ``drop``, for every exit of a position; with ``below``, for those of earlier generations."""
        with self._lock:
            ours = [key for key in self._by_key if (key.wallet, key.token_account) == (wallet, token_account)]
        for key in ours:
            if below is None or key.generation < below:
                self.drop(key)

    def all(self) -> list[Refusal]:
        """The newest refusal of each exit that waits for a decision, oldest first."""
        with self._lock:
            return list(self._by_key.values())

    def allow_once(self, key: ExitKey) -> Refusal:
        """Permit the offences of the newest refusal for the exit's next transaction.

        Raises:
            ConfigurationError: no exit of this key is refused, or it is refused for what nothing allows.
        """
        with self._lock:
            refusal = self._by_key.get(key)
            if refusal is None:
                raise ConfigurationError("key", f"{key} is not refused: seller.refused() lists what is")
            if not refusal.can_be_allowed:
                raise ConfigurationError("key", f"{key} stays refused, for no sale needs this: {refusal.error}")
            self._permissions[key] = Permission(refusal.error.offences)
            return refusal

    def has_permission(self, key: ExitKey) -> bool:
        """Whether the user permits something for the exit's next transaction."""
        with self._lock:
            return key in self._permissions

    def take_permission(self, key: ExitKey) -> Permission | None:
        """For the exit's next transaction, whatever becomes of it."""
        with self._lock:
            return self._permissions.pop(key, None)


def texts(offences: Sequence[BrokenRule]) -> str:
    """For the journal."""
    return "; ".join(map(str, offences))
