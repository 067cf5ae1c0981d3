"""Shell blocks of the pages: with ``lasersell-sync`` and ``python`` on the path, in a folder of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.processes import PATIENCE_S, Program

#: A command that serves until it is interrupted.
_SERVERS = ("lasersell-sync sandbox", "lasersell-sync replay")
#: ``lasersell-sync``. Servers get free ports: another test may hold the default ones.
_COMMAND = """#!/bin/sh
case "$1" in
    sandbox) shift; set -- sandbox "$@" --stream-port 0 --api-port 0 --rpc-port 0 --web-port 0 ;;
    replay) shift; set -- replay "$@" --port 0 ;;
esac
exec "{python}" -m lasersell_sync "$@"
"""
_EXEC = "import os, sys; os.execv('/bin/sh', ['sh', '-e', '-c', sys.argv[1]])"


def shell(text: str, folder: Path, environment: dict[str, str]) -> Program:
    """A block as a running program; it ends at the first command that fails."""
    return Program("-c", _EXEC, text, env={**environment, "PATH": _path(folder)}, cwd=folder)


def missing_command(text: str) -> str | None:
    """A command of a block that this machine does not have: a user of the page would install it."""
    return "curl" if "curl " in text and shutil.which("curl") is None else None


def run_block(text: str, folder: Path) -> str | None:
    """Run a block to its end, in this process's environment; what went wrong, or None.

    A server has to write its ready line, and to end with status 0 when it is interrupted.
    """
    environment = {**os.environ, "PATH": _path(folder), "PYTHONUNBUFFERED": "1"}
    if text.startswith(_SERVERS):
        return _run_server(["sh", "-e", "-c", f"exec {text}"], folder, environment)
    done = subprocess.run(["sh", "-e", "-c", text], cwd=folder, env=environment, timeout=PATIENCE_S, check=False)
    return None if done.returncode == 0 else f"exit status {done.returncode}"


def _run_server(command: list[str], folder: Path, environment: dict[str, str]) -> str | None:
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ready = server.stdout.readline()
            server.send_signal(signal.SIGINT)
            status = server.wait(PATIENCE_S)
        finally:
            server.kill()
    good = "stream_url" in ready and status == 0
    return None if good else f"exit status {status}, first line {ready!r}"


def _path(folder: Path) -> str:
    """The search path, with the two commands ahead."""
    command = folder / "bin" / "lasersell-sync"
    if not command.exists():
        command.parent.mkdir()
        command.write_text(_COMMAND.format(python=sys.executable))
        command.chmod(0o755)
        # Not a link: python would take its folder for an environment of its own.
        python = command.parent / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
    return f"{command.parent}{os.pathsep}{os.environ['PATH']}"
