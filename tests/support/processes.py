"""Programs of ours as real processes: started, watched, told to stop."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

import lasersell_sync

#: Where the package under test is imported from; a child must import the same one.
IMPORT_ROOT = Path(lasersell_sync.__file__).resolve().parents[1]
#: Where the tests themselves are, some of which are programs; behind it, for the package may be installed elsewhere.
TESTS_ROOT = Path(__file__).resolve().parents[2]
#: What a user grants a program that was told to stop; asserted twice as wide.
STOPS_WITHIN_S = 3.0
#: Only a program that hangs takes this long.
PATIENCE_S = 60.0


def surroundings() -> dict[str, str]:
    """This process's environment, less what would change how a program looks."""
    # rich believes these before it asks the terminal.
    looks = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}
    kept = {name: value for name, value in os.environ.items() if name not in looks}
    if lasersell_sync.backend() == "pure":
        # Without a compiled core the child would warn of it at import, which is not what its tests are about.
        kept["LASERSELL_PURE"] = "1"
    return kept


class Program:
    """A child process whose output is text; both streams together, unless ``stderr`` is given."""

    def __init__(
        self,
        *arguments: str,
        env: dict[str, str] | None = None,
        stderr: int = subprocess.STDOUT,
        cwd: Path | None = None,
    ) -> None:
        # A shell's background jobs ignore SIGINT and hand that on; a handler does not survive exec, and that is wanted.
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        path = os.pathsep.join([str(IMPORT_ROOT), *filter(None, [os.environ.get("PYTHONPATH")]), str(TESTS_ROOT)])
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=cwd,
            env={**surroundings(), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(env or {})},
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def line_with(self, words: str) -> str:
        """The next line of output that holds these words; fails when the program ends without one."""
        seen = []
        while line := self.process.stdout.readline():
            seen.append(line)
            if words in line:
                return line
        raise AssertionError(f"the program ended without {words!r}; it said:\n{''.join(seen)}")

    def end(self, timeout_s: float = PATIENCE_S) -> tuple[int, str, str]:
        """(exit code, rest of stdout, rest of stderr), once it has ended by itself."""
        stdout, stderr = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, stdout, stderr or ""

    def stop(self, number: signal.Signals) -> tuple[int, str, str]:
        """As ``end``, after a signal; it must be gone soon."""
        self.process.send_signal(number)
        return self.end(2 * STOPS_WITHIN_S)


def command(*arguments: str) -> Program:
    """``lasersell-sync …``."""
    return Program("-m", "lasersell_sync", *arguments, stderr=subprocess.PIPE)


def in_this_process(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """What ``lasersell-sync`` prints and returns, without the start of an interpreter and its imports."""
    from lasersell_sync.cli.group import lasersell_sync_command

    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, env or {}),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        pytest.raises(SystemExit) as ending,
    ):
        lasersell_sync_command.main(arguments, prog_name="lasersell-sync")
    return subprocess.CompletedProcess(arguments, int(ending.value.code or 0), stdout.getvalue(), stderr.getvalue())
