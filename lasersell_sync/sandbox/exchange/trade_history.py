"""Past and present trades of each API key: what ``GET /v1/history`` answers from (docs/protocol.md 7)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.exchange.position_book import Position
from lasersell_sync.sandbox.exchange.sessions import Session
from lasersell_sync.sandbox.protocol.exit_conditions import Strategy


@dataclass(slots=True, eq=False)
class HistoryEntry:
    """One position as a key has seen it; ``session_id`` is the session that tracked it last."""

    number: int
    position: Position
    session_id: int
    market_kind: str
    strategy: Strategy

    def answer(self) -> dict[str, object]:
        """The wire's form. Money is net of fees, the routing fee included; what it still costs if open is not."""
        position, closed = self.position, self.position.closed_at_ms is not None
        entry = position.paid_units
        exits = position.returned_units if closed or position.returned_units else None
        return {
            "id": self.number,
            "session_id": self.session_id,
            "position_id": position.position_id,
            "wallet_pubkey": str(position.holding.wallet),
            "mint": str(position.holding.mint),
            "entry_quote_units": entry,
            "exit_quote_units": exits,
            "profit_quote_units": position.returned_units - entry if closed else None,
            "tokens": position.tokens_in,
            "exit_reason": position.close_reason,
            "market_kind": self.market_kind,
            "strategy_target_profit_pct": float(self.strategy.target_profit_pct),
            "strategy_stop_loss_pct": float(self.strategy.stop_loss_pct),
            "strategy_trailing_stop_pct": float(self.strategy.trailing_stop_pct),
            "opened_at": _moment(position.opened_at_ms),
            "closed_at": None if position.closed_at_ms is None else _moment(position.closed_at_ms),
        }


class TradeHistory:
    """Every position that sessions of a key have tracked for their own wallets.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self) -> None:
        self._entries: dict[str, dict[Position, HistoryEntry]] = {}
        self._last_number = 0

    def note(self, session: Session, position: Position, *, market_kind: str, strategy: Strategy) -> None:
        """A session tracks a position from now on."""
        entries = self._entries.setdefault(session.key_id, {})
        known = entries.get(position)
        if known is not None:
            known.session_id, known.strategy = session.session_id, strategy
            return
        self._last_number += 1
        entries[position] = HistoryEntry(self._last_number, position, session.session_id, market_kind, strategy)

    def page(
        self, key_id: str, *, limit: int, offset: int, mint: Pubkey | None = None, wallet: Pubkey | None = None
    ) -> dict[str, object]:
        """The answer of ``GET /v1/history``: the newest first, and how many there are in all."""
        fitting = [
            entry
            for entry in reversed(self._entries.get(key_id, {}).values())
            if mint in (None, entry.position.holding.mint) and wallet in (None, entry.position.holding.wallet)
        ]
        return {"trades": [entry.answer() for entry in fitting[offset : offset + limit]], "total": len(fitting)}


def _moment(unix_ms: int) -> str:
    moment = datetime.fromtimestamp(unix_ms / 1000, tz=timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
