"""The stream's side of the exchange: sessions, what they are told, and when positions must be sold.

Takes client messages and executed trades in, puts server messages into outboxes. No sockets, no clock of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from solders.pubkey import Pubkey

from lasersell_sync.sandbox import wire
from lasersell_sync.sandbox.accounts import KeyRing, stream_limits
from lasersell_sync.sandbox.chain import Landing
from lasersell_sync.sandbox.commands import (
    ClosePosition,
    Command,
    Configure,
    InvalidStrategy,
    MirrorBuyResult,
    Ping,
    RequestExitSignal,
    Selector,
    UpdatePositionStrategy,
    UpdateStrategy,
    UpdateWallets,
    UpdateWatchWallets,
    read_command,
)
from lasersell_sync.sandbox.feed import Feed
from lasersell_sync.sandbox.json_fields import BadField, decode_object
from lasersell_sync.sandbox.ledger import TokenAccount
from lasersell_sync.sandbox.listings import Listing
from lasersell_sync.sandbox.market import Market
from lasersell_sync.sandbox.orders import OrderDesk
from lasersell_sync.sandbox.pools import sell_fill
from lasersell_sync.sandbox.positions import Holding, Position, PositionBook
from lasersell_sync.sandbox.runtime import Swap
from lasersell_sync.sandbox.sessions import Outbox, Session
from lasersell_sync.sandbox.slots import SlotClock
from lasersell_sync.sandbox.strategies import Strategy, Watch

_log = logging.getLogger("lasersell_sync.sandbox.stream")

#: What an exit signal's transaction tolerates unless the client asks otherwise.
DEFAULT_EXIT_SLIPPAGE_BPS = 2_000
POLICY_VIOLATION = 1008

MANUAL_SELL = "manual_sell"
MANUAL_CLOSE = "manual"
SOLD = "sold"


class StreamDesk:
    """Sessions and positions.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(
        self,
        *,
        keys: KeyRing,
        market: Market,
        orders: OrderDesk,
        slots: SlotClock,
        now_ms: Callable[[], int],
        pnl_flush_ms: int,
        replace_sessions: bool,
    ) -> None:
        self._keys = keys
        self._market = market
        self._orders = orders
        self._slots = slots
        self._now_ms = now_ms
        self._pnl_flush_ms = pnl_flush_ms
        self._replace_sessions = replace_sessions
        self.book = PositionBook()
        self.feed = Feed(market, now_ms)
        #: every session ever, by id, in order of connection
        self.sessions: dict[int, Session] = {}
        self._live: dict[int, Session] = {}

    # -- connections

    def connect(self, key_id: str, outbox: Outbox) -> Session:
        """A connection came up; it must ``configure`` before anything else."""
        session = Session(len(self.sessions) + 1, key_id, outbox, self._now_ms())
        self.sessions[session.session_id] = session
        return session

    def disconnect(self, session: Session) -> None:
        """A connection is gone; its positions stay with their wallets."""
        if session.closed_at_ms is None:
            session.closed_at_ms = self._now_ms()
        self._live.pop(session.session_id, None)
        session.positions.clear()

    def live_sessions(self) -> list[Session]:
        """Configured sessions, oldest first."""
        return list(self._live.values())

    def _watchers(self, wallet: Pubkey) -> list[Session]:
        return [session for session in self._live.values() if wallet in session.wallets]

    def _trackers(self, position: Position) -> list[Session]:
        return [session for session in self._live.values() if position.position_id in session.positions]

    # -- client messages

    def receive(self, session: Session, data: str | bytes) -> None:
        """Handle one frame of a client; complaints are answered, never raised."""
        if session.closed_at_ms is not None:
            return
        try:
            if isinstance(data, bytes):
                raise BadField("only text frames are accepted")
            message = decode_object(data)
            session.received.append(message)
            command = read_command(message)
            if session.configure is None and not isinstance(command, Configure):
                raise BadField("the first message must be configure")
        except (BadField, InvalidStrategy) as error:
            code = "invalid_strategy" if isinstance(error, InvalidStrategy) else "bad_message"
            self._complain(session, code, str(error))
            return
        self._obey(session, command)

    def _complain(self, session: Session, code: str, message: str) -> None:
        """An error message; before ``hello_ok`` it also ends the connection."""
        session.outbox.post([wire.error(code, message)])
        if session.configure is None:
            self._end(session, code)

    def _end(self, session: Session, reason: str) -> None:
        session.outbox.close(POLICY_VIOLATION, reason)
        self.disconnect(session)

    def _obey(self, session: Session, command: Command) -> None:
        if isinstance(command, Ping):
            session.outbox.post([wire.pong(server_time_ms=self._now_ms())])
        elif isinstance(command, Configure):
            self._configure(session, command)
        elif isinstance(command, UpdateStrategy):
            self._update_strategy(session, command.strategy)
        elif isinstance(command, UpdatePositionStrategy):
            self._update_position_strategy(session, command)
        elif isinstance(command, ClosePosition):
            self._close_position(session, command)
        elif isinstance(command, RequestExitSignal):
            self._request_exit(session, command)
        elif isinstance(command, UpdateWallets):
            self._update_wallets(session, command.wallet_pubkeys)
        elif isinstance(command, UpdateWatchWallets):
            session.watch_wallets = command.watch_wallets
        elif isinstance(command, MirrorBuyResult):
            _log.debug("session %d: mirror buy of %s, success %s", session.session_id, command.mint, command.success)

    def _configure(self, session: Session, command: Configure) -> None:
        if session.configure is not None:
            self._complain(session, "bad_message", "this session is configured already")
            return
        wallets = self._registered(session, command.wallet_pubkeys)
        if wallets is None or not self._admit(session):
            return
        session.configure = command
        session.strategy = command.strategy
        session.watch_wallets = command.watch_wallets
        session.wallets = set(wallets)
        self._live[session.session_id] = session
        limits = stream_limits(self._pnl_flush_ms)
        session.outbox.post(
            [wire.hello_ok(session_id=session.session_id, server_time_ms=self._now_ms(), limits=limits)]
        )
        self._announce(session, wallets)

    def _registered(self, session: Session, texts: Iterable[str]) -> list[Pubkey] | None:
        """The wallets, or None after complaining about the first that is not registered."""
        wallets = []
        for text in texts:
            try:
                wallet = Pubkey.from_string(text)
            except ValueError:
                wallet = None
            if wallet is None or not self._keys.is_registered(session.key_id, wallet):
                self._complain(session, "wallet_not_registered", f"wallet not registered: {text[:64]}")
                return None
            wallets.append(wallet)
        return wallets

    def _admit(self, session: Session) -> bool:
        """One session per API key: the second is refused, or replaces the first."""
        others = [other for other in self._live.values() if other.key_id == session.key_id]
        if others and not self._replace_sessions:
            self._complain(session, "session_limit", "this API key has a session already")
            return False
        for other in others:
            other.outbox.post([wire.error("session_replaced", "another session of this API key took over")])
            self._end(other, "session_replaced")
        return True

    def _update_wallets(self, session: Session, texts: Iterable[str]) -> None:
        wallets = self._registered(session, texts)
        if wallets is None:
            return
        new = [wallet for wallet in wallets if wallet not in session.wallets]
        # Positions of wallets that left stay in session.positions until they close.
        session.wallets = set(wallets)
        self._announce(session, new)

    def _announce(self, session: Session, wallets: Iterable[Pubkey]) -> None:
        """Holdings first, then positions, then whatever their strategies say about them."""
        holdings = [holding for wallet in dict.fromkeys(wallets) for holding in self.book.holdings_of(wallet)]
        slot = self._slots.slot()
        session.outbox.post([_balance(holding, slot) for holding in holdings])
        positions = []
        for holding in holdings:
            if holding.entry_lamports is not None and not holding.dismissed:
                position = self.book.track(holding, entry_lamports=holding.entry_lamports)
                self._adopt(session, position)
                positions.append(position)
        for position in positions:
            self._evaluate(position)

    def _adopt(self, session: Session, position: Position) -> None:
        """Track a position for a session and tell it."""
        if session.strategy is None or position.position_id in session.positions:
            return
        session.positions[position.position_id] = position
        watch = position.watches.get(session.key_id)
        # What fired before a reconnect stays fired, unless the session came back with another strategy.
        position.watches[session.key_id] = watch.with_strategy(session.strategy) if watch else Watch(session.strategy)
        session.outbox.post([self.feed.opened(position)])

    # -- commands about positions

    def _find(self, session: Session, selector: Selector) -> Position | None:
        """The session's position a selector names, or None after complaining."""
        for position in session.positions.values():
            by_id = position.position_id == selector.position_id
            if by_id or str(position.holding.token_account) == selector.token_account:
                return position
        self._complain(session, "unknown_position", f"no such position: {str(selector)[:64]}")
        return None

    def _update_strategy(self, session: Session, strategy: Strategy) -> None:
        session.strategy = strategy
        for position in list(session.positions.values()):
            position.watches[session.key_id] = position.watches[session.key_id].with_strategy(strategy)
            self._evaluate(position)

    def _update_position_strategy(self, session: Session, command: UpdatePositionStrategy) -> None:
        position = self._find(session, Selector(command.position_id, None))
        if position is not None:
            watch = position.watches[session.key_id]
            position.watches[session.key_id] = watch.with_strategy(command.strategy)
            self._evaluate(position)

    def _close_position(self, session: Session, command: ClosePosition) -> None:
        position = self._find(session, command.selector)
        if position is not None:
            position.holding.dismissed = True
            self._close(position, MANUAL_CLOSE)

    def _request_exit(self, session: Session, command: RequestExitSignal) -> None:
        position = self._find(session, command.selector)
        if position is None:
            return
        position.exit_reason = position.exit_reason or MANUAL_SELL
        slippage_bps = DEFAULT_EXIT_SLIPPAGE_BPS if command.slippage_bps is None else command.slippage_bps
        self._signal(session, position, MANUAL_SELL, slippage_bps)

    # -- trades

    def settle(self, landing: Landing) -> None:
        """Tell everyone concerned about a landed transaction: balances, positions, ticks, exits."""
        for address, (before, after) in landing.execution.token_changes.items():
            account = after or before
            if account is not None and account.mint in self._market.listings:
                self._balance_changed(landing, address, before, after)
        for swap in landing.execution.swaps:
            self.traded(swap, tx_signature=landing.record.signature)
        for mint in dict.fromkeys(swap.mint for swap in landing.execution.swaps):
            self._market.holders_changed(mint)

    def traded(self, swap: Swap, *, tx_signature: str | None = None) -> None:
        """A trade moved a pool: ticks for those who watch, and the strategies have a look."""
        for position in self.book.open_in(swap.mint):
            tick = self.feed.tick(position, swap, tx_signature)
            for session in self._trackers(position):
                session.outbox.post([tick], low_lane=True)
            self._evaluate(position)

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
        if new:
            self.book.shrink(holding, new)
        else:
            self.book.remove(holding)
        self._tell_balance(holding, slot)
        if not new and holding.position is not None:
            self._close(holding.position, holding.position.exit_reason or SOLD)

    def _tokens_arrived(self, landing: Landing, address: Pubkey, account: TokenAccount, gained: int) -> None:
        swaps = landing.execution.swaps
        costs = [swap.lamports for swap in swaps if swap.side == "buy" and swap.token_account == address]
        watchers = self._watchers(account.owner)
        if costs:
            cost_lamports: int | None = sum(costs)
        elif watchers or self.book.holding(address) is not None:
            # Not bought: worth what it would bring now, so that a gift is neither profit nor loss.
            cost_lamports = self._proceeds(self._market.listings[account.mint], gained)
        else:
            cost_lamports = None
        holding = self.book.arrive(
            address,
            wallet=account.owner,
            mint=account.mint,
            tokens=account.amount,
            cost_lamports=cost_lamports,
            slot=landing.record.slot,
            ms=self._now_ms(),
        )
        self._tell_balance(holding, landing.record.slot)
        if watchers and holding.entry_lamports is not None:
            position = self.book.track(holding, entry_lamports=holding.entry_lamports)
            for session in watchers:
                self._adopt(session, position)
            self._evaluate(position)

    def _tell_balance(self, holding: Holding, slot: int) -> None:
        position = holding.position
        for session in self._live.values():
            tracked = position is not None and position.position_id in session.positions
            if tracked or holding.wallet in session.wallets:
                session.outbox.post([_balance(holding, slot)])

    def _close(self, position: Position, reason: str) -> None:
        holding = position.holding
        self.book.close(position, reason)
        closed = wire.position_closed(
            position_id=position.position_id,
            wallet=holding.wallet,
            mint=holding.mint,
            token_account=holding.token_account,
            reason=reason,
            slot=self._slots.slot(),
        )
        for session in self._trackers(position):
            session.outbox.post([closed])
            del session.positions[position.position_id]

    # -- exits

    def _evaluate(self, position: Position) -> None:
        """Let every tracking session's strategy look at the position."""
        if not position.open:
            return
        profit = self._proceeds(self._listing(position), position.holding.tokens) - position.entry_lamports
        for session in self._trackers(position):
            before = position.watches[session.key_id]
            watch = before.observe(position.entry_lamports, profit)
            position.watches[session.key_id] = watch
            if watch.fired is not None and before.fired is None:
                position.exit_reason = watch.fired
                self._signal(session, position, watch.fired, DEFAULT_EXIT_SLIPPAGE_BPS)

    def force_exit(self, position: Position, reason: str) -> None:
        """Signal an exit for a reason of the caller's, as if a strategy had fired."""
        position.exit_reason = reason
        for session in self._trackers(position):
            self._signal(session, position, reason, DEFAULT_EXIT_SLIPPAGE_BPS)

    def _signal(self, session: Session, position: Position, reason: str, slippage_bps: int) -> None:
        holding, listing = position.holding, self._listing(position)
        order = self._orders.sell(
            listing, holding.wallet, tokens=holding.tokens, slippage_bps=slippage_bps, delivery=session.delivery
        )
        message = wire.exit_signal_with_tx(
            session_id=session.session_id,
            position_id=position.position_id,
            wallet=holding.wallet,
            mint=holding.mint,
            token_account=holding.token_account,
            position_tokens=holding.tokens,
            profit_lamports=self._proceeds(listing, holding.tokens) - position.entry_lamports,
            reason=reason,
            triggered_at_ms=self._now_ms(),
            market_context=self._market.venue(listing).market_context(listing),
            unsigned_tx_b64=order.tx_b64,
        )
        _log.info("session %d: exit of position %d: %s", session.session_id, position.position_id, reason)
        session.outbox.post([message])

    def _listing(self, position: Position) -> Listing:
        return self._market.listings[position.holding.mint]

    def _proceeds(self, listing: Listing, tokens: int) -> int:
        return sell_fill(self._market.reserves(listing), self._market.venue(listing).fees, tokens).total_lamports


def _balance(holding: Holding, slot: int) -> str:
    return wire.balance_update(
        wallet=holding.wallet,
        mint=holding.mint,
        token_account=holding.token_account,
        tokens=holding.tokens,
        slot=slot,
    )
