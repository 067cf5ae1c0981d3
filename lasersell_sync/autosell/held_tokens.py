"""What the stream says about one position's tokens since one of its transactions was signed."""

from __future__ import annotations

from lasersell_sync.positions import PositionHandle
from lasersell_sync.session.stream_session import StreamSession
from lasersell_sync.stream.lifecycle import ConnectionState

__all__ = ["HeldTokens"]


class HeldTokens:
    """A witness beside the nodes: it remembers the balance, and on which link of the session it was seen.

    Args:
        session: the stream.
        wallet: base58.
        token_account: base58.

    Threads: any.
    """

    def __init__(self, session: StreamSession, wallet: str, token_account: str) -> None:
        self._session = session
        self._key = (wallet, token_account)
        self._links = session.connection.stats().sessions
        handle = self._handle()
        self._tokens = None if handle is None else handle.tokens

    def still_held(self) -> bool:
        """True when the link never broke since, and the last balance holds no less than the first."""
        handle = self._handle()
        return (
            self._tokens is not None
            and handle is not None
            and not handle.stale
            and handle.tokens >= self._tokens
            and self._session.status is ConnectionState.LIVE
            and self._session.connection.stats().sessions == self._links
        )

    def have_fallen_by(self, tokens: int) -> bool:
        """True when the last balance is lower by so many atomic units, or more."""
        handle = self._handle()
        return self._tokens is not None and handle is not None and self._tokens - handle.tokens >= tokens

    def _handle(self) -> PositionHandle | None:
        return next((each for each in self._session.positions() if each.key == self._key), None)
