"""Solana JSON-RPC: sending a signed transaction, and learning what became of it (docs/protocol.md 9).

An accepted transaction is not a landed one: ``send_transaction`` returns its signature, ``confirm_signature`` tells
whether it landed. Sending the same signed bytes again is harmless, since the signature deduplicates; asking for a
fresh transaction while the old one can still land is not.

Connections are kept per origin and shared by all calls of the process, so that a sale does not begin with a handshake.
"""

from __future__ import annotations

import functools
import math
import re
import time
from typing import Any, Literal, TypeAlias

import attrs

from lasersell_sync.exceptions import ConfigurationError, TxSubmitError
from lasersell_sync.network.http_endpoint import parse_endpoint
from lasersell_sync.retry import RetryPolicy
from lasersell_sync.runtime.timeouts import TimeBudget, bounded_s
from lasersell_sync.trading.solana.json_rpc import RpcClient, client_for, close_rpc_connections, options_json
from lasersell_sync.trading.solana.rpc_node import Landing, RpcNode, Unreadable
from lasersell_sync.trading.solana.send_targets import SendTarget, SendTargetAstralane, SendTargetHeliusSender
from lasersell_sync.trading.solana.signing import encode_signed_tx, signature_of

__all__ = [
    "ConfirmedSignature",
    "close_rpc_connections",
    "confirm_signature",
    "send_transaction",
    "send_transaction_b64_to",
    "warm_send_target",
]

_POLL_TIMEOUT_S = 5.0
_LONGEST_PAUSE_S = 2.0

Commitment: TypeAlias = Literal["confirmed", "finalized"]


# ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────

# A connection that broke under the request tells nothing about the transaction; the same bytes again are harmless. An
# answer, even a bad one, is the caller's to judge.
_RESEND = RetryPolicy(max_attempts=2)


def warm_send_target(target: SendTarget, *, timeout_s: float = 5.0) -> None:
    """Opens a connection to a target, so that the next send does not wait for TCP and TLS; nothing is sold.

    A node is asked for its health, Helius Sender for its ping; whatever the answer is, the connection stays open. A
    target closes idle connections after some time: warm shortly before use.

    Args:
        target: where the next transaction will go.
        timeout_s: seconds in all, one attempt; host name look-ups come on top.

    Raises:
        TxSubmitError: ``request_send`` or ``response_read``: the target cannot be reached; ``http_status``: it
            redirects, and would do so with a transaction.
        ConfigurationError: not a target, or not a time limit.

    Threads: any.
    """
    client = client_for(target)
    client.warm(target.warm_up_path, budget=TimeBudget(_require_seconds("timeout_s", timeout_s)))


def send_transaction(target: SendTarget, tx: object, *, timeout_s: float = 10.0) -> str:
    """Submits a signed transaction; returns its signature once the target has accepted it.

    Accepted is not landed: see ``confirm_signature``.

    Args:
        target: where to.
        tx: a solders ``VersionedTransaction`` or ``Transaction``, or its bytes.
        timeout_s: seconds in all, two attempts at most (the second only after a broken connection); host name look-ups
            come on top.

    Raises:
        TxSubmitError: ``serialize_tx`` before anything is sent; ``request_send``, ``response_read``, ``http_status``,
            ``decode_response``, ``rpc_error`` or ``missing_result`` after that, with ``signature`` set: unless the
            target refused it, the transaction may have been received.
        ConfigurationError: not a target, or not a time limit.

    Threads: any.
    """
    return send_transaction_b64_to(target, encode_signed_tx(tx), timeout_s=timeout_s)


def send_transaction_b64_to(target: SendTarget, tx_b64: str, *, timeout_s: float = 10.0) -> str:
    """Like ``send_transaction``, for a signed transaction in standard base64."""
    client = client_for(target)
    signature = signature_of(tx_b64)
    budget = TimeBudget(_require_seconds("timeout_s", timeout_s))
    options = _send_options_json(*target.send_options.items())

    def attempt() -> Any:
        return client.send_transaction(tx_b64, options, budget=budget)

    try:
        result = _RESEND.call(attempt, lambda error: _is_broken_connection(error) and not budget.expired())
        if result != signature:
            problem = "no signature in the answer" if not result else "the answer names another signature"
            kind = "missing_result" if not isinstance(result, str) or not result else "decode_response"
            raise TxSubmitError(kind, f"{problem}; the transaction may have been received", target=client.label)
    except TxSubmitError as error:
        error.signature = signature
        raise
    return signature


@functools.cache
def _send_options_json(*options: tuple[str, object]) -> str:
    """The second parameter of ``sendTransaction``; a target's own options are few, and always the same."""
    return options_json(dict(options))


def _is_broken_connection(error: Exception) -> bool:
    return isinstance(error, TxSubmitError) and error.kind in {"request_send", "response_read"}


# ── confirming ───────────────────────────────────────────────────────────────────────────────────────────────────


@attrs.frozen
class ConfirmedSignature:
    """A transaction that landed without an error.

    Attributes:
        signature: base58.
        slot: the slot it landed in.
        confirmation_status: ``confirmed`` or ``finalized``.
    """

    signature: str
    slot: int
    confirmation_status: str


def confirm_signature(
    target_or_url: SendTarget | str,
    signature: str,
    *,
    timeout_s: float = 30.0,
    poll_interval_s: float = 0.4,
    commitment: Commitment = "confirmed",
) -> ConfirmedSignature:
    """Waits until a transaction has landed, by asking an RPC node again and again.

    A failed question does not end the wait; one that can never succeed (an unknown method, a refused key) does.

    Args:
        target_or_url: ``SendTargetRpc`` or its URL. The senders (Helius, Astralane) answer no questions.
        signature: base58, from ``send_transaction``.
        timeout_s: seconds; host name look-ups come on top.
        poll_interval_s: seconds between questions; grows to 2 s while questions fail.
        commitment: how sure to be: ``confirmed`` (under two seconds after landing) or ``finalized`` (about 13).

    Raises:
        TxSubmitError: ``tx_failed`` when it landed with an error; ``confirm_timeout`` when it is not known to have
            landed: **it may still land** until its blockhash expires, so do not build another one because of this
            alone; other kinds when the node cannot be asked at all.
        ConfigurationError: a sender, not a signature, or a number out of range.

    Threads: any; the calling thread sleeps between questions.
    """
    node = RpcNode(_confirming_client(target_or_url))
    _require_signature(signature)
    if commitment not in {"confirmed", "finalized"}:
        raise ConfigurationError("commitment", "'confirmed' or 'finalized' is needed")
    poll_s = _require_seconds("poll_interval_s", poll_interval_s)
    budget = TimeBudget(_require_seconds("timeout_s", timeout_s))
    pause_s = poll_s
    seen: str | None = None
    failure: TxSubmitError | None = None
    while True:
        try:
            landing = _landing(node, signature, budget)
        except TxSubmitError as error:
            if not _may_pass(error):
                error.signature = signature
                raise
            if seen is None or not budget.expired():  # cut off by the limit, it says less than the answer before it
                seen, failure = f"the last question failed ({error})", error
            pause_s = min(pause_s * 2, max(poll_s, _LONGEST_PAUSE_S))
        else:
            pause_s, failure = poll_s, None
            seen = "the network does not know it yet"
            if landing is not None:
                if landing.level in {"finalized", commitment}:
                    return ConfirmedSignature(signature, landing.slot, landing.level)
                seen = f"it is {landing.level} in slot {landing.slot}"
        time.sleep(min(pause_s, budget.remaining_s() or 0.0))
        if budget.expired():
            break
    raise TxSubmitError(
        "confirm_timeout",
        f"not {commitment} within {timeout_s:g} s: {seen}. It may still land until its blockhash expires "
        "(150 blocks after it was built: about 32 s with slots of 214 ms)",
        target=node.label,
        signature=signature,
    ) from failure


def _landing(node: RpcNode, signature: str, budget: TimeBudget) -> Landing | None:
    """What the node knows; None when it does not know the transaction.

    Raises:
        TxSubmitError: ``tx_failed``, or no usable answer.
    """
    poll = TimeBudget(min(_POLL_TIMEOUT_S, budget.remaining_s() or 0.0))
    (landing,) = node.statuses([signature], budget=poll).landings
    if landing is Unreadable.ITEM:
        raise TxSubmitError("decode_response", "the signature status cannot be read", target=node.label)
    if landing is not None and landing.error is not None:
        problem = f"failed in slot {landing.slot}: {landing.error}"
        raise TxSubmitError("tx_failed", problem, target=node.label, signature=signature)
    return landing


def _may_pass(error: TxSubmitError) -> bool:
    """True when the same question may be answered later."""
    if error.kind == "http_status":
        return error.status is not None and (error.status >= 500 or error.status in {408, 429})
    if error.kind == "rpc_error":
        # Invalid request, unknown method, invalid params (JSON-RPC 2.0): the node will say so again.
        return error.code not in {-32600, -32601, -32602}
    return error.kind != "tx_failed"


def _confirming_client(target_or_url: SendTarget | str) -> RpcClient:
    if isinstance(target_or_url, str):
        return RpcClient(parse_endpoint("target_or_url", target_or_url), "rpc")
    if isinstance(target_or_url, (SendTargetHeliusSender, SendTargetAstralane)):
        raise ConfigurationError(
            "target_or_url", f"{type(target_or_url).__name__} only sends: give a SendTargetRpc, or a node's URL"
        )
    return client_for(target_or_url)


def _require_signature(signature: object) -> None:
    # Not repeated: the base58 form of a keypair looks the same, and people mix them up.
    if not isinstance(signature, str) or not re.fullmatch(r"[1-9A-HJ-NP-Za-km-z]{64,88}", signature):
        raise ConfigurationError("signature", "the base58 form of 64 bytes is needed (64 to 88 characters)")


def _require_seconds(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(field, "a positive, finite number of seconds is needed")
    return bounded_s(value)
