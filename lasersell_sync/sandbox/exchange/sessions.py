"""A stream session: one connection, what it configured, what it tracks, and where its messages go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.exchange.orders import Delivery
from lasersell_sync.sandbox.exchange.positions import Position
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
    #: which of them are watched wallets': told with ``watched``, and no business of this session's strategy
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
