"""What an API key may do, as ``GET /v1/account`` tells it (docs/protocol.md §7, §8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

__all__ = ["Account", "AccountLimits"]


@attrs.frozen
class AccountLimits:
    """What the tier allows; None where the server did not say.

    Attributes:
        max_wallets: wallets in one session.
        max_positions_per_wallet: positions tracked for each.
        max_positions_per_session: positions tracked in one session.
    """

    max_wallets: int | None = None
    max_positions_per_wallet: int | None = None
    max_positions_per_session: int | None = None


@attrs.frozen
class Account:
    """The tier of an API key.

    Attributes:
        tier: 0 (Personal), 1 (Professional), 2 (Advanced), 3 (Enterprise). Partner fees need 2 or more. Read limits
            from ``limits`` and ``HelloOk.limits``, never from this number.
        tier_name: the server's name for it.
        limits: what it allows.

    Threads: immutable, any.
    """

    tier: int
    tier_name: str
    limits: AccountLimits

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> Account:
        """The account in the server's JSON object; unknown fields are ignored.

        Raises:
            ValueError: a field is missing or of another kind; names it.
        """
        limits = _read(answer, "limits", _is_object, "an object")
        allowed = (
            _read(limits, field.name, _is_optional_count, "a whole number") for field in attrs.fields(AccountLimits)
        )
        tier = _read(answer, "tier", _is_count, "a whole number")
        return cls(tier, _read(answer, "tier_name", _is_text, "a text"), AccountLimits(*allowed))


def _read(fields: Mapping[str, Any], name: str, is_right: Callable[[object], bool], kind: str) -> Any:
    value = fields.get(name)
    if not is_right(value):
        raise ValueError(f"{name} is not {kind}")
    return value


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_optional_count(value: object) -> bool:
    return value is None or _is_count(value)
