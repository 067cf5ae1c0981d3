"""The protocol's largest session, 20,000 positions with 10 updates a second: memory, losses, age of what is known.

Usage: ``python -m benchmarks.bench_memory [--json] [--versions] [--seconds S] [--require-peers]``

Every 100 ms the sender writes an update of each position and a few exit signals. One long round of each contestant: S
seconds of ours, 3 s at the most of the peers, which fall behind or grow without bound. A stalled consumer takes
nothing until the end; then every exit signal must be there. A value's age counts from the sender's write of it until
its successor is in the hands of user code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from benchmarks import command, peers
from benchmarks.rounds import Table
from benchmarks.sender import Flushes, Script, Sent
from benchmarks.workers import Job, Live, Memory, Stalled, Workers

POSITIONS: Final = 20_000
FLUSHES_PER_S: Final = 10
EXITS: Final = 5
PEERS_AT_MOST_S: Final = 3.0
STALLED: Final = ("ours, events.get()", "official SDK")
LIVE: Final = (
    "ours, get_batch()",
    "ours, inline handler",
    "picows + msgspec",
    "websockets sync + msgspec",
    "official SDK",
)


def measure(seconds: float) -> command.Outcome:
    """Stalled, then live."""
    with Workers() as workers:
        stalled = {
            name: _run(
                workers,
                name,
                _flushes(name, seconds),
                Stalled(_seconds(name, seconds), _flushes(name, seconds) * EXITS),
            )
            for name in peers.available(*STALLED)
        }
        live = {
            name: _run(workers, name, _flushes(name, seconds), Live(_flushes(name, seconds) * EXITS))
            for name in peers.available(*LIVE)
        }
    lost = {name: _flushes(name, seconds) * EXITS - memory.exits for name, (memory, _) in stalled.items()}
    tables = [
        _table("stalled_memory", "consumer stalled: memory grew by", "MiB", stalled, lambda one: one.grown_mib),
        _table("live_memory", "consumer live: memory grew by", "MiB", live, lambda one: one.grown_mib),
        _table("live_age", "consumer live: greatest age of a newest value", "ms", live, lambda one: one.oldest_ms),
    ]
    for table, found in ((tables[0], stalled), (tables[1], live), (tables[2], live)):
        for name, (_, sent) in found.items():
            behind = f"the sender had to wait for {sent.delay_s * 1e3:,.0f} ms"
            table.notes[name] = f"over {_seconds(name, seconds):g} s; {behind}"
    ours, (memory, sent) = STALLED[0], stalled[STALLED[0]]
    facts = {
        "exits_lost": command.Fact(f"{ours}, stalled: exit signals lost", lost[ours], "signals"),
        "state_age": command.Fact(f"{ours}, stalled: greatest age of session.pnl()", memory.oldest_ms, "ms"),
        "reader_behind": command.Fact(f"{ours}, stalled: the sender had to wait for", sent.delay_s * 1e3, "ms"),
    }
    return command.Outcome(tables, facts)


def _seconds(name: str, seconds: float) -> float:
    return seconds if name in peers.OURS else min(PEERS_AT_MOST_S, seconds)


def _flushes(name: str, seconds: float) -> int:
    return max(1, round(_seconds(name, seconds) * FLUSHES_PER_S))


def _run(workers: Workers, name: str, flushes: int, job: Job) -> tuple[Memory, Sent]:
    try:
        return workers.run(name, Script(Flushes(flushes, EXITS), POSITIONS), job)
    finally:
        # None shall begin with memory that another job has left.
        workers.retire(name)


def _table(
    key: str, title: str, unit: str, found: dict[str, tuple[Memory, Sent]], value: Callable[[Memory], float]
) -> Table:
    table = Table(key, f"{POSITIONS:,} positions with {FLUSHES_PER_S} updates/s each, {title}", unit)
    return table.fill({name: [[value(memory)]] for name, (memory, _) in found.items()})


if __name__ == "__main__":
    sys.exit(command.main(__doc__, measure, peers=peers.PACKAGES, seconds=60))
