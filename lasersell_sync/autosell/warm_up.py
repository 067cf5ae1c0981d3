"""What an automatic seller does once at its start, so that the first sale takes no longer than later ones."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Final

from lasersell_sync._log import logger
from lasersell_sync.exceptions import ConcurrencyError
from lasersell_sync.pubkeys import decode_base58
from lasersell_sync.trading.guard import SigningGuard
from lasersell_sync.trading.guard.signing_guard import read_unsigned
from lasersell_sync.trading.signer import Signer
from lasersell_sync.trading.tx_sender import TxSender
from lasersell_sync.trading.wire_tx import SIGNATURE_BYTES, encode_base64

__all__ = ["warm_up"]

log = logger("autosell")

_THREAD_NAME: Final = "lasersell-autosell-warm"
#: For the connections to all targets and nodes; the thread ends then.
_CONNECT_S: Final = 5.0
_MAX_ADDRESS_CHARACTERS: Final = 44


def warm_up(sender: TxSender, signers: Iterable[Signer], guard: SigningGuard | None) -> threading.Thread | None:
    """Open connections, have the guard build its tables, and rehearse a signature, in the background.

    Returns at once. What fails is logged: the first sale takes longer then, and nothing else changes.

    Args:
        sender: what sends the sales.
        signers: whose first signature is rehearsed.
        guard: what judges the sales; None: nobody does.

    Returns:
        The thread, which ends by itself after a few seconds at the most; None: the system has none to spare.
    """
    thread = threading.Thread(target=_warm_up, args=(sender, tuple(signers), guard), name=_THREAD_NAME, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        log.warning("the first sale will take longer: no thread to warm up now: %s", error or "out of memory")
        return None
    return thread


def _warm_up(sender: TxSender, signers: tuple[Signer, ...], guard: SigningGuard | None) -> None:
    try:
        for signer in signers:
            _rehearse(signer, guard)
        sender.warm(timeout_s=_CONNECT_S)
    except ConcurrencyError as error:
        log.debug("closed while it was warming up: %s", error)
    except Exception:
        log.exception("the first sale will take longer: warming up failed")


def _rehearse(signer: Signer, guard: SigningGuard | None) -> None:
    """Judge and sign a transaction that no chain takes."""
    tx_b64 = _harmless_transaction(signer.wallet)
    if guard is not None:
        guard.judge(tx_b64, wallet=signer.wallet, reads_tables=False)
    signer.rehearse(read_unsigned(tx_b64, None))


def _harmless_transaction(wallet: str) -> str:
    """One without instructions, on a block that does not exist: it could never land, and nobody gets to see it."""
    public_key = decode_base58(wallet, _MAX_ADDRESS_CHARACTERS) or b""
    header, no_instructions = bytes((1, 0, 0)), b"\0"
    message = header + b"\1" + public_key + os.urandom(32) + no_instructions
    return encode_base64(b"\1" + bytes(SIGNATURE_BYTES) + message)
