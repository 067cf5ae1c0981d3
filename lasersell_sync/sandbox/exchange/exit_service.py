"""Exits: lets strategies look at positions, and writes the signals to sell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from lasersell_sync.sandbox.exchange.orders import OrderBuilder, OrderTerms
from lasersell_sync.sandbox.exchange.position_book import Position
from lasersell_sync.sandbox.exchange.sessions import Session
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.market import Market
from lasersell_sync.sandbox.markets.pools import NO_ROUTING_FEE, RoutingFee, max_sell_tokens, sell_fill
from lasersell_sync.sandbox.protocol import server_messages as wire
from lasersell_sync.sandbox.protocol.exit_conditions import LADDER_LEVEL, Exit, Readings, Watch
from lasersell_sync.sandbox.protocol.policies import Policies

_log = logging.getLogger("lasersell_sync.sandbox.stream")

#: What an exit signal's transaction tolerates unless the client asks otherwise.
DEFAULT_EXIT_SLIPPAGE_BPS = 2_000
#: What a pool "absorbs" for the liquidity guard: the widest of the published bands.
GUARD_SLIPPAGE_BPS = 1_000
#: How far below the entry the breakeven trail lies, where a policy says so.
BREAKEVEN_MARGIN_PCT = 2


class ExitService:
    """Watches and signals.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self, market: Market, orders: OrderBuilder, now_ms: Callable[[], int], policies: Policies) -> None:
        self._readings = Readings(
            trail_from_level=policies.trail_from_level,
            breakeven_margin_pct=Fraction(BREAKEVEN_MARGIN_PCT if policies.breakeven_below_entry else 0),
            liquidity_guard=policies.liquidity_guard,
        )
        self._market = market
        self._orders = orders
        self._now_ms = now_ms

    def evaluate(self, position: Position, sessions: Sequence[Session]) -> None:
        """Let the strategy of every session that owns the position look at it."""
        if not sessions:
            return
        listing, tokens, entry = self._listing(position), position.holding.tokens, position.entry_lamports
        reserves = self._market.reserves(listing)
        gross = sell_fill(reserves, self._market.venue(listing).fees, tokens).total_lamports
        absorbed = max_sell_tokens(reserves, GUARD_SLIPPAGE_BPS)
        for session in sessions:
            profit = gross - session.tier.routing_fee.of(gross, listing.quote) - entry
            watch, exits = position.watches[session.key_id].observe(
                entry, profit, tokens=tokens, absorbed=absorbed, readings=self._readings
            )
            self._act(session, position, watch, exits)

    def graduated(self, position: Position, sessions: Iterable[Session]) -> None:
        """The position's token has moved to an AMM pool."""
        for session in sessions:
            self._act(session, position, *position.watches[session.key_id].graduated())

    def _act(self, session: Session, position: Position, watch: Watch, exits: tuple[Exit, ...]) -> None:
        position.watches[session.key_id] = watch
        for due in exits:
            if due.sell_tokens is None or watch.pending_tokens >= position.holding.tokens:
                position.exit_reason = due.reason
            self.signal(session, position, due)

    def resend(self, session: Session, position: Position) -> None:
        """Signal again what was signalled before and is not sold yet."""
        watch = position.watches[session.key_id]
        if watch.fired is not None:
            self.signal(session, position, Exit(watch.fired))
            return
        left = position.holding.tokens
        for level, tokens in watch.pending:
            if sell_tokens := min(tokens, left):
                self.signal(session, position, Exit(LADDER_LEVEL, sell_tokens, level))
            left -= sell_tokens

    def signal(
        self, session: Session, position: Position, due: Exit, slippage_bps: int = DEFAULT_EXIT_SLIPPAGE_BPS
    ) -> None:
        """Tell a session to sell, with the transaction to sign."""
        holding, listing = position.holding, self._listing(position)
        tokens = holding.tokens if due.sell_tokens is None else due.sell_tokens
        terms = OrderTerms(slippage_bps, session.delivery, None, session.tier.routing_fee)
        order = self._orders.sell(listing, holding.wallet, tokens, terms)
        message = wire.message(
            "exit_signal_with_tx",
            session_id=session.session_id,
            position_id=position.position_id,
            **holding.place,
            position_tokens=holding.tokens,
            profit_units=self.proceeds(listing, holding.tokens, session.tier.routing_fee) - position.entry_lamports,
            reason=due.reason,
            triggered_at_ms=self._now_ms(),
            market_context=self._market.venue(listing).market_context(listing, holding.wallet),
            unsigned_tx_b64=order.tx_b64,
            sell_tokens=due.sell_tokens,
            level_index=due.level_index,
            mirror_source=position.mirror_source,
        )
        _log.info("session %d: exit of position %d: %s", session.session_id, position.position_id, due.reason)
        session.outbox.post([message])

    def proceeds(self, listing: Listing, tokens: int, fee: RoutingFee = NO_ROUTING_FEE) -> int:
        """What selling so many tokens would return now, after all fees, in quote units; a least fee may exceed it."""
        gross = sell_fill(self._market.reserves(listing), self._market.venue(listing).fees, tokens).total_lamports
        return gross - fee.of(gross, listing.quote)

    def _listing(self, position: Position) -> Listing:
        return self._market.listings[position.holding.mint]
