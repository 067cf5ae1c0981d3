"""What a signing guard was told at its construction, checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum

import attrs

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.trading.send_targets import SendTargetRpc

__all__ = ["GuardOptions", "OpaqueMode", "opaque_mode"]

_MAX_TIMEOUT_S = 60
_U64_MAX = 2**64 - 1
_BPS_MAX = 10_000


class OpaqueMode(str, Enum):
    """What becomes of a program whose layout nobody knows."""

    SIMULATE = "simulate"
    STATIC = "static"
    REFUSE = "refuse"


def opaque_mode(value: object) -> OpaqueMode:
    """What an argument ``opaque`` means.

    Raises:
        ConfigurationError: none of the three.
    """
    try:
        return OpaqueMode(value)
    except ValueError:
        shown = repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
        raise ConfigurationError("opaque", f"{shown} is not 'simulate', 'static' or 'refuse'") from None


@attrs.frozen(kw_only=True)
class GuardOptions:
    """The arguments of ``SigningGuard``, checked; its docstring explains them."""

    max_buy_lamports: int | None
    max_buy_usd1_units: int | None
    max_buy_usdc_units: int | None
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
    usdc_quotes: bool
    min_usd1_per_sol: float | None
    layouts: str | None
    rpc: tuple[SendTargetRpc, ...]
    service_programs: tuple[str, ...]
    co_signers: tuple[str, ...]
    opaque: OpaqueMode
    simulation_timeout_s: float
    max_unsimulated_lamports: int

    def __attrs_post_init__(self) -> None:
        for name in ("max_buy_lamports", "max_buy_usd1_units", "max_buy_usdc_units"):
            if getattr(self, name) is not None:
                _require_amount(name, getattr(self, name))
        for name in (
            "max_tip_lamports", "max_partner_fee_lamports", "max_priority_fee_lamports", "max_rent_lamports",
            "max_unsimulated_lamports",
        ):  # fmt: skip
            _require_amount(name, getattr(self, name))
        limit_s = self.simulation_timeout_s
        if isinstance(limit_s, bool) or not isinstance(limit_s, (int, float)) or not 0 < limit_s <= _MAX_TIMEOUT_S:
            raise ConfigurationError(
                "simulation_timeout_s", f"a number of seconds above 0 and up to {_MAX_TIMEOUT_S} is needed"
            )
        _require_amount("max_slippage_bps", self.max_slippage_bps, _BPS_MAX)
        if not isinstance(self.usdc_quotes, bool):
            raise ConfigurationError("usdc_quotes", f"a {type(self.usdc_quotes).__name__} is not True or False")
        if self.max_buy_usdc_units is not None and not self.usdc_quotes:
            raise ConfigurationError("max_buy_usdc_units", "nothing is bought with USDC without usdc_quotes=True")
        rate = self.min_usd1_per_sol
        if rate is not None and (
            isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < float("inf")
        ):
            raise ConfigurationError("min_usd1_per_sol", f"{rate!r} is not a positive number of USD1 for one SOL")


def _require_amount(field: str, value: object, most: int = _U64_MAX) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        shown = repr(value) if isinstance(value, (int, float)) else f"a {type(value).__name__}"
        raise ConfigurationError(field, f"{shown} is not a whole number from 0 to {most}")
