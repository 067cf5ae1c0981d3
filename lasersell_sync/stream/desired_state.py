"""What the user wants the server to hold: one value, whole at any time, sent anew on every connect.

A reconnect must never bring back an old strategy (PROTOCOL.md §2.5, §2.6), so commands change this value first and go
to the wire second. Commands about one position that come while there is no link wait here, the last of each kind and
position only.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

from lasersell_sync.messages import (
    ClientMessage,
    ClosePosition,
    Configure,
    ExitSignalWithTx,
    PositionClosed,
    PositionOpened,
    RequestExitSignal,
    ServerMessage,
    StrategyConfig,
    UpdatePositionStrategy,
    UpdateStrategy,
    UpdateWallets,
    UpdateWatchWallets,
)
from lasersell_sync.stream.options import StreamConfigure

__all__ = ["DesiredState"]

#: An exit request that got no answer before the link broke is sent again if it is younger than this: long enough for
#: every way a link can die unnoticed, too short to sell on a wish that the user has forgotten.
UNANSWERED_FOR_S: Final = 30.0
#: Waiting commands are merged by kind and position, so only a caller with many positions can reach this.
MAX_PENDING: Final = 20_000


class DesiredState:
    """The configuration, the overrides, and the commands that wait for a link.

    Threads: none of its own; the connection's write lock guards it.
    """

    def __init__(self, configure: StreamConfigure, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.strategy = configure.strategy
        self.deadline_timeout_sec = configure.deadline_timeout_sec
        self._wallets = tuple(configure.wallet_pubkeys)
        self._watch_wallets = tuple(configure.watch_wallets)
        self._mirror_config = configure.mirror_config
        self.send_mode = configure.send_mode
        self.tip_lamports = configure.tip_lamports
        #: Token account to strategy: ids may change over a reconnect, accounts do not.
        self._overrides: dict[str, StrategyConfig] = {}
        self._id_of: dict[str, int] = {}
        self._account_of: dict[int, str] = {}
        #: In the order in which they came. (A plain dictionary gets slow when it is emptied from its front.)
        self._pending: OrderedDict[Hashable, ClientMessage] = OrderedDict()
        #: Exit requests on the wire without an answer, by token account or id, and when they were sent; oldest first.
        self.unanswered: OrderedDict[str | int, tuple[RequestExitSignal, float]] = OrderedDict()
        #: Positions whose request was sent a second time already; never a third.
        self.asked_twice: set[str | int] = set()

    # ── what goes out ────────────────────────────────────────────────────────────────────────────────────────────

    def configure_message(self) -> Configure:
        """The first message of a session; global updates that waited for one are in it and wait no more."""
        for kind in (UpdateStrategy, UpdateWallets, UpdateWatchWallets):
            self._pending.pop(kind.type, None)
        return Configure(
            wallet_pubkeys=self._wallets,
            strategy=self.strategy,
            send_mode=self.send_mode,
            tip_lamports=self.tip_lamports,
            watch_wallets=self._watch_wallets,
            mirror_config=self._mirror_config,
        )

    def apply(self, message: ClientMessage) -> None:
        """Take over what must survive a reconnect."""
        if isinstance(message, UpdateStrategy):
            self.strategy = message.strategy
            # "all positions" (PROTOCOL.md §5): an older override would come back to life on the next connect.
            self._overrides.clear()
            for key in [key for key, older in self._pending.items() if isinstance(older, UpdatePositionStrategy)]:
                del self._pending[key]
        elif isinstance(message, UpdateWallets):
            self._wallets = message.wallet_pubkeys
        elif isinstance(message, UpdateWatchWallets):
            self._watch_wallets = message.watch_wallets
        elif isinstance(message, UpdatePositionStrategy):
            account = self._account_of.get(message.position_id)
            if account is not None:
                self._overrides[account] = message.strategy

    def sent(self, message: ClientMessage) -> None:
        """A command was written to the link."""
        if isinstance(message, RequestExitSignal):
            self._forget_old_requests()
            position = self._position_of(message)
            self.unanswered.pop(position, None)
            self.unanswered[position] = (message, self._clock())

    def link_lost(self) -> None:
        """Exit requests that were cut off wait for the next link, once more each; overrides, for their position."""
        for account in self._overrides:
            self._pending.pop((UpdatePositionStrategy.type, account), None)
        self._forget_old_requests()
        for position, (message, _) in self.unanswered.items():
            key = self._pending_key(message)
            if position in self.asked_twice:
                self.asked_twice.remove(position)
            elif key not in self._pending:  # else a newer one waits already
                self.asked_twice.add(position)
                # Beyond MAX_PENDING, if it must be: it was accepted.
                self._pending[key] = message
        self.unanswered.clear()

    def _forget_old_requests(self) -> None:
        expired_at = self._clock() - UNANSWERED_FOR_S
        while self.unanswered and next(iter(self.unanswered.values()))[1] < expired_at:
            position, _ = self.unanswered.popitem(last=False)
            self.asked_twice.discard(position)

    def _position_of(self, message: RequestExitSignal) -> str | int:
        if message.token_account is not None:
            return message.token_account
        position_id = message.position_id or 0
        return self._account_of.get(position_id, position_id)

    def _answered(self, position_id: int, account: str | None) -> None:
        for position in (account, self._account_of.get(position_id), position_id):
            if position is not None:
                self.unanswered.pop(position, None)
                self.asked_twice.discard(position)

    def hold(self, message: ClientMessage) -> bool:
        """Keep a command until there is a link; False when it cannot wait, or too many do."""
        key = self._pending_key(message)
        if key is None or (key not in self._pending and len(self._pending) >= MAX_PENDING):
            return False
        self._pending[key] = message
        return True

    def has_pending(self) -> bool:
        """True when commands wait."""
        return bool(self._pending)

    def first_pending(self) -> ClientMessage:
        """The command that waits longest; a position known by account is named by it, for its id may have changed."""
        return self._by_account(next(iter(self._pending.values())))

    def pending_sent(self) -> None:
        """The first of those that wait was written to the link."""
        self._pending.popitem(last=False)

    def _pending_key(self, message: ClientMessage) -> Hashable | None:
        if isinstance(message, (UpdateStrategy, UpdateWallets, UpdateWatchWallets)):
            return message.type
        if isinstance(message, (ClosePosition, RequestExitSignal)):
            account = message.token_account
            if account is None and message.position_id is not None:
                account = self._account_of.get(message.position_id)
            return message.type, account or message.position_id
        # An override of a known position is sent when the position is announced again; a ping or the result of a
        # mirror buy means nothing to a later session.
        if isinstance(message, UpdatePositionStrategy) and message.position_id not in self._account_of:
            return message.type, message.position_id
        return None

    def _by_account(self, message: ClientMessage) -> ClientMessage:
        if isinstance(message, (ClosePosition, RequestExitSignal)) and message.position_id is not None:
            account = self._account_of.get(message.position_id)
            if account is not None and isinstance(message, RequestExitSignal):
                return RequestExitSignal(token_account=account, slippage_bps=message.slippage_bps)
            if account is not None:
                return ClosePosition(token_account=account)
        return message

    # ── what comes in ────────────────────────────────────────────────────────────────────────────────────────────

    def observe(self, message: ServerMessage) -> None:
        """Follow positions; when one with an override was announced, that waits to be sent again."""
        if isinstance(message, PositionOpened):
            self._learn(message.token_account, message.position_id)
            strategy = self._overrides.get(message.token_account)
            if strategy is not None:
                override = UpdatePositionStrategy(position_id=message.position_id, strategy=strategy)
                self._pending[override.type, message.token_account] = override
        elif isinstance(message, ExitSignalWithTx):
            self._answered(message.position_id, message.token_account)
        elif isinstance(message, PositionClosed):
            self._answered(message.position_id, message.token_account)
            account = self._account_of.pop(message.position_id, None) or message.token_account
            if account is not None:
                self._id_of.pop(account, None)
                self._overrides.pop(account, None)
                self._pending.pop((UpdatePositionStrategy.type, account), None)

    def learns_from(self, message: PositionOpened) -> bool:
        """False when ``observe`` would change nothing: the account is known under this id, and nothing waits for it."""
        account, position_id = message.token_account, message.position_id
        known = self._id_of.get(account) == position_id and self._account_of.get(position_id) == account
        return not known or account in self._overrides or bool(self._pending)

    def _learn(self, account: str, position_id: int) -> None:
        old_id = self._id_of.get(account)
        if old_id is not None and old_id != position_id:
            self._account_of.pop(old_id, None)
        self._id_of[account] = position_id
        self._account_of[position_id] = account

    def drop_pending(self, message: PositionClosed) -> list[ClientMessage]:
        """Commands that wait for a position which is gone; they will not be sent."""
        account = self._account_of.get(message.position_id) or message.token_account
        selectors = {message.position_id, account}
        gone = [key for key in self._pending if isinstance(key, tuple) and key[1] in selectors]
        return [self._pending.pop(key) for key in gone]

    def position_id_of(self, token_account: str) -> int | None:
        """The id under which the server knows this account's position now."""
        return self._id_of.get(token_account)

    def holds_override(self, message: ClientMessage) -> bool:
        """True when the message is an override that ``observe`` will send again by itself."""
        return isinstance(message, UpdatePositionStrategy) and message.position_id in self._account_of
