"""How late an exit signal reaches user code: from the server's write to the first line of the handler.

Usage: ``python -m benchmarks.bench_latency [--json] [--versions] [--seconds S] [--require-peers]``

The sender is a process of its own and writes the time into each signal; both processes read the same monotonic clock.
On an idle link ``raw recv`` is the bare minimum: a blocking ``recv`` that only wakes up. In a flood, 100,000 updates a
second come in steps of 1 ms, and the signals between them at random moments; ours run with the default lanes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

from benchmarks import command, peers
from benchmarks.rounds import Table, interleave
from benchmarks.sender import Paced, Pulses, Script
from benchmarks.workers import Load, Watch, Workers

RATE: Final = 100_000
GAP_S: Final = 0.005
INLINE: Final = "ours, inline handler"
IDLE: Final = (
    INLINE,
    "ours, dispatcher",
    "ours, per_lane",
    "ours, events.get()",
    "picows + msgspec",
    "websockets sync + msgspec",
    "websocket-client (checks off) + msgspec",
    "official SDK",
    "raw recv",
)
FLOOD: Final = tuple(name for name in IDLE if name != "raw recv")
#: What the handler of everything else does; on the reader itself it must keep up with the stream.
COMPUTING: Final[dict[str, tuple[str, Load]]] = {
    "ours, per_lane, computing 50 µs": ("ours, per_lane", "compute_50_us"),
    "ours, dispatcher, computing 50 µs": ("ours, dispatcher", "compute_50_us"),
    "ours, inline handler, computing 5 µs": (INLINE, "compute_5_us"),
}
SLEEPING: Final[dict[str, tuple[str, Load]]] = {
    "ours, per_lane, sleeping 50 ms": ("ours, per_lane", "sleep_50_ms"),
    "ours, per_lane, doing nothing": ("ours, per_lane", "nothing"),
}


def measure(seconds: float) -> command.Outcome:
    """Idle, flooded, and flooded with handlers that compute or sleep."""
    share_s = seconds / 4
    exits = max(5, round(min(1.0, seconds / 100) / GAP_S))
    with Workers() as workers:
        watches = _Watches(workers, exits, share_s)
        idle = Pulses(exits, GAP_S)
        flood = Paced("pnl_update", RATE, exits, GAP_S)
        loaded = f"flood of {RATE:,} `pnl_update`/s"
        tables = [
            watches.table("idle", "an idle link", idle, {name: (name, "nothing") for name in IDLE}),
            watches.table("flood", loaded, flood, {name: (name, "nothing") for name in FLOOD}),
            watches.table("compute", f"{loaded}, whose handler computes in Python", flood, COMPUTING),
            watches.table("sleep", f"{loaded}, whose handler sleeps", flood, SLEEPING),
        ]
    return command.Outcome(tables)


class _Watches:
    """Streams with stamped exit signals."""

    def __init__(self, workers: Workers, exits: int, seconds: float) -> None:
        self._workers = workers
        self._exits = exits
        self._seconds = seconds

    def table(self, key: str, title: str, stream: Pulses | Paced, contestants: Mapping[str, tuple[str, Load]]) -> Table:
        """How late the signals are, in µs; a contestant is a receiver and what its other handler does."""
        present = peers.available(*dict.fromkeys(receiver for receiver, _ in contestants.values()))
        delays: dict[str, float] = {}

        def turn(name: str) -> list[float]:
            receiver, load = contestants[name]
            late_ns, sent = self._workers.run(receiver, Script(stream), Watch(self._exits, load))
            delays[name] = max(delays.get(name, 0.0), sent.delay_s)
            return [ns / 1e3 for ns in late_ns]

        turns = {name: lambda name=name: turn(name) for name, (one, _) in contestants.items() if one in present}
        table = Table(key, f"exit signal → handler: {title}", "µs")
        table.fill(interleave(turns, self._seconds, at_least=1))
        if isinstance(stream, Paced):
            # Behind by much: the client takes less than that rate.
            table.notes = {name: f"sender behind its pace by {delays[name] * 1e3:,.1f} ms at most" for name in turns}
        return table


if __name__ == "__main__":
    sys.exit(command.main(__doc__, measure, peers=peers.PACKAGES, seconds=180))
