"""Signal handlers that use the session which they interrupt: no deadlock, and a command queues behind the other one."""

from __future__ import annotations

import signal
import subprocess
import textwrap
import threading

import pytest

from lasersell_sync import Ping, StrategyConfig, StreamConfigure
from lasersell_sync.stream.desired_state import DesiredState
from lasersell_sync.stream.writer import FrameWriter
from tests.support.processes import Program
from tests.support.stream_server import WALLET, Peer, ScriptedServer, opened
from tests.support.waiting import PATIENCE_S, until
from tests.workers.programs import PRELUDE

both_backends = pytest.mark.parametrize("backend", ["as built", "pure"])

#: A signal some hundred microseconds from now, whose handler calls ``interrupting``; again and again.
HAMMER = """
import faulthandler, random, signal
faulthandler.dump_traceback_later(60, exit=True)
seed = int(os.environ.get("SEED", "1")); print("seed", seed, file=sys.stderr)
R = random.Random(seed)
hits = 0
def handler(*_):
    global hits
    hits += 1
    interrupting()
    again()
def again(): signal.setitimer(signal.ITIMER_REAL, R.uniform(0.0002, 0.002))
signal.signal(signal.SIGALRM, handler)
def hammer(calls, enough=400):
    again()
    n = 0
    while hits < enough:
        calls[n % len(calls)](); n += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
"""


def one_position(peer: Peer) -> None:
    peer.greet()
    peer.send(opened())
    peer.serve()


def finish(program: str, url: str, backend: str) -> subprocess.CompletedProcess[str]:
    env = {"LASERSELL_PURE": "1"} if backend == "pure" else {}
    text = PRELUDE + HAMMER + textwrap.dedent(program)
    with Program("-W", "ignore", "-c", text, url, stderr=subprocess.PIPE, env=env) as child:
        code, stdout, stderr = child.end(5 * PATIENCE_S)
        return subprocess.CompletedProcess([], code, stdout, stderr)


@both_backends
def test_facts_and_commands_in_a_signal_handler_wait_for_no_lock_of_the_interrupted_call(backend: str) -> None:
    """``health``, ``positions``, ``stats`` and commands interrupt each other some hundred times."""
    program = """
    session = connect()
    session.on("*", lambda event: None)
    session.start()
    handle = session.wait_for("position_opened", 10).handle
    sender = session.sender()
    strategies = [StrategyConfig(target_profit_pct=1.0 + n, stop_loss_pct=1.0) for n in range(7)]
    count = 0
    def interrupting():
        global count
        count += 1
        session.health(); session.positions(); session.stats(); session.pnl(handle); session.connection.stats()
        sender.ping(count)
        session.update_strategy(strategies[count % 7], 100.0 + count)
        sender.update_position_strategy(handle.token_account, strategies[count % 7])
    hammer([
        lambda: sender.ping(0), lambda: session.update_strategy(strategies[0], 50.0), session.health, session.positions,
        session.stats,
        lambda: sender.update_position_strategy(handle.token_account, strategies[1]),
    ])
    print(session.status.value, count == hits, flush=True)
    session.close()
    """
    with ScriptedServer(one_position) as server:
        done = finish(program, server.url, backend)
        assert done.stdout == "live True\n", done.stdout + done.stderr[-3000:]
        peer = server.peer()
        until(lambda: peer.connection.state.name == "CLOSED")
        # Every ping of a handler arrived, in the order in which they were given.
        given = [message["client_time_ms"] for message in peer.received if message["type"] == "ping"]
        numbered = [number for number in given if number]
        assert numbered == sorted(numbered)
        assert len(numbered) >= 400
        assert not server.errors


@both_backends
@pytest.mark.parametrize(
    "call",
    [
        "session.update_strategy(strategies[n % 7], 100.0)",
        "session.sender().ping(n)",
        "session.positions()",
        "session.health()",
        "session.close()",
        "wait(session)",
        "get(session)",
    ],
)
def test_close_in_a_signal_handler_that_interrupted_a_call_of_the_session_ends_it(call: str, backend: str) -> None:
    """Forty sessions: close() returns at once, the interrupted call goes on or raises, and everything ends."""
    program = f"""
    import queue
    strategies = [StrategyConfig(target_profit_pct=1.0 + n, stop_loss_pct=1.0) for n in range(7)]
    def wait(session):
        try: session.wait_for("pong", 0.01)
        except queue.Empty: pass
    def get(session):
        try: session.events.get(timeout=0.01)
        except queue.Empty: pass
    session, longest, closed = None, 0.0, 0
    def interrupting():
        global longest, closed
        started = time.monotonic()
        session.close()
        closed += 1
        longest = max(longest, time.monotonic() - started)
    def again(): pass
    for trial in range(15):
        session, before, n = connect(), closed, 0
        session.wait_for("hello_ok", 10)
        signal.setitimer(signal.ITIMER_REAL, R.uniform(0.0005, 0.01))
        try:
            while closed == before: n += 1; {call}
        except StreamClosed: pass
        while closed == before: time.sleep(0.001)
        session.close()
        assert session.status.value == "closed", session.status
    print(closed, longest < 4.5, [t.name for t in threading.enumerate() if t.name.startswith("lasersell")], flush=True)
    """
    with ScriptedServer(one_position) as server:
        done = finish(program, server.url, backend)
        assert done.stdout == "15 True []\n", done.stdout + done.stderr[-3000:]


def test_command_of_a_signal_handler_queues_behind_the_interrupted_one() -> None:
    """Deterministic: the handler comes while the first command's frame is being written."""

    class Link:
        unsent_bytes = 0

        def __init__(self) -> None:
            self.frames: list[bytes] = []

        def send(self, data: memoryview) -> int:
            if len(self.frames) == 1:  # configure is out, this is the command
                self.frames.append(b"")
                signal.raise_signal(signal.SIGUSR1)
            self.frames.append(bytes(data))
            return len(data)

        def flush(self) -> None:
            pass

    desired = DesiredState(StreamConfigure([WALLET], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=5.0)))
    writer, link, order = FrameWriter(desired, limit_bytes=1 << 20, wake_reader=lambda: None), Link(), []

    def handler(*_: object) -> None:
        order.append(writer.is_interrupted)
        writer.command(Ping(client_time_ms=22222))
        order.append(len(link.frames))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        writer.begin(link)  # type: ignore[arg-type]
        writer.go_live()
        writer.command(Ping(client_time_ms=11111))
    finally:
        signal.signal(signal.SIGUSR1, before)
    # Nothing was written while the handler ran, and its own command after the interrupted one.
    assert order == [True, 2]
    assert len(link.frames) == 4
    assert len(link.frames[2]) == len(link.frames[3])
    assert writer.commands_sent == 3
    assert not writer.is_interrupted


def test_commands_of_two_threads_still_take_turns() -> None:
    """The queue behind a command is for the same thread's signal handlers alone."""
    desired = DesiredState(StreamConfigure([WALLET], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=5.0)))
    entered, let_go, sent = threading.Event(), threading.Event(), []

    class Link:
        unsent_bytes = 0

        def send(self, data: memoryview) -> int:
            sent.append(threading.current_thread().name)
            if threading.current_thread().name == "first":
                entered.set()
                let_go.wait(PATIENCE_S)
            return len(data)

        def flush(self) -> None:
            pass

    writer = FrameWriter(desired, limit_bytes=1 << 20, wake_reader=lambda: None)
    writer.begin(Link())  # type: ignore[arg-type]
    writer.go_live()
    threads = [
        threading.Thread(target=lambda: writer.command(Ping(client_time_ms=1)), name=name)
        for name in ("first", "second")
    ]
    threads[0].start()
    assert entered.wait(PATIENCE_S)
    threads[1].start()
    assert not writer.is_interrupted
    let_go.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sent[-2:] == ["first", "second"]


#: A seller of an own session, whose node does not answer; sends nothing.
SELLING = """
    import tempfile
    from solders.keypair import Keypair
    folder, signer = tempfile.mkdtemp(), Signer.from_keypair(Keypair())
    session = connect()
    def make_sender(): return TxSender(SendTargetRpc("http://127.0.0.1:9"), keep_warm_s=None)
    def make_seller(sender): return AutoSeller(session, signer, sender=sender, journal=":memory:")
    def ends_with(call):
        try: call()
        except (ConcurrencyError, JournalError): pass
"""


def test_facts_of_seller_and_sender_in_a_signal_handler_wait_for_no_lock_of_the_interrupted_call() -> None:
    """Reports, pauses and refusals interrupt each other some hundred times."""
    program = """
    sender = make_sender()
    seller = make_seller(sender).start()
    pending = sender.track("1" * 64, blockhash="1" * 32)
    count = 0
    def interrupting():
        global count
        sender.undecided(); sender.late_landings; repr(sender); repr(pending); pending.done()
        seller.pause(); seller.resume(); seller.is_paused; seller.refused(); seller.on_problem(print)
        count += 1
    hammer([
        lambda: sender.track("1" * 64, blockhash="1" * 32), sender.undecided, lambda: pending.result(0.0001),
        seller.pause, seller.resume, seller.refused, lambda: seller.on_problem(print),
    ])
    print(count == hits, flush=True)
    seller.close(); sender.close(); session.close()
    """
    with ScriptedServer() as server:
        done = finish(SELLING + program, server.url, "as built")
        assert done.stdout == "True\n", done.stdout + done.stderr[-3000:]


@pytest.mark.parametrize(
    ("make", "call"),
    [
        ("sender = make_sender()", "sender.track('1' * 64, blockhash='1' * 32).result(0.001)"),
        ("sender = make_sender()", "sender.warm(timeout_s=0.01)"),
        ("sender = make_sender()", "sender.close()"),
        ("sender = make_seller(used := make_sender())", "sender.start(); sender.close()"),
        ("sender = make_seller(used := make_sender()).start()", "sender.pause(); sender.resume()"),
        ("sender = make_seller(used := make_sender()).start()", "sender.refused()"),
        ("sender = Journal(folder + '/journal' + str(trial))", "sender.exits()"),
        ("sender = Journal(folder + '/journal' + str(trial))", "sender.close()"),
        ("sender = Recorder(folder + '/recording' + str(trial))", "sender.frames_written"),
        ("sender = Recorder(folder + '/recording' + str(trial))", "sender.close()"),
        ("sender = ExitApiClient()", "sender._ready()"),
    ],
)
def test_close_in_a_signal_handler_that_interrupted_a_call_of_seller_or_sender_ends_it(make: str, call: str) -> None:
    """Fifteen of them: close() does not wait for the interrupted call, which goes on or raises; no thread is left."""
    program = f"""
    longest, closed = 0.0, 0
    def interrupting():
        global longest, closed
        started = time.monotonic()
        sender.close()
        closed += 1
        longest = max(longest, time.monotonic() - started)
    def again(): pass
    def left():
        return [t.name for t in threading.enumerate() if t.name.startswith("lasersell") and t.name not in of_session]
    of_session = [t.name for t in threading.enumerate()]
    def use():
        while closed == before: {call}
    for trial in range(15):
        used = None  # a seller's sender
        {make}
        before = closed
        signal.setitimer(signal.ITIMER_REAL, R.uniform(0.0002, 0.01))
        ends_with(use)
        while closed == before: time.sleep(0.001)
        sender.close()
        if used: used.close()
    ends = time.monotonic() + 20
    while left() and time.monotonic() < ends: time.sleep(0.01)
    print(closed, longest < 4.5, left(), flush=True)
    session.close()
    """
    with ScriptedServer() as server:
        done = finish(SELLING + program, server.url, "as built")
        assert done.stdout == "15 True []\n", done.stdout + done.stderr[-3000:]


def test_close_in_a_signal_handler_while_a_result_is_waited_for_ends_the_wait() -> None:
    """Nobody will settle it: the wait for ever returns what is known."""
    program = """
    sender = make_sender()
    pending = sender.track("1" * 64, blockhash="1" * 32)
    def interrupting(): sender.close()
    def again(): pass
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    print(pending.result().outcome.value, flush=True)
    session.close()
    """
    with ScriptedServer() as server:
        done = finish(SELLING + program, server.url, "as built")
        assert done.stdout == "unknown\n", done.stdout + done.stderr[-3000:]
