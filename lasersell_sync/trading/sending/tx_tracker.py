"""The transactions that are under way: what is known of each, who waits for it, and how it is settled.

No socket and no thread of its own: senders and pollers bring what they learn, and wait here for work.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias, TypeVar

import attrs

from lasersell_sync.exceptions import ConcurrencyError
from lasersell_sync.runtime import log as _log
from lasersell_sync.runtime.fork_guard import ProcessGuard
from lasersell_sync.runtime.locks import CallsUnderWay, signal_safe_lock
from lasersell_sync.trading.sending.outcome import SellOutcome, TxResult
from lasersell_sync.trading.sending.tracked_tx import (
    UNDECIDED_AFTER_S,
    Answer,
    Listener,
    OnSettled,
    PendingTx,
    TrackedTx,
)
from lasersell_sync.trading.solana.expiry import ExpiryRule, SlotTime, Tip
from lasersell_sync.trading.solana.rpc_node import Landing, Statuses, Unreadable

__all__ = ["Calls", "TxTracker"]

log = _log.logger("trading")

T = TypeVar("T")
#: What is to be called, when its lock is free again: a settled transaction's callbacks.
Calls: TypeAlias = list[tuple[OnSettled, TxResult]]

#: After this long the nodes are asked about a transaction that comes when none was under way: its own bytes come first,
#: and no block has it before that.
FIRST_LOOK_S: Final = 0.1
#: Settled ones that are remembered, so that a late second ``submit`` of one sends nothing.
_REMEMBERED: Final = 1024
#: A node that has not answered for so long may be left out where every node's word is needed.
SILENT_AFTER_S: Final = 60.0
#: Nodes that contradict each other for so long will not agree any more.
CONTRADICTION_AFTER_S: Final = 60.0
#: A transaction that was called dead is still looked for, so long and so often: a wrong verdict comes to light.
LATE_WATCH_S: Final = 120.0
LATE_LOOK_S: Final = 5.0
#: Copies that are due within so many seconds go together.
_TOGETHER_S: Final = 0.02
#: No cluster makes slots faster than this.
_LEAST_SLOT_S: Final = 0.1


class TxTracker:
    """All of them.

    Args:
        guard: of the sender that owns them.
        lanes: labels of the targets, whose numbers are their places.
        nodes: labels of the nodes, likewise.
        slot_time: how long a slot takes, by the nodes.
        resend_s: seconds between two copies to one target.
        run: calls callbacks; called with no lock held.
        calls_under_way: knows who waits for a result.

    Threads: every method from any.
    """

    def __init__(
        self,
        guard: ProcessGuard,
        lanes: Sequence[str],
        nodes: Sequence[str] = (),
        *,
        slot_time: SlotTime | None = None,
        resend_s: float,
        run: Callable[[Calls], None],
        calls_under_way: CallsUnderWay | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.guard = guard
        self._lanes = tuple(lanes)
        self._nodes = tuple(nodes)
        self._slot_time = slot_time or SlotTime()
        self._resend_s = resend_s
        self._run = run
        self._calls_under_way = calls_under_way or CallsUnderWay()
        self._clock = clock
        # Guards everything below, and every TrackedTx. Never held while anything is sent, asked or called.
        self._lock = signal_safe_lock()
        #: Notified of the first of several transactions, of an earlier moment, and of the end.
        self._changed = threading.Condition(self._lock)
        self._under_way: dict[str, TrackedTx] = {}
        self._settled: OrderedDict[str, TrackedTx] = OrderedDict()
        #: When each is sent again, and when it is reported as undecided.
        self._resends, self._reports = Schedule(), Schedule()
        #: Until when ``wait_for_copies`` sleeps; monotonic seconds.
        self._sleeps_until = -math.inf
        self._is_wake_up_due = False
        #: Those that were called dead lately, and until when they are looked for.
        self._called_dead: OrderedDict[str, tuple[TrackedTx, float]] = OrderedDict()
        #: When each node last answered a question for statuses.
        self._answered_at: dict[int, float] = {}
        self._late_landings = 0
        self._closed = False

    # ── coming in ──

    def add(
        self,
        signature: str,
        blockhash: str,
        *,
        tx_b64: str | None,
        never_expires: bool = False,
        listener: Listener,
    ) -> tuple[TrackedTx, bool]:
        """A transaction, and whether its bytes are to be sent: they are not when it is under way already.

        ``wake`` must be called after it.

        Raises:
            ConcurrencyError: closed.
        """
        calls: Calls = []
        with self._lock:
            self.require_open()
            tracked = self._under_way.get(signature) or self._settled.get(signature)
            if tracked is None:
                rule = None if never_expires else ExpiryRule(self._slot_time)
                tracked = TrackedTx(signature, blockhash, rule, self._clock())
                tracked.view = PendingTx(
                    tracked,
                    check=self.guard.check,
                    result_of=self.result_of,
                    calls_under_way=self._calls_under_way,
                )
                tracked.maybe_taken = tx_b64 is None  # somebody sent it before
                # Who asks nodes sleeps without an end only while nothing is under way.
                self._is_wake_up_due |= not self._under_way
                self._under_way[signature] = tracked
                self._plan(self._reports, tracked.added_at + UNDECIDED_AFTER_S, tracked)
            if tracked.result is None:
                tracked.listeners.append(listener)
            elif listener.on_settled is not None:
                calls.append((listener.on_settled, tracked.result))
            is_to_send = tx_b64 is not None and tracked.tx_b64 is None and tracked.result is None
            if is_to_send:
                tracked.tx_b64 = tx_b64
                self._plan(self._resends, self._clock() + self._resend_s, tracked)
                # All of them at once, so that the first refusal is not taken for everybody's.
                tracked.in_flight.update(range(len(self._lanes)))
        if calls:
            self._run(calls)
        return tracked, is_to_send

    def _plan(self, schedule: Schedule, moment: float, tracked: TrackedTx) -> None:
        """The lock is held."""
        schedule.put(moment, tracked)
        self._is_wake_up_due |= moment < self._sleeps_until

    def wake(self) -> None:
        """Wake those who must know of what was added, if any must. To be called after ``add``.

        Apart from it, so that a transaction's bytes are written before a thread is woken; and only the first of many
        wakes anybody.
        """
        if self._is_wake_up_due:
            with self._lock:
                self._is_wake_up_due = False
                self._changed.notify_all()

    def result_of(self, tracked: TrackedTx) -> TxResult:
        """As it stands now."""
        with self._lock:
            return tracked.result or self._as_unknown(tracked)

    # ── copies ──

    def due_copies(self) -> list[tuple[TrackedTx, int]]:
        """The copies that are due, one for each target that has answered the last one; they are in flight from now."""
        now, copies = self._clock(), []
        with self._lock:
            for tracked in self._resends.take_due(now + min(_TOGETHER_S, self._resend_s / 10)):
                self._resends.put(now + self._resend_s, tracked)
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
                    if tracked.tx_b64 is not None:  # sent from here, so not before it was added
                        rule.began_at(node, tip.slot - math.ceil((self._clock() - tracked.added_at) / _LEAST_SLOT_S))
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
        doubtful: list[TrackedTx] = []
        with self._lock:
            self._answered_at[node] = self._clock()
            for tracked, landing in zip(of, statuses.landings, strict=True):
                if tracked.result is not None:
                    calls += self._look_at_the_dead(tracked, landing)
                elif isinstance(landing, Landing):
                    calls += self._saw_landing(tracked, landing)
                elif landing is None and self._saw_nothing(node, tracked, statuses, tip):
                    calls += self._call_dead(tracked, doubtful)
        if calls:
            self._run(calls)
        for tracked in doubtful:
            self._leave_out_the_silent(tracked)

    def _saw_landing(self, tracked: TrackedTx, landing: Landing) -> Calls:
        if tracked.rule is not None:
            tracked.rule.saw_status()
            tracked.dead_since = None
        if not landing.is_sure:
            return []
        if landing.error is None:
            return self._settle(tracked, SellOutcome.CONFIRMED, slot=landing.slot)
        return self._settle(tracked, SellOutcome.FAILED_ONCHAIN, slot=landing.slot, detail=landing.error)

    def _saw_nothing(self, node: int, tracked: TrackedTx, statuses: Statuses, tip: Tip | None) -> bool:
        """Whether some node calls the transaction dead."""
        rule = tracked.rule
        if rule is None:
            return False
        is_proven = rule.saw_no_status(node, tip, statuses.slot, searched_history=statuses.searched_history)
        if tracked.needs_agreement:
            is_proven = any(rule.is_dead_by(each) for each in range(len(self._nodes)))
        if is_proven and tracked.dead_since is None:
            tracked.dead_since = self._clock()
        return is_proven

    def _call_dead(self, tracked: TrackedTx, doubtful: list[TrackedTx]) -> Calls:
        """Settle it as dead where all nodes agree; append it to ``doubtful`` where only silent ones are missing."""
        assert tracked.rule is not None
        assert tracked.dead_since is not None
        missing = self._missing_nodes(tracked)
        if not missing:
            return self._settle(tracked, SellOutcome.EXPIRED, detail=f"not found, and {tracked.rule.explain()}")
        silent = [node for node in missing if self._silent_for_s(node, tracked) >= SILENT_AFTER_S]
        if silent == missing:
            doubtful.append(tracked)
        elif not silent and self._clock() - tracked.dead_since >= CONTRADICTION_AFTER_S:
            names = ", ".join(self._nodes[node] for node in missing)
            return self._settle(
                tracked,
                SellOutcome.UNKNOWN,
                detail=f"the nodes contradict each other: some prove that it will not land, and {names} do not after "
                f"{CONTRADICTION_AFTER_S:g} s; it may have landed, so look it up by its signature",
            )
        return []

    def _missing_nodes(self, tracked: TrackedTx) -> list[int]:
        """Whose word is missing before the transaction may be called dead."""
        assert tracked.rule is not None
        if not tracked.needs_agreement:
            return []
        return [node for node in range(len(self._nodes)) if not tracked.rule.is_dead_by(node)]

    def _silent_for_s(self, node: int, tracked: TrackedTx) -> float:
        return self._clock() - max(tracked.added_at, self._answered_at.get(node, 0.0))

    def _leave_out_the_silent(self, tracked: TrackedTx) -> None:
        """Called with no lock held: the transaction's listeners look at the stream, which has locks of its own."""
        try:
            is_held = tracked.still_held()
        except BaseException:
            log.exception("whether the tokens of %s are still held is not known", tracked.signature)
            return
        if not is_held:
            return
        with self._lock:
            assert tracked.rule is not None
            names = ", ".join(self._nodes[node] for node in self._missing_nodes(tracked))
            detail = f"not found, and {tracked.rule.explain()}; {names} did not answer, and the tokens are still there"
            calls = self._settle(tracked, SellOutcome.EXPIRED, detail=detail)
        if calls:
            self._run(calls)

    def _look_at_the_dead(self, tracked: TrackedTx, landing: Landing | Unreadable | None) -> Calls:
        """A transaction that was called dead may have landed after all."""
        if not isinstance(landing, Landing) or not landing.is_sure:
            return []
        if self._called_dead.pop(tracked.signature, None) is None or landing.error is not None:
            return []
        assert tracked.result is not None
        self._late_landings += 1
        log.error(
            "%s was reported as %s and has landed in slot %d: a node was wrong. A sale in its place sold twice",
            tracked.signature, tracked.result.outcome.value, landing.slot,
        )  # fmt: skip
        late = attrs.evolve(
            tracked.result, outcome=SellOutcome.CONFIRMED, slot=landing.slot,
            detail=f"it was reported as {tracked.result.outcome.value} before",
        )  # fmt: skip
        return [(each.on_late_landing, late) for each in tracked.listeners if each.on_late_landing is not None]

    def _settle(self, tracked: TrackedTx, outcome: SellOutcome, *, slot: int | None = None, detail: str = "") -> Calls:
        """The lock is held; what it returns is called after that."""
        if tracked.result is not None or self._closed:
            return []
        tracked.result = TxResult(
            signature=tracked.signature, outcome=outcome, slot=slot, detail=detail, accepted_by=tracked.accepted_by
        )
        tracked.tx_b64 = None
        calls = [(each.on_settled, tracked.result) for each in tracked.listeners if each.on_settled is not None]
        self._under_way.pop(tracked.signature, None)
        # A rejected one may be taken another time: the node that refused it may only have been late.
        if outcome is not SellOutcome.REJECTED:
            _remember(self._settled, tracked.signature, tracked)
        if outcome in {SellOutcome.EXPIRED, SellOutcome.UNKNOWN}:
            _remember(self._called_dead, tracked.signature, (tracked, self._clock() + LATE_WATCH_S))
        else:
            tracked.listeners.clear()
        tracked.settled.set()
        return calls

    @property
    def late_landings(self) -> int:
        """Transactions that landed after they had been called dead."""
        return self._late_landings

    def undecided(self) -> list[TxResult]:
        """What has been under way for longer than a minute, with what is missing for a proof in ``detail``."""
        with self._lock:
            ripe = self._clock() - UNDECIDED_AFTER_S
            return [self._as_unknown(each) for each in self._under_way.values() if each.added_at <= ripe]

    def report_undecided(self) -> None:
        """Log and report what became undecided a minute ago, and what still is each minute after that."""
        calls: Calls = []
        with self._lock:
            now = self._clock()
            for tracked in self._reports.take_due(now):
                self._reports.put(now + UNDECIDED_AFTER_S, tracked)
                result = self._as_unknown(tracked)
                log.warning("%s is undecided for %.0f s: %s", tracked.signature, now - tracked.added_at, result.detail)
                calls += [(each.on_undecided, result) for each in tracked.listeners if each.on_undecided is not None]
        if calls:
            self._run(calls)

    def _as_unknown(self, tracked: TrackedTx) -> TxResult:
        silent = [
            label for node, label in enumerate(self._nodes) if self._silent_for_s(node, tracked) >= SILENT_AFTER_S
        ]
        words = [*(["the sender was closed"] if self._closed else []), tracked.describe()]
        words += [f"{', '.join(silent)} did not answer for a minute"] if silent else []
        return TxResult(
            signature=tracked.signature,
            outcome=SellOutcome.UNKNOWN,
            detail="; ".join(words),
            accepted_by=tracked.accepted_by,
        )

    # ── waiting for work ──

    def wait_for_some(self, pause_s: float) -> list[TrackedTx] | None:
        """The transactions to ask about, after a pause, and when there are any; None when it is over.

        They are those under way, and those that were called dead lately: the latter alone are asked about less often.
        """
        with self._lock:
            asked_at = self._clock()
            not_before = asked_at + pause_s
            while not self._closed:
                self._forget_the_dead()
                if not self._under_way and not self._called_dead:
                    self._changed.wait()
                    not_before = self._clock() + FIRST_LOOK_S
                    continue
                moment = not_before if self._under_way else asked_at + max(pause_s, LATE_LOOK_S)
                if (left_s := moment - self._clock()) <= 0:
                    return [*self._under_way.values(), *(tracked for tracked, _ in self._called_dead.values())]
                self._changed.wait(left_s)
            return None

    def _forget_the_dead(self) -> None:
        now = self._clock()
        for signature in [each for each, (_, until) in self._called_dead.items() if until <= now]:
            self._called_dead.pop(signature)[0].listeners.clear()

    def wait_for_copies(self, until: float | None) -> bool:
        """Wait until copies are due, or until a moment; False when it is over.

        Args:
            until: monotonic seconds; None: only for copies.
        """
        with self._lock:
            while not self._closed:
                moment = min(self._reports.next_at(), self._resends.next_at(), math.inf if until is None else until)
                left_s = moment - self._clock()
                if left_s <= 0:
                    return True
                self._sleeps_until = moment
                self._changed.wait(None if moment == math.inf else left_s)
                self._sleeps_until = -math.inf  # awake: it looks by itself
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
                tracked.listeners.clear()
                tracked.tx_b64 = None
                tracked.settled.set()
            self._under_way.clear()
            self._called_dead.clear()
            self._resends.clear()
            self._reports.clear()
            self._changed.notify_all()


class Schedule:
    """Moments of transactions under way, the earliest first; what settled meanwhile is left out.

    Threads: one at a time.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, TrackedTx]] = []
        self._numbers = itertools.count()

    def put(self, moment: float, tracked: TrackedTx) -> None:
        """Plan one; monotonic seconds."""
        heapq.heappush(self._heap, (moment, next(self._numbers), tracked))

    def next_at(self) -> float:
        """The earliest moment; infinity without one."""
        while self._heap and self._heap[0][2].result is not None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def take_due(self, now: float) -> list[TrackedTx]:
        """Those whose moment has come; they are planned no more."""
        due = []
        while self.next_at() <= now:
            due.append(heapq.heappop(self._heap)[2])
        return due

    def clear(self) -> None:
        """Nothing is planned any more."""
        self._heap.clear()


def _remember(by_signature: OrderedDict[str, T], signature: str, value: T) -> None:
    by_signature[signature] = value
    while len(by_signature) > _REMEMBERED:
        by_signature.popitem(last=False)
