"""How an exit is pursued: how old a signal may be, how often a fresh transaction is asked for, at which slippage."""

from __future__ import annotations

import math
from typing import Any

import attrs

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.timeouts import bounded_s

__all__ = ["SellPolicy"]

_BPS_MAX = 10_000


def _whole(low: int, high: int) -> Any:
    def check(_: object, attribute: attrs.Attribute[int], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigurationError(attribute.name, f"a whole number from {low} to {high} is needed")

    return check


def _seconds(_: object, attribute: attrs.Attribute[float], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(attribute.name, "a positive, finite number of seconds is needed")


def _flag(_: object, attribute: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(attribute.name, "True or False is needed")


@attrs.frozen(kw_only=True)
class SellPolicy:
    """How an ``AutoSeller`` pursues an exit (docs/protocol.md §9, the reference daemon's retry policy).

    Args:
        base_slippage_bps: basis points that the first fresh transaction starts from. Signals carry no slippage of their
            own; the server chose it for the transaction that came with them.
        first_bump_bps: added for the first fresh transaction that follows a dead one.
        next_bump_bps: added for each one after that.
        max_slippage_bps: never asked for more.
        max_refreshes: fresh transactions asked for in place of dead ones, then the exit is given up and told. The
            reference daemon stops after 2 or 3; an unsold position costs more than a few fees.
        max_signal_age_s: seconds; an older signal's price is not today's, so a fresh transaction is asked for instead
            (which counts as no failure and adds no slippage).
        refresh_wait_s: seconds to wait for the transaction that was asked for, then it is asked for again.
        max_unanswered: questions without an answer, then the exit is given up and told; while there is no link to the
            server, none is counted.
        overlap_full_exit: ask for a fresh transaction of a whole-position exit ``overlap_after_s`` after sending,
            though the old one may still land. Both can land only if the tokens come back in between; for parts of a
            position it is never done. False: only when the old one is proven dead.
        overlap_after_s: seconds.

    Raises:
        ConfigurationError: a value out of range, named.

    Threads: immutable, any.
    """

    base_slippage_bps: int = attrs.field(default=2_000, validator=_whole(0, _BPS_MAX))
    first_bump_bps: int = attrs.field(default=20, validator=_whole(0, _BPS_MAX))
    next_bump_bps: int = attrs.field(default=40, validator=_whole(0, _BPS_MAX))
    max_slippage_bps: int = attrs.field(default=2_500, validator=_whole(0, _BPS_MAX))
    max_refreshes: int = attrs.field(default=10, validator=_whole(0, 1_000))
    max_signal_age_s: float = attrs.field(default=10.0, converter=bounded_s, validator=_seconds)
    refresh_wait_s: float = attrs.field(default=1.5, converter=bounded_s, validator=_seconds)
    max_unanswered: int = attrs.field(default=20, validator=_whole(1, 10_000))
    overlap_full_exit: bool = attrs.field(default=False, validator=_flag)
    overlap_after_s: float = attrs.field(default=10.0, converter=bounded_s, validator=_seconds)

    def __attrs_post_init__(self) -> None:
        if self.base_slippage_bps > self.max_slippage_bps:
            raise ConfigurationError(
                "base_slippage_bps", f"{self.base_slippage_bps} is above max_slippage_bps={self.max_slippage_bps}"
            )

    def slippage_bps(self, dead_transactions: int) -> int:
        """What the next fresh transaction may give away, after so many that are proven dead."""
        bumps = 0 if dead_transactions == 0 else self.first_bump_bps + (dead_transactions - 1) * self.next_bump_bps
        return min(self.max_slippage_bps, self.base_slippage_bps + bumps)
