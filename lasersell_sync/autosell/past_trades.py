"""What the service's list of past trades proves about an exit that an earlier process left: that its tokens are sold.

The list names no token account and no signature. So it may end an exit, and it never begins one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from lasersell_sync.trading.history import HistoryTrade

__all__ = ["Opened", "PastTrades", "proof_of_sale"]

#: The list may name a moment in whole seconds.
_ROUNDED_MS: Final = 1_000
#: The server's clock and this machine's may differ by so much.
_CLOCKS_DIFFER_MS: Final = 60_000


class PastTrades(NamedTuple):
    """Trades of one wallet and token, the newest first.

    Attributes:
        trades: what the service lists.
        is_complete: it lists no older ones.
    """

    trades: Sequence[HistoryTrade]
    is_complete: bool


class Opened(NamedTuple):
    """The opening that an exit is to sell.

    Attributes:
        entry_quote_units: what it cost, as the server announced it.
        opened_at_ms: Unix milliseconds by the server's clock; None: the announcement named no moment.
        began_ms: Unix milliseconds of this machine's clock when the exit was signalled; the position was open then.
    """

    entry_quote_units: int
    opened_at_ms: int | None
    began_ms: int

    def may_be(self, trade: HistoryTrade) -> bool:
        """Whether a trade may be this opening."""
        opened_ms = _unix_ms(trade.opened_at)
        if self.opened_at_ms is not None:
            return abs(opened_ms - self.opened_at_ms) < _ROUNDED_MS
        if opened_ms > self.began_ms + _CLOCKS_DIFFER_MS:
            return False
        return trade.closed_at is None or _unix_ms(trade.closed_at) > self.began_ms - _CLOCKS_DIFFER_MS

    def must_be_among(self, trades: Sequence[HistoryTrade]) -> bool:
        """Whether one of the trades that may be this opening is known to be it."""
        if self.opened_at_ms is not None:
            return bool(trades)
        return any(trade.entry_quote_units == self.entry_quote_units for trade in trades)


def proof_of_sale(opened: Opened, past: PastTrades) -> str | None:
    """Words that say how an opening ended; None: it is not proven that it did.

    Several trades may be the opening: two token accounts hold the same token, or it was bought again within a minute.
    Then all of them must have been sold.

    Args:
        opened: the opening.
        past: of the same wallet and token. Without a moment, an incomplete list proves nothing.
    """
    if opened.opened_at_ms is None and not past.is_complete:
        return None
    candidates = [trade for trade in past.trades if opened.may_be(trade)]
    if not opened.must_be_among(candidates) or not all(map(_is_sold, candidates)):
        return None
    last = max(candidates, key=lambda trade: trade.closed_at or trade.opened_at)
    assert last.closed_at is not None  # it is sold
    reason = f" ({last.exit_reason})" if last.exit_reason else ""
    moment = last.closed_at.isoformat(timespec="seconds")
    return f"the trade history lists its position as sold at {moment}{reason} for {last.exit_quote_units} units"


def _is_sold(trade: HistoryTrade) -> bool:
    """Not only closed: that has proceeds."""
    return trade.is_closed and bool(trade.exit_quote_units)


def _unix_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000)
