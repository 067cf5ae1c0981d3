"""What the server should know of this session: strategy, wallets, overrides, deadlines' exits, announced positions."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

from lasersell_sync.messages import (
    ClientMessage,
    ClosePosition,
    Configure,
    ExitSignalWithTx,
    MirrorBuyResult,
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
from lasersell_sync.positions import Opening, OwnSales, is_same_opening
from lasersell_sync.stream.options import StreamConfigure

__all__ = ["DesiredState", "Dropped", "KnownPositions"]


# ── Which positions the server announced: under which id on the present connection, and as which opening ────────────


#: (wallet, token account)
_Key = tuple[str, str]


class KnownPositions:
    """Ids and openings of the announced positions.

    An id names a position within one connection. Between two connections, and until the announcements of the new one
    are over, an id that no position of the new one has still says which position a caller means; it is not written.

    Threads: none of its own; the connection's write lock guards it, and only the reader changes it.
    """

    def __init__(self, sales: OwnSales) -> None:
        self._sales = sales
        #: An Opening's two values, and the mint.
        self._openings: dict[_Key, tuple[int, int | None, str]] = {}
        self._id_of: dict[_Key, int] = {}
        self._key_of: dict[int, _Key] = {}
        #: Ids that count on the present connection. Its entries change, the dict stays the same.
        self.present: dict[int, _Key] = {}
        self._key_of_account: dict[str, _Key] = {}

    def new_connection(self) -> None:
        """No id counts until it is announced."""
        self.present.clear()

    def end_of_announcements(self) -> list[_Key]:
        """Positions that were not announced on this connection, whose old ids count again from now on."""
        missing = [key for position_id, key in self._key_of.items() if position_id not in self.present]
        self.present.update(self._key_of)
        return missing

    def announced(self, message: PositionOpened) -> bool:
        """Take in an announcement; True when the position was known as another opening."""
        key, position_id = (message.wallet_pubkey, message.token_account), message.position_id
        known, opened_at_ms = self._openings.get(key), message.opened_at_ms
        is_other = known is not None and not self._is_same(known, message, key)
        if is_other:
            self._sales.forget(key)
        elif known is not None and opened_at_ms is None:
            opened_at_ms = known[1]
        self._openings[key] = message.entry_quote_units, opened_at_ms, message.mint
        self._key_of_account[message.token_account] = key
        self._forget_id(key)
        owner = self._key_of.get(position_id)
        if owner is not None:
            del self._id_of[owner]
        self._id_of[key], self._key_of[position_id] = position_id, key
        self.present[position_id] = key
        return is_other

    def closed(self, message: PositionClosed) -> _Key | None:
        """Forget a position; which it was, or None when it was not known."""
        key = self.key_of_message(message)
        if message.position_id not in self.present:
            # Of an earlier connection: it does not count again on this one.
            earlier = self._key_of.pop(message.position_id, None)
            if earlier is not None:
                del self._id_of[earlier]
        if key is None or key not in self._openings:
            return None
        del self._openings[key]
        self._forget_id(key)
        self._sales.forget(key)
        if self._key_of_account.get(key[1]) == key:
            del self._key_of_account[key[1]]
        return key

    def differs(self, message: PositionOpened) -> bool:
        """False when ``announced`` would change nothing."""
        key = (message.wallet_pubkey, message.token_account)
        return self.present.get(message.position_id) != key or self._openings.get(key) != (
            message.entry_quote_units,
            message.opened_at_ms,
            message.mint,
        )

    def key_of_message(self, message: PositionClosed | ExitSignalWithTx) -> _Key | None:
        """The position of a message: its own token account decides; without one, the id."""
        if message.token_account is not None:
            return message.wallet_pubkey, message.token_account
        key = self.present.get(message.position_id)
        return key if key is not None and key[0] == message.wallet_pubkey else None

    def key_of(self, position_id: int) -> _Key | None:
        """The position that a caller means by this id."""
        return self._key_of.get(position_id)

    def account_of(self, position_id: int) -> str | None:
        """Its token account."""
        key = self._key_of.get(position_id)
        return None if key is None else key[1]

    def id_of(self, token_account: str) -> int | None:
        """The latest id of this account's position; None when it has none, or another position has it now."""
        key = self._key_of_account.get(token_account)
        return None if key is None else self._id_of.get(key)

    def id_of_key(self, key: _Key) -> int | None:
        """As ``id_of``."""
        return self._id_of.get(key)

    def has_account(self, token_account: str) -> bool:
        """True when a position of this account is known."""
        return token_account in self._key_of_account

    def is_present(self, position_id: int | None) -> bool:
        """True when the id counts on the present connection."""
        return position_id in self.present

    def _is_same(self, known: tuple[int, int | None, str], message: PositionOpened, key: _Key) -> bool:
        entry_quote_units, opened_at_ms, mint = known
        part_landed, exit_under_way = self._sales.of(key, message.tokens)
        return mint == message.mint and is_same_opening(
            Opening(entry_quote_units, opened_at_ms),
            Opening(message.entry_quote_units, message.opened_at_ms),
            part_landed=part_landed,
            exit_under_way=exit_under_way,
        )

    def _forget_id(self, key: _Key) -> None:
        position_id = self._id_of.pop(key, None)
        if position_id is not None:
            del self._key_of[position_id]
            self.present.pop(position_id, None)


# ── What the user wants the server to hold: one value, whole at any time, sent anew on every connect ────────────────
# A reconnect must never bring back an old strategy (docs/protocol.md §2.5, §2.6), so commands change this value first
# and go to the wire second. Commands about one position that come while there is no link wait here, the last of each
# kind and position only. They name the position by its token account, for an id means nothing on another connection.


#: Waiting commands are merged by kind and position, so only a caller with many positions can reach this.
MAX_PENDING: Final = 20_000

#: A command that will not be sent, and why.
Dropped = tuple[ClientMessage, str]

_CLOSED: Final = "the position was closed meanwhile"
_OPENED_AGAIN: Final = "the position was closed and opened again meanwhile"
_ID_LOST: Final = (
    "its position_id means nothing on another connection, and no announcement said which token account it is"
)


class DesiredState:
    """The configuration, the overrides, and the commands that wait for a link.

    Args:
        configure: what the first connect sends.
        stable_after_s: an exit request counts as received once its link has lived for so long after it was sent.
        sales: what the exit signals say about the openings of positions.

    Threads: none of its own; the connection's write lock guards it.
    """

    def __init__(
        self,
        configure: StreamConfigure,
        *,
        stable_after_s: float = 5.0,
        sales: OwnSales | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._stable_after_s = stable_after_s
        self.strategy = configure.strategy
        self._wallets = tuple(configure.wallet_pubkeys)
        self._watch_wallets = tuple(configure.watch_wallets)
        self._mirror_config = configure.mirror_config
        self.send_mode = configure.send_mode
        self.tip_lamports = configure.tip_lamports
        self.sales = sales or OwnSales()
        self._positions = KnownPositions(self.sales)
        self._present = self._positions.present
        self._overrides: dict[tuple[str, str], StrategyConfig] = {}
        #: Overrides that were accepted and not written: their position is not announced on this connection yet.
        self._unwritten: set[tuple[str, str]] = set()
        #: In the order in which they came. (A plain dictionary gets slow when it is emptied from its front.)
        self._pending: OrderedDict[Hashable, ClientMessage] = OrderedDict()
        #: Commands from before this link, about positions that are not announced on it yet.
        self._held_back: OrderedDict[Hashable, ClientMessage] = OrderedDict()
        #: True from the beginning of a link until its announcements are over.
        self._awaits_announcements = False
        #: Exit requests on the wire without an answer, by token account or id, and when the link had taken all of it
        #: (None: not yet); oldest first.
        self.unanswered: OrderedDict[str | int, tuple[RequestExitSignal, float | None]] = OrderedDict()
        self._not_flushed: list[str | int] = []
        self._serial = itertools.count()

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

    def apply(self, message: ClientMessage, *, written: bool = True) -> None:
        """Take over what must survive a reconnect."""
        if isinstance(message, UpdateStrategy):
            self.strategy = message.strategy
            # "all positions" (docs/protocol.md 5): an older override would come back to life on the next connect.
            self._overrides.clear()
            self._unwritten.clear()
            for key in [key for key, older in self._pending.items() if isinstance(older, UpdatePositionStrategy)]:
                del self._pending[key]
        elif isinstance(message, UpdateWallets):
            self._wallets = message.wallet_pubkeys
        elif isinstance(message, UpdateWatchWallets):
            self._watch_wallets = message.watch_wallets
        elif isinstance(message, UpdatePositionStrategy):
            position = self._positions.key_of(message.position_id)
            if position is not None:
                self._overrides[position] = message.strategy
                (self._unwritten.discard if written else self._unwritten.add)(position)

    def may_write(self, message: ClientMessage) -> bool:
        """False for an override whose id is of an earlier connection: it would reach another position."""
        return (
            not isinstance(message, UpdatePositionStrategy)
            or self._positions.key_of(message.position_id) is None
            or self._positions.is_present(message.position_id)
        )

    def by_account(self, message: ClientMessage) -> ClientMessage:
        """The same command, for any connection: an id of an earlier one is replaced by its token account."""
        if isinstance(message, (ClosePosition, RequestExitSignal)) and message.position_id is not None:
            account = self._positions.account_of(message.position_id)
            if account is not None and isinstance(message, RequestExitSignal):
                return RequestExitSignal(token_account=account, slippage_bps=message.slippage_bps)
            if account is not None:
                return ClosePosition(token_account=account)
        return message

    def for_this_link(self, message: ClientMessage) -> ClientMessage:
        """As it is written now: an id that does not count on this connection is replaced by its token account."""
        position_id = getattr(message, "position_id", None)
        return message if position_id is None or self._positions.is_present(position_id) else self.by_account(message)

    def sent(self, message: ClientMessage) -> None:
        """A command was given to the link."""
        if isinstance(message, RequestExitSignal):
            position = self._position_of(message)
            self._held_back.pop((message.type, position), None)
            self.unanswered.pop(position, None)
            # An id may name another position by the time at which it must be sent again.
            self.unanswered[position] = (self.by_account(message), None)  # type: ignore[assignment]
            self._not_flushed.append(position)

    def flushed(self) -> None:
        """The link has taken everything that was given to it."""
        now = self._clock() if self._not_flushed else 0.0
        for position in self._not_flushed:
            if position in self.unanswered:
                self.unanswered[position] = (self.unanswered[position][0], now)
        self._not_flushed.clear()

    def settle(self, alive_at: float | None) -> None:
        """Forget requests that reached the server, for their link was alive at ``alive_at``, long after them."""
        while self.unanswered and alive_at is not None:
            position, (_, taken_at) = next(iter(self.unanswered.items()))
            if taken_at is None or alive_at - taken_at < self._stable_after_s:
                return
            del self.unanswered[position]

    # ── links ────────────────────────────────────────────────────────────────────────────────────────────────────

    def link_began(self) -> None:
        """A session is open. A command from before it waits until its position is announced: it may be another one."""
        self._positions.new_connection()
        self._awaits_announcements = True
        for key, message in list(self._pending.items()):
            if self._is_of_known_position(message):
                self._held_back[key] = self._pending.pop(key)

    def announcements_over(self) -> None:
        """The server has announced what it announces: old ids count again, and nothing waits for them."""
        self._awaits_announcements = False
        for position in self._positions.end_of_announcements():
            if position in self._unwritten:
                self._resend_override(position)
        self._pending.update(self._held_back)
        self._held_back.clear()

    def link_lost(self, alive_at: float | None) -> list[Dropped]:
        """Exit requests that may not have reached the server wait for the next link; overrides, for their position.

        Args:
            alive_at: when the latest byte came from the server; None: none did.

        Returns:
            What cannot wait.
        """
        self.settle(alive_at)
        for position in self._overrides:
            self._pending.pop((UpdatePositionStrategy.type, position), None)
        waiting, self._pending = self._pending, self._held_back
        self._held_back = OrderedDict()
        self._pending.update(waiting)
        dropped: list[Dropped] = []
        for account, (message, _) in self.unanswered.items():
            if isinstance(account, int):
                dropped.append((message, _ID_LOST))
            else:
                # Not if a newer one waits already. Beyond MAX_PENDING, if it must be: it was accepted.
                self._pending.setdefault((message.type, account), message)
        self.unanswered.clear()
        self._not_flushed.clear()
        return dropped

    def must_wait(self, message: ClientMessage) -> bool:
        """True for a command about a known position that is not announced on this link, while it still may be."""
        return self._awaits_announcements and self._is_of_known_position(message)

    def hold_back(self, message: ClientMessage) -> None:
        """Keep a command until its position is announced, or the announcements are over; unless the link has it."""
        if not isinstance(message, RequestExitSignal) or self._position_of(message) not in self.unanswered:
            self._held_back[self._pending_key(message)] = self.by_account(message)

    def _is_of_known_position(self, message: ClientMessage) -> bool:
        if not isinstance(message, (ClosePosition, RequestExitSignal)):
            return False
        account = message.token_account
        if account is None or not self._positions.has_account(account):
            return False
        return not self._positions.is_present(self._positions.id_of(account))

    # ── what waits ───────────────────────────────────────────────────────────────────────────────────────────────

    def hold(self, message: ClientMessage) -> bool:
        """Keep a command until there is a link; False when it cannot wait, or too many do."""
        key = self._pending_key(message)
        waiting = len(self._pending) + len(self._held_back)
        if key is None or (key not in self._pending and waiting >= MAX_PENDING):
            return False
        self._held_back.pop(key, None)
        self._pending[key] = self.by_account(message)
        return True

    def holds_override(self, message: ClientMessage) -> bool:
        """True when the message is an override that ``observe`` will send by itself."""
        return isinstance(message, UpdatePositionStrategy) and self._positions.key_of(message.position_id) is not None

    def has_pending(self) -> bool:
        """True when commands wait that may be written."""
        return bool(self._pending)

    def first_pending(self) -> ClientMessage:
        """The command that waits longest."""
        return next(iter(self._pending.values()))

    def pending_sent(self) -> None:
        """The first of those that wait was written to the link."""
        _, message = self._pending.popitem(last=False)
        if isinstance(message, UpdatePositionStrategy):
            position = self._positions.key_of(message.position_id)
            if position is not None:
                self._unwritten.discard(position)

    def _pending_key(self, message: ClientMessage) -> Hashable | None:
        if isinstance(message, (UpdateStrategy, UpdateWallets, UpdateWatchWallets)):
            return message.type
        if isinstance(message, MirrorBuyResult):
            # Each answers a signal of its own.
            return message.type, next(self._serial)
        if isinstance(message, (ClosePosition, RequestExitSignal)):
            account = message.token_account
            if account is None and message.position_id is not None:
                account = self._positions.account_of(message.position_id)
            return None if account is None else (message.type, account)
        # An override of a known position is sent when the position is announced again; a ping means nothing later.
        return None

    def _position_of(self, message: RequestExitSignal) -> str | int:
        if message.token_account is not None:
            return message.token_account
        position_id = message.position_id or 0
        return self._positions.account_of(position_id) or position_id

    # ── what comes in ────────────────────────────────────────────────────────────────────────────────────────────

    def observe(self, message: ServerMessage) -> list[Dropped]:
        """Follow positions; when one with an override was announced, that waits to be sent again.

        Returns:
            Commands that will not be sent: their position was closed, or opened again.
        """
        if isinstance(message, PositionOpened):
            return self._announced(message)
        if isinstance(message, PositionClosed):
            return self._closed(message)
        if isinstance(message, ExitSignalWithTx):
            self._answered(message)
        return []

    def learns_from(self, message: PositionOpened) -> bool:
        """False when ``observe`` would change nothing: the position is known just so, and nothing waits for it."""
        return (
            self._positions.differs(message)
            or bool(self._pending or self._held_back)
            or (bool(self._overrides) and (message.wallet_pubkey, message.token_account) in self._overrides)
        )

    def learns_from_repeat(self, message: PositionOpened) -> bool:
        """As ``learns_from``, when the announcement before this one said the same about the opening."""
        key = self._present.get(message.position_id)
        return (
            key is None
            or key[1] != message.token_account
            or key[0] != message.wallet_pubkey
            or bool(self._pending or self._held_back)
            or (bool(self._overrides) and key in self._overrides)
        )

    def drop_pending(self, message: PositionClosed) -> list[Dropped]:
        """Commands that wait for a position which is gone; they will not be sent."""
        position = self._positions.key_of_message(message)
        return self._drop(message.token_account if position is None else position[1], _CLOSED)

    def position_id_of(self, token_account: str) -> int | None:
        """The id under which the server knows this account's position."""
        return self._positions.id_of(token_account)

    def note_sale(self, message: ExitSignalWithTx, received_ns: int) -> None:
        """Remember an exit signal, which may explain the entry of the next announcement."""
        position = self._positions.key_of_message(message)
        if position is not None and not message.watched:
            self.sales.signalled(position, message, received_ns)

    def _announced(self, message: PositionOpened) -> list[Dropped]:
        position = (message.wallet_pubkey, message.token_account)
        dropped = []
        owner = self._positions.key_of(message.position_id)
        if owner is not None and owner != position and (UpdatePositionStrategy.type, owner) in self._pending:
            del self._pending[UpdatePositionStrategy.type, owner]
            # That id would reach this position now.
            self._unwritten.add(owner)
        if self._positions.announced(message):
            self._forget_override(position)
            self.unanswered.pop(message.token_account, None)
            dropped = self._drop(message.token_account, _OPENED_AGAIN)
        for kind in (ClosePosition, RequestExitSignal):
            held_back = self._held_back.pop((kind.type, message.token_account), None)
            if held_back is not None:
                self._pending.setdefault((kind.type, message.token_account), held_back)
        self._resend_override(position)
        return dropped

    def _resend_override(self, position: tuple[str, str]) -> None:
        strategy, position_id = self._overrides.get(position), self._positions.id_of_key(position)
        if strategy is not None and position_id is not None:
            override = UpdatePositionStrategy(position_id=position_id, strategy=strategy)
            self._pending[override.type, position] = override

    def _closed(self, message: PositionClosed) -> list[Dropped]:
        position = self._positions.closed(message)
        account = message.token_account if position is None else position[1]
        if position is not None:
            self._forget_override(position)
        if self._positions.account_of(message.position_id) is None:
            self.unanswered.pop(message.position_id, None)
        if account is None or self._positions.has_account(account):
            return []
        self.unanswered.pop(account, None)
        return self._drop(account, _CLOSED)

    def _answered(self, message: ExitSignalWithTx) -> None:
        if message.sell_tokens is not None and message.sell_tokens < message.position_tokens:
            return  # of a ladder level: a request is for all
        position = self._positions.key_of_message(message)
        for name in (message.position_id, message.token_account if position is None else position[1]):
            if name is not None:
                self.unanswered.pop(name, None)

    def _forget_override(self, position: tuple[str, str]) -> None:
        self._overrides.pop(position, None)
        self._unwritten.discard(position)
        self._pending.pop((UpdatePositionStrategy.type, position), None)

    def _drop(self, account: str | None, reason: str) -> list[Dropped]:
        dropped = []
        for kind in (ClosePosition, RequestExitSignal):
            for waiting in (self._pending, self._held_back):
                message = waiting.pop((kind.type, account), None)
                if message is not None:
                    dropped.append((message, reason))
        return dropped
