"""What a session knows about a position beyond the signal that sells it."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Final

import attrs

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.messages import PositionOpened

__all__ = ["NOTHING_KNOWN", "TradeContext"]

_U64_MAX = 2**64 - 1
_BPS_MAX = 10_000


def _whole(most: int) -> Any:
    def check(_: object, attribute: attrs.Attribute[int | None], value: object) -> None:
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            shown = repr(value) if isinstance(value, (int, float)) else f"a {type(value).__name__}"
            raise ConfigurationError(attribute.name, f"{shown} is not a whole number from 0 to {most}")

    return check


def _announcement(_: object, __: attrs.Attribute[PositionOpened | None], value: object) -> None:
    if value is not None and not isinstance(value, PositionOpened):
        raise ConfigurationError("announcement", f"a {type(value).__name__} is not a PositionOpened")


@attrs.frozen(kw_only=True)
class TradeContext:
    """What a session knows about a position beyond the signal that sells it; ``AutoSeller`` fills it.

    ``SigningGuard.check`` compares a sale's price and pool with it. None in a field: not known.

    Args:
        announcement: the newest ``position_opened`` of the position.
        is_announced: False: no link of the session announced the position, and the journal does not have it.
        position_tokens: the balance now, in the token's smallest units; default: as in the announcement.
        proceeds_units: the newest ``proceeds_units`` of a ``pnl_update``, which is at most 10 s old.
        own_token_accounts: token accounts that the wallets of this session are known to own, base58: anything that
            answers ``in``. A transaction of a program whose layout is not known must not name them.
        min_context_slot: the slot in which the position was seen last; default: the announcement's. A simulation from
            an older state says nothing.
        slippage_bps: the slippage that the transaction was asked for with, from 0 to 10 000 basis points.
        tip_lamports: the tip that the stream was configured with, in lamports.
        minimum_tip_lamports: the largest minimum of the targets that the transaction is sent to, in lamports.

        never_sell: the mints that are never sold, 32 bytes each, in place of the guard's list.

    Raises:
        ConfigurationError: a value out of range, or an announcement that is none.

    Threads: immutable, any.
    """

    announcement: PositionOpened | None = attrs.field(default=None, validator=_announcement)
    is_announced: bool | None = None
    position_tokens: int | None = attrs.field(default=None, validator=_whole(_U64_MAX))
    proceeds_units: int | None = attrs.field(default=None, validator=_whole(_U64_MAX))
    own_token_accounts: Container[str] = attrs.field(default=(), eq=False, repr=False)
    min_context_slot: int | None = attrs.field(default=None, validator=_whole(_U64_MAX))
    slippage_bps: int | None = attrs.field(default=None, validator=_whole(_BPS_MAX))
    tip_lamports: int | None = attrs.field(default=None, validator=_whole(_U64_MAX))
    minimum_tip_lamports: int | None = attrs.field(default=None, validator=_whole(_U64_MAX))
    never_sell: frozenset[bytes] | None = None

    @property
    def newest_slot(self) -> int | None:
        """The newest slot in which the position is known to have been there."""
        announced = None if self.announcement is None else self.announcement.slot
        return max((slot for slot in (self.min_context_slot, announced) if slot is not None), default=None)


NOTHING_KNOWN: Final = TradeContext()
