"""Exits that the guard refused: what was wrong, and what the user permits once."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from lasersell_sync.autosell.exits import ExitKey
from lasersell_sync.exceptions import BrokenRule, ConfigurationError, UnsafeTransactionError
from lasersell_sync.locks import signal_safe_lock

__all__ = ["Permission", "Refusal", "Refusals"]


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
