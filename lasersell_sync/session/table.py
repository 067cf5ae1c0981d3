"""The positions a session knows, by id and by token account."""

from __future__ import annotations

import operator
import threading
from collections import OrderedDict
from typing import Final

import attrs

from lasersell_sync._backend import Handles, Maker
from lasersell_sync.messages import BalanceUpdate, PositionClosed, PositionOpened
from lasersell_sync.positions import PositionHandle, PositionKey
from lasersell_sync.quotes import quote_currency_of

__all__ = ["PositionTable"]

#: How many closed positions are remembered, to tell a late update of one from an update of a stranger.
REMEMBERED_CLOSED: Final = 65_536


_FIELDS: Final = [field.name for field in attrs.fields(PositionHandle)]
_TOKENS: Final = _FIELDS.index("tokens")
_STALE: Final = _FIELDS.index("stale")
_values_of = operator.attrgetter(*_FIELDS)
_make_handle = Maker(PositionHandle, _FIELDS)


def _handle_of(message: PositionOpened) -> PositionHandle:
    """The handle that a ``position_opened`` announces; the values are in the order of the handle's fields."""
    context = message.market_context
    handle: PositionHandle = _make_handle(
        message.position_id,
        message.token_account,
        message.wallet_pubkey,
        message.mint,
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
        message.opened_at_ms,
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


class PositionTable:
    """Handles of all open positions.

    Threads: the reader writes; ``handles`` and the look-ups from any thread.
    """

    def __init__(self) -> None:
        # Guards the dicts while they change together. Look-ups by the reader itself need no lock, nor does a new handle
        # in the place of an older one of the same id.
        self._lock = threading.Lock()
        self._by_id: dict[int, PositionHandle] = {}
        #: Those that are not stale: a frequent message about one changes nothing here, so the reader's fast way may
        #: take the handle itself.
        self.fresh: Handles[PositionHandle] = Handles()
        # By (wallet, token account): equal to a PositionKey, and made in a fifth of its time.
        self._id_by_key: dict[tuple[str, str], int] = {}
        # (wallet, mint) to the ids that share it, for balance updates that name no account.
        self._ids_by_mint: dict[tuple[str, str], set[int]] = {}
        self._closed: OrderedDict[int, None] = OrderedDict()

    # ── the reader ───────────────────────────────────────────────────────────────────────────────────────────────

    def opened(self, message: PositionOpened) -> PositionHandle:
        """Take a position in; one announced again, maybe under a new id, keeps its place."""
        handle = _handle_of(message)
        key, position_id = (message.wallet_pubkey, message.token_account), message.position_id
        with self._lock:
            old_id = self._id_by_key.get(key)
            if old_id != position_id:
                if old_id is not None:
                    self._drop(old_id)
                self._closed.pop(position_id, None)
                self._id_by_key[key] = position_id
                self._ids_by_mint.setdefault((handle.wallet_pubkey, handle.mint), set()).add(position_id)
            self._store(handle)
        return handle

    def announced_again(self, message: PositionOpened) -> PositionHandle | None:
        """The new handle of a position that is known under this very id; None: ``opened`` takes it in."""
        known = self._by_id.get(message.position_id)
        if (
            known is None
            or known.token_account != message.token_account
            or known.wallet_pubkey != message.wallet_pubkey
            or known.watched is not message.watched
        ):
            return None
        handle = _handle_of(message)
        self._store(handle)
        return handle

    def closed(self, message: PositionClosed) -> PositionHandle | None:
        """Take a position out; its last handle, or None when it was not known."""
        with self._lock:
            position_id = message.position_id
            if position_id not in self._by_id and message.token_account is not None:
                known = self._id_by_key.get((message.wallet_pubkey, message.token_account))
                position_id = position_id if known is None else known
            handle = self._drop(position_id)
            for gone in {message.position_id, position_id}:
                self._closed[gone] = None
            while len(self._closed) > REMEMBERED_CLOSED:
                self._closed.popitem(last=False)
            return handle

    def balance(self, message: BalanceUpdate) -> PositionHandle | None:
        """The position whose balance this is, with the new balance; None when it is of no (single) position."""
        if message.token_account is not None:
            position_id = self._id_by_key.get((message.wallet_pubkey, message.token_account))
        else:
            ids = self._ids_by_mint.get((message.wallet_pubkey, message.mint), set())
            position_id = next(iter(ids)) if len(ids) == 1 else None
        if position_id is None:
            return None
        handle = self._by_id[position_id]
        if handle.tokens != message.tokens or handle.stale:
            handle = _updated(handle, tokens=message.tokens, stale=False)
            self._store(handle)
        return handle

    def find(self, position_id: int, token_account: str | None = None) -> PositionHandle | None:
        """By id, else by token account."""
        handle = self._by_id.get(position_id)
        if handle is None and token_account is not None:
            return self.by_account(token_account)
        return handle

    def heard_of(self, handle: PositionHandle | None) -> PositionHandle | None:
        """Something came about this position: it is not stale (any more)."""
        if handle is None or not handle.stale:
            return handle
        return self._replace(_updated(handle, tokens=handle.tokens, stale=False))

    def mark_stale(self, keys: set[PositionKey]) -> list[PositionHandle]:
        """The new handles of positions that were not announced again."""
        known = [handle for key in keys if (handle := self.by_key(key)) is not None]
        return [self._replace(_updated(handle, tokens=handle.tokens, stale=True)) for handle in known]

    def _replace(self, handle: PositionHandle) -> PositionHandle:
        with self._lock:
            self._store(handle)
        return handle

    def _store(self, handle: PositionHandle) -> None:
        self._by_id[handle.position_id] = handle
        if handle.stale:
            self.fresh.forget(handle.position_id)
        else:
            self.fresh[handle.position_id] = handle

    def was_closed(self, position_id: int) -> bool:
        """True for an id that was closed and not opened again."""
        return position_id in self._closed

    def _drop(self, position_id: int) -> PositionHandle | None:
        handle = self._by_id.pop(position_id, None)
        if handle is None:
            return None
        self.fresh.forget(position_id)
        self._id_by_key.pop(handle.key, None)
        sharing = self._ids_by_mint.get((handle.wallet_pubkey, handle.mint), set())
        sharing.discard(position_id)
        if not sharing:
            self._ids_by_mint.pop((handle.wallet_pubkey, handle.mint), None)
        return handle

    # ── anyone ───────────────────────────────────────────────────────────────────────────────────────────────────

    def handles(self) -> list[PositionHandle]:
        """All open positions, in the order of their announcement."""
        with self._lock:
            return list(self._by_id.values())

    def keys(self) -> set[PositionKey]:
        """The identities of all open positions."""
        with self._lock:
            return {PositionKey(*key) for key in self._id_by_key}

    def by_key(self, key: tuple[str, str]) -> PositionHandle | None:
        """The position's newest handle; None when it is not open."""
        with self._lock:
            position_id = self._id_by_key.get(key)
            return None if position_id is None else self._by_id[position_id]

    def by_account(self, token_account: str) -> PositionHandle | None:
        """The position of this token account; None when there is none."""
        with self._lock:
            for handle in self._by_id.values():
                if handle.token_account == token_account:
                    return handle
            return None
