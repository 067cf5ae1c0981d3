"""Children of every kind of fork: refused at once, silent when they close, and never in their parent's way."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import textwrap

import pytest

from lasersell_sync.runtime import fork_guard
from tests.support.processes import Program
from tests.support.raw_fork import raw_fork
from tests.support.stream_server import Peer, ScriptedServer, opened, pnl
from tests.support.waiting import PATIENCE_S, until
from tests.workers.programs import PRELUDE

#: How a child is made: with Python's hooks, and as C code makes one (uWSGI, other extensions), which runs none.
_RAW_FORK = f"{inspect.getsource(raw_fork)}\nfork = raw_fork\n"
FORKS = {
    "os.fork": "fork = os.fork\n",
    "fork() of C": _RAW_FORK,
    "fork() of C, no page": (
        f"{_RAW_FORK}from lasersell_sync.runtime import fork_guard; fork_guard._mark = fork_guard._IdMark()\n"
    ),
}
every_fork = pytest.mark.parametrize("fork", FORKS)
both_backends = pytest.mark.parametrize("backend", ["as built", "pure"])


def run_forking(fork: str, program: str, url: str, backend: str = "as built") -> subprocess.CompletedProcess[str]:
    text = PRELUDE + FORKS[fork] + textwrap.dedent(program)
    env = {"LASERSELL_PURE": "1"} if backend == "pure" else {}
    with Program("-W", "ignore", "-c", text, url, stderr=subprocess.PIPE, env=env) as child:
        code, stdout, stderr = child.end(3 * PATIENCE_S)
        return subprocess.CompletedProcess(child.process.args, code, stdout, stderr)


def busy(peer: Peer) -> None:
    peer.greet()
    peer.send(opened(), *(pnl(profit_units=n) for n in range(5)))
    peer.serve()


@both_backends
@every_fork
def test_forked_child_is_refused_and_its_close_changes_nothing(fork: str, backend: str) -> None:
    """Every call raises ForkedProcessError, close() is silent, and the parent's one link lives on."""
    program = """
    session = connect()
    session.wait_for("position_opened", 10)
    sender = session.sender()
    session.events.get(timeout=10)  # from here on what waits is handed out on the fast way
    child = fork()
    if child == 0:
        calls = [
            lambda: session.events.get(timeout=5), session.events.get_nowait, session.recv, session.positions,
            lambda: session.wait_for("pong", 5), lambda: sender.ping(1), session.stats, session.health, session.start,
            session.connection.stats, session.connection.recv,
        ]
        refused, started = 0, time.monotonic()
        for call in calls:
            try: call()
            except ForkedProcessError as error: refused += str(os.getppid()) in str(error)
        for _ in range(2):
            session.close()
            session.connection.close()
        with session: pass
        os.write(1, f"{refused} of {len(calls)} {time.monotonic() - started < 4.5}\\n".encode())
        os._exit(0)
    os.waitpid(child, 0)
    sender.ping(2)
    print(session.status.value, flush=True)
    session.close()
    """
    with ScriptedServer(busy) as server:
        done = run_forking(fork, program, server.url, backend)
        assert done.stdout == "11 of 11 True\nlive\n", done.stdout + done.stderr
        assert done.stderr == ""
        peer = server.peer()
        until(lambda: peer.received[-1] == {"type": "ping", "client_time_ms": 2})
        assert server.peers.empty()
        until(lambda: peer.connection.state.name == "CLOSED")
        assert peer.connection.close_code == 1000


@every_fork
def test_forked_child_that_ends_by_itself_prints_nothing_and_takes_nothing_down(fork: str) -> None:
    """``atexit.register(session.close)`` and ``with``, as programs under a pre-forking server have them."""
    program = """
    import atexit
    session = connect()
    atexit.register(session.close)
    session.wait_for("hello_ok", 10)
    child = fork()
    if child == 0:
        with session:
            pass
        atexit._run_exitfuncs()
        os._exit(0)
    os.waitpid(child, 0)
    session.sender().ping(2)
    print(session.status.value, flush=True)
    """
    with ScriptedServer() as server:
        done = run_forking(fork, program, server.url)
        assert (done.stdout, done.stderr) == ("live\n", "")
        peer = server.peer()
        until(lambda: peer.received[-1] == {"type": "ping", "client_time_ms": 2})
        assert server.peers.empty()


@every_fork
def test_forked_child_can_make_a_session_of_its_own(fork: str) -> None:
    """With the same key: the parent's connection is not this process's, and is not closed for it."""
    program = """
    parent = connect()
    parent.wait_for("hello_ok", 10)
    child = fork()
    if child == 0:
        with connect() as own:
            own.wait_for("hello_ok", 10)
            own.events.get(timeout=10); own.events.get(timeout=10)
            own.sender().ping(1)
            os.write(1, own.status.value.encode() + b"\\n")
        os._exit(0)
    print(os.waitpid(child, 0)[1], parent.status.value)
    parent.close()
    """
    with ScriptedServer() as server:
        done = run_forking(fork, program, server.url)
        assert done.stdout == "live\n0 live\n", done.stdout + done.stderr


@pytest.mark.parametrize("fork", ["os.fork", "fork() of C"])
def test_forked_child_keeps_no_link_open_that_its_parent_lost(fork: str) -> None:
    """The server sees the end of a killed parent although a child of it lives on."""
    program = """
    session = connect()
    session.wait_for("hello_ok", 10)
    child = fork()
    if child == 0:
        try: session.positions()  # without hooks the child notices with its first call
        except ForkedProcessError: os.write(1, f"child {os.getpid()}\\n".encode())
        time.sleep(120)
        os._exit(0)
    time.sleep(120)
    """
    with ScriptedServer() as server:
        text = PRELUDE + FORKS[fork] + textwrap.dedent(program)
        with Program("-W", "ignore", "-c", text, server.url, stderr=subprocess.PIPE) as parent:
            child = int(parent.line_with("child ").split()[1])
            try:
                peer = server.peer()
                parent.process.kill()
                until(lambda: peer.connection.state.name == "CLOSED")
            finally:
                os.kill(child, signal.SIGKILL)


def test_forked_childs_close_of_sender_seller_and_recorder_is_silent() -> None:
    """They belong to the parent: nothing is closed, joined, written or raised."""
    program = """
    import tempfile
    from solders.keypair import Keypair
    folder = tempfile.mkdtemp()
    session = connect()
    sender = TxSender(SendTargetRpc("http://127.0.0.1:9"))
    sender.track("1" * 64, blockhash="1" * 32)
    recorder = Recorder(folder + "/recording")
    seller = AutoSeller(session, Signer.from_keypair(Keypair()), sender=sender, journal=folder + "/journal")
    seller.start()
    child = fork()
    if child == 0:
        started = time.monotonic()
        for thing in (seller, recorder, sender, session):
            thing.close()
        os.write(1, f"silent {time.monotonic() - started < 4.5}\\n".encode())
        os._exit(0)
    os.waitpid(child, 0)
    print(session.status.value, flush=True)
    for thing in (seller, recorder, sender, session):
        thing.close()
    """
    with ScriptedServer() as server:
        for fork in ("os.fork", "fork() of C"):
            done = run_forking(fork, program, server.url)
            assert done.stdout == "silent True\nlive\n", done.stdout + done.stderr


def test_process_guard_asks_the_system_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a hot path a look at a page has to do; where the kernel has no such page, the process id is asked for."""
    guard = fork_guard.ProcessGuard("thing")
    if isinstance(fork_guard._mark, fork_guard._IdMark):
        pytest.skip("this system wipes no pages")

    def refuse() -> int:
        raise AssertionError("a system call on the hot path")

    monkeypatch.setattr(os, "getpid", refuse)
    guard.check()
    assert not guard.is_child


def test_what_is_registered_for_children_runs_once_in_each() -> None:
    """At once, or with the first look where the fork ran no hooks; in the grandchild too, and never in the parent."""
    program = """
    from lasersell_sync.runtime import fork_guard
    fork_guard.after_fork(lambda: os.write(1, b"once\\n"))
    child = fork()
    if child == 0:
        for _ in range(3): fork_guard.notice_fork()
        grandchild = fork()
        if grandchild == 0:
            for _ in range(3): fork_guard.notice_fork()
            os._exit(0)
        os.waitpid(grandchild, 0)
        os._exit(0)
    os.waitpid(child, 0)
    fork_guard.notice_fork()
    print("parent", fork_guard.process_id() == os.getpid())
    """
    for fork in FORKS:
        done = run_forking(fork, program, "unused")
        assert done.stdout == "once\nonce\nparent True\n", (fork, done.stdout, done.stderr)
