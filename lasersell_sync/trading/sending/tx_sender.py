"""Sends signed transactions, the same bytes again until each is settled, and finds out what became of them.

Accepted is not landed, and not accepted is not lost: a transaction is settled when the chain says so, when it is proven
that it never will land (``expiry``), or when everybody it was sent to refused it. Until then it may land, and nobody
should build another one in its place.
"""

from __future__ import annotations

import concurrent.futures
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.pubkeys import is_pubkey, is_signature, require_pubkey
from lasersell_sync.runtime import log as _log
from lasersell_sync.runtime.callback_executor import CallbackExecutor
from lasersell_sync.runtime.fork_guard import ProcessGuard, refuse_late_patching
from lasersell_sync.runtime.locks import CallsUnderWay, under_way
from lasersell_sync.runtime.timeouts import TimeBudget, bounded_s
from lasersell_sync.trading.sending.outcome import TxResult
from lasersell_sync.trading.sending.status_poller import StatusPoller
from lasersell_sync.trading.sending.target_sender import TargetSender
from lasersell_sync.trading.sending.tips import minimum_tip_lamports, tip_lamports
from lasersell_sync.trading.sending.tracked_tx import Answer, Listener, OnSettled, PendingTx, TrackedTx
from lasersell_sync.trading.sending.tx_tracker import Calls, TxTracker
from lasersell_sync.trading.solana.account_history import AccountHistory, Verdict, ask_for_history
from lasersell_sync.trading.solana.blockhash_question import BlockhashQuestion
from lasersell_sync.trading.solana.expiry import SlotTime
from lasersell_sync.trading.solana.json_rpc import client_for
from lasersell_sync.trading.solana.rpc_node import RpcNode
from lasersell_sync.trading.solana.send_targets import SendTarget, SendTargetRpc, rpc_targets
from lasersell_sync.trading.solana.signing import SignedTx, read_signed_tx
from lasersell_sync.trading.solana.token_accounts import AmountProof, ask_proven_amounts, ask_token_amounts

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["PendingTx", "TxSender"]

log = _log.logger("trading")

#: Threads that the system had none for.
_START_AGAIN_S = 1.0
_WARM_S = 5.0
#: To one target.
MAX_CONNECTIONS = 256
#: Questions about blockhashes that one node answers at once.
_BLOCKHASH_QUESTIONS = 8


class TxSender:
    """Sends signed transactions to one or several targets, and follows each until it is settled.

    - ``submit`` writes the same bytes to every target, over connections that are open already, and waits for none of
      them; the signature deduplicates. A target that hangs keeps its own connections busy and nothing else.
    - The same bytes go to every target again every ``rebroadcast_s`` until the transaction is settled.
    - The nodes are asked every ``poll_s`` for all transactions at once; each node on a thread of its own.
    - The outcome is ``CONFIRMED`` or ``FAILED_ONCHAIN`` when a node says so at commitment ``confirmed``; ``EXPIRED``
      with the proof of ``trading.expiry``; ``REJECTED`` when every copy that was sent, to every target, was refused by
      a JSON-RPC error that says so for certain (``send_lane.NOT_TAKEN_CODES``). Everything else, 429, 5xx, garbage,
      time-outs and broken connections among it, leaves it open.

    Nothing runs before the first ``warm``, ``submit`` or ``track``, and nothing is asked while nothing is under way.
    All nodes must belong to the cluster that the targets send to.

    Args:
        targets: where transactions go.
        rpcs: the nodes that are asked what became of transactions: ``SendTargetRpc``, or URLs; default: those of the
            targets that are nodes. Two from different providers are better than one.
        rebroadcast_s: seconds between two copies to one target.
        poll_s: seconds between two rounds of questions to one node; up to 2 s while it fails.
        send_timeout_s: seconds that one copy may take; host name look-ups come on top.
        connections: connections to one target, 1 to 256, each with one copy under way; more copies wait. N exits over
            c connections take the target's answer time ceil(N / c) - 1 times. Public nodes limit connections per
            address.
        keep_warm_s: every connection is used at least once in so many seconds, from the first ``warm``, ``submit`` or
            ``track`` on, and one that the target closed is opened again, so that the next sale does not begin with a
            handshake; None: never.

    Raises:
        ConfigurationError: no target, no node (the senders answer no questions), or a number out of range.
        ConcurrencyError: gevent or eventlet came too late.

    Threads: every method from any. Its own: ``lasersell-confirm`` (when copies are due, and keeping warm),
    ``lasersell-confirm-1`` and so on (one for each node), ``lasersell-confirm-calls`` (``on_settled``),
    ``lasersell-send-0`` and so on (one for each target: reads its answers), ``lasersell-open-0_1`` and so on (up to
    four for each target, while connections are opened). They end with ``close``.
    """

    def __init__(
        self,
        targets: SendTarget | Sequence[SendTarget],
        *,
        rpcs: SendTargetRpc | str | Sequence[SendTargetRpc | str] | None = None,
        rebroadcast_s: float = 2.0,
        poll_s: float = 0.4,
        send_timeout_s: float = 5.0,
        connections: int = 16,
        keep_warm_s: float | None = 30.0,
    ) -> None:
        refuse_late_patching()
        self._targets = _targets(targets)
        nodes = _nodes(rpcs, self._targets)
        self._rpcs = tuple(nodes)
        self._keep_warm_s = None if keep_warm_s is None else _seconds("keep_warm_s", keep_warm_s)
        self._guard = ProcessGuard("TxSender")
        self._calls_under_way = CallsUnderWay()
        self._calls = CallbackExecutor("lasersell-confirm-calls", log)
        self._nodes = [RpcNode(client_for(node)) for node in nodes]
        self._slot_time = SlotTime()
        self._pending = TxTracker(
            self._guard,
            [target.label for target in self._targets],
            [node.label for node in self._nodes],
            slot_time=self._slot_time,
            resend_s=_seconds("rebroadcast_s", rebroadcast_s),
            run=self._call,
            calls_under_way=self._calls_under_way,
        )
        send_timeout_s = _seconds("send_timeout_s", send_timeout_s)
        self._lanes = [
            TargetSender(
                number, target, self._pending, send_timeout_s=send_timeout_s, connections=_connections(connections)
            )
            for number, target in enumerate(self._targets)
        ]
        self._pollers = [
            StatusPoller(number, node, self._pending, poll_s=_seconds("poll_s", poll_s), slot_time=self._slot_time)
            for number, node in enumerate(self._nodes)
        ]
        #: When each lane is to be kept warm next; monotonic seconds.
        self._warm_lane_at: list[float] = []
        self._warmers = concurrent.futures.ThreadPoolExecutor(
            len(self._pollers), thread_name_prefix="lasersell-confirm-warm"
        )
        # One for each node: a node that hangs delays no question to another one.
        self._askers = [
            concurrent.futures.ThreadPoolExecutor(
                _BLOCKHASH_QUESTIONS, thread_name_prefix=f"lasersell-confirm-{number + 1}-ask"
            )
            for number in range(len(nodes))
        ]
        self._thread = threading.Thread(target=self._run, name="lasersell-confirm", daemon=True)
        #: Guards the start of the threads.
        self._life = threading.Lock()
        self._started = False
        self._tips_told: set[tuple[int, int]] = set()

    def __repr__(self) -> str:
        targets = ", ".join(target.label for target in self._targets)
        return f"<TxSender to {targets}{' (closed)' if self._pending.closed else ''}>"

    @property
    def rpcs(self) -> tuple[SendTargetRpc, ...]:
        """The nodes that are asked what became of transactions."""
        return self._rpcs

    @property
    def targets(self) -> tuple[SendTarget, ...]:
        """Where transactions go; the first is served first."""
        return tuple(self._targets)

    # ── what users do ──

    @under_way
    def warm(self, *, timeout_s: float = 5.0) -> None:
        """Opens all connections to every target, and one to every node; what fails is logged, not raised.

        Args:
            timeout_s: seconds in all.

        Raises:
            ConfigurationError: not a time limit.
            ConcurrencyError: closed.
            ForkedProcessError: in a forked child.

        Threads: any; blocks the caller.
        """
        timeout_s = _seconds("timeout_s", timeout_s)
        self._guard.check()
        self._pending.require_open()
        self._start()
        budget = TimeBudget(timeout_s)
        warmings = [lane.begin_warming(timeout_s=timeout_s) for lane in self._lanes]
        futures = [self._hand_over_warming(poller, timeout_s) for poller in self._pollers]
        for lane, warming in zip(self._lanes, warmings, strict=True):
            warming.done.wait(budget.remaining_s())
            lane.wait_opened(budget)
        concurrent.futures.wait([future for future in futures if future is not None], budget.remaining_s())

    @under_way
    def submit(
        self,
        signed_tx: str | SignedTx,
        *,
        on_settled: OnSettled | None = None,
        on_undecided: OnSettled | None = None,
        on_late_landing: OnSettled | None = None,
        still_held: Callable[[], bool] | None = None,
    ) -> PendingTx:
        """Sends a signed transaction to all targets, and has it followed until it is settled.

        It returns at once and waits for no target. One that is under way already (the same signature) is not sent anew
        by this: it is one and the same ``PendingTx``. So is one that was settled lately, unless it was ``REJECTED``,
        which says something about the copies that this sender sent, and is worth another try.

        Args:
            signed_tx: what ``Signer.sign_tx`` returned, or standard base64.
            on_settled: called once with its result, on the thread ``lasersell-confirm-calls``, maybe before this
                returns. Not called when the sender is closed before. It should be quick: others wait behind it.
            on_undecided: called on that thread each minute in which nothing was proven. Its result is ``UNKNOWN``, and
                ``detail`` names what is missing.
            on_late_landing: called on that thread when the transaction lands after it was called dead.
            still_held: give it when another transaction in place of this one would sell more. ``EXPIRED`` then needs
                the word of every node, so two nodes that are configured must agree. A node that was silent for 60 s is
                left out only if ``still_held()`` is True: the stream had no gap since this call, and its last balance
                still holds the tokens. Nodes that contradict each other for 60 s make the result ``UNKNOWN``.

        Raises:
            TxSubmitError: ``serialize_tx``: not one signed transaction; nothing was sent.
            ConcurrencyError: closed.
            ForkedProcessError: in a forked child.

        Threads: any; the caller's own writes the first copies, and waits for nobody.
        """
        return self.submit_for(
            read_signed_tx(signed_tx),
            Listener(
                on_settled=on_settled,
                on_undecided=on_undecided,
                on_late_landing=on_late_landing,
                still_held=still_held,
            ),
        )

    @under_way
    def submit_for(self, signed: SignedTx, listener: Listener) -> PendingTx:
        """``submit`` with all callbacks in one value."""
        self._guard.check()
        # Known before the first byte leaves, so that no answer finds nobody waiting for it.
        tracked, is_to_send = self._pending.add(
            signed.signature,
            signed.blockhash,
            tx_b64=signed.tx_b64,
            never_expires=signed.never_expires,
            listener=listener,
        )
        try:
            if is_to_send:
                self._send(tracked)
        finally:
            self._pending.wake()
        if is_to_send:
            self._start()
            self._warn_of_small_tips(signed)
        return tracked.view

    def _send(self, tracked: TrackedTx) -> None:
        """The first copy to every target; their threads are woken when the bytes to all are written."""
        try:
            for lane in self._lanes:
                lane.hand_over(tracked)
            for lane in self._lanes:
                lane.mind_the_clock()
        except BaseException:
            # The user's Ctrl-C, say: what may have left must not be forgotten, and goes again with the next copies.
            for lane in self._lanes:
                self._pending.answered(tracked, lane.number, Answer.UNCERTAIN)
            raise

    @under_way
    def track(
        self,
        signature: str,
        *,
        blockhash: str,
        on_settled: OnSettled | None = None,
        on_undecided: OnSettled | None = None,
        on_late_landing: OnSettled | None = None,
        still_held: Callable[[], bool] | None = None,
    ) -> PendingTx:
        """Follows a transaction that was sent before, by an earlier process for example: its bytes are not here.

        It is only watched: never sent again, and never ``REJECTED``.

        Args:
            signature: base58.
            blockhash: base58, its own: how long it may land depends on it.
            on_settled: as for ``submit``, and so are the next three.
            on_undecided: called each minute in which nothing was proven.
            on_late_landing: called when the transaction lands after it was called dead.
            still_held: not None: one node's word is not enough for ``EXPIRED``.

        Raises:
            ConfigurationError: not a signature or a blockhash.
            ConcurrencyError: closed.
            ForkedProcessError: in a forked child.

        Threads: any; returns at once.
        """
        listener = Listener(
            on_settled=on_settled, on_undecided=on_undecided, on_late_landing=on_late_landing, still_held=still_held
        )
        return self.track_for(signature, blockhash, listener)

    @under_way
    def track_for(self, signature: str, blockhash: str, listener: Listener) -> PendingTx:
        """``track`` with all callbacks in one value."""
        self._guard.check()
        # Not repeated: the base58 form of a keypair looks the same, and people mix them up.
        if not is_signature(signature):
            raise ConfigurationError("signature", "the base58 form of 64 bytes is needed")
        if not is_pubkey(blockhash):
            raise ConfigurationError("blockhash", "the base58 form of 32 bytes is needed")
        tracked, _ = self._pending.add(signature, blockhash, tx_b64=None, listener=listener)
        self._pending.wake()
        self._start()
        return tracked.view

    def send(self, signed_tx: str | SignedTx, *, timeout_s: float = 120.0) -> TxResult:
        """``submit``, and the result of it.

        Args:
            signed_tx: what ``Signer.sign_tx`` returned, or standard base64.
            timeout_s: seconds in all. A blockhash lives for 150 blocks (about
                32 s with slots of 214 ms), and the proof takes a few more.

        Returns:
            The result; ``UNKNOWN`` when the time is over. The transaction is followed and sent further then: the same
            bytes again, or ``submit``, wait for it anew.

        Raises:
            TxSubmitError, ConcurrencyError, ForkedProcessError: as ``submit``.
            ConfigurationError: not a time limit.

        Threads: any; blocks the caller.
        """
        budget = TimeBudget(_seconds("timeout_s", timeout_s))
        return self.submit(signed_tx).result(budget.remaining_s())

    @under_way
    def token_amounts(self, token_accounts: Sequence[str], *, timeout_s: float = 5.0) -> dict[str, int]:
        """What token accounts hold now, at commitment ``confirmed``, by the first node that answers.

        A node that lags tells the past; it is asked like any other.

        Args:
            token_accounts: base58 addresses, any number.
            timeout_s: seconds in all; every node gets a share.

        Returns:
            Atomic units by address, 0 for an account that does not exist.

        Raises:
            TxSubmitError: no node answered, or there is something else at an address (``decode_response``).
            ConfigurationError: not an address, or not a time limit.
            ForkedProcessError: in a forked child.

        Threads: any; blocks the caller.
        """
        self._guard.check()
        timeout_s = _seconds("timeout_s", timeout_s)
        if isinstance(token_accounts, str):
            raise ConfigurationError("token_accounts", "a list of addresses is needed, not one text")
        accounts = [require_pubkey(f"token_accounts[{index}]", account) for index, account in enumerate(token_accounts)]
        return ask_token_amounts(self._nodes, accounts, timeout_s=timeout_s) if accounts else {}

    def proven_amount(self, token_account: str, proof: AmountProof, *, timeout_s: float = 5.0) -> int | None:
        """What a token account holds, at commitment ``confirmed``, as far as it is proven.

        One node's lag does not make it: an account is called empty only when the proof says so.

        Args:
            token_account: base58.
            proof: what has been seen of this account so far, and gets what is seen now.
            timeout_s: seconds in all; every node gets a share.

        Returns:
            Atomic units, 0 for an account that does not exist; None when it is not proven yet: ask again later, with
            the same proof.

        Raises:
            TxSubmitError, ConfigurationError, ForkedProcessError: as ``token_amounts``.

        Threads: any; blocks the caller. One proof is used by one caller at a time.
        """
        return self.proven_amounts({token_account: proof}, timeout_s=timeout_s).get(token_account)

    @under_way
    def proven_amounts(self, proofs: Mapping[str, AmountProof], *, timeout_s: float = 5.0) -> dict[str, int]:
        """``proven_amount`` of several token accounts, with one question for up to 100 of them.

        Args:
            proofs: by token account, base58.
            timeout_s: seconds in all; every node gets a share, and one that did not answer is asked last.

        Returns:
            Atomic units of the accounts whose balance is proven; ask again later for the others, with the same proofs.

        Raises:
            TxSubmitError, ConfigurationError, ForkedProcessError: as ``token_amounts``; an address that is no token
                account is logged and left out.

        Threads: any; blocks the caller. One proof is used by one caller at a time.
        """
        self._guard.check()
        known = {require_pubkey("token_account", account): proof for account, proof in proofs.items()}
        timeout_s = _seconds("timeout_s", timeout_s)
        return ask_proven_amounts(self._nodes, known, slot_time=self._slot_time, timeout_s=timeout_s) if known else {}

    def account_history(self, token_account: str, history: AccountHistory, *, timeout_s: float = 5.0) -> Verdict | None:
        """Whether a token account is as it was recorded, asked of every node once.

        Args:
            token_account: base58.
            history: what it was, and gets what nodes say now.
            timeout_s: seconds in all; every node gets a share.

        Returns:
            What is proven; None when nothing is yet: ask again later, with the same ``history``.

        Raises:
            ConfigurationError: not an address, or not a time limit.
            ForkedProcessError: in a forked child.

        Threads: any; blocks the caller. One history is used by one caller at a time.
        """
        self._guard.check()
        account, timeout_s = require_pubkey("token_account", token_account), _seconds("timeout_s", timeout_s)
        return ask_for_history(self._nodes, account, history, slot_time=self._slot_time, timeout_s=timeout_s)

    def ask_blockhash(self, blockhash: str, then: Callable[[bool | None], None]) -> None:
        """Ask all nodes at once whether a blockhash is valid; returns at once.

        Args:
            blockhash: base58.
            then: called once, on a thread of the sender's, within 0.3 s: True when a node calls it valid, False when
                those that answered do not, None when none answered.

        Threads: any.
        """
        self._guard.check()
        BlockhashQuestion(blockhash, self._nodes, then).ask(self._askers)

    def undecided(self) -> list[TxResult]:
        """Transactions that have been under way for longer than a minute; ``detail`` names what is missing for a proof.

        Threads: any.
        """
        return self._pending.undecided()

    @property
    def late_landings(self) -> int:
        """How many transactions have landed after they had been called dead: each is a wrong answer of a node."""
        return self._pending.late_landings

    def close(self, timeout: float = 5.0) -> None:
        """Ends it: nothing is sent or asked any more. Idempotent.

        Transactions under way may still land. Their ``result()`` returns ``UNKNOWN``, and their ``on_settled`` is not
        called; ``track`` of another sender takes them up again. Callbacks of those that were settled before are still
        called. The process's kept connections stay open (``close_rpc_connections``). In a signal handler that
        interrupted a call of this sender it waits for nothing: the sender ends when that call returns, or sooner.

        Args:
            timeout: seconds to wait for the threads. One that is in the middle of a request ends with it, after
                ``send_timeout_s`` at most; if that is later, a warning names it.

        In a forked child it only gives the child's copies of the connections back: the transactions are the parent's.

        Threads: any, a callback's too.
        """
        if self._guard.is_child:
            for lane in self._lanes:
                lane.close_in_child()
            return
        self._calls_under_way.close(partial(self._close, timeout), log)

    def _close(self, timeout: float) -> None:
        budget = TimeBudget(timeout)
        self._pending.close()
        self._calls.close()
        for lane in self._lanes:
            lane.close()
        for pool in (self._warmers, *self._askers):
            pool.shutdown(wait=False, cancel_futures=True)
        busy = [thread.name for thread in self._threads() if not _joined(thread, budget)]
        waits = [(lane.number, lane.wait_closed(budget.remaining_s() or 0.0)) for lane in self._lanes]
        busy += [f"lasersell-send-{number}" for number, is_closed in waits if not is_closed]
        if busy:
            log.warning("closed, and still busy after %g s: %s", timeout, ", ".join(busy))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ── threads ──

    def _start(self) -> None:
        """Starts them once; what the system has no thread for is tried again. After ``close`` they end at once."""
        if self._started:
            return
        with self._life:
            if self._thread.ident is None:
                now = time.monotonic()
                self._warm_lane_at = [now + (self._keep_warm_s or 0.0)] * len(self._lanes)
                for poller in self._pollers:
                    poller.last_used_at = now
            try:
                if self._thread.ident is None:
                    self._thread.start()
                for poller in self._pollers:
                    poller.start()
            except (RuntimeError, MemoryError) as error:
                log.warning("transactions under way are not all followed now: %s", error or "out of memory")
            else:
                self._started = True

    def _call(self, calls: Calls) -> None:
        self._calls.run(
            [(partial(callback, result), f"a callback of {result.signature}") for callback, result in calls]
        )

    def _threads(self) -> list[threading.Thread]:
        with self._life:
            every = [self._thread, *(poller.thread for poller in self._pollers)]
            threads = [thread for thread in every if thread.ident is not None]
        return threads if self._calls.thread is None else [*threads, self._calls.thread]

    def _run(self) -> None:
        while self._pending.wait_for_copies(self._next_look()):
            try:
                self._start()
                for tracked, number in self._pending.due_copies():
                    self._lanes[number].hand_over(tracked)
                for lane in self._lanes:
                    lane.mind_the_clock()
                self._pending.report_undecided()
            except BaseException:
                log.exception("sending again failed")

    def _next_look(self) -> float | None:
        """When there is something to do besides copies, by the monotonic clock."""
        warm_at = self._keep_warm()
        if self._started:
            return warm_at
        again_at = time.monotonic() + _START_AGAIN_S
        return again_at if warm_at is None else min(warm_at, again_at)

    def _keep_warm(self) -> float | None:
        """Has connections used that were idle for long; the moment at which the next one will have been."""
        if self._keep_warm_s is None:
            return None
        now = time.monotonic()
        moments = []
        for number, lane in enumerate(self._lanes):
            if self._warm_lane_at[number] <= now:
                self._warm_lane_at[number] = lane.keep_warm(self._keep_warm_s)
            moments.append(self._warm_lane_at[number])
        for poller in self._pollers:
            if now - poller.last_used_at >= self._keep_warm_s:
                self._hand_over_warming(poller, _WARM_S)
            moments.append(poller.last_used_at + self._keep_warm_s)
        return min(moments)

    def _hand_over_warming(self, poller: StatusPoller, timeout_s: float) -> concurrent.futures.Future[None] | None:
        poller.last_used_at = time.monotonic()
        try:
            return self._warmers.submit(poller.warm, timeout_s=timeout_s)
        except RuntimeError:  # closed meanwhile
            return None

    # ── tips ──

    def _warn_of_small_tips(self, signed: SignedTx) -> None:
        for lane in self._lanes:
            target = lane.target
            least = minimum_tip_lamports(target)
            if least is None or target.tip_accounts_of is None:
                continue
            tip = tip_lamports(signed, target.tip_accounts_of)
            if tip is None or tip >= least or (lane.number, tip) in self._tips_told:
                continue
            self._tips_told.add((lane.number, tip))
            log.warning(
                "a transaction tips %s %d lamports, which takes %d or more: it may be ignored there; raise "
                "tip_lamports, or set the target's minimum_tip_lamports",
                target.label, tip, least,
            )  # fmt: skip


def _joined(thread: threading.Thread, budget: TimeBudget) -> bool:
    if thread is not threading.current_thread():
        thread.join(budget.remaining_s())
        return not thread.is_alive()
    return True


# ── arguments ────────────────────────────────────────────────────────────────────────────────────────────────────


def _targets(targets: SendTarget | Sequence[SendTarget]) -> list[SendTarget]:
    several = [targets] if isinstance(targets, SendTarget) else targets
    if not isinstance(several, Sequence) or not several or not all(isinstance(one, SendTarget) for one in several):
        raise ConfigurationError("targets", "a SendTarget, or a list of at least one, is needed")
    return list(several)


def _nodes(
    rpcs: SendTargetRpc | str | Sequence[SendTargetRpc | str] | None, targets: Sequence[SendTarget]
) -> list[SendTargetRpc]:
    if rpcs is None:
        nodes = [target for target in targets if isinstance(target, SendTargetRpc)]
        if not nodes:
            raise ConfigurationError(
                "rpcs",
                "at least one Solana node is needed: the senders take transactions and answer no questions, so nobody "
                "would know what became of them",
            )
        return nodes
    return list(rpc_targets("rpcs", rpcs))


def _connections(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_CONNECTIONS:
        raise ConfigurationError("connections", f"a whole number from 1 to {MAX_CONNECTIONS} is needed")
    return value


def _seconds(field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(field, "a positive, finite number of seconds is needed")
    return bounded_s(value)
