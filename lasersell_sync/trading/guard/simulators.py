"""Asks several nodes at once to simulate a transaction, and decides when enough of them have answered.

Each node has threads of its own, so that one that hangs costs its own threads and nobody else's. Nothing here knows
what is asked: a question is a function.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from lasersell_sync.exceptions import LaserSellError, TxSubmitError
from lasersell_sync.runtime.log import logger
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.runtime.user_code import passes_through
from lasersell_sync.trading.guard.report import Finding, SimulationVerdict, Verdicts, agreed
from lasersell_sync.trading.solana.json_rpc import client_for
from lasersell_sync.trading.solana.rpc_node import RpcNode
from lasersell_sync.trading.solana.send_targets import SendTargetRpc

__all__ = ["Asking", "Peer", "Question", "Simulators"]

log = logger("trading.guard")

T = TypeVar("T")

#: Threads of one node, each with a connection: so many simulations run there at once.
_MOST_THREADS: Final = 64
#: An idle thread ends after so long.
_IDLE_S: Final = 2.0
#: Once a node has said ``ok`` or ``fails``, the others have so long from the start, or so many times what they
#: usually take, to say something worse.
_PATIENCE_S: Final = 0.06
_PATIENCE_TIMES: Final = 4.0
#: A node that owes an answer for so long hangs, until it has answered.
_HANGS_AFTER_S: Final = 0.25
_LATENCY_WEIGHT: Final = 0.2

Question = Callable[["Peer", TimeBudget], Finding]


class Peer:
    """One node: its threads, and what is known of its behaviour.

    Attributes:
        label: its host.
        node: asks it.
        says_before: whether its simulations say what accounts held before; None: not seen yet.

    Threads: every method from any.
    """

    def __init__(self, number: int, target: SendTargetRpc) -> None:
        self.label = target.endpoint.shown
        self.node = RpcNode(client_for(target))
        self.says_before: bool | None = None
        self._name = f"lasersell-simulate-{number}"
        # Guards everything below.
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._idle = 0
        self._is_closed = False
        self._pid = os.getpid()
        #: When the questions that have no answer yet were asked.
        self._owed: dict[int, float] = {}
        self._numbers = itertools.count()
        self._usual_s = 0.0
        self._timed_out = False
        #: By bytes of data.
        self._rents: dict[int, int] = {}

    def submit(self, job: Callable[[], None]) -> None:
        """Run ``job`` on one of the node's threads.

        Raises:
            RuntimeError, MemoryError: it has none, and the system has none to spare; the job is forgotten.
        """
        with self._changed:
            if self._pid != os.getpid():  # a forked child has none of its parent's threads
                self._pid, self._threads, self._idle = os.getpid(), 0, 0
                self._jobs.clear()
                self._owed.clear()
            self._is_closed = False
            self._jobs.append(job)
            if self._idle >= len(self._jobs) or self._threads >= _MOST_THREADS:
                self._changed.notify()
                return
            self._threads += 1
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except (RuntimeError, MemoryError):
            with self._changed:
                self._threads -= 1
                if not self._threads and job in self._jobs:
                    self._jobs.remove(job)
                    raise
            # One of the others does it when it is free.

    def close(self) -> None:
        """Ends the threads that are idle; the next question starts new ones."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: bool(self._jobs) or self._is_closed, _IDLE_S)
                self._idle -= 1
                if not self._jobs:
                    self._threads -= 1
                    return
                job = self._jobs.popleft()
            try:
                job()
            except BaseException:
                log.exception("asking %s failed", self.label)

    def rent_lamports(self, size: int, budget: TimeBudget) -> int:
        """What an account of so many bytes must hold, as the node says; asked once for each size.

        Raises:
            TxSubmitError: it does not answer.
        """
        if size not in self._rents:
            self._rents[size] = self.node.rent_lamports(size, budget=budget)
        return self._rents[size]

    # ── its behaviour ──

    def asked(self) -> int:
        """A question leaves; the number to give to ``answered``."""
        with self._changed:
            number = next(self._numbers)
            self._owed[number] = time.monotonic()
            return number

    def answered(self, number: int, *, in_time: bool) -> None:
        """The question has an answer, or none will come."""
        with self._changed:
            asked_at = self._owed.pop(number, None)
            self._timed_out = not in_time
            if in_time and asked_at is not None:
                took_s = time.monotonic() - asked_at
                weight = _LATENCY_WEIGHT if self._usual_s else 1.0
                self._usual_s += weight * (took_s - self._usual_s)

    @property
    def hangs(self) -> bool:
        """Whether it owes an answer for long, or left the last question without one."""
        with self._changed:
            oldest = min(self._owed.values(), default=None)
            return self._timed_out or (oldest is not None and time.monotonic() - oldest > _HANGS_AFTER_S)

    @property
    def owes(self) -> bool:
        """Whether a question has no answer yet."""
        with self._changed:
            return bool(self._owed)

    @property
    def patience_s(self) -> float:
        """How long the others' ``ok`` waits for this node."""
        return max(_PATIENCE_S, _PATIENCE_TIMES * self._usual_s)


class Asking:
    """One transaction that nodes simulate.

    Threads: ``answered`` on the nodes' threads, ``look`` on the clock's, ``wait`` on any.
    """

    def __init__(
        self,
        peers: Sequence[Peer],
        timeout_s: float,
        on_done: Callable[[Verdicts], None] | None = None,
        *,
        hears_all: bool = False,
    ) -> None:
        self._peers = peers
        self._started = time.monotonic()
        self._timeout_s = timeout_s
        self._on_done = on_done
        self._hears_all = hears_all
        self._changed = threading.Condition()
        self._findings: dict[int, Finding] = {}
        self.verdicts: Verdicts | None = None

    @property
    def ends_at(self) -> float:
        """By ``time.monotonic()``."""
        return self._started + self._timeout_s

    def answered(self, place: int, finding: Finding) -> None:
        """One node has answered."""
        with self._changed:
            is_late = self.verdicts is not None
            self._findings[place] = finding
        if is_late:
            if finding.verdict is SimulationVerdict.THEFT:
                log.warning("a node called a transaction a theft after it was decided on: %s", finding)
            return
        self.look()

    def look(self) -> float | None:
        """Decide if enough is known; else the moment to look again. None: it is decided."""
        with self._changed:
            if self.verdicts is not None:
                return None
            moment = self._undecided_until()
            if moment is not None and time.monotonic() < moment:
                return moment
            places = range(len(self._peers))
            self.verdicts = agreed(self._findings.get(place) or self._silent(place) for place in places)
            self._changed.notify_all()
        if self._on_done is not None:
            self._on_done(self.verdicts)
        return None

    def wait(self) -> Verdicts:
        """Blocks until it is decided, at most until its time limit."""
        with self._changed:
            while self.verdicts is None:
                self._changed.wait(max(0.0, self.ends_at - time.monotonic()))
                if self.verdicts is None and time.monotonic() >= self.ends_at:
                    break
        self.look()  # the clock may have had no thread
        assert self.verdicts is not None
        return self.verdicts

    def _undecided_until(self) -> float | None:
        """When the answers so far decide at the latest; None: now."""
        said = {finding.verdict for finding in self._findings.values()}
        pending = [peer for place, peer in enumerate(self._peers) if place not in self._findings]
        if not pending or (SimulationVerdict.THEFT in said and not self._hears_all):
            return None
        if self._hears_all or said <= {SimulationVerdict.CANNOT}:
            return self.ends_at
        awaited = [peer.patience_s for peer in pending if not peer.hangs]
        return min(self._started + max(awaited), self.ends_at) if awaited else None

    def _silent(self, place: int) -> Finding:
        return Finding(self._peers[place].label, SimulationVerdict.CANNOT, "no answer in time")


class Simulators:
    """The nodes that simulate for one guard.

    Args:
        targets: at least one.
        timeout_s: seconds after which a transaction is decided on by what was answered.

    Threads: every method from any. Its own, which end when they are idle for 2 s: ``lasersell-simulate-N`` (up to 64
    for each node) and ``lasersell-simulate-clock``.
    """

    def __init__(self, targets: Sequence[SendTargetRpc], timeout_s: float) -> None:
        self.peers = [Peer(number, target) for number, target in enumerate(targets)]
        self._timeout_s = timeout_s
        self._clock = _Clock()

    def ask(
        self, question: Question, on_done: Callable[[Verdicts], None] | None = None, *, hears_all: bool = False
    ) -> Asking:
        """Put a question to all nodes at once.

        Args:
            question: asks one node; on that node's threads, several at once.
            on_done: called once, on a thread of a node or of the clock; it must be quick.
            hears_all: wait for every node, though the verdict is known.
        """
        asking = Asking(self.peers, self._timeout_s, on_done, hears_all=hears_all)
        for place, peer in enumerate(self.peers):
            if len(self.peers) > 1 and peer.hangs and peer.owes:
                # It is asked again when it has answered; the others decide.
                asking.answered(place, Finding(peer.label, SimulationVerdict.CANNOT, "it still owes an answer"))
                continue
            self._put(place, peer, question, asking)
        self._clock.watch(asking)
        return asking

    def ask_and_wait(self, question: Question, *, hears_all: bool = False) -> Verdicts:
        """As ``ask``, on the calling thread where there is a single node: a hand-over costs more than all the rest."""
        if len(self.peers) > 1:
            return self.ask(question, hears_all=hears_all).wait()
        (peer,) = self.peers
        number = peer.asked()
        budget = TimeBudget(self._timeout_s)
        finding = _put_to(peer, question, budget)
        peer.answered(number, in_time=not budget.expired())
        return agreed([finding])

    def close(self) -> None:
        """Ends idle threads; those that ask a node end with its answer."""
        for peer in self.peers:
            peer.close()
        self._clock.close()

    def _put(self, place: int, peer: Peer, question: Question, asking: Asking) -> None:
        def job() -> None:
            left_s = asking.ends_at - time.monotonic()
            if left_s <= 0 or asking.verdicts is not None:
                return
            number = peer.asked()
            finding = _put_to(peer, question, TimeBudget(left_s))
            peer.answered(number, in_time=time.monotonic() < asking.ends_at)
            asking.answered(place, finding)

        try:
            peer.submit(job)
        except (RuntimeError, MemoryError) as error:
            log.warning("%s is not asked: %s", peer.label, error or "out of memory")
            asking.answered(place, Finding(peer.label, SimulationVerdict.CANNOT, f"it was not asked: {error}"))


def _put_to(peer: Peer, question: Question, budget: TimeBudget) -> Finding:
    try:
        return question(peer, budget)
    except (TxSubmitError, LaserSellError) as error:
        return Finding(peer.label, SimulationVerdict.CANNOT, str(error))
    except BaseException as error:  # an answer that nobody thought of is no answer, and must not hang a sale
        if passes_through(error):
            raise
        log.warning("the answer of %s could not be read: %s", peer.label, type(error).__name__)
        return Finding(peer.label, SimulationVerdict.CANNOT, f"the answer could not be read ({type(error).__name__})")


class _Clock:
    """Looks at each asking again when its time has come.

    Threads: ``watch`` from any; its own ends when it is idle.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: list[tuple[float, int, Asking]] = []
        self._numbers = itertools.count()
        self._runs = False
        self._is_closed = False
        self._pid = os.getpid()

    def watch(self, asking: Asking) -> None:
        """Until it is decided."""
        moment = asking.look()
        if moment is None:
            return
        with self._changed:
            if self._pid != os.getpid():
                self._pid, self._runs, self._watched = os.getpid(), False, []
            self._is_closed = False
            # The first answer may move the moment forward: the patience with the others counts from the start.
            heapq.heappush(self._watched, (min(moment, time.monotonic() + _PATIENCE_S), next(self._numbers), asking))
            if self._runs:
                self._changed.notify()
                return
            self._runs = True
        try:
            threading.Thread(target=self._run, name="lasersell-simulate-clock", daemon=True).start()
        except (RuntimeError, MemoryError) as error:
            # The nodes' own time limits end what is being asked; the next question tries again.
            log.warning("nobody watches the time of simulations now: %s", error or "out of memory")
            with self._changed:
                self._runs = False

    def close(self) -> None:
        """Ends the thread if it is idle."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._watched) or self._is_closed, _IDLE_S)
                if not self._watched:
                    self._runs = False
                    return
                moment, _, asking = self._watched[0]
                left_s = moment - time.monotonic()
                if left_s > 0:
                    self._changed.wait(left_s)
                    continue
                heapq.heappop(self._watched)
            try:
                again_at = asking.look()
            except BaseException:
                log.exception("what follows a simulation failed")
                continue
            if again_at is not None:
                with self._changed:
                    # Answers come meanwhile, and may shorten the wait for the others.
                    again_at = min(again_at, time.monotonic() + _PATIENCE_S)
                    heapq.heappush(self._watched, (again_at, next(self._numbers), asking))
