"""Address look-up tables: lists of accounts that version 0 transactions name by their place.

A table is an account of its own program; its data has the real encoding, so that clients read it as on the main net.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from solders.pubkey import Pubkey

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
