"""``lasersell-sync demo``: the story as a process, on a pipe and on a terminal, and its bad ends."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import pytest

import lasersell_sync
from lasersell_sync.cli.demo_run import DemoError, play
from lasersell_sync.cli.screens import SilentScreen
from lasersell_sync.cli.wording import Ledger, LedgerError
from tests.support.processes import IMPORT_ROOT, PATIENCE_S, command, in_this_process, surroundings

WITHIN_S = 30.0


def test_json_is_one_object_with_the_facts_of_a_closed_trade():
    """Scripts read stdout; it holds nothing else."""
    with command("demo", "--json", "--seed", "3") as program:
        code, stdout, stderr = program.end()
    assert code == 0, stderr
    facts = json.loads(stdout)
    assert stdout.count("\n") == 1
    assert facts["ok"] is True
    assert facts["seed"] == 3
    assert facts["backend"] == lasersell_sync.backend()
    assert facts["version"] == lasersell_sync.__version__
    assert facts["reason"] == "target_profit"
    assert facts["profit_lamports"] == facts["balance_after_lamports"] - facts["balance_before_lamports"] > 0
    assert facts["signal_profit_lamports"] >= facts["entry_lamports"] * 0.15
    assert facts["buy_signature"] != facts["exit_signature"]
    times = facts["times"]
    assert 0 < times["signed_ms"] <= times["submitted_ms"] <= times["landed_ms"]
    assert facts["reconnects"] == facts["decode_errors"] == 0
    assert facts["duration_s"] < WITHIN_S


def test_without_a_terminal_it_tells_the_story_in_plain_lines():
    """CI logs: no escape sequences, every step on one line, the summary at the end."""
    with command("demo") as program:
        code, stdout, stderr = program.end()
    assert code == 0, stderr
    assert "\x1b" not in stdout
    titles = (
        "Exchange:",
        "Wallet:",
        "Stream:",
        "Buy:",
        "Position:",
        "now:",
        "Exit signal:",
        "Sale:",
        "Closed:",
        "Summary",
    )
    places = [stdout.find(title) for title in titles]
    assert -1 not in places
    assert places == sorted(places)
    assert f"backend: {lasersell_sync.backend()}" in stdout


def test_on_a_terminal_the_table_lives_and_fits():
    """80 columns are enough, and the cursor is given back."""
    control, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    environment = {**surroundings(), "PYTHONPATH": str(IMPORT_ROOT), "TERM": "xterm-256color"}
    with subprocess.Popen(
        [sys.executable, "-m", "lasersell_sync", "demo"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
    ) as process:
        os.close(terminal)
        output = _read_all(control)
        assert process.wait(PATIENCE_S) == 0, output
    assert output.count("Profit/loss") > 5, "the table is drawn again and again"
    assert output.rfind("\x1b[?25h") > output.rfind("\x1b[?25l") > 0, "the cursor is shown again"
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output).replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= 80


def _read_all(control: int) -> str:
    """Everything until the other side of the terminal is closed."""
    chunks = []
    try:
        while chunk := os.read(control, 65536):
            chunks.append(chunk)
    except OSError:
        pass  # how Linux says that the last writer is gone
    os.close(control)
    return b"".join(chunks).decode()


def test_too_little_time_is_a_failure_in_words():
    with command("demo", "--json", "--timeout", "1.5") as program:
        code, stdout, stderr = program.end()
    assert code == 1
    answer = json.loads(stdout)
    assert answer["ok"] is False
    assert answer["error"]
    assert answer["error"] in stderr
    assert "Traceback" not in stderr


def test_ctrl_c_ends_it_without_a_traceback():
    with command("demo") as program:
        program.line_with("Position:")
        code, _, stderr = program.stop(signal.SIGINT)
    assert code == 1
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    "arguments", [("--timeout", "0"), ("--timeout", "nan"), ("--seed", "-1"), ("--jsn",), ("extra",)]
)
def test_arguments_that_make_no_sense_are_refused(arguments: tuple[str, ...]):
    done = in_this_process("demo", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr


def test_a_ledger_that_disagrees_fails_the_demo(monkeypatch: pytest.MonkeyPatch):
    """The stream's word is not enough."""
    monkeypatch.setattr(Ledger, "token_balance", lambda *_: 5)
    with pytest.raises(DemoError, match="5 atomic units"):
        play(seed=1, timeout_s=WITHIN_S, screen=SilentScreen())


def test_a_ledger_that_does_not_answer_is_told():
    with pytest.raises(LedgerError, match="getBalance"):
        Ledger("http://127.0.0.1:1").balance_lamports("x")
