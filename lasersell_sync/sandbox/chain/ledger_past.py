"""What accounts held a while ago: what nodes with old answers show."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar

from solders.pubkey import Pubkey

if TYPE_CHECKING:
    from lasersell_sync.sandbox.chain.ledger import Ledger, Mint, TokenAccount
    from lasersell_sync.sandbox.chain.lookup_tables import LookupTable

Table = Literal["lamports", "tokens"]
T = TypeVar("T")

#: Ten minutes of slots.
_KEPT_SLOTS = 3_000
_MOST_CHANGES = 50_000


class LedgerPast:
    """The values that balances had before they changed, for as long as anybody may ask.

    Args:
        slot: The current slot.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self, slot: Callable[[], int]) -> None:
        #: the current slot
        self.slot = slot
        #: (slot of the change, value before it), oldest first; one for each slot in which an account changed
        self._changes: dict[tuple[Table, Pubkey], deque[tuple[int, object]]] = {}
        #: the same changes in their order, to forget the oldest
        self._order: deque[tuple[int, tuple[Table, Pubkey]]] = deque()

    def note(self, table: Table, address: Pubkey, before: object, slot: int) -> None:
        """Remember the value that an account has had until it changed in a slot, the current one."""
        name = (table, address)
        known = self._changes.get(name)
        if known is None:
            known = self._changes[name] = deque()
        elif known[-1][0] == slot:
            return
        known.append((slot, before))
        self._order.append((slot, name))
        self._forget(slot)

    def _forget(self, slot: int) -> None:
        while len(self._order) > _MOST_CHANGES or self._order[0][0] < slot - _KEPT_SLOTS:
            _, name = self._order.popleft()
            self._changes[name].popleft()
            if not self._changes[name]:
                del self._changes[name]

    def value(self, table: Table, address: Pubkey, slot: int, now: T) -> T:
        """What an account held at the end of a slot; ``now`` if it has not changed since."""
        later = (before for changed, before in self._changes.get((table, address), ()) if changed > slot)
        return next(later, now)  # type: ignore[return-value]  # one type for each table

    def token_accounts(self) -> list[Pubkey]:
        """Every token account that has changed."""
        return [address for table, address in self._changes if table == "tokens"]


class LedgerAt:
    """Accounts as they were at the end of a slot; mints and look-up tables, which do not change, as they are now."""

    def __init__(self, ledger: Ledger, past: LedgerPast, slot: int) -> None:
        self._ledger = ledger
        self._past = past
        self._slot = slot

    def lamports(self, address: Pubkey) -> int:
        """Lamports that ``address`` held."""
        now: int | None = self._ledger.lamports(address)
        return self._past.value("lamports", address, self._slot, now) or 0

    def token_account(self, address: Pubkey) -> TokenAccount | None:
        """The token account at ``address``."""
        return self._past.value("tokens", address, self._slot, self._ledger.token_account(address))

    def token_accounts_of(self, owner: Pubkey) -> list[tuple[Pubkey, TokenAccount]]:
        """Every token account of ``owner``: first those that have not been closed since."""
        now = [address for address, _ in self._ledger.token_accounts_of(owner)]
        found = ((address, self.token_account(address)) for address in dict.fromkeys(now + self._past.token_accounts()))
        return [(address, account) for address, account in found if account is not None and account.owner == owner]

    def mint(self, address: Pubkey) -> Mint | None:
        """The mint at ``address``."""
        return self._ledger.mint(address)

    def lookup_table(self, address: Pubkey) -> LookupTable | None:
        """The look-up table at ``address``."""
        return self._ledger.lookup_table(address)

    def allocated(self, address: Pubkey) -> tuple[int, Pubkey] | None:
        """Bytes and owner of an account that no program has initialized yet."""
        return self._ledger.allocated(address)

    def rent_lamports(self, size: int) -> int:
        """What an account with so many bytes of data must hold."""
        return self._ledger.rent_lamports(size)
