"""Writes unsigned transactions in the three formats that are live: legacy, version 0 and version 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox.chain.instructions import COMPUTE_UNIT_PRICE_MICROLAMPORTS
from lasersell_sync.sandbox.chain.transactions import MAX_PACKET_BYTES, BudgetHeader, compile_v1, unsigned_bytes
from lasersell_sync.sandbox.markets.listings import Listing

Version = Literal["legacy", 0, 1]
#: What ``Sandbox(transaction_format=…)`` takes, and what it means; None: the seed chooses for each token.
TRANSACTION_FORMATS: Final[dict[str, Version | None]] = {"drawn": None, "legacy": "legacy", "0": 0, "1": 1}
_VERSIONS: Final[tuple[Version, ...]] = (0, "legacy", 1)
#: The lower part of a lot chooses among a market's instructions.
_FORMS = 16


def drawn_version(listing: Listing) -> Version:
    """The format that the seed has drawn for a token's direct trades."""
    return _VERSIONS[listing.lot // _FORMS % len(_VERSIONS)]


def write_unsigned(
    version: Version,
    user: Pubkey,
    instructions: Sequence[Instruction],
    blockhash: Hash,
    *,
    unit_limit: int,
    table: Callable[[], AddressLookupTableAccount] | None = None,
    uses_table: bool = False,
) -> bytes:
    """A transaction with room for its signatures.

    Args:
        version: Its format. What is too long for a legacy packet is written in version 0.
        user: Who pays and signs.
        instructions: Without those of the compute budget, which is added.
        blockhash: How long it may land.
        unit_limit: The compute units that it may use.
        table: Makes the look-up table that shortens version 0; None: there is none.
        uses_table: Version 0 uses the table even where it fits without.
    """
    if version == 1:
        fee_lamports = -(-unit_limit * COMPUTE_UNIT_PRICE_MICROLAMPORTS // 1_000_000)
        return unsigned_bytes(compile_v1(user, instructions, blockhash, BudgetHeader(fee_lamports, unit_limit)))
    price = set_compute_unit_price(COMPUTE_UNIT_PRICE_MICROLAMPORTS)
    everything = [set_compute_unit_limit(unit_limit), price, *instructions]
    if version == "legacy":
        legacy = _with_room(Message.new_with_blockhash(everything, user, blockhash))
        if len(legacy) <= MAX_PACKET_BYTES:
            return legacy
    tables = [table()] if table is not None and uses_table else []
    raw = _with_room(MessageV0.try_compile(user, everything, tables, blockhash))
    if len(raw) > MAX_PACKET_BYTES and table is not None:
        return _with_room(MessageV0.try_compile(user, everything, [table()], blockhash))
    return raw


def _with_room(message: Message | MessageV0) -> bytes:
    signatures = [Signature.default()] * message.header.num_required_signatures
    return unsigned_bytes(VersionedTransaction.populate(message, signatures))
