"""One position's announcement, what the guard compares with it, and the signals that wait for it."""

from __future__ import annotations

from lasersell_sync.autosell.tools import Tools
from lasersell_sync.messages import ExitSignalWithTx, PositionOpened
from lasersell_sync.trading.guard import TradeContext

__all__ = ["Announced"]


class Announced:
    """What is known of one position beyond its signals.

    Threads: in tasks of the position's line.
    """

    def __init__(self, wallet: str, token_account: str, tools: Tools) -> None:
        self._id = (wallet, token_account)
        self._tools = tools
        #: The newest of any link; a server need not repeat it after a reconnect.
        self._announcement: PositionOpened | None = None
        self._waiting: list[tuple[ExitSignalWithTx, int]] = []

    def opened(self, announcement: PositionOpened | None) -> list[tuple[ExitSignalWithTx, int]]:
        """The position was announced; signals that waited for it, with the time when each came."""
        if announcement is not None:
            self._announcement = announcement
        waiting, self._waiting = self._waiting, []
        return waiting

    def closed(self) -> None:
        """Signals that wait are of a position that is gone."""
        self._waiting.clear()

    def is_known(self, mint: str) -> bool:
        """Whether a link of this session announced the position, or the journal has it."""
        if self._known_announcement() is not None:
            return True
        return self._tools.journal.is_announced(*self._id, mint)

    def _known_announcement(self) -> PositionOpened | None:
        """Of a seller that was started late, what the session still knows of it."""
        if self._announcement is None:
            self._announcement = self._tools.stream.announcement(*self._id)
        return self._announcement

    def must_wait(self, signal: ExitSignalWithTx) -> bool:
        """Whether the announcement may still come."""
        return not self._tools.terms.sell_unannounced and not self.is_known(signal.mint)

    def hold(self, signal: ExitSignalWithTx, received_ns: int) -> None:
        """Wait with a signal."""
        self._waiting.append((signal, received_ns))

    def let_go(self, signal: ExitSignalWithTx) -> bool:
        """Its time is over; False when it does not wait any more."""
        left = [held for held in self._waiting if held[0] is not signal]
        was_waiting = len(left) < len(self._waiting)
        self._waiting = left
        return was_waiting

    def context(self, mint: str, *, slippage_bps: int | None) -> TradeContext:
        """What the guard is given beside a transaction.

        Args:
            mint: of the exit.
            slippage_bps: what the transaction was asked for with; None: nobody asked for it.
        """
        terms, facts = self._tools.terms, self._tools.stream.position_facts(*self._id)
        return TradeContext(
            announcement=self._known_announcement(),
            is_announced=None if terms.sell_unannounced else self.is_known(mint),
            position_tokens=facts.tokens, proceeds_units=facts.proceeds_units, slippage_bps=slippage_bps,
            never_sell=terms.never_sell, tip_lamports=self._tools.stream.tip_lamports,
            minimum_tip_lamports=terms.minimum_tip_lamports,
            own_token_accounts=self._tools.token_accounts,
        )  # fmt: skip
