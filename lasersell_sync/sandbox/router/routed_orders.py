"""Writes the transactions of routed trades: their format, and the look-up tables that keep them in one packet."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.anchor import derived_address
from lasersell_sync.sandbox.chain.ledger import LOOKUP_TABLE_PROGRAM, Ledger, LookupTable
from lasersell_sync.sandbox.chain.transactions import write_unsigned
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.venues import VENUES
from lasersell_sync.sandbox.router.program import Router
from lasersell_sync.sandbox.router.shapes import RouterOrder

#: A ceiling above all routed swaps.
ROUTED_UNIT_LIMIT = 400_000
#: Two wallets that nobody has: what differs between their trades is a wallet's own.
_STRANGERS = tuple(Keypair.from_seed(bytes([number]) * 32).pubkey() for number in (201, 202))


class RoutedOrders:
    """Builds transactions that go through the Router.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self, ledger: Ledger, router: Router) -> None:
        self._ledger = ledger
        self._router = router
        self._tables: dict[tuple[Pubkey, str], AddressLookupTableAccount] = {}

    def route(
        self, listing: Listing, user: Pubkey, direct: Sequence[Instruction], order: RouterOrder
    ) -> list[Instruction]:
        """A direct trade's instructions with the Router around the market's."""
        return self._router.route(listing, user, direct, order)

    def unsigned(self, listing: Listing, user: Pubkey, instructions: Sequence[Instruction], blockhash: Hash) -> bytes:
        """The transaction in the Router's format, without signatures but with room for them."""
        shape = self._router.shape
        return write_unsigned(
            shape.version,
            user,
            instructions,
            blockhash,
            unit_limit=ROUTED_UNIT_LIMIT,
            table=lambda: self._table(listing),
            uses_table=shape.uses_table,
        )

    def _table(self, listing: Listing) -> AddressLookupTableAccount:
        """A listing's look-up table, created when it is first needed."""
        key = (listing.mint, listing.market_type)
        known = self._tables.get(key)
        if known is None:
            table = LookupTable(tuple(self._table_addresses(listing)))
            # As on the main net, no table is ever found at another one's address, not even in another sandbox.
            content = hashlib.sha256(b"".join(map(bytes, table.addresses))).digest()
            address = derived_address(LOOKUP_TABLE_PROGRAM, content)
            self._ledger.create_lookup_table(address, table)
            known = self._tables[key] = AddressLookupTableAccount(address, list(table.addresses))
        return known

    def _table_addresses(self, listing: Listing) -> list[Pubkey]:
        """Every account of a purchase and a sale that is the same for every wallet; no program of an instruction."""
        ours, theirs = (self._accounts(listing, stranger) for stranger in _STRANGERS)
        return [address for address in ours if address in theirs]

    def _accounts(self, listing: Listing, user: Pubkey) -> list[Pubkey]:
        venue = VENUES[listing.market_type]
        trades = (
            (True, venue.buy_instructions(listing, user, 1, 1)),
            (False, venue.sell_instructions(listing, user, 1, 1)),
        )
        routed = [
            instruction
            for buying, direct in trades
            for instruction in self._router.route(listing, user, direct, RouterOrder(buying, 1, 1, 0, 0))
        ]
        programs = {instruction.program_id for instruction in routed}
        addresses = [meta.pubkey for instruction in routed for meta in instruction.accounts]
        return [address for address in dict.fromkeys(addresses) if address not in programs]
