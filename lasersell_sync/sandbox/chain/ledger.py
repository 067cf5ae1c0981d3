"""The ledger: who has how many lamports and tokens, and what state the markets' accounts hold.

Four tables of immutable values keyed by address, and an undo log, so that a transaction is all or nothing. No rules of
any program live here (``programs.py`` has those), no clock, no lock: the exchange calls in under its own lock.
Nodes with old answers look into its past.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypeVar

from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address

from lasersell_sync.sandbox.chain.addresses import WRAPPED_SOL_MINT

U64_MAX = 2**64 - 1
TOKEN_ACCOUNT_BYTES = 165
#: What a byte costs to be exempt from rent, since September 2026: 1 488 440 lamports for a token account.
RENT_LAMPORTS_PER_BYTE = 5_080
#: An account of no bytes takes so many.
_ACCOUNT_OVERHEAD_BYTES = 128


class InsufficientFunds(Exception):
    """An account holds less than a debit asks for; nothing was changed by the debit itself."""


@dataclass(frozen=True, slots=True)
class Mint:
    """A token: its ``decimals``, and its ``supply`` in smallest units."""

    decimals: int
    supply: int


@dataclass(frozen=True, slots=True)
class TokenAccount:
    """``amount`` smallest units of ``mint`` of ``owner``; and who else may move them or close the account."""

    mint: Pubkey
    owner: Pubkey
    amount: int
    delegate: Pubkey | None = None
    delegated_amount: int = 0
    close_authority: Pubkey | None = None


@dataclass(frozen=True, slots=True)
class BondingCurve:
    """State of one Pump.fun bonding-curve account; tokens in smallest units."""

    virtual_tokens: int
    virtual_lamports: int
    real_tokens: int
    real_lamports: int

    @property
    def complete(self) -> bool:
        """True once every token for sale is sold; the curve then refuses trades."""
        return self.real_tokens == 0


#: Token accounts a transaction changed: address -> (before, after), None where it did not exist.
TokenChanges = dict[Pubkey, tuple[TokenAccount | None, TokenAccount | None]]


@lru_cache(maxsize=65_536)
def token_address(owner: Pubkey, mint: Pubkey) -> Pubkey:
    """The associated token account of ``owner`` for ``mint`` (classic token program)."""
    return get_associated_token_address(owner, mint)


class Ledger:
    """Accounts and balances, with ``begin``/``commit``/``rollback`` around a transaction.

    Threads: none of its own; not thread-safe, the exchange's lock guards it.
    """

    def __init__(self, *, rent_lamports_per_byte: int = RENT_LAMPORTS_PER_BYTE) -> None:
        self._rent_lamports_per_byte = rent_lamports_per_byte
        self._lamports: dict[Pubkey, int] = {}
        self._tokens: dict[Pubkey, TokenAccount] = {}
        self._mints: dict[Pubkey, Mint] = {}
        self._curves: dict[Pubkey, BondingCurve] = {}
        #: (bytes, owner) of accounts that no program has initialized yet
        self._allocated: dict[Pubkey, tuple[int, Pubkey]] = {}
        self._lookup_tables: dict[Pubkey, LookupTable] = {}
        #: (table, key, value before) in order; None outside a transaction
        self._undo: list[tuple[dict[Any, Any], Pubkey, Any]] | None = None
        self._past: LedgerPast | None = None

    # -- the past

    def keep_past(self, slot: Callable[[], int]) -> None:
        """Remember from now on what balances were, by slot."""
        self._past = LedgerPast(slot)

    def as_of(self, slot: int) -> Ledger | LedgerAt:
        """The accounts at the end of a slot; those of now if no past is kept."""
        return self if self._past is None else LedgerAt(self, self._past, slot)

    def _note(self, changes: Iterable[tuple[dict[Any, Any], Pubkey, Any]]) -> None:
        if self._past is None:
            return
        slot = self._past.slot()
        for table, key, before in changes:
            if table is self._lamports:
                self._past.note("lamports", key, before, slot)
            elif table is self._tokens:
                self._past.note("tokens", key, before, slot)

    # -- transactions

    def begin(self) -> None:
        """Start recording changes, so that ``rollback`` can take them back."""
        if self._undo is not None:
            raise RuntimeError("the ledger is already in a transaction")
        self._undo = []

    def commit(self) -> TokenChanges:
        """Keep the changes since ``begin`` and return which token accounts they touched."""
        undo = self._take_undo()
        self._note(undo)
        before: dict[Pubkey, TokenAccount | None] = {}
        for table, key, value in undo:
            if table is self._tokens:
                before.setdefault(key, value)
        return {key: (value, self._tokens.get(key)) for key, value in before.items()}

    def rollback(self) -> None:
        """Take back every change since ``begin``."""
        for table, key, value in reversed(self._take_undo()):
            if value is None:
                table.pop(key, None)
            else:
                table[key] = value

    def _take_undo(self) -> list[tuple[dict[Any, Any], Pubkey, Any]]:
        if self._undo is None:
            raise RuntimeError("the ledger is not in a transaction")
        undo, self._undo = self._undo, None
        return undo

    def _put(self, table: dict[Any, Any], key: Pubkey, value: Any) -> None:
        change = (table, key, table.get(key))
        if self._undo is not None:
            self._undo.append(change)
        else:
            self._note([change])
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value

    def names(self, address: Pubkey) -> bool:
        """Whether the instruction at work names an account; here there is none."""
        del address
        return False

    # -- lamports

    def lamports(self, address: Pubkey) -> int:
        """Lamports held by ``address``; 0 for an address never used."""
        return self._lamports.get(address, 0)

    def total_lamports(self) -> int:
        """All lamports there are; only ``credit`` and ``debit`` change it."""
        return sum(self._lamports.values())

    def credit(self, address: Pubkey, amount_lamports: int) -> None:
        """Create lamports (genesis, play money)."""
        balance = self.lamports(address) + amount_lamports
        self._put(self._lamports, address, balance or None)

    def debit(self, address: Pubkey, amount_lamports: int) -> None:
        """Destroy lamports (network fees). Raises ``InsufficientFunds``."""
        balance = self.lamports(address) - amount_lamports
        if balance < 0:
            raise InsufficientFunds(f"{address} lacks {-balance} lamports")
        self._put(self._lamports, address, balance or None)

    def move_lamports(self, source: Pubkey, target: Pubkey, amount_lamports: int) -> None:
        """Move lamports. Raises ``InsufficientFunds``."""
        self.debit(source, amount_lamports)
        self.credit(target, amount_lamports)

    def rent_lamports(self, size: int) -> int:
        """What an account with so many bytes of data must hold to be exempt from rent."""
        return (_ACCOUNT_OVERHEAD_BYTES + size) * self._rent_lamports_per_byte

    # -- tokens

    def mint(self, address: Pubkey) -> Mint | None:
        """The mint at ``address``."""
        return self._mints.get(address)

    def create_mint(self, address: Pubkey, *, decimals: int) -> None:
        """Genesis: a mint without supply yet."""
        self._put(self._mints, address, Mint(decimals, 0))

    def token_account(self, address: Pubkey) -> TokenAccount | None:
        """The token account at ``address``."""
        return self._tokens.get(address)

    def tokens_in(self, address: Pubkey) -> int:
        """The amount in a token account; 0 where there is none."""
        account = self._tokens.get(address)
        return account.amount if account is not None else 0

    def token_balance(self, owner: Pubkey, mint: Pubkey) -> int:
        """The amount in the owner's associated account."""
        return self.tokens_in(token_address(owner, mint))

    def token_accounts_of(self, owner: Pubkey) -> list[tuple[Pubkey, TokenAccount]]:
        """Every token account of ``owner``, in order of creation."""
        return [(address, account) for address, account in self._tokens.items() if account.owner == owner]

    def open_token_account(self, address: Pubkey, *, mint: Pubkey, owner: Pubkey, payer: Pubkey) -> None:
        """Create an empty token account, its rent paid by ``payer``. Raises ``InsufficientFunds``."""
        self.move_lamports(payer, address, self.rent_lamports(TOKEN_ACCOUNT_BYTES))
        self._put(self._tokens, address, TokenAccount(mint, owner, 0))

    def put_token_account(self, address: Pubkey, account: TokenAccount) -> None:
        """Write a token account's new state."""
        self._put(self._tokens, address, account)

    def allocated(self, address: Pubkey) -> tuple[int, Pubkey] | None:
        """Bytes and owner of an account that no program has initialized yet."""
        return self._allocated.get(address)

    def allocate(self, address: Pubkey, *, space: int, owner: Pubkey | None) -> None:
        """Give an account its bytes and its owner; an owner of None takes the note away."""
        self._put(self._allocated, address, None if owner is None else (space, owner))

    def close_token_account(self, address: Pubkey, target: Pubkey) -> None:
        """Remove a token account and send all its lamports (rent, wrapped SOL) to ``target``."""
        self.move_lamports(address, target, self.lamports(address))
        self._put(self._tokens, address, None)

    def mint_tokens(self, address: Pubkey, amount: int) -> None:
        """Genesis: create tokens in an account of the mint."""
        account = self._tokens[address]
        mint = self._mints[account.mint]
        self._put(self._mints, account.mint, replace(mint, supply=mint.supply + amount))
        self._put(self._tokens, address, replace(account, amount=account.amount + amount))

    def move_tokens(self, source: Pubkey, target: Pubkey, amount: int) -> None:
        """Move tokens between two accounts of one mint; wrapped SOL takes its lamports along.

        Raises ``InsufficientFunds``.
        """
        giver = self._tokens[source]
        if giver.amount < amount:
            raise InsufficientFunds(f"{source} lacks {amount - giver.amount} tokens")
        self._put(self._tokens, source, replace(giver, amount=giver.amount - amount))
        taker = self._tokens[target]  # read after the first write: source and target may be the same account
        self._put(self._tokens, target, replace(taker, amount=taker.amount + amount))
        if giver.mint == WRAPPED_SOL_MINT:
            self.move_lamports(source, target, amount)

    def sync_native(self, address: Pubkey) -> None:
        """Make a wrapped-SOL account's token amount equal to its lamports above rent."""
        account = self._tokens[address]
        amount = max(0, self.lamports(address) - self.rent_lamports(TOKEN_ACCOUNT_BYTES))
        self._put(self._tokens, address, replace(account, amount=amount))

    # -- market accounts

    def curve(self, address: Pubkey) -> BondingCurve | None:
        """The bonding curve at ``address``."""
        return self._curves.get(address)

    def put_curve(self, address: Pubkey, curve: BondingCurve) -> None:
        """Write a bonding curve's new state."""
        self._put(self._curves, address, curve)

    # -- address look-up tables

    def lookup_table(self, address: Pubkey) -> LookupTable | None:
        """The look-up table at ``address``."""
        return self._lookup_tables.get(address)

    def create_lookup_table(self, address: Pubkey, table: LookupTable) -> None:
        """Write a look-up table; what its account lacks of the rent is created."""
        self.credit(address, max(0, self.rent_lamports(len(table.data)) - self.lamports(address)))
        self._put(self._lookup_tables, address, table)


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


LOOKUP_TABLE_PROGRAM = Pubkey.from_string("AddressLookupTab1e1111111111111111111111111")
_NEVER = 2**64 - 1
#: kind (1: a table), slot of deactivation, slot of the last extension, its first index, whether there is an authority
_META = struct.Struct("<IQQBB32s2x")
_KIND_TABLE = 1


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A table. ``extended_slot`` is when its last addresses came, which a transaction can use a slot later."""

    addresses: tuple[Pubkey, ...]
    authority: Pubkey | None = None
    extended_slot: int = 0

    @property
    def data(self) -> bytes:
        """The account's data: 56 bytes about the table, then its addresses."""
        authority = bytes(32) if self.authority is None else bytes(self.authority)
        meta = _META.pack(_KIND_TABLE, _NEVER, self.extended_slot, 0, self.authority is not None, authority)
        return meta + b"".join(map(bytes, self.addresses))

    def loaded(self, indexes: bytes) -> list[Pubkey] | None:
        """The addresses at some places; None if there is no such place."""
        if any(index >= len(self.addresses) for index in indexes):
            return None
        return [self.addresses[index] for index in indexes]
