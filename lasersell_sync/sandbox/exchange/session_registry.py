"""Who is connected: every session there was, and which of the live ones are concerned with a wallet or a position."""

from __future__ import annotations

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.exchange.positions import Position
from lasersell_sync.sandbox.exchange.sessions import Session


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
        """Sessions that are told about a position."""
        return [session for session in self._live.values() if position.position_id in session.positions]

    def deciders(self, position: Position) -> list[Session]:
        """Sessions whose strategy governs a position."""
        return [session for session in self.trackers(position) if not session.watched(position)]
