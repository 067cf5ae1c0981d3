"""solana-py, somebody else's Solana client, unmodified, against the sandbox's JSON-RPC.

It lives in an interpreter of its own: what it needs (another solders, another websockets) does not agree with what the
official SDK needs. A missing package is a failure here, not a skip.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lasersell_sync.sandbox import Sandbox

PROGRAM = Path(__file__).parent / "solana_py"
#: pip may have to fetch 20 MB; only a hang takes this long.
INSTALL_PATIENCE_S = 300
CHECK_PATIENCE_S = 100


def run(arguments: list[str], patience_s: float, **environ: str) -> str:
    """A Python program's stdout; its words and exit code in the failure when it fails."""
    try:
        done = subprocess.run(
            [sys.executable, *arguments], env={**os.environ, **environ}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=patience_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"{arguments} did not end in {patience_s} s; it said:\n{error.stdout!r}\n{error.stderr!r}")
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def packages(request: pytest.FixtureRequest) -> Path:
    """Where solana-py and all it needs are installed; once per change of the requirement and of Python."""
    cache = Path(request.config.cache.mkdir("solana_py"))
    wanted = f"{sys.version} {(PROGRAM / 'requirements.txt').read_text()}"
    folder, installed = cache / "packages", cache / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted:
        installed.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        quiet = ["--quiet", "--disable-pip-version-check", "--no-warn-conflicts"]
        run(["-m", "pip", "install", *quiet, "--target", str(folder), "-r", str(PROGRAM / "requirements.txt")],
            INSTALL_PATIENCE_S)  # fmt: skip
        installed.write_text(wanted)  # last: an installation cut short is not taken for one
    return folder


@pytest.mark.timeout(INSTALL_PATIENCE_S + CHECK_PATIENCE_S + 60)
@pytest.mark.parametrize("shape", [None, 0, 2, 4])
def test_every_check_holds(packages: Path, make_sandbox: Callable[..., Sandbox], shape: int | None) -> None:
    """The program's checks, each of which would end it, are told one by one; directly, and through the Router."""
    sandbox = make_sandbox(router=shape is not None, router_shape=shape)
    # -S: none of this interpreter's own packages is seen.
    environ = {"PYTHONPATH": str(packages), "SANDBOX_READY": json.dumps(sandbox.ready_line())}
    told = run(["-S", str(PROGRAM / "checks.py")], CHECK_PATIENCE_S, **environ)
    checks = re.findall(r"^def (check_\w+)\(", (PROGRAM / "checks.py").read_text(), re.MULTILINE)
    assert len(checks) >= 5
    assert told.split() == checks

    # What the client believes is what the ledger has.
    errors = [record.err for record in sandbox.transactions()]
    assert errors.count(None) == len(errors) - 1
    assert {"InstructionError": [0, {"Custom": 1}]} in errors
