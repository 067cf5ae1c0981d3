"""How old an exit signal is, by clocks that may differ."""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["Age", "age_of"]

#: A trigger that is older than this, in a signal that was received just now, is a clock that differs, or a repetition.
_BEYOND_REASON_S: Final = 600.0


class Age(Enum):
    """What to do with a signal's transaction."""

    #: Its price is today's.
    YOUNG = "young"
    #: Its price is not: a fresh transaction is asked for.
    OLD = "old"
    #: Its trigger is old, and it may be young all the same: a node knows whether its blockhash is.
    DOUBTFUL = "doubtful"


def age_of(
    *,
    received_s: float,
    by_server_s: float | None,
    by_us_s: float,
    limit_s: float,
    is_answer: bool,
) -> Age:
    """Judge a signal's age.

    Args:
        received_s: seconds since the signal was received, by the monotonic clock.
        by_server_s: seconds from ``triggered_at_ms`` to now by the clock of ``hello_ok``; None: there was none.
        by_us_s: the same by this machine's clock.
        limit_s: seconds that a price lives.
        is_answer: the signal answers a question of ours; such a one may repeat the trigger of the first.
    """
    if received_s > limit_s:
        return Age.OLD
    # A trigger in the future is no age: the clock of hello_ok and that of the triggers differ.
    if by_server_s is None or by_server_s < -limit_s:
        return Age.YOUNG
    # Nor is one that only one of two clocks shows.
    told_s = min(by_server_s, by_us_s) if by_us_s >= -limit_s else by_server_s
    if told_s <= limit_s:
        return Age.YOUNG
    return Age.DOUBTFUL if is_answer or told_s > _BEYOND_REASON_S else Age.OLD
