"""What the web page shows, as plain data: one picture of the exchange, and the signals it has sent."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

from lasersell_sync.sandbox.exchange.exchange import Exchange
from lasersell_sync.sandbox.exchange.positions import PositionRecord
from lasersell_sync.sandbox.exchange.sessions import Frame, SessionRecord
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.pools import market_cap_lamports, price_lamports

#: Rows of one table; the newest are shown.
ROWS = 100
SIGNALS = ("exit_signal_with_tx", "mirror_buy_signal", "mirror_buy_failed", "mirror_wallet_auto_disabled")

View = dict[str, Any]


class SignalLog:
    """The newest signals that sessions were sent.

    Threads: ``observe`` under the exchange's lock, as every listener; ``rows`` too.
    """

    def __init__(self) -> None:
        self._signals: deque[View] = deque(maxlen=ROWS)
        self.count = 0

    def observe(self, frame: Frame) -> None:
        """Keep a signal; everything else is let pass."""
        if isinstance(frame, bytes) or not any(f'"{kind}"' in frame for kind in SIGNALS):
            return
        try:
            message = json.loads(frame)
        except ValueError:
            return  # a damaged frame, sent on purpose
        if isinstance(message, dict) and message.get("type") in SIGNALS:
            self.count += 1
            self._signals.append({"number": self.count, **_signal(message)})

    def rows(self) -> list[View]:
        """Newest first."""
        return list(reversed(self._signals))


def _signal(message: View) -> View:
    wallet = message.get("wallet_pubkey") or message.get("user_wallet") or message.get("watched_wallet")
    return {
        "type": message["type"],
        "session": message.get("session_id"),
        "position": message.get("position_id"),
        "wallet": wallet,
        "mint": message.get("mint"),
        "reason": message.get("reason", ""),
        "profit": message.get("profit_units"),
    }


def picture(exchange: Exchange, signals: SignalLog) -> View:
    """Everything the page shows, newest first, each table cut at ``ROWS``. Under the exchange's lock: be quick."""
    open_positions, positions = exchange.newest_positions(ROWS)
    transactions = exchange.transactions()
    sessions = exchange.sessions(include_closed=True)
    symbols = {str(listing.mint): listing.symbol for listing in exchange.listings}
    return {
        "slot": exchange.slot(),
        "counts": {
            "positions": open_positions,
            "sessions": sum(record.configured and record.closed_at_ms is None for record in sessions),
            "signals": signals.count,
            "transactions": len(transactions),
        },
        "pools": [_pool(exchange, listing) for listing in exchange.listings],
        "positions": [_position(exchange, record) for record in positions],
        "sessions": [_session(record) for record in list(reversed(sessions))[:ROWS]],
        "signals": [{**row, "symbol": symbols.get(row["mint"], "")} for row in signals.rows()],
        "transactions": [
            {
                "signature": record.signature,
                "slot": record.slot,
                "error": None if record.err is None else json.dumps(record.err),
                "payer": record.fee_payer,
                "fee": record.fee_lamports,
                "trades": [
                    {"side": swap.side, "tokens": swap.tokens, "symbol": symbols[str(swap.mint)]}
                    for swap in record.swaps
                ],
            }
            for record in list(reversed(transactions))[:ROWS]
        ],
    }


def _pool(exchange: Exchange, listing: Listing) -> View:
    reserves, supply = exchange.depth(listing)
    return {
        "mint": str(listing.mint),
        "symbol": listing.symbol,
        "name": listing.name,
        "market": listing.market_type,
        "price_path": listing.price_path,
        "halted": listing.halted,
        "quote": listing.quote.name,
        "quote_decimals": listing.quote.decimals,
        "price": price_lamports(reserves, listing.decimals),
        "market_cap": market_cap_lamports(reserves, supply),
        "liquidity": reserves.lamports,
    }


def _position(exchange: Exchange, record: PositionRecord) -> View:
    listing = next(listing for listing in exchange.listings if str(listing.mint) == record.mint)
    profit = None
    if record.close_reason is None:
        profit = exchange.sale_proceeds(listing, record.tokens) - record.entry_lamports
    return {
        "position": record.position_id,
        "wallet": record.wallet_pubkey,
        "symbol": listing.symbol,
        "tokens": record.tokens,
        "quote_decimals": listing.quote.decimals,
        "entry": record.entry_lamports,
        "profit": profit,
        "signalled": record.exit_reason,
        "closed": record.close_reason,
        "copy_of": record.mirror_source,
    }


def _session(record: SessionRecord) -> View:
    state = "closed" if record.closed_at_ms is not None else "live" if record.configured else "connected"
    return {
        "session": record.session_id,
        "key": record.key_id,
        "state": state,
        "wallets": list(record.wallet_pubkeys),
        "positions": len(record.position_ids),
        "watched": len(record.watch_wallets),
    }
