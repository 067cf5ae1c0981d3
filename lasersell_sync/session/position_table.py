"""The positions that a session knows, by id and by token account, and the newest market data of each."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

import attrs

from lasersell_sync._backend import HandleTable, InstanceFactory, LatestByKey
from lasersell_sync.codec import SERVER_DECODER
from lasersell_sync.messages import (
    BalanceUpdate,
    ExitSignalWithTx,
    LiquiditySnapshot,
    PnlUpdate,
    PositionClosed,
    PositionOpened,
    SlippageBand,
)
from lasersell_sync.positions import Opening, OwnSales, PositionHandle, PositionKey, is_same_opening
from lasersell_sync.quotes import quote_currency_of
from lasersell_sync.runtime.locks import is_held_here, signal_safe_lock

__all__ = ["Announced", "MarketView", "PositionTable"]


# ── The positions a session knows ───────────────────────────────────────────────────────────────────────────────────
# A position is its wallet and token account. An id names a position within one connection only, so ids are an index:
# the newest announcement owns its id, and a new connection begins with an empty index.


_Key = tuple[str, str]

#: How many closed positions are remembered, to tell a late update of one from an update of a stranger.
REMEMBERED_CLOSED: Final = 65_536


_FIELDS: Final = [field.name for field in attrs.fields(PositionHandle)]
_TOKENS: Final = _FIELDS.index("tokens")
_STALE: Final = _FIELDS.index("stale")
_values_of = operator.attrgetter(*_FIELDS)
_make_handle = InstanceFactory(PositionHandle, _FIELDS)


def _handle_of(
    message: PositionOpened, opened_at_ms: int | None, named: PositionHandle | PositionOpened
) -> PositionHandle:
    """The handle that a ``position_opened`` announces; the values are in the order of the handle's fields.

    Its names are the objects of ``named``, an earlier handle of the position if there is one: their hashes are known.
    """
    context = message.market_context
    handle: PositionHandle = _make_handle(
        message.position_id,
        named.token_account,
        named.wallet_pubkey,
        named.mint,
        message.token_program,
        message.tokens,
        message.entry_quote_units,
        message.token_name,
        message.token_symbol,
        message.token_decimals,
        None if context is None else context.market_type,
        message.token_price_quote,
        message.market_cap_quote,
        message.pool_liquidity_quote,
        opened_at_ms,
        message.slot,
        message.watched,
        message.mirror_source,
        False,  # noqa: FBT003 - not stale
        quote_currency_of(context),
    )
    return handle


def _updated(handle: PositionHandle, *, tokens: int, stale: bool) -> PositionHandle:
    """With another balance or staleness; in an eighth of the time of ``attrs.evolve``, for each trade brings one."""
    values = [*_values_of(handle)]
    values[_TOKENS], values[_STALE] = tokens, stale
    updated: PositionHandle = _make_handle(*values)
    return updated


class Announced(NamedTuple):
    """What a ``position_opened`` changed.

    Attributes:
        handle: the position from now on.
        known: its last handle of the same opening; None when this opening is new.
        replaced: its last handle of an earlier opening, whose close was missed; None when there is none.
        ousted: the position that had this id on this connection until now; None when nobody else had it.
        keeps_id: this opening had this id before, and no other position has had it since.
    """

    handle: PositionHandle
    known: PositionHandle | None
    replaced: PositionHandle | None
    ousted: PositionHandle | None
    keeps_id: bool


class PositionTable:
    """Handles of all open positions.

    Args:
        sales: what the exit signals say; they may explain another entry.
        on_contradiction: called with (problem, id, token account) when a message contradicts an earlier one of the same
            connection. The message's own token account decides; without one, the id does.

    Threads: the reader writes; ``handles`` and the look-ups from any thread.
    """

    def __init__(
        self,
        sales: OwnSales | None = None,
        on_contradiction: Callable[[str, int, str | None], None] = lambda *_: None,
    ) -> None:
        self._sales = sales or OwnSales()
        self._on_contradiction = on_contradiction
        # Guards the dicts while they change together. Look-ups by the reader itself need no lock, nor does a new handle
        # in the place of an older one of the same position.
        self._lock = signal_safe_lock()
        # By (wallet, token account): equal to a PositionKey, and made in a fifth of its time. In the order of opening.
        self._by_key: dict[_Key, PositionHandle] = {}
        #: What ids mean on this connection. A position whose id another one took over, or that was not announced on
        #: this connection, is not in here; its handle keeps the id that it had.
        self._by_id: dict[int, PositionHandle] = {}
        #: Those of ``_by_id`` that are not stale: a frequent message about one changes nothing here, so the reader's
        #: fast way may take the handle itself.
        self.live_handles: HandleTable[PositionHandle] = HandleTable()
        # (wallet, mint) to the positions that share it, for balance updates that name no account.
        self._keys_by_mint: dict[tuple[str, str], set[_Key]] = {}
        #: Whose an id was on the connections before.
        self._last_owner: dict[int, _Key] = {}
        #: Ids that were closed on this connection.
        self._closed: OrderedDict[int, None] = OrderedDict()

    # ── the reader ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_held_here(self) -> bool:
        """True in a signal handler that interrupted a call of this thread."""
        return is_held_here(self._lock)

    def new_connection(self) -> None:
        """Begin another connection: the ids of the one before name nothing any more."""
        with self._lock:
            self._last_owner.update((position_id, _key_of(handle)) for position_id, handle in self._by_id.items())
            self._by_id.clear()
            self.live_handles.clear()
            self._closed.clear()

    def opened(self, message: PositionOpened) -> Announced:
        """Take a position in; one that is announced again keeps its place, also under another id."""
        key, position_id = (message.wallet_pubkey, message.token_account), message.position_id
        before = self._by_key.get(key)
        known = before if before is not None and self._is_same_opening(before, message) else None
        replaced = before if known is None else None
        moment = known.opened_at_ms if known is not None and message.opened_at_ms is None else message.opened_at_ms
        handle = _handle_of(message, moment, message if known is None else known)
        keeps_id = known is not None and known.position_id == position_id and self.has_id(key)
        with self._lock:
            if replaced is not None:
                self._drop(replaced)
            elif known is not None and known.position_id != position_id:
                self._forget_id(known)
            owner = self._by_id.get(position_id)
            ousted = owner if owner is not known else None
            self._closed.pop(position_id, None)
            self._last_owner.pop(position_id, None)
            if known is None:
                self._keys_by_mint.setdefault((handle.wallet_pubkey, handle.mint), set()).add(key)
            self._by_key[key] = self._by_id[position_id] = self.live_handles[position_id] = handle
        if ousted is not None and not ousted.stale:
            problem = f"position_opened names an id that token account {ousted.token_account} has"
            self._on_contradiction(problem, position_id, message.token_account)
        return Announced(handle, known, replaced, ousted, keeps_id)

    def announced_again(self, message: PositionOpened) -> PositionHandle | None:
        """The new handle of a position that is known just so, under this very id; None: ``opened`` takes it in."""
        known = self._by_id.get(message.position_id)
        if (
            known is None
            or known.token_account != message.token_account
            or known.wallet_pubkey != message.wallet_pubkey
            or known.watched is not message.watched
            or known.entry_quote_units != message.entry_quote_units
            or known.opened_at_ms != message.opened_at_ms
            or known.mint != message.mint
        ):
            return None
        handle = _handle_of(message, message.opened_at_ms, known)
        position_id = message.position_id
        self._by_key[known.wallet_pubkey, known.token_account] = handle
        self._by_id[position_id] = self.live_handles[position_id] = handle
        return handle

    def closed(self, message: PositionClosed) -> PositionHandle | None:
        """Take a position out; its last handle, or None when it was not known."""
        with self._lock:
            owner = self._by_id.get(message.position_id)
            handle = self._meant(owner, message)
            if handle is not None:
                has_id = self._owns_id(handle)
                self._drop(handle)
                if has_id:
                    self._note_closed(handle.position_id)
            self._note_closed(message.position_id)
        self._compare(owner, message)
        return handle

    def exit_of(self, message: ExitSignalWithTx) -> PositionHandle | None:
        """The position that an exit signal is about; None when it is not known."""
        handle = self.live_handles.get(message.position_id)
        if handle is not None and self._names(handle, message):
            return handle
        owner = self._by_id.get(message.position_id)
        self._compare(owner, message)
        if owner is None and message.token_account is None:
            return self.mark_live(self._not_announced(message))
        return self.mark_live(self._meant(owner, message))

    def balance(self, message: BalanceUpdate) -> PositionHandle | None:
        """The position whose balance this is, with the new balance; None when it is of no (single) position.

        The balance may say that a sale has landed.
        """
        key: _Key | None
        if message.token_account is not None:
            key = (message.wallet_pubkey, message.token_account)
        else:
            keys = self._keys_by_mint.get((message.wallet_pubkey, message.mint), set())
            key = next(iter(keys)) if len(keys) == 1 else None
        handle = None if key is None else self._by_key.get(key)
        if key is None or handle is None:
            return None
        sale = self._sales.known.get(key)
        if sale is not None and message.tokens < sale.position_tokens:
            self._sales.balance(key, message.tokens)
        if handle.tokens != message.tokens or handle.stale:
            return self._replace(handle, _updated(handle, tokens=message.tokens, stale=False))
        return handle

    def find(self, position_id: int) -> PositionHandle | None:
        """The position that this id names on this connection."""
        return self._by_id.get(position_id)

    def mark_live(self, handle: PositionHandle | None) -> PositionHandle | None:
        """Something came about this position: it is not stale (any more)."""
        if handle is None or not handle.stale:
            return handle
        return self._replace(handle, _updated(handle, tokens=handle.tokens, stale=False))

    def mark_stale(self, keys: set[PositionKey]) -> list[PositionHandle]:
        """The new handles of positions that were not announced again.

        A server that announces nothing again goes on under the old ids, so those count again where nobody has them.
        """
        stale = []
        with self._lock:
            for key in keys:
                if (handle := self._by_key.get(key)) is not None:
                    if self._last_owner.get(handle.position_id) == key:
                        self._by_id[handle.position_id] = handle
                        del self._last_owner[handle.position_id]
                    stale.append(self._replace(handle, _updated(handle, tokens=handle.tokens, stale=True)))
        return stale

    def was_closed(self, position_id: int) -> bool:
        """True for an id that was closed on this connection and not opened again."""
        return position_id in self._closed

    def has_id(self, key: _Key) -> bool:
        """True unless the id in the position's handle names another position now."""
        handle = self._by_key.get(key)
        return handle is None or self._owns_id(handle) or self._last_owner.get(handle.position_id) == key

    def is_free(self, position_id: int) -> bool:
        """True when the id names no open position, and named none on the connections before."""
        return position_id not in self._by_id and position_id not in self._last_owner

    # ── what a message means ─────────────────────────────────────────────────────────────────────────────────────

    def _is_same_opening(self, known: PositionHandle, message: PositionOpened) -> bool:
        if known.mint != message.mint:
            return False
        part_landed, exit_under_way = self._sales.of((known.wallet_pubkey, known.token_account), message.tokens)
        return is_same_opening(
            Opening(known.entry_quote_units, known.opened_at_ms),
            Opening(message.entry_quote_units, message.opened_at_ms),
            part_landed=part_landed,
            exit_under_way=exit_under_way,
        )

    def _meant(self, owner: PositionHandle | None, message: PositionClosed | ExitSignalWithTx) -> PositionHandle | None:
        """The position that a message is about: its own token account decides; without one, the id's owner is it."""
        if message.token_account is not None:
            return self._by_key.get((message.wallet_pubkey, message.token_account))
        return owner if owner is not None and self._names(owner, message) else None

    def _not_announced(self, message: ExitSignalWithTx) -> PositionHandle | None:
        """The position that had this id before, if wallet and mint agree and no other position shares them.

        A server that announces nothing again may go on under the old ids, and a sale must not wait until that is known.
        """
        keys = self._keys_by_mint.get((message.wallet_pubkey, message.mint), set())
        key = self._last_owner.get(message.position_id)
        return self._by_key.get(key) if key is not None and keys == {key} else None

    @staticmethod
    def _names(handle: PositionHandle, message: PositionClosed | ExitSignalWithTx) -> bool:
        """True when nothing in the message says that it is about another position."""
        return (
            handle.wallet_pubkey == message.wallet_pubkey
            and handle.mint == message.mint
            and message.token_account in (None, handle.token_account)
        )

    def _compare(self, owner: PositionHandle | None, message: PositionClosed | ExitSignalWithTx) -> None:
        if owner is not None and not self._names(owner, message):
            problem = f"{message.type} names another position than token account {owner.token_account}, whose id it has"
            self._on_contradiction(problem, message.position_id, message.token_account)

    # ── changes: the caller holds the lock where several things change ───────────────────────────────────────────

    def _replace(self, before: PositionHandle, handle: PositionHandle) -> PositionHandle:
        """Put a handle in the place of the position's present one."""
        position_id = handle.position_id
        self._by_key[handle.wallet_pubkey, handle.token_account] = handle
        if self._by_id.get(position_id) is before:
            self._by_id[position_id] = handle
            if handle.stale:
                self.live_handles.forget(position_id)
            else:
                self.live_handles[position_id] = handle
        return handle

    def _owns_id(self, handle: PositionHandle) -> bool:
        """True when the id in a position's present handle is its own."""
        return self._by_id.get(handle.position_id) is handle

    def _forget_id(self, handle: PositionHandle) -> None:
        if self._owns_id(handle):
            del self._by_id[handle.position_id]
            self.live_handles.forget(handle.position_id)
        elif self._last_owner.get(handle.position_id) == _key_of(handle):
            del self._last_owner[handle.position_id]

    def _drop(self, handle: PositionHandle) -> None:
        self._by_key.pop(_key_of(handle), None)
        self._forget_id(handle)
        by_mint = (handle.wallet_pubkey, handle.mint)
        sharing = self._keys_by_mint.get(by_mint, set())
        sharing.discard(_key_of(handle))
        if not sharing:
            self._keys_by_mint.pop(by_mint, None)

    def _note_closed(self, position_id: int) -> None:
        if position_id not in self._by_id:
            self._last_owner.pop(position_id, None)
            self._closed[position_id] = None
            if len(self._closed) > REMEMBERED_CLOSED:
                self._closed.popitem(last=False)

    # ── anyone ───────────────────────────────────────────────────────────────────────────────────────────────────

    def handles(self) -> list[PositionHandle]:
        """All open positions, in the order of their announcement."""
        with self._lock:
            return list(self._by_key.values())

    def keys(self) -> set[PositionKey]:
        """The identities of all open positions."""
        with self._lock:
            return {PositionKey(*key) for key in self._by_key}

    def by_key(self, key: tuple[str, str]) -> PositionHandle | None:
        """The position's newest handle; None when it is not open."""
        return self._by_key.get(key)


def _key_of(handle: PositionHandle) -> _Key:
    return handle.wallet_pubkey, handle.token_account


# ── The newest market view of each position: liquidity snapshot, and profit and loss ────────────────────────────────


class MarketView:
    """Latest value wins; a closed position takes its values with it.

    Threads: written by the reader (the router writes into the two tables directly); read by any. Each value is one
    immutable object, so a reader of it sees either the old or the new one, and no lock is needed.
    """

    def __init__(self) -> None:
        #: By position id.
        self.snapshots = LatestByKey(SERVER_DECODER)
        self.updates = LatestByKey(SERVER_DECODER)

    def forget(self, position_id: int) -> None:
        """The position is closed."""
        self.snapshots.forget(position_id)
        self.updates.forget(position_id)

    def pnl(self, position_id: int) -> PnlUpdate | None:
        """The newest profit and loss; None before the first."""
        update: PnlUpdate | None = self.updates.get(position_id)
        return update

    def bands(self, position_id: int) -> tuple[SlippageBand, ...] | None:
        """The newest slippage bands; None before the first snapshot."""
        snapshot = self._snapshot(position_id)
        return None if snapshot is None else snapshot.bands

    def _snapshot(self, position_id: int) -> LiquiditySnapshot | None:
        snapshot: LiquiditySnapshot | None = self.snapshots.get(position_id)
        return snapshot

    def max_sell_at_slippage(self, position_id: int, slippage_bps: int) -> int | None:
        """Tokens sellable within a band; None when the server reports no band of exactly ``slippage_bps``."""
        for band in self.bands(position_id) or ():
            if band.slippage_bps == slippage_bps:
                return band.max_tokens
        return None

    def trend(self, position_id: int) -> str | None:
        """growing, stable or draining; None before the first snapshot."""
        snapshot = self._snapshot(position_id)
        return None if snapshot is None else snapshot.liquidity_trend
