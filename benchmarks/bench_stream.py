"""How many messages a second reach user code over loopback, each one counted.

Usage: ``python -m benchmarks.bench_stream [--json] [--versions] [--seconds S] [--require-peers]``

The sender is a process of its own and writes frames that were built before; ``raw recv`` takes its bytes undecoded and
shows that it is never what limits a rate. Every contestant has a process of its own, and in every round receives the
beginning of the same stream: a slow one a shorter one, so that all are measured for about as long. A rate counts from
the sender's first write to the last message in the hands of user code. Ours run with ``low_lane="lossless"``; that
nothing was lost is checked each time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from benchmarks import command, peers
from benchmarks.rounds import Table, interleave
from benchmarks.sender import Flood, Paced, Records, Script
from benchmarks.workers import Count, Watch, Workers

INLINE: Final = "ours, inline handler"
GET: Final = "ours, events.get()"
POSITIONS: Final = (10, 100, 1_000, 10_000, 20_000)
SHORTEST: Final = 2_000
BESIDE_WORK_RATE: Final = 500_000

PLAIN: Final = (
    INLINE,
    "ours, dispatcher",
    GET,
    "ours, get_batch()",
    "picows + msgspec",
    "picows (types unchecked) + msgspec",
    "websockets sync + msgspec",
    "websocket-client (checks off) + msgspec",
    "websocket-client + msgspec",
    "official SDK",
    "raw recv",
)
TLS: Final = (
    INLINE,
    GET,
    "picows + msgspec",
    "picows (types unchecked) + msgspec",
    "websockets sync + msgspec",
    "raw recv",
)
BESIDE_WORK: Final = (INLINE, "ours, dispatcher", GET, "picows + msgspec", "websockets sync + msgspec", "official SDK")
BY_POSITIONS: Final = (INLINE, GET, "picows + msgspec")


def measure(seconds: float) -> command.Outcome:
    """Plain, TLS, beside a busy thread, and by the number of positions."""
    share_s = seconds / 10
    with Workers() as workers:
        floods = _Floods(workers, longest=200_000 if seconds >= 60 else 20_000, turn_s=min(0.3, seconds / 100))
        tables = [
            floods.table("plain", "plain TCP", PLAIN, 3 * share_s),
            floods.table("tls_large", "TLS, records of 16 KiB", TLS, share_s, tls="large"),
            floods.table("tls_message", "TLS, one record a message", TLS, share_s, tls="message"),
            floods.table("beside_work", "plain TCP, another thread computes", BESIDE_WORK, share_s, beside_work=True),
        ]
        tables += [
            floods.table(f"positions_{count}", f"plain TCP, {count:,} positions", BY_POSITIONS, share_s / 2, count)
            for count in POSITIONS
        ]
        tables.append(_late_exits(workers, share_s))
    return command.Outcome(tables)


class _Floods:
    """Streams at full speed."""

    def __init__(self, workers: Workers, *, longest: int, turn_s: float) -> None:
        self._workers = workers
        self._longest = longest
        self._turn_s = turn_s

    def table(
        self,
        key: str,
        title: str,
        contestants: Sequence[str],
        seconds: float,
        positions: int = 200,
        *,
        tls: Records | None = None,
        beside_work: bool = False,
    ) -> Table:
        """Messages a second of each contestant."""
        names = peers.available(*contestants)
        grown: dict[str, list[float]] = {name: [] for name in names}

        def rate(name: str, messages: int) -> float:
            script = Script(Flood(messages, self._longest), positions, tls)
            outcome, sent = self._workers.run(name, script, Count(messages, beside_work))
            grown[name].append(outcome.grown_mib)
            return messages / (outcome.ended_ns - sent.started_ns) * 1e9

        # The first turn is not measured; it warms up and tells how long a stream each needs.
        lengths = {name: self._length(rate(name, SHORTEST)) for name in names}
        turns = {name: lambda name=name: [rate(name, lengths[name])] for name in names}
        table = Table(key, f"stream: {title}", "messages/s", more_is_better=True)
        table.fill(interleave(turns, seconds, at_least=1))
        for name in names:
            table.notes[name] = f"{lengths[name]:,} messages a round, memory grew by {max(grown[name]):.1f} MiB"
        return table

    def _length(self, rate: float) -> int:
        return round(min(self._longest, max(SHORTEST, rate * self._turn_s)))


def _late_exits(workers: Workers, seconds: float) -> Table:
    """How late exit signals are at half a million messages a second while another thread computes."""
    names = peers.available(INLINE, "ours, dispatcher", "ours, per_lane", GET)
    behind_ms: dict[str, list[float]] = {name: [] for name in names}
    exits = max(5, round(min(0.5, seconds / 4) / 0.005))

    def turn(name: str) -> list[float]:
        script = Script(Paced("mixed", BESIDE_WORK_RATE, exits, gap_s=0.005))
        late_ns, sent = workers.run(name, script, Watch(exits, beside_work=True))
        behind_ms[name].append(sent.delay_s * 1e3)
        return [ns / 1e6 for ns in late_ns]

    title = f"exit signal → handler at {BESIDE_WORK_RATE:,} messages/s, another thread computes"
    table = Table("beside_work_exits", title, "ms")
    table.fill(interleave({name: lambda name=name: turn(name) for name in names}, seconds, at_least=1))
    for name in names:
        # Late by the whole stream: the client takes less than that rate.
        table.notes[name] = f"the sender was behind its pace by at most {max(behind_ms[name]):,.1f} ms"
    return table


if __name__ == "__main__":
    sys.exit(command.main(__doc__, measure, peers=peers.PACKAGES, seconds=240))
