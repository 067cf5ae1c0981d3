"""How many messages a second the sandbox serves: one session with 20,000 positions, told ten times a second.

Usage: ``python -m benchmarks.bench_sandbox [--json] [--versions] [--seconds S]``

The sandbox runs in a process of its own, on one core where the system lets us choose; this process reads on the others,
and does nothing but count. First the shipped scenario ``flood``, in which prices stand still between trades, then the
same with prices that move at every market tick, which adds a trade tick and a look by the strategy for each position.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks import command

POSITIONS: Final = 20_000
#: Until the session is told of all its positions.
_PATIENCE_S: Final = 60.0
_KINDS: Final = ("pnl_update", "liquidity_snapshot", "trade_tick", "position_opened")
_LONGEST: Final = max(len(f'"type":"{kind}"') for kind in _KINDS)
_MOVING: Final = """
about = "Flood, with prices that move."
[[token]]
symbol = "DUST"
count = 100
market = "pump_swap"
story = "climb"
[[wallet]]
name = "desk"
count = 200
sol = 10
holds = 0.01
for_clients = true
"""
#: Waits on stdin, which the system closes if we die.
_SERVER: Final = """
import json, sys
from lasersell_sync.sandbox import Sandbox
with Sandbox(scenario=sys.argv[1], stream_port=0, api_port=0, rpc_port=0) as sandbox:
    wallets = [str(wallet.pubkey()) for wallet in sandbox.wallets.values()]
    print(json.dumps({**sandbox.ready_line(), "wallets": wallets}), flush=True)
    sys.stdin.read()
"""


def measure(seconds: float) -> command.Outcome:
    """Both scenarios."""
    outcome = command.Outcome()
    _add(outcome, "calm", "prices at rest", _flood("flood", seconds / 2))
    with tempfile.TemporaryDirectory() as folder:
        scenario = Path(folder) / "moving.toml"
        scenario.write_text(_MOVING, encoding="utf-8")
        _add(outcome, "moving", "every price moving", _flood(str(scenario), seconds / 2))
    return outcome


def _add(outcome: command.Outcome, key: str, title: str, seen: _Seen) -> None:
    rates = {kind: count / seen.seconds for kind, count in seen.counts.items()}
    outcome.facts[f"{key}_pnl"] = command.Fact(f"{title}: pnl_update", rates["pnl_update"], "messages/s")
    outcome.facts[f"{key}_all"] = command.Fact(f"{title}: all messages", sum(rates.values()), "messages/s")
    outcome.facts[f"{key}_bytes"] = command.Fact(f"{title}: bytes", seen.bytes_read / seen.seconds / 1e6, "MB/s")
    outcome.facts[f"{key}_core"] = command.Fact(
        f"{title}: the sandbox used", 100 * seen.cpu_s / seen.seconds, "% of one core"
    )


@dataclass
class _Seen:
    """What came in, and what it cost the other side."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_KINDS, 0))
    bytes_read: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0


def _flood(scenario: str, seconds: float) -> _Seen:
    with _sandbox(scenario) as (ready, pid), _stream(ready) as wire:
        reader = _Reader(wire)
        # Being told of every position comes first, and is not what is measured.
        reader.read_until(lambda seen: seen.counts["position_opened"] >= POSITIONS, _PATIENCE_S)
        if reader.seen.counts["position_opened"] < POSITIONS:
            raise RuntimeError(f"only {reader.seen.counts['position_opened']} positions within {_PATIENCE_S} s")
        reader.seen, before_s = _Seen(), _cpu_s(pid)
        started_s = time.monotonic()
        reader.read_until(lambda _seen: False, seconds)
        reader.seen.seconds = time.monotonic() - started_s
        reader.seen.cpu_s = _cpu_s(pid) - before_s
        return reader.seen


@contextlib.contextmanager
def _sandbox(scenario: str) -> Iterator[tuple[dict[str, Any], int]]:
    """The sandbox's ready line and process id."""
    root = Path(__file__).resolve().parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, scenario], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        _pin(process.pid)
        yield json.loads(process.stdout.readline()), process.pid
    finally:
        process.stdin.close()
        process.wait(_PATIENCE_S)
        process.stdout.close()


def _pin(pid: int) -> None:
    """The other process on the last core, this one on the rest."""
    if not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(pid, {cores[-1]})
        os.sched_setaffinity(0, set(cores[:-1]))


def _cpu_s(pid: int) -> float:
    """Processor time of another process so far; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


@contextlib.contextmanager
def _stream(ready: dict[str, Any]) -> Iterator[socket.socket]:
    """A configured WebSocket, bare: a client library would be the bottleneck."""
    address = urlsplit(ready["stream_url"])
    strategy = {"target_profit_pct": 500, "stop_loss_pct": 99}
    configure = json.dumps({"type": "configure", "wallet_pubkeys": ready["wallets"], "strategy": strategy}).encode()
    upgrade = (
        f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"x-api-key: {ready['api_key']}\r\n\r\n"
    )
    with socket.create_connection((address.hostname or "", address.port or 0)) as wire:
        wire.sendall(upgrade.encode())
        if not wire.recv(4_096).startswith(b"HTTP/1.1 101"):
            raise RuntimeError("the upgrade was refused")
        # Masked with zeros, which leaves the bytes as they are.
        wire.sendall(b"\x81\xfe" + len(configure).to_bytes(2, "big") + bytes(4) + configure)
        yield wire


class _Reader:
    """Counts message types in the raw bytes."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire
        self._buffer = bytearray(2**20)
        self._rest = b""
        self.seen = _Seen()

    def read_until(self, enough: Any, seconds: float) -> None:
        """Read until a predicate over what was seen is true, or the time is over."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0 and not enough(self.seen):
            if not select.select([self._wire], [], [], left_s)[0]:
                return
            size = self._wire.recv_into(self._buffer)
            if size == 0:
                raise RuntimeError("the sandbox closed the connection")
            self._count(self._rest + bytes(memoryview(self._buffer)[:size]))
            self.seen.bytes_read += size

    def _count(self, data: bytes) -> None:
        for kind in _KINDS:
            # What was kept from before is too short for a whole name, so nothing is counted twice.
            kept = min(len(self._rest), len(f'"type":"{kind}"') - 1)
            self.seen.counts[kind] += data[len(self._rest) - kept :].count(f'"type":"{kind}"'.encode())
        self._rest = data[-(_LONGEST - 1) :]


if __name__ == "__main__":
    sys.exit(command.main(__doc__, measure, peers=(), seconds=20))
