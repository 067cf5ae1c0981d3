"""A stream session: one connection, what it configured, what it tracks, and where its messages go.

The registry knows every session there was; observers see what sessions are sent; and the messages that clients have
sent are kept up to a size.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.exchange.orders import Delivery
from lasersell_sync.sandbox.exchange.position_book import Position
from lasersell_sync.sandbox.protocol.client_messages import Configure, MirrorConfig, WatchWallet
from lasersell_sync.sandbox.protocol.exit_conditions import Strategy
from lasersell_sync.sandbox.protocol.tiers import TIERS, Tier

#: A text is one text frame; bytes go on the socket as they are (damaged frames for client tests).
Frame = str | bytes


class Outbox(Protocol):
    """Takes messages for one connection. Must not block: the exchange calls it under its lock."""

    def post(self, frames: Sequence[Frame], *, low_lane: bool = False) -> None:
        """Queue frames in order; low-lane frames may be dropped when the client does not drain its socket."""

    def close(self, code: int, reason: str) -> None:
        """Close the connection once everything queued is written."""


@dataclass(slots=True, eq=False)
class Session:
    """A connection from the upgrade on; ``configure`` is None until it has introduced itself."""

    session_id: int
    #: which API key, by its label; the key itself stays in the key ring
    key_id: str
    outbox: Outbox
    connected_at_ms: int
    tier: Tier = TIERS[2]
    #: when the client last did something, on the virtual clock
    active_s: float = 0.0
    configure: Configure | None = None
    wallets: set[Pubkey] = field(default_factory=set)
    strategy: Strategy | None = None
    watch_wallets: tuple[WatchWallet, ...] = ()
    #: tracked for this session, by position id
    positions: dict[int, Position] = field(default_factory=dict)
    #: which of them are watched wallets': sent with ``watched``, and not sold by this session's strategy
    watched_ids: set[int] = field(default_factory=set)
    #: how many of its own each wallet has
    own_counts: Counter[Pubkey] = field(default_factory=Counter)
    #: every JSON object received, in order
    received: list[dict[str, object]] = field(default_factory=list)
    closed_at_ms: int | None = None

    @property
    def live(self) -> bool:
        """Configured and not closed."""
        return self.configure is not None and self.closed_at_ms is None

    @property
    def mirror_config(self) -> MirrorConfig:
        """This session's rules for copying."""
        return self.configure.mirror_config if self.configure is not None else MirrorConfig()

    def watched(self, position: Position) -> bool:
        """Whether a tracked position is a watched wallet's, not the client's own."""
        return position.position_id in self.watched_ids

    def own_positions(self) -> list[Position]:
        """The tracked positions of the client's own wallets."""
        return [position for number, position in self.positions.items() if number not in self.watched_ids]

    def track(self, position: Position, *, watched: bool) -> None:
        """Tell this session about a position from now on."""
        self.positions[position.position_id] = position
        if watched:
            self.watched_ids.add(position.position_id)
        else:
            self.own_counts[position.holding.wallet] += 1

    def forget(self, position: Position) -> None:
        """Tell it no more."""
        if self.positions.pop(position.position_id, None) is None:
            return
        if position.position_id in self.watched_ids:
            self.watched_ids.discard(position.position_id)
        else:
            self.own_counts[position.holding.wallet] -= 1

    def full(self, wallet: Pubkey) -> str | None:
        """Which limit keeps one more position of a wallet from being tracked, in words; None if there is room."""
        tier = self.tier
        if len(self.positions) - len(self.watched_ids) >= tier.max_positions_per_session:
            return f"tier {tier.number} ({tier.name}) tracks {tier.max_positions_per_session} positions per session"
        if self.own_counts[wallet] >= tier.max_positions_per_wallet:
            return f"tier {tier.number} ({tier.name}) tracks {tier.max_positions_per_wallet} positions per wallet"
        return None

    @property
    def delivery(self) -> Delivery:
        """How this session's exits will be sent."""
        if self.configure is None:
            return Delivery()
        return Delivery(self.configure.send_mode, self.configure.tip_lamports)


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session at one moment, for tests and tools."""

    session_id: int
    key_id: str
    tier: int
    configured: bool
    wallet_pubkeys: tuple[str, ...]
    strategy: Strategy | None
    send_mode: str | None
    tip_lamports: int | None
    watch_wallets: tuple[WatchWallet, ...]
    position_ids: tuple[int, ...]
    connected_at_ms: int
    closed_at_ms: int | None


def session_record(session: Session) -> SessionRecord:
    """A session's current state."""
    delivery = session.delivery
    return SessionRecord(
        session_id=session.session_id,
        key_id=session.key_id,
        tier=session.tier.number,
        configured=session.configure is not None,
        wallet_pubkeys=tuple(sorted(str(wallet) for wallet in session.wallets)),
        strategy=session.strategy,
        send_mode=delivery.send_mode,
        tip_lamports=delivery.tip_lamports,
        watch_wallets=session.watch_wallets,
        position_ids=tuple(session.positions),
        connected_at_ms=session.connected_at_ms,
        closed_at_ms=session.closed_at_ms,
    )


class SessionRegistry:
    """Sessions by id; live is one that is configured and connected.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self) -> None:
        #: every session ever, by id, in order of connection
        self.sessions: dict[int, Session] = {}
        self._live: dict[int, Session] = {}

    def add(self, session: Session) -> None:
        """A connection came up."""
        self.sessions[session.session_id] = session

    def go_live(self, session: Session) -> None:
        """It has configured."""
        self._live[session.session_id] = session

    def remove(self, session: Session, closed_at_ms: int) -> None:
        """It is gone; its positions stay with their wallets."""
        if session.closed_at_ms is None:
            session.closed_at_ms = closed_at_ms
        self._live.pop(session.session_id, None)
        for position in list(session.positions.values()):
            session.forget(position)

    def records(self, *, include_closed: bool) -> list[SessionRecord]:
        """Sessions, oldest first."""
        return [session_record(session) for session in self.sessions.values() if include_closed or session.live]

    @property
    def live(self) -> list[Session]:
        """Configured sessions, oldest first."""
        return list(self._live.values())

    def owners(self, wallet: Pubkey) -> list[Session]:
        """Sessions that have configured a wallet as their own."""
        return [session for session in self._live.values() if wallet in session.wallets]

    def spectators(self, wallet: Pubkey) -> list[Session]:
        """Sessions that watch a wallet which is not their own."""
        return [
            session
            for session in self._live.values()
            if wallet not in session.wallets and any(watch.pubkey == wallet for watch in session.watch_wallets)
        ]

    def trackers(self, position: Position) -> list[Session]:
        """Sessions that track a position."""
        return [session for session in self._live.values() if position.position_id in session.positions]

    def deciders(self, position: Position) -> list[Session]:
        """Sessions whose strategy governs a position."""
        return [session for session in self.trackers(position) if not session.watched(position)]


#: Takes a high-lane frame as it is sent to some session, under the exchange's lock: it must be quick and must not fail.
Observer = Callable[[Frame], object]


class ObservedOutbox:
    """An outbox whose high-lane frames go to observers too; low-lane frames do not.

    Threads: as the outbox in it.
    """

    def __init__(self, outbox: Outbox, observers: Sequence[Observer]) -> None:
        self._outbox = outbox
        self._observers = observers

    def post(self, frames: Sequence[Frame], *, low_lane: bool = False) -> None:
        """Queue frames in order."""
        if not low_lane:
            for observer in self._observers:
                for frame in frames:
                    observer(frame)
        self._outbox.post(frames, low_lane=low_lane)

    def close(self, code: int, reason: str) -> None:
        """Close the connection once everything queued is written."""
        self._outbox.close(code, reason)


MAX_KEPT_BYTES = 2**24
#: A small message costs more than its text.
_OVERHEAD_BYTES = 256


class KeptMessages:
    """The messages in all sessions' ``received``, oldest first; the oldest are forgotten when there are too many.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self) -> None:
        #: (whose, how many bytes)
        self._kept: deque[tuple[Session, int]] = deque()
        self._bytes = 0

    def add(self, session: Session, text_bytes: int) -> None:
        """The newest message of a session has been put into its ``received``."""
        size = text_bytes + _OVERHEAD_BYTES
        self._kept.append((session, size))
        self._bytes += size
        while self._bytes > MAX_KEPT_BYTES:
            oldest, size = self._kept.popleft()
            del oldest.received[0]
            self._bytes -= size
