"""The way to one target: its connection, its threads, and what its answers mean."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from lasersell_sync import _log
from lasersell_sync.exceptions import ConcurrencyError, TxSubmitError
from lasersell_sync.timeouts import TimeBudget, wait_s
from lasersell_sync.trading._json_rpc import client_for
from lasersell_sync.trading.pending_txs import PendingTxs
from lasersell_sync.trading.send_targets import SendTarget
from lasersell_sync.trading.tracked_tx import Answer, TrackedTx

__all__ = ["NOT_TAKEN_CODES", "SendLane"]

log = _log.logger("trading")

#: JSON-RPC errors of ``sendTransaction`` that say that nothing was sent on: the request was not understood (JSON-RPC
#: 2.0 §5.1), or the transaction was looked at and turned down (agave ``rpc-client-api/src/custom_error.rs``). Any other
#: code, of a provider's own making for example, says nothing about the transaction.
NOT_TAKEN_CODES: Final = frozenset(
    {
        -32700,  # parse error
        -32600,  # invalid request
        -32601,  # method not found
        -32602,  # invalid params: not a transaction, or one that does not hang together
        -32002,  # SendTransactionPreflightFailure (but see _has_landed)
        -32003,  # TransactionSignatureVerificationFailure
        -32006,  # TransactionPrecompileVerificationFailure
        -32013,  # TransactionSignatureLenMismatch
        -32015,  # UnsupportedTransactionVersion
    }
)
#: Copies of all transactions fail alike while a target is down: one warning in so many seconds says it.
_WARNS_AGAIN_AFTER_S: Final = 30.0
_BROKEN_CONNECTION = {"request_send", "response_read"}


class SendLane:
    """One target.

    Args:
        number: its place among the targets.
        target: where it is.
        pending: what it sends, and where its answers go.
        send_timeout_s: seconds for one copy, a second attempt after a broken connection included.
        connections: copies on their way at once; more wait. A target that hangs holds each for ``send_timeout_s``.

    Threads: any. Its own are named ``lasersell-send-<number>_…`` and start with the first copy that is handed over.
    """

    def __init__(
        self,
        number: int,
        target: SendTarget,
        pending: PendingTxs,
        *,
        send_timeout_s: float,
        connections: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.number = number
        self.target = target
        self._client = client_for(target)
        self._pending = pending
        self._send_timeout_s = send_timeout_s
        self._clock = clock
        self._options = {"encoding": "base64", "skipPreflight": True, **target.send_options}
        self._executor = concurrent.futures.ThreadPoolExecutor(
            connections, thread_name_prefix=f"lasersell-send-{number}"
        )
        self._is_closed = False
        self._futures: set[concurrent.futures.Future[None]] = set()
        #: Monotonic seconds.
        self.last_used_at = 0.0
        #: Why a copy was not taken, when that was warned of last, and when that was.
        self._warned = ("", 0.0)

    # ── copies ──

    def send(self, tracked: TrackedTx) -> None:
        """One copy, on this thread; its answer goes to ``pending``. On the caller's thread KeyboardInterrupt passes."""
        answer: Answer | None = Answer.UNCERTAIN
        problem = ""
        try:
            tx_b64, held_s = self._pending.bytes_of(tracked), self._client.held_for_s()
            if tx_b64 is None:
                answer = None
            elif held_s:
                # It said when to come again, and refuses until then; the other targets are not waited for.
                answer, problem = None, f"{self._client.label}: rate limited for another {held_s:.1f} s (Retry-After)"
                log.debug("%s: %s is not sent for another %.1f s", self._client.label, tracked.signature, held_s)
            else:
                answer, problem = self._send(tracked.signature, tx_b64)
        except BaseException as error:
            # A copy that may have left must not be forgotten.
            if not isinstance(error, Exception) and not threading.current_thread().name.startswith("lasersell-"):
                raise
            problem = f"{self._client.label}: {type(error).__name__}"
            log.warning("%s: sending %s failed with %s", self._client.label, tracked.signature, type(error).__name__)
        finally:
            self._pending.answered(tracked, self.number, answer, problem)

    def hand_over(self, tracked: TrackedTx) -> None:
        """One copy, on a thread of this lane."""
        if not self._run(lambda: self.send(tracked)):
            self._pending.answered(tracked, self.number, None)

    def _send(self, signature: str, tx_b64: str) -> tuple[Answer, str]:
        budget = TimeBudget(self._send_timeout_s)
        try:
            return self._attempt(signature, tx_b64, budget)
        except TxSubmitError as error:
            first = error
        # A kept connection that the target had closed meanwhile: the same bytes again are harmless.
        if first.kind in _BROKEN_CONNECTION and not budget.expired():
            try:
                answer, problem = self._attempt(signature, tx_b64, budget)
            except TxSubmitError as error:
                first = error
            else:
                # What a refusal of the second copy says is not true of the first.
                return (Answer.UNCERTAIN if answer is Answer.REFUSED else answer), problem
        self._note_silence(signature, str(first))
        return Answer.UNCERTAIN, str(first)

    def _note_silence(self, signature: str, problem: str) -> None:
        """A warning, but of copies that fail again and again for one reason only once in a while."""
        now = self._clock()
        is_known = problem == self._warned[0] and now - self._warned[1] < _WARNS_AGAIN_AFTER_S
        if not is_known:
            self._warned = problem, now
        log.log(
            logging.INFO if is_known else logging.WARNING,
            "%s did not take %s, which is sent again: %s",
            self._client.label, signature, problem,
        )  # fmt: skip

    def _attempt(self, signature: str, tx_b64: str, budget: TimeBudget) -> tuple[Answer, str]:
        try:
            result = self._call(tx_b64, budget)
        except TxSubmitError as error:
            if not is_refusal(error):
                raise
            log.warning("%s refused %s: %s", self._client.label, signature, error)
            return Answer.REFUSED, str(error)
        if result == signature:
            return Answer.ACCEPTED, ""
        what = "names another signature" if isinstance(result, str) and result else "has no signature"
        return Answer.UNCERTAIN, f"{self._client.label}: the answer {what}"

    def _call(self, tx_b64: str, budget: TimeBudget) -> Any:
        self.last_used_at = self._clock()
        params = [tx_b64, self._options]
        try:
            return self._client.call("sendTransaction", params, budget=budget, secrets=(tx_b64,))
        except ConcurrencyError as error:
            # Somebody closed the process's connections in this moment: as good as a broken one.
            raise TxSubmitError("request_send", error.problem, target=self._client.label) from error

    # ── connections ──

    def warm(self, *, timeout_s: float) -> None:
        """Opens a connection, on this thread; a failure is logged."""
        self.last_used_at = self._clock()
        try:
            self._client.warm(self.target.warm_up_path, budget=TimeBudget(timeout_s))
        except (TxSubmitError, ConcurrencyError) as error:
            log.warning("warming %s failed: %s", self._client.label, error)

    def hand_over_warming(self, *, timeout_s: float) -> concurrent.futures.Future[None] | None:
        """The same, on a thread of this lane."""
        self.last_used_at = self._clock()
        return self._run(lambda: self.warm(timeout_s=timeout_s))

    def _run(self, work: Callable[[], None]) -> concurrent.futures.Future[None] | None:
        """None when the lane is closed."""
        try:
            future = self._executor.submit(work)
        except (RuntimeError, MemoryError) as error:
            if not self._is_closed:
                # The executor runs it with the next one that finds a thread; the same bytes twice are harmless.
                log.warning("%s: no thread for a copy now: %s", self._client.label, error or "out of memory")
            return None
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def close(self) -> None:
        """No further copies; those under way end by themselves."""
        self._is_closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait for copies under way; whether there are none left."""
        return not concurrent.futures.wait(list(self._futures), wait_s(timeout_s)).not_done


def is_refusal(error: TxSubmitError) -> bool:
    """Whether an answer says for certain that this copy was not taken."""
    return error.kind == "rpc_error" and error.code in NOT_TAKEN_CODES and not _has_landed(error)


def _has_landed(error: TxSubmitError) -> bool:
    """Whether a preflight failed because the transaction is on the chain already (``AlreadyProcessed``).

    The only place where words decide, since that is all that is left of it here. They can only make us more careful.
    """
    words = f"{error.detail} {error.body or ''}".lower()
    return error.code == -32002 and ("alreadyprocessed" in words or "already been processed" in words)
