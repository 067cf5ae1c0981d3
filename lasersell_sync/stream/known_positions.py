"""Which positions the server announced: under which id on the present connection, and as which opening."""

from __future__ import annotations

from lasersell_sync.messages import ExitSignalWithTx, PositionClosed, PositionOpened
from lasersell_sync.openings import Opening, OwnSales, is_same_opening

__all__ = ["KnownPositions"]

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
