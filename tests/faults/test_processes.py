"""Real processes: stopped and continued, interrupted, terminated, and left in every way there is."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

import lasersell_sync
from tests.faults.rigs import WebsocketsRig, since
from tests.support.fault_proxy import Connection
from tests.support.processes import Program
from tests.support.stream_server import WALLET, closed, exit_signal, opened, text_frame
from tests.support.waiting import PATIENCE_S, until

#: The promise for a program that is told to stop, and for the attempt after waking.
STOPS_WITHIN_S = 3.0
WAKES_WITHIN_S = 3.0

HEAD = f"""
import atexit, os, signal, sys, threading, time
{{first}}
from lasersell_sync import *
client = StreamClient("key", options=StreamOptions({{options}})).with_endpoint(sys.argv[1])
configure = StreamConfigure([{WALLET!r}], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=0.0){{deadline}})
session = StreamSession.connect(client, configure)
greeted = threading.Event()
def say(words):
    os.write(1, (words + "\\n").encode())  # one write: two threads speak
def tell(event):
    say("event " + event.type)
    if event.type == "hello_ok":
        greeted.set()
session.on("*", tell)
session.start()
assert greeted.wait({PATIENCE_S})  # and so the first "connected" was told
say("ready")
"""


def program(rig: WebsocketsRig, body: str, *, first: str = "", options: str = "", deadline: str = "") -> Program:
    code = HEAD.format(first=first, options=options, deadline=deadline) + textwrap.dedent(body)
    return Program("-W", "ignore", "-c", code, rig.proxy.url, stderr=subprocess.PIPE)


# ── stopped and continued ────────────────────────────────────────────────────────────────────────────────────────

#: A timer is a second late at the latest after pong_timeout_s (a ping may be under way) and stall_after_s: 2.5 s. No
#: loaded machine stops a process for that long.
SOON = "stall_after_s=1.0, ping_interval_s=1.0, pong_timeout_s=1.5"
SOON_STOPPED_S = 3.5


def stop(rig: WebsocketsRig, child: Program) -> Connection:
    """Stop the process while its reader waits, a moment after a pong; the connection it has.

    A stop that meets the reader at work ends before its wait has begun, and makes no timer late.
    """
    connection = rig.proxy.wait_for_connection(1)
    while True:
        rig.proxy.settled()
        so_far = connection.sent_to_client
        until(lambda so_far=so_far: connection.sent_to_client > so_far)  # type: ignore[misc]
        until(lambda: states(child) == {"S"})
        asleep_in = calls(child)
        child.process.send_signal(signal.SIGSTOP)
        until(lambda: states(child) == {"T"})
        if calls(child) == asleep_in:
            return connection
        # It woke up in between, as this test may have been kept from going on for long.
        child.process.send_signal(signal.SIGCONT)


def calls(child: Program) -> list[str]:
    """The system call that each of the process's threads is in; nothing where the kernel does not tell."""
    tasks = sorted(Path(f"/proc/{child.process.pid}/task").iterdir())
    with contextlib.suppress(OSError):
        return [(task / "syscall").read_text() for task in tasks]
    return []


def states(child: Program) -> set[str]:
    """What the kernel says of the process's threads: S asleep, T stopped, R running."""
    tasks = Path(f"/proc/{child.process.pid}/task").iterdir()
    return {(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks}


def stop_and_continue(rig: WebsocketsRig, options: str, stopped_s: float) -> None:
    with program(rig, "threading.Event().wait(300)", options=options) as child:
        child.line_with("ready")
        stop(rig, child)
        time.sleep(stopped_s)  # the fault itself
        rig.proxy.settled()
        assert rig.proxy.accepted == 1
        woken_at = time.monotonic()
        child.process.send_signal(signal.SIGCONT)
        rig.proxy.wait_for_connection(2, 2 * WAKES_WITHIN_S)
        assert since(woken_at) <= 2 * WAKES_WITHIN_S
        child.line_with("event disconnected")
        child.line_with("event connected")


def test_a_stopped_process_reconnects_soon_after_waking(plain_rig: WebsocketsRig) -> None:
    """Stopped until a timer is ``stall_after_s`` late, then continued: reconnects within 3 s, though the link answers."""
    stop_and_continue(plain_rig, SOON, SOON_STOPPED_S)


@pytest.mark.slow
def test_a_process_stopped_for_a_minute_at_the_default_numbers(plain_rig: WebsocketsRig) -> None:
    """SIGSTOP 60 s then SIGCONT with default options."""
    stop_and_continue(plain_rig, "", 60.0)


def test_what_reached_the_socket_of_a_stopped_process_is_delivered(plain_rig: WebsocketsRig) -> None:
    """An exit signal that the kernel took in while the process stood still is delivered after waking, not thrown away."""
    with program(plain_rig, "threading.Event().wait(300)", options=SOON) as child:
        child.line_with("ready")
        connection = stop(plain_rig, child)
        plain_rig.proxy.settled()
        before = connection.sent_to_client
        signal_frame = text_frame(exit_signal(7))
        plain_rig.send(signal_frame)
        # The server's last word is in the kernel's buffer: acknowledged to the last byte.
        until(lambda: connection.reached_client >= before + len(signal_frame))
        time.sleep(SOON_STOPPED_S)  # the fault itself
        child.process.send_signal(signal.SIGCONT)
        events = []
        while "event connected" not in events:
            events.append(child.line_with("event").strip())
        assert "event exit_signal_with_tx" in events


def test_a_busy_process_is_not_taken_for_a_stopped_one(plain_rig: WebsocketsRig) -> None:
    """Pure Python that hogs the interpreter for a while is no reason to drop a good link."""
    body = """
    ends = time.monotonic() + 3.0
    while time.monotonic() < ends:
        sum(range(100_000))
    say(f"still {session.stats().sessions}")
    session.close()
    """
    with program(plain_rig, body, options="stall_after_s=1.5, ping_interval_s=0.2, pong_timeout_s=1.5") as child:
        assert child.line_with("still") == "still 1\n"


# ── the wall clock ───────────────────────────────────────────────────────────────────────────────────────────────

STEPPING_CLOCK = """
real_time, real_time_ns = time.time, time.time_ns
offset = [0.0]
time.time = lambda: real_time() + offset[0]
time.time_ns = lambda: real_time_ns() + int(offset[0] * 1e9)
"""


@pytest.mark.parametrize("step_s", [3600, -3600])
def test_a_step_of_the_wall_clock_means_nothing(plain_rig: WebsocketsRig, step_s: int) -> None:
    """An hour forth or back: no deadline fires early, none is forgotten, no link is dropped, timers go on."""
    body = f"""
    session.wait_for("position_opened", {PATIENCE_S})
    offset[0] = {step_s}
    say("stepped")
    threading.Event().wait(300)
    """
    deadline_s = 3.0
    options = "ping_interval_s=0.2, pong_timeout_s=2.0, app_ping_interval_s=0.3, app_pong_timeout_s=2.0"
    deadline = f", deadline_timeout_sec={deadline_s}"
    with program(plain_rig, body, first=STEPPING_CLOCK, options=options, deadline=deadline) as child:
        child.line_with("ready")
        opened_at = time.monotonic()
        plain_rig.send(opened(7))
        child.line_with("stepped")
        assert not plain_rig.commands()
        until(plain_rig.commands)
        assert plain_rig.commands()[0]["type"] == "request_exit_signal"
        assert deadline_s <= since(opened_at) <= 2 * deadline_s
        assert plain_rig.sessions == 1
        plain_rig.send(closed(7))
        child.line_with("event position_closed")


#: Where the library may ask for the wall clock, and why; sandbox and command line have a world of their own.
WALL_CLOCK_IS_NEEDED = {
    "autosell/signing_gate.py": "a journal tells the next process when something was spent",
    "autosell/journal.py": "people read when a sale was made",
    "autosell/position_seller.py": "people read when a transaction was refused",
    "autosell/legs.py": "a leg's name is of its time, so that no other process makes the same",
    "recording.py": "a recording tells when it was made",
    "retry.py": "Retry-After may be a date",
    "network/http_framing.py": "how far this machine's clock is off, by an answer's Date",
    "stream/connected_loop.py": "clock_offset_ms tells how far our wall clock is off",
    "stream/writer.py": "the application ping tells our wall clock",
    "trading/solana/signing.py": "a proof of ownership holds the time of its making",
}


def test_the_wall_clock_is_read_where_it_is_needed_and_nowhere_else() -> None:
    """No timer counts on ``time.time``: each file that reads the wall clock is listed here with its reason."""
    root = Path(lasersell_sync.__file__).parent
    reads = re.compile(r"\btime\.time(_ns)?\b|\bdatetime\.(now|utcnow)\b|\bfrom time import\b[^\n]*\btime\b")
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if reads.search(path.read_text()) and path.relative_to(root).parts[0] not in ("sandbox", "cli")
    }
    unlisted = sorted(found - set(WALL_CLOCK_IS_NEEDED))
    assert not unlisted, f"these read the wall clock without a listed reason: {unlisted}"


#: What a program that configures no logging says of a link that breaks, on stderr: this line, once, and no other.
LINK_LOST = re.compile(r"the link was lost: 127\.0\.0\.1:\d+: link failed: [^\n]+\n")


def said_otherwise(stderr: str, *, link_lost: bool) -> str:
    """What was said on stderr besides the one warning of a lost link, which must be there."""
    rest, warnings = LINK_LOST.subn("", stderr)
    assert warnings == int(link_lost), stderr
    return rest


# ── the end of a program ─────────────────────────────────────────────────────────────────────────────────────────

ENDINGS = {
    "falls off the end": "",
    "sys.exit in main": "sys.exit(7)",
    "an exception in main": "raise LookupError('the user\\'s own')",
    "sys.exit in atexit": "atexit.register(lambda: sys.exit(7))",
    "close in atexit": "atexit.register(session.close)",
    "commands in atexit": "atexit.register(lambda: session.sender().ping(1))",
    "a new session in atexit": "atexit.register(lambda: StreamSession.connect(client, configure))",
    "with a handler that hangs": "",
    "os._exit": "os._exit(7)",
}


HANGS = f"""
entered = threading.Event()
session.on("error", lambda event: (entered.set(), threading.Event().wait(60)))
say("listening")
assert entered.wait({PATIENCE_S})
say("hanging")
"""


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("link", ["up", "down"])
def test_a_program_that_ends_is_gone_soon(plain_rig: WebsocketsRig, ending: str, link: str) -> None:
    """However main ends, with the link up or in backoff: gone within 3 s, without a traceback of ours."""
    hangs = ending == "with a handler that hangs"
    body = HANGS if hangs else ""
    if link == "down":
        body += f"session.wait_for('disconnected', {PATIENCE_S})\n"
    body += "say('ending')\n" + ENDINGS[ending]
    with program(plain_rig, body) as child:
        child.line_with("ready")
        if hangs:
            child.line_with("listening")
            plain_rig.send({"type": "error", "code": "note", "message": "hang on"})
            child.line_with("hanging")
        if link == "down":
            plain_rig.proxy.refuse()
            plain_rig.proxy.reset()
        child.line_with("ending")
        code, _, stderr = child.end(2 * STOPS_WITHIN_S)
    complaints = [
        line for line in stderr.splitlines() if "lasersell_sync" in line and "lasersell_sync.exceptions" not in line
    ]
    if ending not in ("commands in atexit", "a new session in atexit"):
        assert not complaints, stderr
    assert "Fatal Python error" not in stderr, stderr
    assert "can't start new thread" not in stderr, stderr
    if "sys.exit in main" in ending or ending == "os._exit":
        assert code == 7
    if ending == "falls off the end":
        assert (code, said_otherwise(stderr, link_lost=link == "down")) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("weather", ["fair", "down", "black hole"])
def test_a_program_that_is_told_to_stop_is_gone_soon(
    plain_rig: WebsocketsRig, number: signal.Signals, weather: str
) -> None:
    """Ctrl-C and SIGTERM end a program in ``session.run()`` or asleep within 3 s, whatever the link does."""
    body = """
    try:
        with session:
            say("waiting")
            threading.Event().wait(300)
    except KeyboardInterrupt:
        say("interrupted")
    """
    with program(plain_rig, body) as child:
        child.line_with("waiting")
        if weather == "down":
            plain_rig.proxy.refuse()
            plain_rig.proxy.reset()
            child.line_with("event reconnecting")
        elif weather == "black hole":
            plain_rig.proxy.black_hole()
        started = time.monotonic()
        child.process.send_signal(number)
        code, out, stderr = child.end(2 * STOPS_WITHIN_S)
        assert since(started) <= 2 * STOPS_WITHIN_S
        assert said_otherwise(stderr, link_lost=weather == "down") == ""
        assert code == (0 if number is signal.SIGINT else -signal.SIGTERM)
        if number is signal.SIGINT:
            assert out.endswith("interrupted\n")


def test_ctrl_c_while_connecting_into_a_black_hole(plain_rig: WebsocketsRig) -> None:
    """The first connect can be interrupted too."""
    plain_rig.proxy.black_hole()
    code = HEAD.format(first="print('go', flush=True)", options="", deadline="")
    with Program("-W", "ignore", "-c", code, plain_rig.proxy.url, stderr=subprocess.PIPE) as child:
        plain_rig.proxy.wait_for_connection(1)
        child.process.send_signal(signal.SIGINT)
        returned, _, stderr = child.end(2 * STOPS_WITHIN_S)
        assert returned != 0
        assert stderr.rstrip().endswith("KeyboardInterrupt")
