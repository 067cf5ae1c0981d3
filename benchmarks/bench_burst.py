"""Many exits at once: from the frame read to the request read by a node in another process.

Usage: ``python -m benchmarks.bench_burst [--json] [--versions] [--seconds S] [--require-peers] [--only CASE …]
[--beside PYTHON]``

Each burst has a fresh seller process (``burst_seller``) with the default guard and a journal on disk, whose sender is
warm. A burst's frames are written in one go; its value is the 99th percentile over its exits. A single exit comes
after a pause of 0.3 s; its values are all exits. An exit that no node has read after 20 s counts as 20 s.

"+ 10 ms": every fsync and fdatasync of the seller takes 10 ms longer (``slow_sync.c``, loaded before the C library).
``--beside PYTHON`` is the interpreter of another checkout's environment: that seller takes turns with ours, on the same
positions. The official SDK signs and sends without journal, guard and confirmation, and opens a connection for each; it
does not say when it read a frame, so its time begins just before the frames are written.

With less than a second for each case, bursts are small and pauses short: that shows that the benchmark works, and its
numbers mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import burst_trades, command, data
from benchmarks.burst_nodes import ROUTER_TRADES, Node, Ways
from benchmarks.burst_trades import Position
from benchmarks.command import missing_packages
from benchmarks.rounds import Table, interleave, percentile
from benchmarks.sender import Channel, Client
from benchmarks.targets import OFFICIAL

if TYPE_CHECKING:
    from typing_extensions import Self

OURS: Final = "ours"
BEFORE: Final = "ours, the commit before"
_HERE: Final = Path(__file__).parent
_SINGLES: Final = 12
_SLOW_SYNC_US: Final = 10_000
_DIRECT_POSITIONS: Final = 400
_LEVELS: Final = 40


@dataclass(frozen=True)
class Pace:
    """How long a round waits.

    Attributes:
        settle_s: before what is measured.
        pause_s: between exits that come one by one.
        patience_s: for a node to read an exit.
    """

    settle_s: float
    pause_s: float
    patience_s: float


#: It settles for longer than the second after which an idle journal copies its log.
MEASURING: Final = Pace(settle_s=2.0, pause_s=0.3, patience_s=20.0)
QUICK: Final = Pace(settle_s=0.2, pause_s=0.02, patience_s=5.0)


@dataclass(frozen=True)
class Case:
    """One situation.

    Attributes:
        key: its table's.
        title: of the table.
        exits: how many come at once.
        is_single: they come one by one, after pauses.
        skips_first: the first exit of each process does not count.
        settling: exits that were sent before and settle in the same moment.
        is_slow_sync: each fsync takes 10 ms longer.
        answer_delay_s: of the target.
        connections: of the sender, to each target.
        silent_targets, targets: how many never answer, and come first; and how many do.
        router: sales through a program of unknown layout, which nodes simulate.
        simulation_delay_s: of the simulating node.
        hanging_simulators, simulators: how many never answer, and come first; and how many do.
        is_tls: the target is served over TLS, and nobody warms the sender.
        beside: what hangs meanwhile: ``balances``, ``rest`` or ``callback``.
        official: the official SDK can play.
    """

    key: str
    title: str
    exits: int = 100
    is_single: bool = False
    skips_first: bool = False
    settling: int = 0
    is_slow_sync: bool = False
    answer_delay_s: float = 0.0
    connections: int | None = None
    silent_targets: int = 0
    targets: int = 1
    router: bool = False
    simulation_delay_s: float = 0.0
    hanging_simulators: int = 0
    simulators: int = 1
    is_tls: bool = False
    beside: str = ""
    official: bool = False

    @property
    def is_burst(self) -> bool:
        """Whether a round's value is the 99th percentile of its exits."""
        return not self.is_single and self.exits > 1

    def small(self) -> Case:
        """The same with few exits."""
        return replace(self, exits=min(self.exits, 10), settling=min(self.settling, 20))


CASES: Final = (
    Case("single", "1 exit after a pause", _SINGLES, is_single=True, official=True),
    Case("n100", "100 exits at once", 100, official=True),
    Case("n100_sync", "100 exits at once, each fsync 10 ms longer", 100, is_slow_sync=True),
    Case("n300", "300 exits at once", 300, official=True),
    Case("n300_sync", "300 exits at once, each fsync 10 ms longer", 300, is_slow_sync=True),
    Case("settling", "100 exits at once while 300 others settle", 100, settling=300),
    Case(
        "settling_sync", "100 exits at once while 300 others settle, each fsync 10 ms longer", 100, settling=300,
        is_slow_sync=True,
    ),
    Case(
        "answers_64", "100 exits at once, target answers after 100 ms, 64 connections", 100, answer_delay_s=0.1,
        connections=64, official=True,
    ),
    Case(
        "answers_128", "100 exits at once, target answers after 100 ms, 128 connections", 100, answer_delay_s=0.1,
        connections=128,
    ),
    Case("silent_40", "40 exits at once, first of three targets never answers", 40, silent_targets=1, targets=2),
    Case("silent_100", "100 exits at once, first of three targets never answers", 100, silent_targets=1, targets=2),
    Case("beside_balances", "a stop loss while 40 unfinished exits ask a hanging node", 1, beside="balances"),
    Case("beside_rest", "a stop loss while 40 levels ask a hanging REST API", 1, beside="rest"),
    Case("beside_callback", "a stop loss beside an `on_outcome` that takes 5 s", 1, beside="callback"),
    Case(
        "router", "100 exits at once through the Router, simulation answers after 100 ms", 100, router=True,
        simulation_delay_s=0.1,
    ),
    Case(
        "router_hanging", "40 exits at once through the Router, the only simulating node hangs", 40, router=True,
        hanging_simulators=1, simulators=0,
    ),
    Case(
        "router_one_hangs", "40 exits at once through the Router, one of two simulating nodes hangs", 40, router=True,
        hanging_simulators=1,
    ),
    Case("tls_first", "first exit of a process, over TLS, not warmed", 1, is_tls=True),
    Case("tls_later", "later exits of a process, over TLS", _SINGLES, is_single=True, is_tls=True, skips_first=True,),
)  # fmt: skip


def measure(seconds: float, *, only: Sequence[str] = (), beside: str | None = None) -> command.Outcome:
    """All cases, each in alternating rounds.

    Args:
        seconds: for all of them, about.
        only: keys of the cases; empty: all.
        beside: the interpreter of the other checkout.
    """
    cases = [case for case in CASES if not only or case.key in only]
    at_least = 3 if seconds >= 5 * len(cases) else 1
    is_quick = seconds < len(cases)
    outcome = command.Outcome()
    with contextlib.ExitStack() as stack:
        stage = Stage(stack, QUICK if is_quick else MEASURING)
        for case in cases:
            programs = {OURS: [sys.executable, "-I", str(_HERE / "burst_seller.py")]}
            if beside is not None:
                programs[BEFORE] = [beside, "-I", str(_HERE / "burst_seller.py")]
            if case.official and not missing_packages(["lasersell-sdk"]):
                programs[OFFICIAL] = [sys.executable, "-I", str(_HERE / "burst_official.py")]
            played = case.small() if is_quick else case
            turns = {name: partial(stage.play, played, program) for name, program in programs.items()}
            table = Table(case.key, case.title, "ms, 99th percentile of a burst" if case.is_burst else "ms")
            outcome.tables.append(table.fill(interleave(turns, seconds / len(cases), at_least=at_least)))
    return outcome


# ── one round ────────────────────────────────────────────────────────────────────────────────────────────────────


class Stage:
    """The nodes of all cases, started when first needed, and one round after the other.

    Args:
        stack: closes them.
        pace: of all rounds.
    """

    def __init__(self, stack: contextlib.ExitStack, pace: Pace) -> None:
        self._stack = stack
        self._pace = pace
        self._nodes: dict[str, Node] = {}
        self._router = burst_trades.RouterTrades(ROUTER_TRADES)
        self._slow_sync: Path | None = None

    def play(self, case: Case, program: Sequence[str]) -> list[float]:
        """Milliseconds that the exits took, or their 99th percentile."""
        targets = [self._node(f"target {number}", is_tls=case.is_tls) for number in range(case.targets)]
        hanging = [self._node(f"hanging rpc {number}") for number in range(case.hanging_simulators)]
        rpcs = [self._node(f"rpc {number}") for number in range(case.simulators)]
        self._set_ways(case, targets, rpcs, hanging)
        with tempfile.TemporaryDirectory(dir=_HERE) as folder, _silent_target() as silent_url, Stream() as stream:
            task = self._task(case, stream.url, Path(folder, "journal"))
            task |= {
                "targets": [silent_url] * case.silent_targets + [node.url for node in targets],
                "rpcs": [node.url for node in (*hanging, *rpcs)], "rest": silent_url if case.beside == "rest" else None,
                "ca_file": targets[0].ca_file if case.is_tls else None,
            }  # fmt: skip
            with _seller(program, task, self._environment(case)) as seller:
                burst = _Burst(case, self._pace, self._positions(case), stream, targets, rpcs)
                return burst.values(seller)

    def _node(self, name: str, *, is_tls: bool = False) -> Node:
        name += " over TLS" if is_tls else ""
        if name not in self._nodes:
            self._nodes[name] = self._stack.enter_context(Node(is_tls=is_tls))
        return self._nodes[name]

    def _set_ways(self, case: Case, targets: list[Node], rpcs: list[Node], hanging: list[Node]) -> None:
        refused = frozenset(one.message for one in self._positions(case)[1 : 1 + _LEVELS])
        for node in targets:
            node.behave(Ways(case.answer_delay_s, refuses=refused if case.beside == "rest" else frozenset()))
        balances = frozenset({"getMultipleAccounts"}) if case.beside == "balances" else frozenset()
        for node in rpcs:
            node.behave(Ways(case.simulation_delay_s, hangs_on=balances))
        for node in hanging:
            node.behave(Ways(hangs_on=frozenset({"simulateTransaction"})))

    def _positions(self, case: Case) -> Sequence[Position]:
        return self._router.positions if case.router else burst_trades.direct_positions(_DIRECT_POSITIONS)

    def _task(self, case: Case, stream_url: str, journal: Path) -> dict[str, Any]:
        keypair = burst_trades.router_keypair() if case.router else burst_trades.direct_keypair()
        left = self._positions(case)[1 : 1 + _LEVELS] if case.beside == "balances" else ()
        return {
            "stream": stream_url, "journal": str(journal), "keypair": list(bytes(keypair)),
            "wallet": str(keypair.pubkey()), "warms": not case.is_tls,
            "sender": {} if case.connections is None else {"connections": case.connections},
            "unfinished": [(one.token_account, one.mint) for one in left],
            "callback_s": 5.0 if case.beside == "callback" else 0.0,
        }  # fmt: skip

    def _environment(self, case: Case) -> dict[str, str]:
        if not case.is_slow_sync:
            return dict(os.environ)
        if self._slow_sync is None:
            self._slow_sync = Path(self._stack.enter_context(tempfile.TemporaryDirectory()), "slow_sync.so")
            compiler = os.environ.get("CC", "cc")
            subprocess.run(
                [compiler, "-shared", "-fPIC", "-O2", "-o", self._slow_sync, _HERE / "slow_sync.c", "-ldl"], check=True
            )
        return {**os.environ, "LD_PRELOAD": str(self._slow_sync), "SYNC_DELAY_US": str(_SLOW_SYNC_US)}


@dataclass
class _Burst:
    """The positions of one round, and what is written about them."""

    case: Case
    pace: Pace
    positions: Sequence[Position]
    stream: Stream
    targets: Sequence[Node]
    rpcs: Sequence[Node]
    #: By message, when a node had read it first.
    read_ns: dict[bytes, int] = field(default_factory=dict)
    #: By token account, when its exit signal was about to be written.
    written_ns: dict[str, int] = field(default_factory=dict)

    def values(self, seller: _Seller) -> list[float]:
        """Milliseconds of each exit, or their 99th percentile."""
        case = self.case
        new = self._prepare()
        if case.is_single:
            for position in new:
                self._signal([position])
                time.sleep(self.pace.pause_s)
        else:
            self._signal(new)
        signalled_ns = seller.signalled_ns()
        took_ms = [self._took_ms(position, signalled_ns) for position in new[case.skips_first :]]
        return [percentile(took_ms, 0.99)] if case.is_burst else took_ms

    def _prepare(self) -> Sequence[Position]:
        """Announce everything and bring about what hangs; the positions whose exits count."""
        case, positions = self.case, self.positions
        self.stream.write(b"".join(one.opened(number) for number, one in enumerate(positions)))
        time.sleep(self.pace.settle_s)
        if case.settling:
            others = positions[case.exits : case.exits + case.settling]
            self._signal(others)
            self.rpcs[0].land_all()
        elif case.beside:
            self._bring_about(case.beside, positions[1 : 1 + _LEVELS])
        return positions[: case.exits]

    def _bring_about(self, beside: str, others: Sequence[Position]) -> None:
        if beside == "rest":
            frames = [one.exit_signal(1 + number, level=0) for number, one in enumerate(others)]
            self.stream.write(b"".join(frames))
            self._wait_for(others)
        elif beside == "callback":
            # What is no transaction is refused, and that is an outcome.
            for number, one in enumerate(others[:8]):
                self.stream.write(Position(one.wallet, one.mint, one.token_account, 1, "AAAA").exit_signal(1 + number))
        time.sleep(self.pace.settle_s)

    def _signal(self, positions: Sequence[Position]) -> None:
        number_of = {one.token_account: number for number, one in enumerate(self.positions)}
        frames = b"".join(one.exit_signal(number_of[one.token_account]) for one in positions)
        self.written_ns.update(dict.fromkeys((one.token_account for one in positions), time.monotonic_ns()))
        self.stream.write(frames)
        self._wait_for(positions)

    def _wait_for(self, positions: Sequence[Position]) -> None:
        """Until every target has read all of them."""
        until_s = time.monotonic() + self.pace.patience_s
        for node in self.targets:
            found = node.wait_for((one.message for one in positions), max(0.0, until_s - time.monotonic()))
            for message, read_ns in found.items():
                self.read_ns[message] = min(read_ns, self.read_ns.get(message, read_ns))

    def _took_ms(self, position: Position, signalled_ns: dict[str, int]) -> float:
        read_ns = self.read_ns.get(position.message)
        if read_ns is None:
            return self.pace.patience_s * 1e3
        account = position.token_account
        return (read_ns - signalled_ns.get(account, self.written_ns[account])) / 1e6


# ── who takes part ───────────────────────────────────────────────────────────────────────────────────────────────


class _Seller:
    """A seller's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self._answer() == "ready"

    def signalled_ns(self) -> dict[str, int]:
        """When it read each exit signal, by token account."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        read_ns: dict[str, int] = self._answer()
        return read_ns

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a seller's process has ended")
        return json.loads(line)


@contextlib.contextmanager
def _seller(program: Sequence[str], task: dict[str, Any], environment: dict[str, str]) -> Iterator[_Seller]:
    process = subprocess.Popen(
        [*program, json.dumps(task)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield _Seller(process)
    finally:
        process.kill()
        process.communicate()


class Stream:
    """A stream server for one client, in this process: it greets, answers pings, and writes frames in one go."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}/v1/ws"
        self._greeted = threading.Event()
        self._sock: socket.socket | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = Client(Channel(sock))
            sock.sendall(data.frame(json.dumps(_hello()).encode()))
            self._sock = sock
            self._greeted.set()
            client.answer(until_ns=None)

    def write(self, frames: bytes) -> None:
        """In one go, once the client is greeted."""
        assert self._greeted.wait(MEASURING.patience_s)
        assert self._sock is not None
        self._sock.sendall(frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, self._sock):
            if sock is not None:
                sock.close()


def _hello() -> dict[str, object]:
    limits = {"hi_capacity": 256, "pnl_flush_ms": 100, "max_positions_per_session": 20_000}
    return {"type": "hello_ok", "session_id": 1, "server_time_ms": time.time_ns() // 1_000_000, "limits": limits}


@contextlib.contextmanager
def _silent_target() -> Iterator[str]:
    """It takes connections, and reads nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def main() -> int:
    """The command line: the options of this benchmark, and those of every one."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--only", nargs="+", default=(), choices=[case.key for case in CASES])
    parser.add_argument("--beside")
    options, others = parser.parse_known_args()
    run = partial(measure, only=options.only, beside=options.beside)
    return command.main(__doc__, run, peers=("lasersell-sdk", "solders"), seconds=300, argv=others)


if __name__ == "__main__":
    sys.exit(main())
