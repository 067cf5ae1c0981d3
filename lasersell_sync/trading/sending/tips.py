"""What a transaction tips the senders, and the least that each of them wants.

Accounts and amounts are data (``guard/addresses.json``): they change. A target's ``minimum_tip_lamports`` replaces the
amount.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

from lasersell_sync.trading.guard.addresses import from_text
from lasersell_sync.trading.guard.programs import SYSTEM_PROGRAM, read_data
from lasersell_sync.trading.solana.send_targets import SendTarget, SendTargetRpc
from lasersell_sync.trading.solana.signing import SignedTx
from lasersell_sync.trading.solana.tx_codec import instructions_of

__all__ = ["minimum_tip_lamports", "send_mode_warnings", "tip_lamports"]

_TRANSFER: Final = b"\x02\x00\x00\x00"
_TRANSFER_BYTES: Final = 12
_TRANSFER_ACCOUNTS: Final = 2
#: What ``send_mode`` calls a node, which takes no tips.
_RPC_MODE: Final = "rpc"
#: What the server tips when nobody says otherwise (docs/protocol.md 5).
_DEFAULT_TIP_LAMPORTS: Final = 1_000


def minimum_tip_lamports(target: SendTarget) -> int | None:
    """The least tip that a target wants: its own number, or what its service was seen to want; None: it takes none."""
    if isinstance(target, SendTargetRpc) or target.tip_service is None:
        return None
    own = target.minimum_tip_lamports
    return own if own is not None else int(read_data("addresses.json")["minimum_tip_lamports"][target.tip_service])


def send_mode_warnings(targets: Sequence[SendTarget], send_mode: str | None, tip_lamports: int | None) -> list[str]:
    """What transactions of this ``StreamConfigure`` lack for these targets, each with the line that mends it.

    A transaction tips one sender: a target that takes tips ignores what was built for another one, or tips less than
    its minimum.

    Args:
        targets: where transactions go.
        send_mode: as ``StreamConfigure.send_mode``.
        tip_lamports: as ``StreamConfigure.tip_lamports``; None: the server's default of 1 000.
    """
    warnings = []
    for target in targets:
        least = minimum_tip_lamports(target)
        if least is None:
            continue
        if send_mode != target.tip_accounts_of:
            problem = f"send_mode is {send_mode!r}, so its transactions tip {target.label} nothing"
        elif tip_lamports is None or tip_lamports < least:
            problem = f"tip_lamports is {_DEFAULT_TIP_LAMPORTS if tip_lamports is None else tip_lamports}"
        else:
            continue
        warnings.append(
            f"TxSender sends to {target.label}, which ignores transactions that tip it less than {least} lamports; "
            f"StreamConfigure's {problem}. Write StreamConfigure(..., {_arguments(target)})"
        )
    modes = [target.tip_accounts_of or _RPC_MODE for target in targets]
    if send_mode is not None and send_mode not in modes and not warnings:
        warnings.append(
            f"StreamConfigure's send_mode is {send_mode!r}, and TxSender sends to {', '.join(modes)}: transactions pay "
            f"a tip for nothing. Write StreamConfigure(..., {_arguments(targets[0])})"
        )
    return warnings


def _arguments(target: SendTarget) -> str:
    least = minimum_tip_lamports(target)
    tip = "" if least is None else f", tip_lamports={least}"
    return f"send_mode={(target.tip_accounts_of or _RPC_MODE)!r}{tip}"


def tip_lamports(signed: SignedTx, sender: str) -> int | None:
    """What a transaction transfers to the accounts in which a sender takes tips; None when not all is plain to see.

    Args:
        signed: the transaction.
        sender: ``helius_sender`` or ``astralane``.
    """
    raw, layout = signed.raw, signed.layout
    total_lamports = 0
    for program, accounts, data in instructions_of(raw, layout)[0]:
        if not data.startswith(_TRANSFER) or layout.account(raw, program) != SYSTEM_PROGRAM:
            continue
        if len(data) < _TRANSFER_BYTES or len(accounts) < _TRANSFER_ACCOUNTS:
            continue
        if accounts[1] >= layout.account_count:
            return None  # its target is in a look-up table
        if layout.account(raw, accounts[1]) in _accounts(sender):
            total_lamports += int.from_bytes(data[len(_TRANSFER) : _TRANSFER_BYTES], "little")
    return total_lamports


@functools.cache
def _accounts(sender: str) -> frozenset[bytes]:
    return frozenset(from_text(address) for address in read_data("addresses.json")["tip_accounts"][sender])
