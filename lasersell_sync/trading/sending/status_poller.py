"""One thread asks one node what became of the transactions under way, as long as there are any."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Final

from lasersell_sync.exceptions import ConcurrencyError, TxSubmitError
from lasersell_sync.runtime import log as _log
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.trading.sending.tracked_tx import TrackedTx
from lasersell_sync.trading.sending.tx_tracker import FIRST_LOOK_S, TxTracker
from lasersell_sync.trading.solana.expiry import SlotTime, Tip
from lasersell_sync.trading.solana.rpc_node import MAX_STATUSES, RpcNode

__all__ = ["StatusPoller"]

log = _log.logger("trading")

#: For one question. A node that takes longer would tell stale news.
_ASK_S: Final = 3.0
#: Between rounds while a node fails, at most.
_LONGEST_PAUSE_S: Final = 2.0
#: A blockhash that a node does not know is dead, mostly: not every round is worth the question.
_ASK_AGAIN_S: Final = 1.0
#: After a restart many old ones may have to be asked about; statuses must not wait for all of them.
_BLOCKHASHES_A_ROUND: Final = 16
#: A node's newest block is asked for at least this often while something is under way: its slots may tell nothing.
_TIP_LIFE_S: Final = 5.0
#: Slots get shorter over months; a cluster under load may be slower for a while.
_SLOT_TIME_LIFE_S: Final = 600.0


class StatusPoller:
    """One node's thread: ``lasersell-confirm-<number>``.

    It asks in rounds, ``poll_s`` apart and more when the node fails: whether blockhashes are valid until it says so;
    for the newest confirmed block where that could tell something; and for the statuses of all at once. Nodes do not
    wait for each other, and without a transaction under way nothing is asked.

    Args:
        number: of the node, from 0.
        node: the node.
        pending: what it is asked about, and where its answers go.
        poll_s: seconds between rounds.
    """

    def __init__(
        self,
        number: int,
        node: RpcNode,
        pending: TxTracker,
        *,
        poll_s: float,
        slot_time: SlotTime | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._number = number
        self._node = node
        self._pending = pending
        self._poll_s = poll_s
        self._slot_time = slot_time or SlotTime()
        #: When the node is asked next how long a slot takes; monotonic seconds.
        self._slot_time_due = 0.0
        self._clock = clock
        self._thread = threading.Thread(target=self._run, name=f"lasersell-confirm-{number + 1}", daemon=True)
        self._tip: Tip | None = None
        self._tip_read_at = 0.0
        #: The newest slot that any answer told.
        self._slot = 0
        #: When the node last said that it does not know a blockhash; monotonic seconds.
        self._asked_at: dict[str, float] = {}
        #: Rounds in which nothing was answered, since the last in which something was.
        self._failures = 0
        #: Which question the next round begins with.
        self._first_question = 0
        #: What failed in the last round: told once.
        self._complaint = ""
        #: Monotonic seconds.
        self.last_used_at = 0.0

    @property
    def thread(self) -> threading.Thread:
        """To be joined."""
        return self._thread

    def start(self) -> None:
        """Start its thread, unless it runs already.

        Raises:
            RuntimeError, MemoryError: the system has no thread to spare.
        """
        if self._thread.ident is None:
            self._thread.start()

    def warm(self, *, timeout_s: float) -> None:
        """Opens a connection, on this thread; a failure is logged."""
        self.last_used_at = self._clock()
        try:
            self._node.warm(budget=TimeBudget(timeout_s))
        except (TxSubmitError, ConcurrencyError) as error:
            log.warning("warming %s failed: %s", self._node.label, error)

    def _run(self) -> None:
        pause_s = FIRST_LOOK_S
        while (under_way := self._pending.wait_for_some(pause_s)) is not None:
            pause_s = self._pause_after(under_way)

    def _pause_after(self, under_way: list[TrackedTx]) -> float:
        """One round; seconds to wait after it."""
        self.last_used_at = self._clock()
        try:
            self._look(under_way)
        except (TxSubmitError, ConcurrencyError) as error:
            self._failures += 1
            kind = _kind(error)
            level = logging.DEBUG if kind == self._complaint else logging.WARNING
            log.log(level, "%s: asking about %d transactions failed: %s", self._node.label, len(under_way), kind)
            self._complaint = kind
        except BaseException:
            # Whatever an answer was that nobody thought of: the next one may be better, and the thread must live.
            self._failures += 1
            log.exception("%s: asking for statuses failed", self._node.label)
        else:
            self._failures, self._complaint = 0, ""
        return min(max(_LONGEST_PAUSE_S, self._poll_s), self._poll_s * 2.0 ** min(self._failures, 16))

    def _look(self, under_way: list[TrackedTx]) -> None:
        # Each question for itself: a node that tells no heights may still tell that a transaction has landed, and is
        # asked for that as often as any other.
        problem: Exception | None = None
        questions = (self._ask_about_blockhashes, self._ask_for_the_tip, self._ask_for_statuses)
        first, self._first_question = self._first_question, 0
        for number in range(first, first + len(questions)):
            if self._pending.closed:
                return
            try:
                if questions[number % len(questions)](under_way):
                    self._failures = 0
            except (TxSubmitError, ConcurrencyError) as error:
                problem = error
                if isinstance(error, TxSubmitError) and error.status == 429:
                    # The node wants to be left alone. The next round begins with what this one leaves out.
                    self._first_question = (number + 1) % len(questions)
                    break
        self._ask_for_the_slot_time()
        if problem is not None:
            raise problem

    def _ask_for_the_slot_time(self) -> None:
        """Now and then, after all that cannot wait; without an answer, the other nodes' or the shortest slots count."""
        now = self._clock()
        if now < self._slot_time_due or self._pending.closed:
            return
        self._slot_time_due = now + _SLOT_TIME_LIFE_S
        try:
            self._slot_time.saw(self._number, self._node.slot_s(budget=TimeBudget(_ASK_S)))
        except (TxSubmitError, ConcurrencyError) as error:
            log.debug("%s does not say how long a slot takes: %s", self._node.label, _kind(error))

    def _ask_about_blockhashes(self, under_way: list[TrackedTx]) -> bool:
        """This and the next two: whether anything was asked."""
        asked = False
        for blockhash in self._blockhashes_to_ask_about(under_way):
            if self._pending.closed:
                break
            asked = True
            is_valid, slot = self._node.is_blockhash_valid(blockhash, budget=TimeBudget(_ASK_S))
            self._slot = max(self._slot, slot)
            if is_valid:
                # Not noted as asked: another transaction with it, which comes in this moment, must hear it as well.
                self._pending.saw_valid(self._number, blockhash, slot)
            else:
                self._asked_at[blockhash] = self._clock()
        return asked

    def _blockhashes_to_ask_about(self, under_way: list[TrackedTx]) -> list[str]:
        """Some of those that the node has not called valid; new ones first, then those that were asked long ago."""
        unknown = self._pending.unknown_blockhashes(self._number, under_way)
        self._asked_at = {blockhash: self._asked_at.get(blockhash, -math.inf) for blockhash in unknown}
        due_before = self._clock() - _ASK_AGAIN_S
        due = [blockhash for blockhash in unknown if self._asked_at[blockhash] <= due_before]
        return sorted(due, key=self._asked_at.__getitem__)[:_BLOCKHASHES_A_ROUND]

    def _ask_for_the_tip(self, under_way: list[TrackedTx]) -> bool:
        is_old = self._clock() - self._tip_read_at > _TIP_LIFE_S
        if not is_old and not self._pending.wants_tip(self._number, under_way, self._tip, self._slot):
            return False
        tip = self._node.tip("confirmed", budget=TimeBudget(_ASK_S))
        self._tip, self._tip_read_at = tip, self._clock()
        self._slot = max(self._slot, tip.slot)
        if self._pending.saw_tip(self._number, tip, under_way, confirmed=True):
            # The blockhash is younger than anything confirmed: a bound that is a little too high comes at once.
            newest = self._node.tip("processed", budget=TimeBudget(_ASK_S))
            self._pending.saw_tip(self._number, newest, under_way, confirmed=False)
        return True

    def _ask_for_statuses(self, under_way: list[TrackedTx]) -> bool:
        for start in range(0, len(under_way), MAX_STATUSES):
            if self._pending.closed:
                break
            batch = under_way[start : start + MAX_STATUSES]
            statuses = self._node.statuses([tracked.signature for tracked in batch], budget=TimeBudget(_ASK_S))
            self._slot = max(self._slot, statuses.slot)
            self._pending.saw_statuses(self._number, batch, statuses, self._tip)
        return True


def _kind(error: TxSubmitError | ConcurrencyError) -> str:
    """What failed, without the node's words: it may quote transactions that it was sent before."""
    if isinstance(error, ConcurrencyError):
        return error.problem
    numbers = [str(number) for number in (error.status, error.code) if number is not None]
    return " ".join([error.kind, *numbers])
