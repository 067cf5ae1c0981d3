"""Every receiving contestant in a process of its own, kept for all rounds: none lives in another one's heap.

A worker connects, takes the greeting, tells that it is ready, and does one job; then it leaves and tells the outcome.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import resource
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from benchmarks.peers import RECEIVERS, Official, Queue, Receiver
from benchmarks.sender import STAMP, STAMP_MS, Prepared, Script, Sender, Sent

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Count", "Counted", "Idle", "IdleCost", "Job", "Live", "Load", "Memory", "Stalled", "Watch", "Workers"]

PATIENCE_S: Final = 150.0
#: After a stall: a sender that had to wait is still sending when its time is over.
DRAIN_S: Final = 10.0
Load = Literal["nothing", "compute_5_us", "compute_50_us", "sleep_50_ms"]


class Job(Protocol):
    """What a worker does once the greeting is over; ``ready`` tells that the stream may start."""

    lossless: bool

    def __call__(self, receiver: Receiver, ready: Callable[[], None]) -> Any: ...


# ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Counted:
    """A stream was received.

    Attributes:
        ended_ns: when its last message was in the hands of user code.
        grown_mib: by how much resident memory ever grew since all positions were open.
    """

    ended_ns: int
    grown_mib: float


@dataclass(frozen=True)
class Count:
    """Receive so many messages, all of them; ``beside_work``: while another thread of the process computes."""

    messages: int
    beside_work: bool = False
    lossless = True

    def __call__(self, receiver: Receiver, ready: Callable[[], None]) -> Counted:
        grown = _Grown()
        with _busy_thread() if self.beside_work else contextlib.nullcontext():
            ended_ns = receiver.count(self.messages, ready)
        return Counted(ended_ns, grown.mib())


@dataclass(frozen=True)
class Watch:
    """How late each of so many exit signals is; the list of ns.

    Attributes:
        exits: how many come.
        load: what the handler of everything else does; how long Python computes depends on the machine.
        beside_work: while another thread of the process computes.
    """

    exits: int
    load: Load = "nothing"
    beside_work: bool = False
    lossless = False

    def __call__(self, receiver: Receiver, ready: Callable[[], None]) -> list[int]:
        late_ns: list[int] = []

        def on_exit(now_ns: int, stamp: int) -> bool:
            late_ns.append(now_ns - (stamp - STAMP))
            return len(late_ns) == self.exits

        with _busy_thread() if self.beside_work else contextlib.nullcontext():
            receiver.watch(on_exit, _LOADS[self.load], ready)
        return late_ns


def _nothing(_message: object) -> None:
    pass


def _compute(rounds: int) -> int:
    total = 0
    for value in range(rounds):
        total += value * value
    return total


_LOADS: Final[dict[Load, Callable[[object], object]]] = {
    "nothing": _nothing,
    "compute_5_us": lambda _message: _compute(120),
    "compute_50_us": lambda _message: _compute(1200),
    "sleep_50_ms": lambda _message: time.sleep(0.05),
}


@dataclass(frozen=True)
class IdleCost:
    """What waiting cost the process: CPU time, and how often one of its threads went to sleep again."""

    seconds: float
    cpu_s: float
    switches: int


@dataclass(frozen=True)
class Idle:
    """Wait for one message on an idle link."""

    lossless = False

    def __call__(self, receiver: Receiver, ready: Callable[[], None]) -> IdleCost:
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        receiver.count(1, ready)
        after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - started
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return IdleCost(seconds, cpu_s, after.ru_nvcsw - before.ru_nvcsw)


@dataclass(frozen=True)
class Memory:
    """What a stream of updates did to a consumer.

    Attributes:
        grown_mib: by how much resident memory ever grew since all positions were open.
        oldest_ms: the greatest age that the newest known value of a position ever had.
        exits: high-lane messages received.
    """

    grown_mib: float
    oldest_ms: float
    exits: int


@dataclass(frozen=True)
class Live:
    """Take every update at once, until so many exit signals have come."""

    exits: int
    lossless = False

    def __call__(self, receiver: Receiver, ready: Callable[[], None]) -> Memory:
        newest: dict[int, int] = {}
        seen, oldest_ms = 0, 0
        update_of = receiver.update_of

        def on_low(message: object) -> None:
            nonlocal oldest_ms
            update = update_of(message)
            if update is not None:
                position_id, stamp_ms = update
                # A value is oldest when the next one takes its place.
                age_ms = _now_ms() - newest.get(position_id, _now_ms())
                newest[position_id] = stamp_ms - STAMP_MS
                oldest_ms = max(oldest_ms, age_ms)

        def on_exit(_now_ns: int, _stamp: int) -> bool:
            nonlocal seen
            seen += 1
            return seen == self.exits

        grown = _Grown()
        receiver.watch(on_exit, on_low, ready)
        return Memory(grown.mib(), oldest_ms, seen)


@dataclass(frozen=True)
class Stalled:
    """Take nothing for so many seconds, as long as the stream lasts, then everything that waits.

    Attributes:
        exits: how many should have come.
    """

    seconds: float
    exits: int
    lossless = False

    def __call__(self, receiver: Receiver, ready: Callable[[], None]) -> Memory:
        grown = _Grown()
        ready()
        if isinstance(receiver, Official):
            # It has no bound, so its growth is all there is to see; what piled up would take minutes to read.
            receiver.ignore(self.seconds)
            return Memory(grown.mib(), 0.0, 0)
        assert isinstance(receiver, Queue)
        oldest_ms = self._watch_state(receiver)
        return Memory(grown.mib(), oldest_ms, self._drain(receiver))

    def _drain(self, receiver: Queue) -> int:
        """How many exit signals waited."""
        found, until = 0, time.monotonic() + DRAIN_S
        with contextlib.suppress(queue.Empty):
            while found < self.exits and (left_s := until - time.monotonic()) > 0:
                batch = receiver.session.events.get_batch(timeout=left_s)
                found += sum(receiver.stamp_of(event) is not None for event in batch)
        return found

    def _watch_state(self, receiver: Queue) -> float:
        """The state is kept by the reader: however far behind a consumer is, ``session.pnl()`` is current."""
        handles = receiver.session.positions()
        watched = handles[:: max(1, len(handles) // 100)]
        oldest_ms, until = 0.0, time.monotonic() + self.seconds
        while (left_s := until - time.monotonic()) > 0:
            updates = [receiver.session.pnl(handle) for handle in watched]
            ages_ms = [_now_ms() - (update.server_time_ms - STAMP_MS) for update in updates if update is not None]
            oldest_ms = max(oldest_ms, *ages_ms, 0.0)
            time.sleep(min(0.25, left_s))
        return oldest_ms


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class _Grown:
    """Growth of the process's resident memory since this was made, its peaks included."""

    def __init__(self) -> None:
        # The peak starts anew; where the kernel does not let us, earlier ones count too.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._before_kib = self._read("VmRSS")

    def mib(self) -> float:
        return max(0, self._read("VmHWM") - self._before_kib) / 1024

    @staticmethod
    def _read(field: str) -> int:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field))


@contextlib.contextmanager
def _busy_thread() -> Iterator[None]:
    """Another thread that computes all the time, in Python, as a strategy might."""
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            sum(value * value for value in range(1000))

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# ── the driver's side ────────────────────────────────────────────────────────────────────────────────────────────


class Workers:
    """One sender, and the contestants' processes, each started when first needed. Use as a context manager."""

    def __init__(self) -> None:
        self._sender = Sender()
        self._processes: dict[str, tuple[Any, Connection]] = {}

    def run(self, contestant: str, script: Script, job: Job) -> tuple[Any, Sent]:
        """Let one contestant receive a stream: its outcome, and the sender's."""
        pipe = self._pipe_to(contestant)
        pipe.send((self._sender.prepare(script), job))
        self._expect(pipe, contestant, ready=True)
        self._sender.go()
        outcome = self._expect(pipe, contestant)
        return outcome, self._sender.sent()

    def process_id(self, contestant: str) -> int:
        """Of one that has run."""
        pid: int = self._processes[contestant][0].pid
        return pid

    def retire(self, contestant: str) -> None:
        """End a contestant's process; its next run begins with a fresh one."""
        process, pipe = self._processes.pop(contestant)
        pipe.close()
        process.terminate()
        process.join()

    def close(self) -> None:
        """End all processes."""
        for contestant in list(self._processes):
            self.retire(contestant)
        self._sender.__exit__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pipe_to(self, contestant: str) -> Connection:
        if contestant not in self._processes:
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, contestant), name=contestant, daemon=True)
            process.start()
            theirs.close()
            self._processes[contestant] = process, ours
        return self._processes[contestant][1]

    @staticmethod
    def _expect(pipe: Connection, contestant: str, *, ready: bool = False) -> Any:
        if not pipe.poll(PATIENCE_S):
            raise TimeoutError(f"{contestant} was silent for {PATIENCE_S:g} s")
        answer = pipe.recv()
        if type(answer) is not _Failure and ready == (answer is None):
            return answer
        raise RuntimeError(f"{contestant} failed:\n{getattr(answer, 'text', answer)}")


@dataclass(frozen=True)
class _Failure:
    text: str


def _work(pipe: Connection, contestant: str) -> None:
    """A worker's life."""
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while True:
            prepared, job = pipe.recv()
            try:
                outcome = _receive(contestant, prepared, job, lambda: pipe.send(None))
            except Exception:  # noqa: BLE001 - the driver reports it
                outcome = _Failure(traceback.format_exc())
            pipe.send(outcome)


def _receive(contestant: str, prepared: Prepared, job: Job, ready: Callable[[], None]) -> Any:
    receiver = RECEIVERS[contestant][1](prepared, job.lossless)
    try:
        receiver.count(receiver.greeting + prepared.positions, lambda: None)
        outcome = job(receiver, ready)
        if isinstance(job, Count):
            receiver.check(prepared.positions + job.messages)
        return outcome
    finally:
        receiver.close()
