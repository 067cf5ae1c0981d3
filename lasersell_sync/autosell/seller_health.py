"""What an AutoSeller adds to ``session.health()``, and what it warms up at its start."""

from __future__ import annotations

import base64
import logging
import os
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from lasersell_sync.autosell.journal import Journal
from lasersell_sync.autosell.position_state import TakeUp
from lasersell_sync.exceptions import ConcurrencyError, JournalError
from lasersell_sync.messages import ExitSignalWithTx
from lasersell_sync.pubkeys import decode_base58
from lasersell_sync.runtime.callback_executor import CallbackExecutor
from lasersell_sync.runtime.log import logger
from lasersell_sync.session.health import Concern
from lasersell_sync.trading.guard import SigningGuard, TradeContext
from lasersell_sync.trading.guard.signing_guard import read_unsigned
from lasersell_sync.trading.keys.signer import Signer
from lasersell_sync.trading.sending.outcome import TxResult
from lasersell_sync.trading.sending.tx_sender import TxSender
from lasersell_sync.trading.solana.tx_codec import SIGNATURE_BYTES, encode_base64

__all__ = ["seller_concerns", "warm_up"]

log = logger("autosell")


# ── What an automatic seller tells ``session.health()`` ─────────────────────────────────────────────────────────────


def seller_concerns(
    *,
    is_paused: bool,
    take_ups: Iterable[TakeUp],
    undecided: Iterable[TxResult],
    held_back_purchases: int,
    callbacks: CallbackExecutor,
) -> list[Concern]:
    """Everything that waits or fails, each with what to do.

    Args:
        is_paused: nothing is signed.
        take_ups: of exits that an earlier process left unfinished.
        undecided: transactions of which nothing was proven for a minute.
        held_back_purchases: how many wait for exits of the same token.
        callbacks: where the user's code runs.
    """
    found: list[Concern] = []
    if is_paused:
        found.append(Concern("the seller is paused: nothing is sold until seller.resume()", is_problem=False))
    found += [
        Concern(waits_for, is_problem=take_up.is_undecided) for take_up in take_ups if (waits_for := take_up.waits_for)
    ]
    found += [
        Concern(
            f"transaction {each.signature} is undecided: {each.detail}. Look it up by its signature", is_problem=True
        )
        for each in undecided
    ]
    if held_back_purchases:
        text = f"{held_back_purchases} copied purchases wait until no exit of their token can land any more"
        found.append(Concern(text, is_problem=False))
    return [*found, *_callback_concerns(callbacks)]


def _callback_concerns(callbacks: CallbackExecutor) -> list[Concern]:
    found: list[Concern] = []
    slow = callbacks.slow()
    if slow is not None:
        what, running_s = slow
        waiting = callbacks.waiting
        text = f"{what} has run for {running_s:.0f} s, and {waiting} callbacks wait behind it: let it return fast"
        found.append(Concern(text, is_problem=True))
    if callbacks.errors:
        text = f"{callbacks.errors} callbacks raised, the latest was {callbacks.last_error}: the log has the traceback"
        found.append(Concern(text, is_problem=False))
    return found


# ── What an automatic seller does once at its start ─────────────────────────────────────────────────────────────────


_THREAD_NAME: Final = "lasersell-autosell-warm"
#: For the connections to all targets and nodes; the thread ends then.
_CONNECT_S: Final = 5.0
_MAX_ADDRESS_CHARACTERS: Final = 44
_UNSIGNED: Final = b"\1" + bytes(SIGNATURE_BYTES)

#: A sale on pump.fun of a token of the sandbox: the parts around the wallet and the blockhash.
_SALE_MINT: Final = "AC6aearUwretNSWwzq1tVU5ZJRSZ2Dan9paNot3xRVW"
_SALE_TOKENS: Final = 1_000_000_000
_SALE_HEAD: Final = bytes((0x80, 1, 0, 9, 15))
_SALE_ACCOUNTS: Final = base64.b64decode(
    "VxZ4bFvCi9h30GI+rnfVrsnpwUHHXrOAfgvgK7LY8aZ2iD8ic+4gLG2PkkAf1VZ6PVIA4xU4XHZ6FPTTCUWV060R5qT8KUSk+oJRvvgVQm4b+yjG"
    "tmRmd2B8atn1ZqZG3ttQ2ubGgKQqxi/jgTGwTGESCSmvc4L8ztNINo80sDb/W14MFJ3vlyZdyIh9XtA+niiti7VKNl2Y5nu1oaDh7gAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAVbg9pNmWs9E2xVovxdbqlGJy5f10v87ZV0rtv1tGLACWsYYHgEVVlR/5wZ5KTpc0CUf491M0/wqGZ22"
    "Ie8EbQMGRm/lIRcy/+ytunLDm+e8jOW7xfcSayxDmzpAAAAABt324ddloZPZy+FGzut5rBy0he1fWzeROoz1hX7/AKkMNf+pBVqOVo2o97wHVhUn"
    "TPHJLKQfQACcUWqkFMJ8cDqGXmnuD1SAyrz2Y1fk3C8Y1Y1Fwep0ifs3I9l5PHKmb5q0pPGVjcCpyUw/tywHmVhD7aSF46JPEMaTmfgZlA+s8Tbr"
    "AfwcTog9I8i1hEq1mjf2at1XxemsO1PgWdNcZA=="
)
_SALE_INSTRUCTIONS: Final = base64.b64decode(
    "AwkABQJADQMACQAJA1DDAAAAAAAABw4MAwgBBQIABgQKDgcNCxgz5oWkAX+DrQDKmjsAAAAAUR0BAAAAAAAA"
)


def warm_up(
    sender: TxSender, signers: Iterable[Signer], guard: SigningGuard | None, journal: Journal
) -> threading.Thread | None:
    """Open connections, and rehearse a sale up to the send, in the background.

    The guard judges a sale, each signer signs a transaction without instructions, and the journal rolls a made-up exit
    back. Nothing of that is sent, recorded or reported. Returns at once. What fails is logged: the first sale takes
    longer then, and nothing else changes.

    Args:
        sender: what sends the sales.
        signers: whose first signature is rehearsed.
        guard: what judges the sales; None: nobody does.
        journal: what records them.

    Returns:
        The thread, which ends by itself after a few seconds at the most; None: the system has none to spare.
    """
    work = (sender, tuple(signers), guard, journal)
    thread = threading.Thread(target=_warm_up, args=work, name=_THREAD_NAME, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        log.warning("the first sale will take longer: no thread to warm up now: %s", error or "out of memory")
        return None
    return thread


def _warm_up(sender: TxSender, signers: tuple[Signer, ...], guard: SigningGuard | None, journal: Journal) -> None:
    for signer in signers:
        if guard is not None:
            _try(partial(_judge_a_sale, guard, signer.wallet))
        _try(partial(_sign, signer))
    _try(journal.rehearse)
    _try(partial(sender.warm, timeout_s=_CONNECT_S))


def _try(step: Callable[[], object]) -> None:
    try:
        step()
    except ConcurrencyError as error:
        log.debug("closed while it was warming up: %s", error)
    except JournalError as error:
        level = logging.DEBUG if error.kind == "closed" else logging.WARNING
        log.log(level, "the first sale will take longer: %s", error)
    except Exception:
        log.exception("the first sale will take longer: warming up failed")


def _judge_a_sale(guard: SigningGuard, wallet: str) -> None:
    """Have the guard judge a sale of tokens that the wallet does not own, which it refuses. Nobody signs it."""
    message = _SALE_HEAD + _key_of(wallet) + _SALE_ACCOUNTS + os.urandom(32) + _SALE_INSTRUCTIONS
    signal = ExitSignalWithTx(
        session_id=0, position_id=0, wallet_pubkey=wallet, mint=_SALE_MINT, position_tokens=_SALE_TOKENS,
        profit_units=0, reason="rehearsal", triggered_at_ms=0, unsigned_tx_b64=encode_base64(_UNSIGNED + message),
    )  # fmt: skip
    guard.judge(signal, wallet=wallet, context=TradeContext(position_tokens=_SALE_TOKENS), reads_tables=False)


def _sign(signer: Signer) -> None:
    """Sign a transaction without instructions, on a block that does not exist, and forget it: no chain takes it."""
    header, no_instructions = bytes((1, 0, 0)), b"\0"
    message = header + b"\1" + _key_of(signer.wallet) + os.urandom(32) + no_instructions
    signer.rehearse(read_unsigned(encode_base64(_UNSIGNED + message), None))


def _key_of(wallet: str) -> bytes:
    return decode_base58(wallet, _MAX_ADDRESS_CHARACTERS) or b""
