"""The way to one target: its copies, its connections, and what its answers mean."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from lasersell_sync.exceptions import ConcurrencyError, ConfigurationError, TxSubmitError
from lasersell_sync.network.http_framing import HttpAnswer, HttpFailure
from lasersell_sync.runtime import log as _log
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.trading.sending.send_connections import SendConnections
from lasersell_sync.trading.sending.tracked_tx import Answer, TrackedTx
from lasersell_sync.trading.sending.tx_tracker import TxTracker
from lasersell_sync.trading.solana.json_rpc import RpcClient, RpcRequest, client_for, options_json, sending
from lasersell_sync.trading.solana.send_targets import SendTarget

__all__ = ["NOT_TAKEN_CODES", "TargetSender"]

log = _log.logger("trading")

#: JSON-RPC errors of ``sendTransaction`` that say that nothing was sent on: the request was not understood (JSON-RPC
#: 2.0 5.1), or the transaction was looked at and turned down (agave ``rpc-client-api/src/custom_error.rs``). Any other
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
#: For the request that keeps a connection warm.
_WARM_S: Final = 5.0


class Copy:
    """One copy of a transaction on its way to one target.

    Threads: one at a time.
    """

    __slots__ = ("_lane", "ends_at", "is_second", "request", "tracked")

    def __init__(self, lane: TargetSender, tracked: TrackedTx) -> None:
        self._lane = lane
        self.tracked = tracked
        self.request: RpcRequest | None = None
        self.ends_at = math.inf
        #: The connection of the first one broke: what a refusal says is not true of that one.
        self.is_second = False

    def wire(self) -> bytes | None:
        """The request, made when a connection is there for it: it may be of no use any more by then."""
        return self._lane.wire_of(self)

    def ended(self, outcome: HttpAnswer | HttpFailure) -> bool:
        """Whether an answer is this copy's."""
        return self._lane.take_outcome(self, outcome)


class Warming:
    """A request that does nothing, so that a connection was used.

    Attributes:
        done: set when its answer came, or none will.
    """

    __slots__ = ("_lane", "done", "ends_at")

    def __init__(self, lane: TargetSender, ends_at: float) -> None:
        self._lane = lane
        self.ends_at = ends_at
        self.done = threading.Event()

    def wire(self) -> bytes | None:
        """The request; None: the target asked to be left alone, or no connection came in time."""
        if not self._lane.client.held_for_s() and time.monotonic() < self.ends_at:
            return self._lane.client.warming_wire(self._lane.target.warm_up_path)
        self.done.set()
        return None

    def ended(self, outcome: HttpAnswer | HttpFailure) -> bool:
        """Any answer will do."""
        if isinstance(outcome, HttpFailure):
            self._lane.note_cold(self._lane.client.failed(outcome))
        self.done.set()
        return True


class TargetSender:
    """One target.

    Args:
        number: its place among the targets.
        target: where it is.
        pending: what it sends, and where its answers go.
        send_timeout_s: seconds for one copy, a second attempt after a broken connection included.
        connections: copies on their way at once; more wait. A target that hangs holds each for ``send_timeout_s``.

    Raises:
        ConfigurationError: a node of a recording, which takes no transactions.

    Threads: any; nothing here blocks. Answers come on the thread of ``SendConnections``.
    """

    def __init__(
        self,
        number: int,
        target: SendTarget,
        pending: TxTracker,
        *,
        send_timeout_s: float,
        connections: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.number = number
        self.target = target
        client = client_for(target)
        if not isinstance(client, RpcClient):
            raise ConfigurationError("targets", "a node of a recording takes no transactions: give a target of its own")
        self.client = client
        self._pending = pending
        self._clock = clock
        self._options_json = options_json(target.send_options)
        self._connections = SendConnections(
            number, client.label, client.pool, limit=connections, timeout_s=send_timeout_s, clock=clock
        )
        self._is_closed = False
        #: Why a copy was not taken, when that was warned of last, and when that was.
        self._warned = ("", 0.0)

    # ── copies ──

    def hand_over(self, tracked: TrackedTx) -> None:
        """One copy: written at once where a connection is idle; its answer goes to ``pending``.

        ``mind_the_clock`` must be called after it.
        """
        self._post(Copy(self, tracked))

    def mind_the_clock(self) -> None:
        """To be called when all lanes have their copies."""
        self._connections.mind_the_clock()

    def _post(self, copy: Copy) -> None:
        try:
            self._connections.post(copy, first=copy.is_second)
        except ConcurrencyError as error:
            if not self._is_closed:
                log.warning("%s: %s is not sent now: %s", self.client.label, copy.tracked.signature, error)
            self._answer(copy, Answer.UNCERTAIN if copy.is_second else None)
        except Exception as error:
            # A copy that may have left must not be forgotten.
            log.exception("%s: sending %s failed", self.client.label, copy.tracked.signature)
            self._answer(copy, Answer.UNCERTAIN, f"{self.client.label}: {type(error).__name__}")

    def wire_of(self, copy: Copy) -> bytes | None:
        """What is sent of a copy; None: nothing now, and ``pending`` knows."""
        tx_b64, held_s = self._pending.bytes_of(copy.tracked), self.client.held_for_s()
        is_late = self._clock() >= copy.ends_at
        if tx_b64 is not None and not held_s and not is_late:
            copy.request = sending(tx_b64, self._options_json)
            return self.client.wire(copy.request)
        problem = f"{self.client.label}: request_send: no connection in time" if is_late else ""
        if tx_b64 is not None and held_s:
            # It said when to come again, and refuses until then; the other targets are not waited for.
            problem = f"{self.client.label}: rate limited for another {held_s:.1f} s (Retry-After)"
            log.debug("%s: %s is not sent for another %.1f s", self.client.label, copy.tracked.signature, held_s)
        self._answer(copy, Answer.UNCERTAIN if copy.is_second else None, problem)
        return None

    def take_outcome(self, copy: Copy, outcome: HttpAnswer | HttpFailure) -> bool:
        """What became of a copy; whether an answer is this copy's."""
        is_ours = False
        try:
            if isinstance(outcome, HttpFailure):
                self._missed(copy, self.client.failed(outcome))
                return False
            assert copy.request is not None
            is_ours = copy.request.is_answered_by(outcome)
            self._accepted(copy, self.client.result(copy.request, outcome))
        except TxSubmitError as error:
            self._refused(copy, error) if is_refusal(error) else self._missed(copy, error)
        except BaseException as error:
            # A copy that may have left must not be forgotten.
            problem = f"{self.client.label}: {type(error).__name__}"
            log.exception("%s: the answer to %s was not understood", self.client.label, copy.tracked.signature)
            self._answer(copy, Answer.UNCERTAIN, problem)
        return is_ours

    def _accepted(self, copy: Copy, result: Any) -> None:
        if result == copy.tracked.signature:
            self._answer(copy, Answer.ACCEPTED)
            return
        what = "names another signature" if isinstance(result, str) and result else "has no signature"
        self._answer(copy, Answer.UNCERTAIN, f"{self.client.label}: the answer {what}")

    def _refused(self, copy: Copy, error: TxSubmitError) -> None:
        log.warning("%s refused %s: %s", self.client.label, copy.tracked.signature, error)
        # What a refusal of the second copy says is not true of the first.
        self._answer(copy, Answer.UNCERTAIN if copy.is_second else Answer.REFUSED, str(error))

    def _missed(self, copy: Copy, error: TxSubmitError) -> None:
        """No usable answer."""
        if error.kind in _BROKEN_CONNECTION and not copy.is_second and self._clock() < copy.ends_at:
            # A kept connection that the target had closed meanwhile: the same bytes again are harmless.
            copy.is_second = True
            self._post(copy)
            return
        self._note_silence(copy.tracked.signature, str(error))
        self._answer(copy, Answer.UNCERTAIN, str(error))

    def _answer(self, copy: Copy, answer: Answer | None, problem: str = "") -> None:
        self._pending.answered(copy.tracked, self.number, answer, problem)

    def _note_silence(self, signature: str, problem: str) -> None:
        """A warning, but of copies that fail again and again for one reason only once in a while."""
        now = self._clock()
        is_known = problem == self._warned[0] and now - self._warned[1] < _WARNS_AGAIN_AFTER_S
        if not is_known:
            self._warned = problem, now
        if not self._is_closed:
            log.log(
                logging.INFO if is_known else logging.WARNING,
                "%s did not take %s, which is sent again: %s",
                self.client.label, signature, problem,
            )  # fmt: skip

    # ── connections ──

    def begin_warming(self, *, timeout_s: float) -> Warming:
        """Use one connection and open all others; returns at once."""
        warming = Warming(self, self._clock() + timeout_s)
        try:
            self._connections.post(warming)
            self._connections.mind_the_clock()
            self._connections.want_all()
        except ConcurrencyError as error:
            self.note_cold(error)
            warming.done.set()
        return warming

    def wait_opened(self, budget: TimeBudget) -> None:
        """Wait until no connection is being opened."""
        self._connections.wait_opened(budget)

    def keep_warm(self, every_s: float) -> float:
        """Use what was idle for long; the moment at which to call this again, by the monotonic clock."""
        return self._connections.keep_warm(every_s, lambda: Warming(self, self._clock() + _WARM_S))

    def note_cold(self, error: Exception) -> None:
        """Say that a connection could not be used."""
        if not self._is_closed:
            log.warning("warming %s failed: %s", self.client.label, error)

    def close(self) -> None:
        """No further copies; those under way end by themselves."""
        self._is_closed = True
        self._connections.close()

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait for copies under way; whether there are none left."""
        return self._connections.wait_closed(timeout_s)

    def close_in_child(self) -> None:
        """Give a forked child's copies of the descriptors back."""
        self._connections.close_in_child()


def is_refusal(error: TxSubmitError) -> bool:
    """Whether an answer says for certain that this copy was not taken."""
    return error.kind == "rpc_error" and error.code in NOT_TAKEN_CODES and not _has_landed(error)


def _has_landed(error: TxSubmitError) -> bool:
    """Whether a preflight failed because the transaction is on the chain already (``AlreadyProcessed``).

    The only place where words decide, since that is all that is left of it here. They can only make us more careful.
    """
    words = f"{error.detail} {error.body or ''}".lower()
    return error.code == -32002 and ("alreadyprocessed" in words or "already been processed" in words)
