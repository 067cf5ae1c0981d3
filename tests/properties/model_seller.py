"""An ``AutoSeller`` with its session, sender and journal, on one thread and on a clock of the test's, to be killed anywhere.

Real are the rules, the journal in its file, the session's state, the sender's bookkeeping, the pollers' questions, the
proofs and the guard. Threads, sockets and time are the test's.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

from lasersell_sync import SendTargetRpc, StrategyConfig, StreamConfigure, StreamOptions
from lasersell_sync.autosell import auto_seller as engine
from lasersell_sync.autosell.auto_seller import AutoSeller
from lasersell_sync.autosell.journal import Journal
from lasersell_sync.autosell.journal_file import _Item
from lasersell_sync.autosell.questions import Questions
from lasersell_sync.autosell.reports import SellReport
from lasersell_sync.autosell.services import SellPolicy
from lasersell_sync.codec import server_message_from_text
from lasersell_sync.exceptions import ExitApiError, JournalError
from lasersell_sync.messages import ServerMessage
from lasersell_sync.session.stream_session import StreamSession
from lasersell_sync.stream.connection import StreamConnection
from lasersell_sync.stream.connection_events import Connected, Disconnected
from lasersell_sync.stream.lifecycle import ConnectionState
from lasersell_sync.trading.keys.signer import Signer
from lasersell_sync.trading.rest.account import HistoryPage, HistoryTrade
from lasersell_sync.trading.rest.tx_requests import BuildSellTxRequest, BuildTxResponse
from lasersell_sync.trading.sending.tracked_tx import Answer, TrackedTx
from lasersell_sync.trading.sending.tx_sender import TxSender
from lasersell_sync.trading.solana.rpc_node import RpcNode
from tests.properties.model_chain import ModelNode
from tests.properties.virtual_time import VirtualTime
from tests.support.market_transactions import desk
from tests.support.offline_session import _Link
from tests.support.selling import MARKET
from tests.support.stream_server import hello

POLICY = SellPolicy(max_refreshes=3, max_unanswered=5)
#: How long a worker waits for an answer of the REST API that is late.
LATE_S = 5.0


class Killed(BaseException):
    """The process dies here: nothing of it does anything any more."""


class Kills:
    """Where a process dies: at a boundary that is counted down to, or wherever the test wants."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.is_dead = False

    def look(self) -> None:
        """A boundary: something that the outside, or the disk, could see has just happened, or is about to."""
        if self.left is not None and not self.is_dead:
            self.left -= 1
            self.is_dead = self.left < 0
        if self.is_dead:
            raise Killed


class ModelLines:
    """``KeyedExecutor`` on the test's thread and clock: tasks of a line in order; one that raises is run again later."""

    def __init__(self, clock: VirtualTime, on_trouble: Callable[[Hashable, Exception], None]) -> None:
        self._clock = clock
        self._on_trouble = on_trouble
        self._tasks: dict[Hashable, deque[Callable[[], None]]] = {}
        self._blocked: set[Hashable] = set()
        self._later: list[tuple[float, int, Hashable, Callable[[], None] | None]] = []
        self._numbers = itertools.count()
        #: What tasks raised, other than a journal that refuses.
        self.errors: list[Exception] = []
        self._is_closed = False

    def start(self) -> None:
        """No thread."""

    def is_worker(self) -> bool:
        return False

    def close(self, _timeout_s: float | None) -> list[str]:
        self._is_closed = True
        return []

    def put(self, key: Hashable, task: Callable[[], None], *, is_urgent: bool = False) -> None:
        """Urgent or not, what is before it in its line comes first, and here is hardly another one."""
        self._tasks.setdefault(key, deque()).append(task)

    def put_later(self, key: Hashable, delay_s: float, task: Callable[[], None] | None) -> None:
        heapq.heappush(self._later, (self._clock.now_s + delay_s, next(self._numbers), key, task))

    def run(self) -> None:
        """Everything that can be done now."""
        while self._later and self._later[0][0] <= self._clock.now_s:
            _, _, key, task = heapq.heappop(self._later)
            if task is None:
                self._blocked.discard(key)
            else:
                self.put(key, task)
        while not self._is_closed and (ready := [key for key in self._tasks if key not in self._blocked]):
            self._run_first(ready[0])

    def _run_first(self, key: Hashable) -> None:
        line = self._tasks[key]
        try:
            line[0]()
        except Exception as error:
            if not isinstance(error, JournalError):
                self.errors.append(error)
            self._blocked.add(key)
            self.put_later(key, 1.0, None)
            self._on_trouble(key, error)
            return
        line.popleft()
        if not line:
            del self._tasks[key]


class InlineCalls:
    """``CallbackExecutor`` on the calling thread."""

    def __init__(self, kills: Kills) -> None:
        self._kills = kills
        self.thread = None
        self.waiting = 0

    def run(self, calls: Iterable[tuple[Callable[[], object], str]]) -> None:
        for call, _ in calls:
            self._kills.look()
            call()

    def is_current(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing waits."""

    def wait_closed(self, _timeout_s: float | None) -> None:
        return None


class ModelPool:
    """A ``ThreadPoolExecutor`` whose work is done when the test says so."""

    def __init__(self, ask: Callable[..., None], *, is_rest: bool) -> None:
        self._ask = ask
        self._is_rest = is_rest

    def submit(self, work: Callable[[], None]) -> None:
        self._ask(work, is_rest=self._is_rest)

    def shutdown(self, **_: object) -> None:
        """No thread."""


class ModelTarget:
    """Takes transactions, and answers as the test wants."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        #: ``takes``, ``takes and is silent``, ``is away``, ``refuses``.
        self.mood = "takes"
        #: False: what arrives now may have been sent before, in vain.
        self.has_always_taken = True

    def send(self, tx_b64: str) -> Answer:
        """A copy arrives, or does not."""
        self.has_always_taken &= self.mood.startswith("takes")
        if self.mood == "is away":
            return Answer.UNCERTAIN
        if self.mood == "refuses":
            return Answer.REFUSED
        self._take(tx_b64)
        return Answer.ACCEPTED if self.mood == "takes" else Answer.UNCERTAIN


class ModelLane:
    """``TargetSender`` on the calling thread."""

    number = 0

    def __init__(self, target: ModelTarget, sender: TxSender) -> None:
        self._target = target
        self._pending = sender._pending
        self.target = sender.targets[0]

    def hand_over(self, tracked: TrackedTx) -> None:
        tx_b64 = self._pending.bytes_of(tracked)
        self._pending.answered(tracked, self.number, None if tx_b64 is None else self._target.send(tx_b64))

    def mind_the_clock(self) -> None:
        """No connection waits."""


class ModelSender(TxSender):
    """The real sender, whose threads' work is done when the test says so."""

    def __init__(self, clock: VirtualTime, nodes: list[ModelNode], target: ModelTarget, kills: Kills) -> None:
        urls = [f"http://127.0.0.1:{number + 1}" for number in range(len(nodes))]
        super().__init__(SendTargetRpc(urls[0]), rpcs=urls, keep_warm_s=None)
        self._calls = InlineCalls(kills)  # type: ignore[assignment]
        self._nodes = [RpcNode(node) for node in nodes]  # type: ignore[arg-type]
        self._pending._clock = clock.monotonic
        for poller, node in zip(self._pollers, self._nodes, strict=True):
            poller._node, poller._clock = node, clock.monotonic
        self._lanes = [ModelLane(target, self)]  # type: ignore[list-item]

    def _start(self) -> None:
        """No thread."""

    @property
    def rpcs(self) -> tuple[SendTargetRpc, ...]:
        """None: the guard would ask them on threads of its own."""
        return ()

    def work(self) -> None:
        """What the threads would do by now."""
        with self._pending._lock:
            self._pending._forget_the_dead()
            dead = [tracked for tracked, _ in self._pending._called_dead.values()]
            wanted = [*self._pending._under_way.values(), *dead]
        for poller in self._pollers if wanted else ():
            poller._pause_after(list(wanted))
        for tracked, number in self._pending.due_copies():
            self._lanes[number].hand_over(tracked)
        self._pending.report_undecided()


class ModelApi:
    """The REST API: builds sales, late if it must be, and lists past trades.

    Args:
        build: builds a sale of so many tokens.
        list_trades: the trades of now.
    """

    def __init__(self, build: Callable[[int], str], list_trades: Callable[[], Iterable[HistoryTrade]]) -> None:
        self._build = build
        self._list_trades = list_trades
        #: ``builds``, ``fails`` or ``late``.
        self.mood = "builds"

    def build_sell_tx(self, request: BuildSellTxRequest) -> BuildTxResponse:
        if self.mood == "fails":
            raise ExitApiError("transport", "nobody answers")
        return BuildTxResponse(self._build(request.amount_tokens))

    def history(self, **_: object) -> Iterator[HistoryPage]:
        if self.mood == "fails":
            raise ExitApiError("transport", "nobody answers")
        yield HistoryPage(trades=tuple(self._list_trades()), offset=0, total=None)


def _asks_nodes(threads: str) -> bool:
    return "balances" in threads or "history" in threads


def _no_thread(*_: object) -> None:
    """In place of what starts one."""


class Process:
    """One life of the seller, from its start to its death.

    Args:
        path: of the journal.
        clock: what time it is.
        nodes, api, target: whom it asks.
        told: called with each command that it writes to the stream.
        reported: called with each report, and each problem.
    """

    def __init__(
        self,
        path: str,
        clock: VirtualTime,
        nodes: list[ModelNode],
        target: ModelTarget,
        api: ModelApi,
        *,
        told: Callable[[dict[str, Any]], None],
        reported: Callable[[SellReport | Exception], None],
    ) -> None:
        self.kills = Kills()
        #: Signatures wait for their COMMIT until something else is written, or time passes.
        self.is_disk_slow = False
        self.clock = clock
        self._told = told
        self._api = api
        #: (when, what) the REST API answers late.
        self._answers: list[tuple[float, Callable[[], None]]] = []
        self.journal = self._open(path)
        wallet = Signer(desk(MARKET).wallet)
        terms = StrategyConfig(target_profit_pct=50.0, stop_loss_pct=20.0)
        configure = StreamConfigure([wallet.wallet], terms)
        self._connection = StreamConnection(
            url="ws://localhost", api_key="key", configure=configure, options=StreamOptions()
        )
        self._writer = self._connection.reader.writer
        self._writer._write_text = self._write  # type: ignore[method-assign]
        self._connection.reader.run_soon = lambda job: job()  # type: ignore[method-assign]
        self._session = StreamSession(self._connection)
        self._connection.reader.sink = self._session._state
        self.sender = ModelSender(clock, nodes, target, self.kills)
        self._announcements_end: float | None = None
        with contextlib.ExitStack() as stack:
            for name, made in {
                "KeyedExecutor": self._lines,
                "CallbackExecutor": self._calls,
                "Questions": self._questions,
            }.items():
                stack.enter_context(mock.patch.object(engine, name, made))
            self.seller = AutoSeller(
                self._session, wallet, sender=self.sender, journal=self.journal, policy=POLICY, exit_api=api
            )
        self.seller.on_outcome(reported)
        self.seller.on_problem(reported)

    def _open(self, path: str) -> Journal:
        journal = Journal(path)
        writer = journal._writer
        writer._start = lambda: False  # type: ignore[method-assign]
        writer._copies_log = False
        write = writer._write

        def dies_around(batch: Any) -> None:
            self.kills.look()
            write(batch)
            self.kills.look()

        writer._write = dies_around  # type: ignore[method-assign]
        put = writer.put

        def may_wait(work: Any, then: Any) -> None:
            if self.is_disk_slow:
                writer._urgent.append(_Item(work, durable=True, then=then))
            else:
                put(work, then)

        writer.put = may_wait  # type: ignore[method-assign]
        return journal

    def _lines(self, _workers: int, on_trouble: Any) -> ModelLines:
        self.lines = ModelLines(self.clock, on_trouble)
        return self.lines

    def _calls(self, *_: object) -> InlineCalls:
        return InlineCalls(self.kills)

    def _questions(self, *given: Any) -> Questions:
        questions = Questions(*given)
        for name, value in vars(questions).items():
            if isinstance(value, ThreadPoolExecutor):
                setattr(questions, name, ModelPool(self._ask, is_rest=not _asks_nodes(value._thread_name_prefix)))
        return questions

    def _ask(self, work: Callable[[], None], *, is_rest: bool) -> None:
        delay_s = LATE_S if is_rest and self._api.mood == "late" else 0.0
        self._answers.append((self.clock.now_s + delay_s, work))

    def _write(self, text: str) -> bool:
        self.kills.look()
        message = json.loads(text)
        if message["type"] != "configure":
            self._told(message)
        return True

    # -- what happens to it

    def connect(self) -> None:
        """``hello_ok`` comes; announcements are to follow."""
        lifecycle = self._connection.reader.lifecycle
        lifecycle.state = ConnectionState.CONNECTING
        lifecycle.opened()
        greeting: Any = server_message_from_text(json.dumps(hello(lifecycle.sessions, int(self.clock.time() * 1000))))
        self._connection.reader.hello, self._connection.reader.hello_at = greeting, self.clock.now_s
        self._writer.begin(_Link())  # type: ignore[arg-type]
        self._writer.go_live()
        self._session._state.event(
            Connected(hello=greeting, attempts=1, reconnected=lifecycle.sessions > 1, gap_seconds=0.0)
        )
        self._announcements_end = self.clock.now_s + self._connection.options.resync_grace_s

    def lose(self) -> None:
        """The link ends."""
        self._session._state.event(Disconnected(reason="lost"))
        self._connection.reader.lifecycle.state = ConnectionState.CONNECTING
        self._writer.end(self.clock.now_s)
        self._announcements_end = None

    def start(self) -> None:
        with mock.patch.object(engine, "warm_up", _no_thread):
            self.seller.start()

    def receive(self, message: ServerMessage) -> None:
        """As ``ConnectedLoop`` does it."""
        state, received_ns = self._session._state, self.clock.monotonic_ns()
        if not state.router.take(message, received_ns):
            if message.type == "position_closed":
                self._writer.observe(message)
            state.message(message, received_ns)

    def work(self) -> None:
        """What workers and pollers would do by now."""
        if self._announcements_end is not None and self._announcements_end <= self.clock.now_s:
            self._announcements_end = None
            self._writer.end_announcements()
            if self._session._state._tracker.resync_due_in_s() is not None:
                self._session._state._tell(self._session._state._tracker.end_resync())
        self.journal._writer._drain()
        self.lines.run()
        self.sender.work()
        self.settle_down()

    def settle_down(self) -> None:
        """Tasks, and the answers to what they asked, until nothing can be done now."""
        self.lines.run()
        while due := [one for one in self._answers if one[0] <= self.clock.now_s]:
            self._answers.remove(due[0])
            due[0][1]()
            self.lines.run()

    def has_recorded(self, signature: str) -> bool:
        """Whether a signature is committed to the journal's file."""
        connection = self.journal._connection
        assert connection is not None
        assert not connection.in_transaction
        return connection.execute("SELECT 1 FROM attempts WHERE signature = ?", (signature,)).fetchone() is not None

    def bury(self) -> None:
        """What the system does for a process that is dead: its descriptors are closed; what waited is lost."""
        self.kills.left, self.kills.is_dead = None, True
        self.lines.close(None)
        writer = self.journal._writer
        writer._urgent.clear()
        writer._others.clear()
        writer._is_at_work = False
        self.journal.close()
        self._connection.reader.wake_up.close()
