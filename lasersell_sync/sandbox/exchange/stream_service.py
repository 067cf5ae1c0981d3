"""The stream's side of the exchange: sessions, and what their clients say.

Takes client messages in, puts server messages into outboxes. No sockets, no clock of its own. What becomes of positions
is ``position_service.py``'s business.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.clock import VirtualClock
from lasersell_sync.sandbox.chain.slots import SlotClock
from lasersell_sync.sandbox.exchange.api_keys import KeyRing
from lasersell_sync.sandbox.exchange.exit_service import DEFAULT_EXIT_SLIPPAGE_BPS
from lasersell_sync.sandbox.exchange.orders import OrderBuilder
from lasersell_sync.sandbox.exchange.position_book import Position
from lasersell_sync.sandbox.exchange.position_service import PositionService
from lasersell_sync.sandbox.exchange.sessions import Outbox, Session, SessionRegistry
from lasersell_sync.sandbox.markets.market import Market
from lasersell_sync.sandbox.protocol import server_messages as wire
from lasersell_sync.sandbox.protocol.client_messages import (
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
    WatchWallet,
    read_command,
)
from lasersell_sync.sandbox.protocol.exit_conditions import Exit, Strategy
from lasersell_sync.sandbox.protocol.json_fields import BadField, decode_object
from lasersell_sync.sandbox.protocol.policies import Policies
from lasersell_sync.sandbox.protocol.tiers import RateLimiter, Tier

_log = logging.getLogger("lasersell_sync.sandbox.stream")

GOING_AWAY = 1001
POLICY_VIOLATION = 1008

MANUAL_SELL = "manual_sell"
MANUAL_CLOSE = "manual"


class _Rejection(Exception):
    """A well-formed message that cannot be obeyed: the ``error`` message to answer it with."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StreamService:
    """Sessions: their beginning, their commands, their end.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(
        self,
        *,
        keys: KeyRing,
        tiers: Mapping[str, Tier],
        market: Market,
        orders: OrderBuilder,
        slots: SlotClock,
        clock: VirtualClock,
        pnl_flush_ms: int,
        policies: Policies,
        rate_limiter: RateLimiter,
    ) -> None:
        self._keys = keys
        self._tiers = tiers
        self._clock = clock
        self._pnl_flush_ms = pnl_flush_ms
        self._policies = policies
        self._rate_limiter = rate_limiter
        self.registry = SessionRegistry()
        self.positions = PositionService(
            self.registry, market=market, orders=orders, slots=slots, clock=clock, policies=policies
        )

    # -- connections

    def connect(self, key_id: str, outbox: Outbox) -> Session:
        """A connection came up; it must ``configure`` before anything else."""
        session = Session(
            len(self.registry.sessions) + 1,
            key_id,
            outbox,
            self._clock.now_ms(),
            tier=self._tiers[key_id],
            active_s=self._clock.now_s(),
        )
        self.registry.add(session)
        if self._policies.hello_first:
            try:
                self._admit(session)
            except _Rejection as rejection:
                self._reject(session, rejection.code, str(rejection))
            else:
                self._send_hello(session)
        return session

    def disconnect(self, session: Session) -> None:
        """A connection is gone; its positions stay with their wallets."""
        self.registry.remove(session, self._clock.now_ms())

    def next_expiry_s(self) -> float | None:
        """When the next session has been silent for too long."""
        ends = [
            session.active_s + session.tier.inactivity_s
            for session in self.registry.live
            if session.tier.inactivity_s is not None
        ]
        return min(ends, default=None)

    def expire(self) -> int:
        """End the sessions that have been silent for too long; how many."""
        expired = [
            session
            for session in self.registry.live
            if session.tier.inactivity_s is not None
            and session.active_s + session.tier.inactivity_s <= self._clock.now_s()
        ]
        for session in expired:
            _log.info("session %d was silent for too long", session.session_id)
            session.outbox.close(GOING_AWAY, "inactive for 45 minutes")
            self.disconnect(session)
        return len(expired)

    # -- client messages

    def receive(self, session: Session, data: str | bytes) -> None:
        """Handle one frame of a client; complaints are answered, never raised."""
        if session.closed_at_ms is not None:
            return
        if self._rate_limiter.wait_s(session.key_id, self._clock.now_s()):
            self._reject(session, "rate_limited", "too many messages within a minute: this one was not read")
            return
        try:
            if isinstance(data, bytes):
                raise BadField("only text frames are accepted")
            message = decode_object(data)
            session.received.append(message)
            command = read_command(message)
            if session.configure is None and not isinstance(command, Configure):
                raise BadField("the first message must be configure")
            if self._policies.ping_is_activity or not isinstance(command, Ping):
                session.active_s = self._clock.now_s()
            self._dispatch(session, command)
        except BadField as error:
            self._reject(session, "bad_message", str(error))
        except InvalidStrategy as error:
            self._reject(session, "invalid_strategy", str(error))
        except _Rejection as rejection:
            self._reject(session, rejection.code, str(rejection))

    def _reject(self, session: Session, code: str, message: str) -> None:
        """An error message; before the session is configured it also ends the connection."""
        session.outbox.post([wire.error(code, message)])
        if session.configure is None:
            self._end(session, code)

    def _end(self, session: Session, reason: str) -> None:
        session.outbox.close(POLICY_VIOLATION, reason)
        self.disconnect(session)

    def _dispatch(self, session: Session, command: Command) -> None:
        if isinstance(command, Ping):
            session.outbox.post([wire.message("pong", server_time_ms=self._clock.now_ms())])
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
            self._update_watch_wallets(session, command.watch_wallets)
        elif isinstance(command, MirrorBuyResult):
            self.positions.mirror.result(session, command)

    # -- sessions and their wallets

    def _configure(self, session: Session, command: Configure) -> None:
        if session.configure is not None:
            raise BadField("this session is configured already")
        wallets = self._checked_wallets(session, command.wallet_pubkeys)
        self._check_watch_wallets(session, command.watch_wallets)
        if not self._policies.hello_first:
            self._admit(session)
        session.configure = command
        session.strategy = command.strategy
        session.wallets = set(wallets)
        self.registry.go_live(session)
        if not self._policies.hello_first:
            self._send_hello(session)
        self.positions.announce(session, wallets)
        self._update_watch_wallets(session, command.watch_wallets)

    def _send_hello(self, session: Session) -> None:
        limits = session.tier.stream_limits(self._pnl_flush_ms)
        hello = wire.message(
            "hello_ok", session_id=session.session_id, server_time_ms=self._clock.now_ms(), limits=limits
        )
        session.outbox.post([hello])

    def _admit(self, session: Session) -> None:
        """One session per API key: the second is refused, or replaces the first."""
        # With the greeting first, a session holds its key from the connection on.
        everyone = self.registry.sessions.values() if self._policies.hello_first else self.registry.live
        others = [
            other
            for other in everyone
            if other.key_id == session.key_id and other is not session and other.closed_at_ms is None
        ]
        if len(others) < session.tier.max_sessions_per_key:
            return
        if not self._policies.replace_sessions:
            raise _Rejection("session_limit", "this API key has a session already; close it, or use another key")
        for other in others:
            other.outbox.post([wire.error("session_replaced", "another session of this API key took over")])
            self._end(other, "session_replaced")

    def _checked_wallets(self, session: Session, texts: Sequence[str]) -> list[Pubkey]:
        """The wallets, all registered and not too many."""
        tier = session.tier
        if len(set(texts)) > tier.max_wallets:
            raise _over(tier, "wallets per session", tier.max_wallets, len(set(texts)))
        wallets = []
        for text in texts:
            try:
                wallet = Pubkey.from_string(text)
            except ValueError:
                raise _unregistered(text) from None
            self._check_registered(session, wallet)
            wallets.append(wallet)
        return wallets

    def _check_registered(self, session: Session, wallet: Pubkey) -> None:
        if not self._keys.is_registered(session.key_id, wallet):
            raise _unregistered(str(wallet))

    def _check_watch_wallets(self, session: Session, watches: Sequence[WatchWallet]) -> None:
        tier, pubkeys = session.tier, [watch.pubkey for watch in watches]
        if len(pubkeys) > tier.max_watch_wallets:
            raise _over(tier, "watch wallets per session", tier.max_watch_wallets, len(pubkeys))
        if len(set(pubkeys)) < len(pubkeys):
            raise BadField("watch_wallets names a wallet twice")
        for watch in watches:
            if watch.auto_buy is not None:
                self._check_registered(session, watch.auto_buy.wallet)

    def _update_wallets(self, session: Session, texts: Sequence[str]) -> None:
        wallets = self._checked_wallets(session, texts)
        new = [wallet for wallet in wallets if wallet not in session.wallets]
        # Positions of wallets that left stay in session.positions until they close.
        session.wallets = set(wallets)
        self.positions.announce(session, new)

    def _update_watch_wallets(self, session: Session, watches: Sequence[WatchWallet]) -> None:
        self._check_watch_wallets(session, watches)
        session.watch_wallets = tuple(watches)
        self.positions.mirror.enable(session)
        for watch in watches:
            if watch.pubkey not in session.wallets:
                self.positions.announce_watched(session, watch.pubkey)

    # -- commands about positions

    def _find(self, session: Session, selector: Selector) -> Position:
        """The session's own position that a selector names."""
        position = None
        if selector.position_id is not None:
            position = session.positions.get(selector.position_id)
        else:
            every = session.positions.values()
            position = next((p for p in every if str(p.holding.token_account) == selector.token_account), None)
        if position is None or session.watched(position):
            kind = "position" if position is None else "position of yours (it is a watched wallet's)"
            raise _Rejection("unknown_position", f"no such {kind}: {str(selector)[:64]}")
        return position

    def _update_strategy(self, session: Session, strategy: Strategy) -> None:
        session.strategy = strategy
        for position in session.own_positions():
            self._set_strategy(session, position, strategy)

    def _update_position_strategy(self, session: Session, command: UpdatePositionStrategy) -> None:
        self._set_strategy(session, self._find(session, Selector(command.position_id, None)), command.strategy)

    def _set_strategy(self, session: Session, position: Position, strategy: Strategy) -> None:
        position.watches[session.key_id] = position.watches[session.key_id].with_strategy(strategy)
        self.positions.exits.evaluate(position, [session])

    def _close_position(self, session: Session, command: ClosePosition) -> None:
        position = self._find(session, command.selector)
        position.holding.dismissed = True
        self.positions.close(position, MANUAL_CLOSE)

    def _request_exit(self, session: Session, command: RequestExitSignal) -> None:
        position = self._find(session, command.selector)
        position.exit_reason = position.exit_reason or MANUAL_SELL
        slippage_bps = DEFAULT_EXIT_SLIPPAGE_BPS if command.slippage_bps is None else command.slippage_bps
        self.positions.exits.signal(session, position, Exit(MANUAL_SELL), slippage_bps)


def _over(tier: Tier, what: str, most: int, given: int) -> _Rejection:
    return _Rejection("limit_exceeded", f"tier {tier.number} ({tier.name}) allows {most} {what}, not {given}")


def _unregistered(text: str) -> _Rejection:
    return _Rejection("wallet_not_registered", f"wallet not registered: {text[:64]}; POST /v1/wallets/register first")
