"""What a signing guard was told at its construction, checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import attrs

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.trading.send_targets import SendTargetRpc

__all__ = ["GuardOptions"]

_U64_MAX = 2**64 - 1
_BPS_MAX = 10_000


@attrs.frozen(kw_only=True)
class GuardOptions:
    """The arguments of ``SigningGuard``, checked; its docstring explains them."""

    max_buy_lamports: int | None
    max_buy_usd1_units: int | None
    max_tip_lamports: int
    max_partner_fee_lamports: int
    max_priority_fee_lamports: int
    max_rent_lamports: int
    partner: str | None
    own_accounts: tuple[str, ...]
    tip_accounts: tuple[str, ...]
    max_slippage_bps: int
    never_sell: tuple[str, ...]
    allow: Mapping[str, Collection[str]]
    rpc: tuple[SendTargetRpc, ...]

    def __attrs_post_init__(self) -> None:
        for name in ("max_buy_lamports", "max_buy_usd1_units"):
            if getattr(self, name) is not None:
                _require_amount(name, getattr(self, name))
        for name in ("max_tip_lamports", "max_partner_fee_lamports", "max_priority_fee_lamports", "max_rent_lamports"):
            _require_amount(name, getattr(self, name))
        _require_amount("max_slippage_bps", self.max_slippage_bps, _BPS_MAX)


def _require_amount(field: str, value: object, most: int = _U64_MAX) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        shown = repr(value) if isinstance(value, (int, float)) else f"a {type(value).__name__}"
        raise ConfigurationError(field, f"{shown} is not a whole number from 0 to {most}")
