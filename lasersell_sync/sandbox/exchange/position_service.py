"""Positions: which sessions they are sent to, what changes them, how they end.

Takes executed trades in, puts server messages into outboxes. ``exit_service.py`` decides when to sell,
``copy_trading.py`` what to copy, and ``feed.py`` writes the numbers ten times a second.
"""

from __future__ import annotations

from collections.abc import Iterable

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.blockchain import Landing
from lasersell_sync.sandbox.chain.clock import VirtualClock
from lasersell_sync.sandbox.chain.ledger import TokenAccount, token_address
from lasersell_sync.sandbox.chain.runtime import Swap
from lasersell_sync.sandbox.chain.slots import SlotClock
from lasersell_sync.sandbox.exchange.copy_trading import CopyTrading
from lasersell_sync.sandbox.exchange.exit_service import ExitService
from lasersell_sync.sandbox.exchange.feed import Feed
from lasersell_sync.sandbox.exchange.orders import OrderBuilder
from lasersell_sync.sandbox.exchange.position_book import Holding, Position, PositionBook
from lasersell_sync.sandbox.exchange.sessions import Session, SessionRegistry
from lasersell_sync.sandbox.exchange.trade_history import TradeHistory
from lasersell_sync.sandbox.markets.market import Market
from lasersell_sync.sandbox.markets.venues import CURVES
from lasersell_sync.sandbox.protocol import server_messages as wire
from lasersell_sync.sandbox.protocol.exit_conditions import Exit, Watch
from lasersell_sync.sandbox.protocol.policies import Policies

SOLD = "sold"


class PositionService:
    """Holdings become positions, sessions are sent positions, and exits follow.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(
        self,
        registry: SessionRegistry,
        *,
        market: Market,
        orders: OrderBuilder,
        slots: SlotClock,
        clock: VirtualClock,
        policies: Policies,
    ) -> None:
        self._registry = registry
        self._market = market
        self._slots = slots
        self._clock = clock
        self._policies = policies
        self.book = PositionBook()
        self.history = TradeHistory()
        self.feed = Feed(market, clock.now_ms)
        self.exits = ExitService(market, orders, clock.now_ms, policies)
        self.mirror = CopyTrading(market, orders, self.book, clock, self.exits, policies)

    # -- announcements

    def announce(self, session: Session, wallets: Iterable[Pubkey]) -> None:
        """Holdings first, then positions, then whatever their strategies say about them."""
        holdings = [holding for wallet in dict.fromkeys(wallets) for holding in self.book.holdings_of(wallet)]
        slot = self._slots.slot()
        session.outbox.post([_balance(holding, slot) for holding in holdings if self._is_news(session, holding)])
        positions = []
        for holding in holdings:
            if holding.entry_lamports is not None and not holding.dismissed:
                position = self.book.track(holding, entry_lamports=holding.entry_lamports)
                self._renumber(session, position)
                if self._adopt(session, position):
                    positions.append(position)
        for position in positions:
            if self._policies.resend_exits:
                self.exits.resend(session, position)
            self.exits.evaluate(position, self._registry.deciders(position))

    def announce_watched(self, session: Session, wallet: Pubkey) -> None:
        """What a watched wallet holds."""
        for holding in self.book.holdings_of(wallet):
            if holding.entry_lamports is not None:
                self._show(session, self.book.track(holding, entry_lamports=holding.entry_lamports))

    def _is_news(self, session: Session, holding: Holding) -> bool:
        """Whether to send a holding to a session, which may know it."""
        position = holding.position
        return self._policies.reannounce or position is None or session.key_id not in position.announced

    def _renumber(self, session: Session, position: Position) -> None:
        known = session.key_id in position.announced and position.position_id not in session.positions
        if known and not self._policies.stable_ids and not self._registry.trackers(position):
            self.book.renumber(position)

    def _adopt(self, session: Session, position: Position) -> bool:
        """Track a position of the session's own and announce it; False if it is tracked already, or above a limit."""
        tracked = position.position_id in session.positions
        if session.strategy is None or (tracked and not session.watched(position)):
            return False
        session.forget(position)  # a watched wallet that has become the session's own
        obstacle = session.full(position.holding.wallet)
        if obstacle is not None:
            mint = position.holding.mint
            session.outbox.post([wire.error("capacity_exceeded", f"{obstacle}: the position in {mint} is not tracked")])
            return False
        news = self._is_news(session, position.holding)
        session.track(position, watched=False)
        position.announced.add(session.key_id)
        watch = position.watches.get(session.key_id)
        # What fired before a reconnect stays fired, unless the session came back with another strategy.
        position.watches[session.key_id] = watch.with_strategy(session.strategy) if watch else Watch(session.strategy)
        venue = self._market.venue(self._market.listings[position.holding.mint])
        self.history.note(session, position, market_kind=venue.route_name, strategy=session.strategy)
        if news:
            session.outbox.post([self.feed.opened(position, watched=False)])
        return True

    def _show(self, session: Session, position: Position) -> None:
        """Track a watched wallet's position."""
        if position.position_id not in session.positions:
            session.track(position, watched=True)
            session.outbox.post([self.feed.opened(position, watched=True)])

    def force_exit(self, position_id: int, reason: str) -> None:
        """Signal an exit, as if a strategy had fired. Raises ValueError for a position that is not open."""
        position = self.book.position(position_id)
        if position is None or not position.open:
            raise ValueError(f"position_id {position_id} is not an open position")
        position.exit_reason = reason
        for session in self._registry.deciders(position):
            self.exits.signal(session, position, Exit(reason))

    # -- trades

    def settle(self, landing: Landing) -> None:
        """Tell everyone concerned about a landed transaction: balances, positions, ticks, exits, copies."""
        for address, (before, after) in landing.execution.token_changes.items():
            account = after or before
            if account is not None and account.mint in self._market.listings:
                self._balance_changed(landing, address, before, after)
        for swap in landing.execution.swaps:
            self.traded(swap, tx_signature=landing.record.signature)
            self.mirror.copy(swap, self._registry.spectators(swap.trader))
        for mint in dict.fromkeys(swap.mint for swap in landing.execution.swaps):
            self._market.holders_changed(mint)
        if landing.record.err is not None and self._policies.rebuild_exits:
            self._rebuild_exits(Pubkey.from_string(landing.record.fee_payer))

    def _rebuild_exits(self, wallet: Pubkey) -> None:
        """A wallet's transaction failed: signal again what was signalled and is not sold."""
        for holding in self.book.holdings_of(wallet):
            if holding.position is not None:
                for session in self._registry.deciders(holding.position):
                    self.exits.resend(session, holding.position)

    def traded(self, swap: Swap, *, tx_signature: str | None = None) -> None:
        """A trade moved a pool: ticks for those who watch, and the strategies have a look."""
        for position in self.book.open_in(swap.mint):
            trackers = self._registry.trackers(position)
            for session in trackers:
                tick = self.feed.tick(position, swap, tx_signature, watched=session.watched(position))
                session.outbox.post([tick], low_lane=True)
            self.exits.evaluate(position, [session for session in trackers if not session.watched(position)])

    def graduated(self, mint: Pubkey) -> None:
        """A token moved from its bonding curve to an AMM pool.

        Its positions are announced again, for they trade elsewhere now, unless the new pool follows from the token.
        """
        curve = CURVES.get(self._market.listings[mint].launched_on or "")
        announces = curve is None or not curve.pool_follows_from_token
        for position in self.book.open_in(mint):
            for session in self._registry.trackers(position) if announces else ():
                session.outbox.post([self.feed.opened(position, watched=session.watched(position))])
            self.exits.graduated(position, self._registry.deciders(position))

    def repriced(self, mint: Pubkey) -> None:
        """A pool changed without a trade: no ticks, but the strategies have a look."""
        for position in self.book.open_in(mint):
            self.exits.evaluate(position, self._registry.deciders(position))

    def _balance_changed(
        self, landing: Landing, address: Pubkey, before: TokenAccount | None, after: TokenAccount | None
    ) -> None:
        account = after or before
        old, new = (before.amount if before else 0), (after.amount if after else 0)
        if account is None or old == new:
            return
        wallet, slot = account.owner, landing.record.slot
        if self._market.is_own(wallet):
            return
        if new > old:
            self._tokens_arrived(landing, address, account, new - old)
            return
        holding = self.book.holding(address)
        if holding is None:
            return
        self._tokens_left(landing, holding, new)
        self._send_balance(holding, slot)
        if not new and holding.position is not None:
            self.close(holding.position, holding.position.exit_reason or SOLD)

    def _tokens_left(self, landing: Landing, holding: Holding, left: int) -> None:
        swaps, address = landing.execution.swaps, holding.token_account
        if holding.position is not None:
            returned = sum(swap.net_lamports for swap in swaps if swap.side == "sell" and swap.token_account == address)
            holding.position.returned_units += returned
        if left:
            self.book.shrink(holding, left)
        else:
            self.book.remove(holding)

    def _tokens_arrived(self, landing: Landing, address: Pubkey, account: TokenAccount, gained: int) -> None:
        swaps = landing.execution.swaps
        costs = [swap.net_lamports for swap in swaps if swap.side == "buy" and swap.token_account == address]
        concerned = self._registry.owners(account.owner) or self._registry.spectators(account.owner)
        if costs:
            cost_lamports: int | None = sum(costs)
        elif concerned or self.book.holding(address) is not None:
            # Not bought: worth what it would bring now, so that a gift is neither profit nor loss.
            cost_lamports = self.exits.proceeds(self._market.listings[account.mint], gained)
        else:
            cost_lamports = None
        holding = self.book.arrive(
            address,
            wallet=account.owner,
            mint=account.mint,
            tokens=account.amount,
            cost_lamports=cost_lamports,
            slot=landing.record.slot,
            ms=self._clock.now_ms(),
        )
        self._announce_arrival(holding, landing.record.slot, bought=bool(costs))

    def granted(self, wallet: Pubkey, mint: Pubkey, *, tokens: int, cost: int) -> None:
        """A wallet was given tokens as if it had bought them."""
        address, slot = token_address(wallet, mint), self._slots.slot()
        before = self.book.holding(address)
        holding = self.book.arrive(
            address,
            wallet=wallet,
            mint=mint,
            tokens=tokens + (before.tokens if before is not None else 0),
            cost_lamports=cost,
            slot=slot,
            ms=self._clock.now_ms(),
        )
        self._announce_arrival(holding, slot, bought=True)

    def _announce_arrival(self, holding: Holding, slot: int, *, bought: bool) -> None:
        self._send_balance(holding, slot)
        owners, spectators = self._registry.owners(holding.wallet), self._registry.spectators(holding.wallet)
        if not (owners or spectators) or holding.entry_lamports is None:
            return
        position = self.book.track(holding, entry_lamports=holding.entry_lamports)
        if bought:
            self.mirror.arrived(position)
        for session in owners:
            self._adopt(session, position)
        for session in spectators:
            self._show(session, position)
        self.exits.evaluate(position, self._registry.deciders(position))

    def _send_balance(self, holding: Holding, slot: int) -> None:
        position = holding.position
        for session in self._registry.live:
            tracked = position is not None and position.position_id in session.positions
            if holding.wallet in session.wallets or (tracked and position and not session.watched(position)):
                session.outbox.post([_balance(holding, slot)])

    def close(self, position: Position, reason: str) -> None:
        """Stop tracking, and say why."""
        holding = position.holding
        self.book.close(position, reason, ms=self._clock.now_ms())
        for session in self._registry.trackers(position):
            closed = wire.message(
                "position_closed",
                position_id=position.position_id,
                **holding.place,
                reason=reason,
                slot=self._slots.slot(),
                watched=session.watched(position),
                mirror_source=position.mirror_source,
            )
            session.outbox.post([closed])
            session.forget(position)
        self.mirror.closed(position, self._registry.live)


def _balance(holding: Holding, slot: int) -> str:
    return wire.message(
        "balance_update",
        **holding.place,
        tokens=holding.tokens,
        slot=slot,
    )
