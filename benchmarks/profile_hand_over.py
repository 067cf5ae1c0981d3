"""What a second thread costs: the mixed stream through ``events.get()``, on two processors and on one.

Usage: ``python -m benchmarks.profile_hand_over [--rounds N]``

The interpreter lock lets one of the two threads run at a time, wherever they are. What differs is where a message is
when the consumer takes it: in the caches of its own processor, or in the other one's. ``misses.md`` quotes the ratio.
Linux only, with two processors or more.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Final

from benchmarks.sender import Flood, Script
from benchmarks.workers import Count, Workers

MESSAGES: Final = 200_000
CONTESTANTS: Final = ("ours, inline handler", "ours, events.get()")


def _bind(process: int, processors: set[int]) -> None:
    """All its threads; those that it starts later inherit it."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        os.sched_setaffinity(int(thread.name), processors)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    rounds = parser.parse_args().rounds
    everywhere = os.sched_getaffinity(0)
    places = {"on all processors": everywhere, "on one": {min(everywhere)}}
    script, job = Script(Flood(MESSAGES, MESSAGES)), Count(MESSAGES, beside_work=False)
    ns: dict[tuple[str, str], list[float]] = {(name, place): [] for name in CONTESTANTS for place in places}
    with Workers() as workers:
        for name in CONTESTANTS:
            workers.run(name, script, job)
        for _ in range(rounds):
            for (name, place), measured in ns.items():
                _bind(workers.process_id(name), places[place])
                outcome, sent = workers.run(name, script, job)
                measured.append((outcome.ended_ns - sent.started_ns) / MESSAGES)
    for name in CONTESTANTS:
        for place in places:
            print(f"{name:22} {place:18} {statistics.median(ns[name, place]):6.0f} ns a message")
        ratios = [free / bound for free, bound in zip(*(ns[name, place] for place in places), strict=True)]
        print(f"{name:22} {'ratio':18} {statistics.median(ratios):6.2f}")


if __name__ == "__main__":
    main()
