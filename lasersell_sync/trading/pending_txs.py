"""The transactions that are under way: what is known of each, who waits for it, and how it is settled.

No socket and no thread of its own: senders and pollers bring what they learn, and wait here for work.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Final, TypeAlias

from lasersell_sync.exceptions import ConcurrencyError
from lasersell_sync.processes import ProcessGuard
from lasersell_sync.trading.expiry import ExpiryRule, Tip
from lasersell_sync.trading.outcome import SellOutcome, TxResult
from lasersell_sync.trading.rpc_node import Landing, Statuses

__all__ = ["Answer", "OnSettled", "PendingTx", "PendingTxs", "TrackedTx"]

OnSettled: TypeAlias = Callable[[TxResult], None]
#: What is to be called, when its lock is free again: a settled transaction's callbacks.
Calls: TypeAlias = list[tuple[OnSettled, TxResult]]

#: After this long the nodes are asked about a transaction that comes when none was under way: its own bytes come first,
#: and no block has it before that.
FIRST_LOOK_S: Final = 0.1
#: Settled ones that are remembered, so that a late second ``submit`` of one sends nothing.
_REMEMBERED: Final = 1024


class Answer(Enum):
    """What a target said to one copy of a transaction."""

    ACCEPTED = "accepted"
    #: It certainly did not take this copy.
    REFUSED = "refused"
    #: It may have taken it.
    UNCERTAIN = "uncertain"


class TrackedTx:
    """One transaction under way.

    Attributes:
        signature: base58.
        blockhash: base58.
        tx_b64: the signed bytes, which go into no text; None: only watched, or settled.
        resend_at: monotonic seconds at which its bytes are sent again; None: never.
        result: what became of it; None while it is under way.
        settled: set with ``result``, and when its sender is closed.

    Threads: everything but ``settled`` and the first two is guarded by the lock of its ``PendingTxs``.
    """

    __slots__ = (
        "accepted_by",
        "blockhash",
        "callbacks",
        "in_flight",
        "maybe_taken",
        "problems",
        "refused_by",
        "resend_at",
        "result",
        "rule",
        "settled",
        "signature",
        "tx_b64",
        "view",
    )
    #: What its user holds, one for all who submit it.
    view: PendingTx

    def __init__(self, signature: str, blockhash: str, rule: ExpiryRule | None) -> None:
        self.signature = signature
        self.blockhash = blockhash
        #: None: it never expires.
        self.rule = rule
        self.tx_b64: str | None = None
        self.resend_at: float | None = None
        #: Targets whose answer to a copy is awaited.
        self.in_flight: set[int] = set()
        self.refused_by: set[int] = set()
        #: Some target may have a copy, of this sender or of an earlier one.
        self.maybe_taken = False
        self.accepted_by: str | None = None
        #: The newest complaint of each target, by its number.
        self.problems: dict[int, str] = {}
        self.callbacks: list[OnSettled] = []
        self.result: TxResult | None = None
        self.settled = threading.Event()

    def __repr__(self) -> str:
        return f"<TrackedTx {self.signature}>"

    def describe(self) -> str:
        """What is known while nothing is proven."""
        expiry = "it stands on a durable nonce and never expires" if self.rule is None else self.rule.explain()
        return "; ".join(["no status at commitment confirmed yet", expiry, *dict.fromkeys(self.problems.values())])


class PendingTx:
    """A transaction under way, as its user sees it; ``TxSender.submit`` and ``track`` make them.

    Attributes:
        signature: base58.

    Threads: any.
    """

    __slots__ = ("_all", "_tracked", "signature")

    def __init__(self, tracked: TrackedTx, pending: PendingTxs) -> None:
        self.signature = tracked.signature
        self._tracked = tracked
        self._all = pending

    def __repr__(self) -> str:
        result = self._tracked.result
        return f"<PendingTx {self.signature} {'under way' if result is None else result.outcome.value}>"

    def done(self) -> bool:
        """Whether nothing more will come: its outcome is known, or its sender is closed.

        Raises:
            ForkedProcessError: in a forked child.
        """
        self._all.guard.check()
        return self._tracked.settled.is_set()

    def result(self, timeout_s: float | None = None) -> TxResult:
        """What became of it, waited for.

        Args:
            timeout_s: seconds; None: until it is settled, which may take as long as no node answers.

        Returns:
            Its result; with outcome ``UNKNOWN``, and in ``detail`` what is missing, when it was not settled in that
            time or its sender was closed. It may still land then.

        Raises:
            ForkedProcessError: in a forked child.
        """
        self._all.guard.check()
        self._tracked.settled.wait(None if timeout_s is None else max(0.0, timeout_s))
        return self._all.result_of(self._tracked)


class PendingTxs:
    """All of them.

    Args:
        guard: of the sender that owns them.
        lanes: labels of the targets, whose numbers are their places.
        resend_s: seconds between two copies to one target.
        run: calls callbacks; called with no lock held.

    Threads: every method from any.
    """

    def __init__(
        self,
        guard: ProcessGuard,
        lanes: Sequence[str],
        *,
        resend_s: float,
        run: Callable[[Calls], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.guard = guard
        self._lanes = tuple(lanes)
        self._resend_s = resend_s
        self._run = run
        self._clock = clock
        # Guards everything below, and every TrackedTx. Never held while anything is sent, asked or called.
        self._lock = threading.Lock()
        #: Told of new transactions, settled ones, and the end.
        self._changed = threading.Condition(self._lock)
        self._under_way: dict[str, TrackedTx] = {}
        self._settled: OrderedDict[str, TrackedTx] = OrderedDict()
        self._closed = False

    # ── coming in ──

    def add(
        self,
        signature: str,
        blockhash: str,
        *,
        tx_b64: str | None,
        never_expires: bool = False,
        on_settled: OnSettled | None = None,
    ) -> tuple[TrackedTx, bool]:
        """A transaction, and whether its bytes are to be sent: they are not when it is under way already.

        Raises:
            ConcurrencyError: closed.
        """
        calls: Calls = []
        with self._lock:
            self.require_open()
            tracked = self._under_way.get(signature) or self._settled.get(signature)
            if tracked is None:
                tracked = TrackedTx(signature, blockhash, None if never_expires else ExpiryRule())
                tracked.view = PendingTx(tracked, self)
                tracked.maybe_taken = tx_b64 is None  # somebody sent it before
                self._under_way[signature] = tracked
                self._changed.notify_all()
            if tracked.result is not None:
                if on_settled is not None:
                    calls.append((on_settled, tracked.result))
            elif on_settled is not None:
                tracked.callbacks.append(on_settled)
            is_to_send = tx_b64 is not None and tracked.tx_b64 is None and tracked.result is None
            if is_to_send:
                tracked.tx_b64 = tx_b64
                tracked.resend_at = self._clock() + self._resend_s
                # All of them at once, so that the first refusal is not taken for everybody's.
                tracked.in_flight.update(range(len(self._lanes)))
                self._changed.notify_all()
        if calls:
            self._run(calls)
        return tracked, is_to_send

    def result_of(self, tracked: TrackedTx) -> TxResult:
        """As it stands now."""
        with self._lock:
            return tracked.result or TxResult(
                signature=tracked.signature,
                outcome=SellOutcome.UNKNOWN,
                detail=("the sender was closed; " if self._closed else "") + tracked.describe(),
                accepted_by=tracked.accepted_by,
            )

    # ── copies ──

    def due_copies(self) -> list[tuple[TrackedTx, int]]:
        """The copies that are due, one for each target that has answered the last one; they are in flight from now."""
        now, copies = self._clock(), []
        with self._lock:
            for tracked in self._under_way.values():
                if tracked.resend_at is None or tracked.resend_at > now:
                    continue
                tracked.resend_at = now + self._resend_s
                idle = [lane for lane in range(len(self._lanes)) if lane not in tracked.in_flight]
                tracked.in_flight.update(idle)
                copies += [(tracked, lane) for lane in idle]
        return copies

    def bytes_of(self, tracked: TrackedTx) -> str | None:
        """What is to be sent; None when that is of no use any more: it is settled, or all is over."""
        with self._lock:
            return tracked.tx_b64

    def answered(self, tracked: TrackedTx, lane: int, answer: Answer | None, problem: str = "") -> None:
        """A target answered a copy; None: it was not sent after all."""
        with self._lock:
            tracked.in_flight.discard(lane)
            if problem:
                tracked.problems[lane] = problem
            if answer is Answer.ACCEPTED:
                tracked.problems.pop(lane, None)
                tracked.accepted_by = tracked.accepted_by or self._lanes[lane]
            if answer is Answer.REFUSED:
                tracked.refused_by.add(lane)
            elif answer is not None:
                tracked.maybe_taken = True
            nobody_took_it = (
                not tracked.maybe_taken and not tracked.in_flight and len(tracked.refused_by) == len(self._lanes)
            )
            calls: Calls = []
            if nobody_took_it:
                words = "; ".join(dict.fromkeys(tracked.problems.values()))
                calls = self._settle(tracked, SellOutcome.REJECTED, detail=words)
        if calls:
            self._run(calls)

    # ── answers of nodes ──

    def unknown_blockhashes(self, node: int, of: Iterable[TrackedTx]) -> list[str]:
        """Those that a node has not called valid yet, each once."""
        with self._lock:
            return list(
                dict.fromkeys(
                    tracked.blockhash
                    for tracked in of
                    if tracked.rule is not None and not tracked.rule.is_known_to(node)
                )
            )

    def saw_valid(self, node: int, blockhash: str, slot: int) -> None:
        """A node called a blockhash valid."""
        with self._lock:
            for tracked in self._under_way.values():
                if tracked.rule is not None and tracked.blockhash == blockhash:
                    tracked.rule.saw_valid(node, slot)

    def saw_tip(self, node: int, tip: Tip, of: Iterable[TrackedTx], *, confirmed: bool) -> bool:
        """A node told its newest block; whether some blockhash that it knows has no bound even so.

        Args:
            node: which one.
            tip: the block.
            of: those that were under way before it was asked.
            confirmed: whether the block is.
        """
        unbounded = False
        with self._lock:
            for tracked in of:
                rule = tracked.rule
                if rule is not None:
                    rule.saw_tip(node, tip, confirmed=confirmed)
                    unbounded |= rule.is_known_to(node) and not rule.is_bounded_by(node, confirmed=False)
        return unbounded

    def wants_tip(self, node: int, of: Iterable[TrackedTx], newest: Tip | None, slot: int) -> bool:
        """Whether a node's newest block would tell something.

        Args:
            node: which one.
            of: the transactions.
            newest: the newest block that it has told.
            slot: the newest slot that it has told, by any answer.
        """
        if newest is None:
            return True
        # There are no more blocks than slots, so this is what it may be by now.
        height = newest.height + max(0, slot - newest.slot)
        with self._lock:
            return any(
                tracked.rule is not None and tracked.rule.wants_tip(node, newest.height, height) for tracked in of
            )

    def saw_statuses(self, node: int, of: Sequence[TrackedTx], statuses: Statuses, tip: Tip | None) -> None:
        """A node answered what became of some.

        Args:
            node: which one.
            of: whom it was asked about.
            statuses: what it said.
            tip: the newest confirmed block that it had told before it was asked.
        """
        calls: Calls = []
        with self._lock:
            for tracked, landing in zip(of, statuses.landings, strict=True):
                if tracked.result is None:
                    calls += self._judge(node, tracked, landing, statuses.slot, tip)
        if calls:
            self._run(calls)

    def _judge(self, node: int, tracked: TrackedTx, landing: Landing | None, slot: int, tip: Tip | None) -> Calls:
        rule = tracked.rule
        if landing is None:
            if rule is not None and rule.saw_no_status(node, tip, slot):
                return self._settle(tracked, SellOutcome.EXPIRED, detail=f"not found, and {rule.explain()}")
            return []
        if rule is not None:
            rule.saw_status()
        if not landing.is_sure:
            return []
        if landing.error is None:
            return self._settle(tracked, SellOutcome.CONFIRMED, slot=landing.slot)
        return self._settle(tracked, SellOutcome.FAILED_ONCHAIN, slot=landing.slot, detail=landing.error)

    def _settle(self, tracked: TrackedTx, outcome: SellOutcome, *, slot: int | None = None, detail: str = "") -> Calls:
        """The lock is held; what it returns is called after that."""
        if tracked.result is not None or self._closed:
            return []
        tracked.result = TxResult(
            signature=tracked.signature, outcome=outcome, slot=slot, detail=detail, accepted_by=tracked.accepted_by
        )
        tracked.tx_b64 = tracked.resend_at = None
        calls = [(callback, tracked.result) for callback in tracked.callbacks]
        tracked.callbacks.clear()
        self._under_way.pop(tracked.signature, None)
        # A rejected one may be taken another time: the node that refused it may only have been late.
        if outcome is not SellOutcome.REJECTED:
            self._settled[tracked.signature] = tracked
            while len(self._settled) > _REMEMBERED:
                self._settled.popitem(last=False)
        tracked.settled.set()
        self._changed.notify_all()
        return calls

    # ── waiting for work ──

    def wait_for_some(self, pause_s: float) -> list[TrackedTx] | None:
        """The transactions under way, after a pause, and when there are any; None when it is over."""
        with self._lock:
            not_before = self._clock() + pause_s
            while not self._closed:
                if not self._under_way:
                    self._changed.wait()
                    not_before = self._clock() + FIRST_LOOK_S
                elif (left_s := not_before - self._clock()) > 0:
                    self._changed.wait(left_s)
                else:
                    return list(self._under_way.values())
            return None

    def wait_for_copies(self, until: float | None) -> bool:
        """Wait until copies are due, or until a moment; False when it is over.

        Args:
            until: monotonic seconds; None: only for copies.
        """
        with self._lock:
            while not self._closed:
                moments = [tracked.resend_at for tracked in self._under_way.values() if tracked.resend_at is not None]
                if until is not None:
                    moments.append(until)
                wait_s = min(moments) - self._clock() if moments else None
                if wait_s is not None and wait_s <= 0:
                    return True
                self._changed.wait(wait_s)
            return False

    def require_open(self) -> None:
        """Raises ConcurrencyError when it is over."""
        if self._closed:
            raise ConcurrencyError("this TxSender is closed: make a new one")

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self._closed

    def close(self) -> None:
        """Those under way stay unknown; their waiters are let go. Idempotent."""
        with self._lock:
            self._closed = True
            for tracked in self._under_way.values():
                tracked.callbacks.clear()
                tracked.tx_b64 = None
                tracked.settled.set()
            self._under_way.clear()
            self._changed.notify_all()
