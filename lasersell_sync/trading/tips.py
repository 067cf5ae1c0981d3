"""What a transaction tips the senders, and the least that each of them wants.

Accounts and amounts are data (``guard/programs.json``): they change. A target's ``minimum_tip_lamports`` replaces the
amount.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from lasersell_sync.trading.guard.addresses import from_text
from lasersell_sync.trading.guard.programs import SYSTEM_PROGRAM
from lasersell_sync.trading.send_targets import SendTarget, SendTargetRpc

if TYPE_CHECKING:
    from solders.transaction import VersionedTransaction

__all__ = ["minimum_tip_lamports", "tip_lamports"]

_GUARD: Final = "lasersell_sync.trading.guard"
_TRANSFER: Final = b"\x02\x00\x00\x00"
_TRANSFER_BYTES: Final = 12
_TRANSFER_ACCOUNTS: Final = 2


def minimum_tip_lamports(target: SendTarget) -> int | None:
    """The least tip that a target wants: its own number, or what its service was seen to want; None: it takes none."""
    if isinstance(target, SendTargetRpc) or target.tip_service is None:
        return None
    own = target.minimum_tip_lamports
    return own if own is not None else int(_data()["minimum_tip_lamports"][target.tip_service])


def tip_lamports(transaction: VersionedTransaction, sender: str) -> int | None:
    """What a transaction transfers to the accounts in which a sender takes tips; None when not all is plain to see.

    Args:
        transaction: parsed and sound (``wire_tx.parse``).
        sender: ``helius_sender`` or ``astralane``.
    """
    message = transaction.message
    keys = [bytes(key) for key in message.account_keys]
    total_lamports = 0
    for instruction in message.instructions:
        accounts, data = bytes(instruction.accounts), bytes(instruction.data)
        if keys[instruction.program_id_index] != SYSTEM_PROGRAM or not data.startswith(_TRANSFER):
            continue
        if len(data) < _TRANSFER_BYTES or len(accounts) < _TRANSFER_ACCOUNTS:
            continue
        if accounts[1] >= len(keys):
            return None  # its target is in a look-up table
        if keys[accounts[1]] in _accounts(sender):
            total_lamports += int.from_bytes(data[len(_TRANSFER) : _TRANSFER_BYTES], "little")
    return total_lamports


@functools.cache
def _accounts(sender: str) -> frozenset[bytes]:
    return frozenset(from_text(address) for address in _data()["tip_accounts"][sender])


@functools.cache
def _data() -> Any:
    data = json.loads((resources.files(_GUARD) / "programs.json").read_text(encoding="utf-8"))
    return {name: data[name] for name in ("tip_accounts", "minimum_tip_lamports")}
