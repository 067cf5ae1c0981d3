"""Forks, endings, notebooks, cooperative threads: the ways a process treats a session."""

from __future__ import annotations

import signal
import subprocess
import textwrap

import pytest

from tests.support.processes import Program
from tests.support.stream_server import Peer, ScriptedServer
from tests.support.waiting import PATIENCE_S, until
from tests.workers.programs import PRELUDE, run


def test_a_forked_child_is_refused_at_once_and_the_parent_goes_on() -> None:
    """Every call on an inherited session raises ForkedProcessError, also while the parent holds its locks."""
    program = """
    session = connect()
    sender = session.sender()
    session.wait_for("hello_ok", 10)
    session.events._lock.acquire()  # a child must not wait for a lock that nobody will release
    child = os.fork()
    if child == 0:
        calls = [
            lambda: session.events.get(timeout=5), session.recv, session.positions, lambda: session.wait_for("pong", 5),
            lambda: sender.ping(1), session.stats, session.health, session.start, session.run,
            lambda: session.on("*", print) and session.start(),
        ]
        refused = 0
        started = time.monotonic()
        for call in calls:
            try: call()
            except ForkedProcessError as error: refused += str(os.getppid()) in str(error)
        os.write(1, f"{refused} of {len(calls)} {time.monotonic() - started < 4.5}\\n".encode())
        os._exit(0)
    os.waitpid(child, 0)
    session.events._lock.release()
    sender.ping(2)
    print(session.status.value, flush=True)
    session.close()
    """
    with ScriptedServer() as server:
        done = run(program, server.url)
        assert done.stdout == "10 of 10 True\nlive\n", done.stderr
        peer = server.peer()
        until(lambda: peer.received[-1] == {"type": "ping", "client_time_ms": 2})


def test_a_child_can_make_a_session_of_its_own() -> None:
    """Only what is inherited is refused: workers connect after the fork."""
    program = """
    parent = connect()
    child = os.fork()
    if child == 0:
        with connect() as own:
            own.wait_for("hello_ok", 10)
            os.write(1, b"own session\\n")
        os._exit(0)
    print(os.waitpid(child, 0)[1], parent.status.value)
    parent.close()
    """
    with ScriptedServer() as server:
        done = run(program, server.url)
        assert done.stdout == "own session\n0 live\n", done.stderr


@pytest.mark.parametrize(
    "ending",
    [
        "sys.exit(0)",
        "pass",
        "import atexit; atexit.register(lambda: sys.exit(0))",
        "import atexit; atexit.register(lambda: print(session.status.value))",
        "threading.Thread(target=lambda: time.sleep(0.1)).start()",
    ],
)
def test_a_program_that_forgets_to_close_still_ends_quickly_and_says_goodbye(ending: str) -> None:
    """No hang, no traceback, no second session left on the server."""
    program = f"""
    session = connect()
    session.on("*", lambda event: None)
    session.start()
    session.wait_for("hello_ok", 10)
    {ending}
    """
    with ScriptedServer() as server:
        done = run(program, server.url)
        assert done.returncode == 0
        # Python itself grumbles about a sys.exit in atexit; nothing of ours may.
        assert "lasersell" not in done.stderr
        assert "atexit" in ending or done.stderr == ""
        peer = server.peer()
        until(lambda: peer.connection.state.name == "CLOSED")
        assert peer.connection.close_code == 1000


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_signals_end_a_process_within_three_seconds(name: str) -> None:
    """SIGTERM by its default action, Ctrl-C through KeyboardInterrupt; no traceback of ours."""
    program = PRELUDE + textwrap.dedent(
        """
        session = connect()
        session.wait_for("hello_ok", 10)
        try:
            print("ready", flush=True)  # inside: the signal may come before run() is called
            session.run()
        except KeyboardInterrupt:
            pass
        """
    )
    arguments = ("-W", "ignore", "-c", program)
    with ScriptedServer() as server, Program(*arguments, server.url, stderr=subprocess.PIPE) as child:
        child.line_with("ready")
        child.process.send_signal(getattr(signal, name))
        code, _, err = child.end(6.0)  # twice the promise
        assert err == ""
        assert code == (-signal.SIGTERM if name == "SIGTERM" else 0)


def test_a_notebook_cell_run_twice_leaves_one_session_and_no_extra_thread() -> None:
    """The second connect closes the first, which would be refused or doubled otherwise."""
    program = """
    cell = "session = connect(); session.on('*', lambda event: None); session.start(); session.wait_for('hello_ok', 10)"
    names = lambda: sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("lasersell"))
    exec(cell); first, once = session, names()
    exec(cell)
    ends = time.monotonic() + 10  # the first one's threads were told to end
    while names() != once and time.monotonic() < ends: time.sleep(0.01)
    print(first.status.value, session.status.value, names() == once, once)
    session.close()
    """
    with ScriptedServer() as server:
        done = run(program, server.url)
        assert done.stdout == "closed live True ['lasersell-dispatch', 'lasersell-reader']\n", done.stderr
        server.peer()
        server.peer()
        assert server.peers.empty()


def test_start_close_start_works_with_one_client() -> None:
    """Ten sessions one after the other: each works, and threads and descriptors stay what they were."""
    program = """
    client = StreamClient("key").with_endpoint(URL)
    configure = StreamConfigure(["7Np41oeYqPefeNQEHSv1UDhYrehxin3NStELsSKCT4K2"], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=0.0))
    counts = []
    for _ in range(10):
        with StreamSession.connect(client, configure) as session:
            session.on("*", lambda event: None)
            session.start()
            session.wait_for("hello_ok", 10)
        counts.append((threading.active_count(), len(os.listdir("/proc/self/fd"))))
    print(len(set(counts)) == 1, counts[0][0])
    """
    with ScriptedServer() as server:
        done = run(program, server.url)
        assert done.stdout == "True 1\n", done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["gevent", "eventlet"])
def test_patched_before_import_works(kind: str) -> None:
    """Cooperative threads from the start: events arrive while another green thread runs, and everything ends."""
    before = {
        "gevent": "from gevent import monkey; monkey.patch_all()",
        "eventlet": "import eventlet; eventlet.monkey_patch()",
    }[kind]
    program = """
    ticks = []
    def other():
        for n in range(50):
            ticks.append(n); time.sleep(0.01)
    thread = threading.Thread(target=other); thread.start()
    with connect() as session:
        seen = [session.events.get(timeout=10).type for _ in range(2)]
        try: session.events.get(timeout=0.3)
        except Exception as error: seen.append(type(error).__name__)
        session.sender().ping(7)
    thread.join()
    print(seen, len(ticks), backend() == os.environ.get("EXPECTED_BACKEND", backend()))
    """
    with ScriptedServer() as server:
        done = run(program, server.url, before=before + "\n")
        assert done.stdout == "['connected', 'hello_ok', 'Empty'] 50 True\n", done.stderr[-2000:]


@pytest.mark.parametrize("kind", ["gevent", "eventlet"])
def test_patched_after_import_is_refused(kind: str) -> None:
    """A native lock would freeze the hub; the error says what to do instead."""
    patch = {
        "gevent": "from gevent import monkey; monkey.patch_all()",
        "eventlet": "import eventlet; eventlet.monkey_patch()",
    }[kind]
    program = f"""
    {patch}
    try: connect()
    except ConcurrencyError as error: print("{kind}" in str(error), "import lasersell_sync after" in str(error))
    """
    with ScriptedServer() as server:
        done = run(program, server.url)
        assert done.stdout == "True True\n", done.stderr[-2000:]


def test_a_real_gunicorn_gevent_worker_serves_a_session() -> None:
    """gunicorn's gevent worker patches before the application is imported; its one worker owns the session."""
    import tempfile
    import urllib.request
    from pathlib import Path

    def answer_pings(peer: Peer) -> None:
        """Whatever the test takes: a server that is silent for 15 s, or a worker that stands still, makes a new link."""
        peer.greet()
        while peer.recv()["type"] == "ping":
            peer.send({"type": "pong", "server_time_ms": 1})

    with ScriptedServer(answer_pings) as server, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "shop.py").write_text(
            "import sys\nsys.argv[1:] = ["
            + repr(server.url)
            + "]\n"
            + PRELUDE
            + textwrap.dedent(
                """
                session = None
                def app(environ, start_response):
                    global session
                    if session is None:
                        session = connect(stall_after_s=600, app_pong_timeout_s=600, pong_timeout_s=600)
                        session.wait_for("hello_ok", 10)
                    start_response("200 OK", [("Content-Type", "text/plain")])
                    return [session.status.value.encode()]
                """
            )
        )
        where = ("--bind", "127.0.0.1:0", "--chdir", folder)
        with Program("-m", "gunicorn", "--worker-class", "gevent", "--workers", "1", *where, "shop:app") as gunicorn:
            # From here on the kernel takes connections, whether the worker is there yet or not.
            address = gunicorn.line_with("Listening at: ").split("Listening at: ")[1].split(" ")[0]
            for _ in range(3):
                with urllib.request.urlopen(address, timeout=3 * PATIENCE_S) as answer:
                    assert answer.read() == b"live"
            peer = server.peer()
            gunicorn.process.send_signal(signal.SIGTERM)
            gunicorn.end(3 * PATIENCE_S)
            until(lambda: peer.connection.state.name == "CLOSED")
            assert server.peers.empty()
