"""What an idle connection costs: CPU time, and how often a thread of the process was woken.

Usage: ``python -m benchmarks.bench_idle [--json] [--versions] [--seconds S] [--require-peers]``

All contestants wait at the same time, each in a process of its own with a server of its own, for a message that comes
after S seconds. A wake-up is counted when a thread goes to sleep again (voluntary context switches); each keepalive
takes a few of them: the timer, the answer, and the threads that hand the interpreter lock to each other.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from benchmarks import command, peers
from benchmarks.rounds import Table
from benchmarks.sender import Script, Sent, Silence
from benchmarks.workers import Idle, IdleCost, Workers

CONTESTANTS: Final = (
    "ours, inline handler",
    "ours, dispatcher",
    "ours, events.get()",
    "picows + msgspec",
    "websockets sync + msgspec",
    "websocket-client (checks off) + msgspec",
    "official SDK",
)


def measure(seconds: float) -> command.Outcome:
    """One long wait of all at once."""
    names = peers.available(*CONTESTANTS)
    with ThreadPoolExecutor(len(names)) as pool:
        costs = dict(zip(names, pool.map(lambda name: _wait(name, seconds), names), strict=True))
    cpu = Table("cpu", "idle connection: share of one core", "%")
    cpu.fill({name: [[100 * cost.cpu_s / cost.seconds]] for name, (cost, _) in costs.items()})
    wakes = Table("wakes", "idle connection: wake-ups", "wake-ups/s")
    wakes.fill({name: [[cost.switches / cost.seconds]] for name, (cost, _) in costs.items()})
    wakes.notes = {
        name: f"{cost.switches} in {cost.seconds:.0f} s, {sent.keepalives} keepalives"
        for name, (cost, sent) in costs.items()
    }
    ours, (cost, sent) = next(iter(costs.items()))
    facts = {
        "wakes": command.Fact(f"{ours}: wake-ups", cost.switches, f"in {cost.seconds:.0f} s"),
        "keepalives": command.Fact(f"{ours}: keepalives", sent.keepalives, f"in {cost.seconds:.0f} s"),
    }
    return command.Outcome([cpu, wakes], facts)


def _wait(name: str, seconds: float) -> tuple[IdleCost, Sent]:
    with Workers() as workers:
        return workers.run(name, Script(Silence(seconds)), Idle())


if __name__ == "__main__":
    sys.exit(command.main(__doc__, measure, peers=peers.PACKAGES, seconds=60))
