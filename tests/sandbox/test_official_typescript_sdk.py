"""The official TypeScript SDK from npm, unmodified, in its local mode against the sandbox."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.router.shapes import SHAPES
from tests.sandbox.default_ports import sandbox_on_default_ports

PROGRAM = Path(__file__).parent / "official_typescript"
#: npm may have to fetch 30 MB; only a hang takes this long.
INSTALL_PATIENCE_S = 300
TRADE_PATIENCE_S = 60
#: The SDK's Solana library does not know version 1.
READABLE_SHAPES = [number for number, shape in enumerate(SHAPES) if shape.version != 1]
LOW_LANE = ("pnl_update", "trade_tick", "liquidity_snapshot", "message")


def required(name: str) -> str:
    """Where a program is. A missing one fails the test: a skipped promise is a broken one."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed; on Debian: apt install nodejs npm (Node.js 18 or newer)")
    return found


def run(arguments: list[str], folder: Path, patience_s: float, **environ: str) -> str:
    """A program's stdout; its words and exit code in the failure when it fails."""
    try:
        done = subprocess.run(
            arguments, cwd=folder, env={**os.environ, **environ}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=patience_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"{arguments[0]} did not end in {patience_s} s; it said:\n{error.stdout!r}\n{error.stderr!r}")
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Path:
    """The trading program with the SDK beside it, as package-lock.json has it; installed once per change of that."""
    folder = Path(request.config.cache.mkdir("official_typescript"))
    for name in ("package.json", "package-lock.json", "trade.mjs"):
        shutil.copyfile(PROGRAM / name, folder / name)
    lock, installed = (PROGRAM / "package-lock.json").read_text(), folder / "installed-lock.json"
    if not installed.exists() or installed.read_text() != lock:
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        run([required("npm"), "ci", *quiet], folder, INSTALL_PATIENCE_S)
        installed.write_text(lock)  # last: an installation cut short is not taken for one
    return folder


def trade(program: Path, sandbox: Sandbox) -> list[dict[str, object]]:
    """What the program told, in order."""
    environ = {
        "SANDBOX_API_KEY": sandbox.api_key,
        "SANDBOX_RPC_URL": sandbox.rpc_url,
        "SANDBOX_MINT": sandbox.mints[0],
    }
    told = run([required("node"), "trade.mjs"], program, TRADE_PATIENCE_S, **environ)
    return [json.loads(line) for line in told.splitlines()]


@pytest.mark.timeout(INSTALL_PATIENCE_S + TRADE_PATIENCE_S + 60)
@pytest.mark.parametrize("shape", [None, *READABLE_SHAPES])
def test_a_whole_trade_on_the_default_ports(program: Path, shape: int | None) -> None:
    """Register, connect, buy, watch, take the exit signal, sign, send, see it landed and the position closed.

    Directly on the market, and through every shape of the Router that the SDK can read.
    """
    router: dict[str, Any] = {"router": shape is not None, "router_shape": shape}
    if shape is None:
        router["transaction_format"] = "legacy"  # it cannot read version 1, and reads version 0 of the Router's
    with sandbox_on_default_ports(speed=10, landing_delay_ms=20, **router) as sandbox:
        steps = trade(program, sandbox)
        names = [str(step["step"]) for step in steps]
        assert [name for name in names if name not in LOW_LANE] == [
            "registered",
            "connected",
            "bought",
            "position_opened",
            "exit_signal_with_tx",
            "sold",
            "position_closed",
            "done",
        ]
        assert "pnl_update" in names
        by_name = {str(step["step"]): step for step in steps}
        assert by_name["bought"]["err"] is None
        assert (by_name["sold"]["reason"], by_name["sold"]["err"]) == ("target_profit", None)

        # What the client saw is what the ledger has.
        (position,) = sandbox.positions()
        assert position.close_reason == "target_profit"
        assert position.wallet_pubkey == by_name["registered"]["wallet"]
        landed = {record.signature: record.err for record in sandbox.transactions()}
        assert landed == {by_name["bought"]["signature"]: None, by_name["sold"]["signature"]: None}
        assert sandbox.token_balance(position.wallet_pubkey, position.mint) == 0
        assert sandbox.balance_lamports(position.wallet_pubkey) == by_name["done"]["lamports"]
