"""Writes docs/chaos.md from the report of a run of the chaos program."""

from __future__ import annotations

import platform
import time
from typing import Any

from lasersell_sync import backend

_PAGE = """\
# {title} of chaos

After this page you know how a session behaves under faults, and how to repeat the run:

*Not run in CI: it takes too long. `tests/faults/test_chaos.py` runs the same program for a minute.*

```sh
python -m tests.faults.chaos --seconds {seconds:.0f} --seed {seed} --page docs/chaos.md
```

The run of {date} used a {cores}-core machine under other load ({system}, Python {python}, {backend}
core).{verdict} One session survives a fault every {least:g} to {most:g} seconds:

| where | faults |
|---|---|
| link, by a proxy | resets, half-open links, black holes, pauses, cuts in mid-frame, refusals, pieces of 1 to 8 bytes, latency, narrow links |
| server | floods of messages that are unreadable or meaningless, ids that are reused for other accounts, a 103 before the 101 |
| process of the client | no free descriptors, no free threads, forks with and without Python's hooks |
| consumer | none in the first third of the run; later one that at times takes nothing for seconds |

The server numbers every high-lane message. A message *reached the socket* when the client's kernel had acknowledged its last byte. If the
client itself ended the connection, the bytes of the last quarter of a second do not count. A message is *delivered* when the session's tap
gets it. Server, proxy and records have their own process, so the memory below is the client's alone.

| measured | value |
|---|---|
| faults | {faults} of {kinds} kinds |
| connection attempts; sessions | {connections:,}; {sessions:,} |
| messages received | {messages:,} |
| bad messages: written by the server; found unreadable by the client | {bad:,}; {decode_errors:,} |
| high-lane messages that reached the socket | {reached:,} |
| **lost** | **{lost}** |
| **delivered twice** | **{doubled}** |
| high-lane messages taken by the consumer; high-lane events dropped before it started, as its first event said | {taken:,}; {missed:,} |
| taken in another order than the tap's | {consumer_wrong} |
| longest time `LIVE` and healthy without a byte | {deaf:.1f} s |
| forked children that got anything but `ForkedProcessError` | {children_wrong} |
| connects with an outdated strategy | {outdated} |
| descriptors before; after | {fds_before}; {fds_after} |
| threads before the first fault; after the last; after `close()` | {threads} |
| growth of memory | {growth:.1f} MiB: {rss} |

Faults by kind: {by_kind}.

Bounded buffers fill in the first minutes (4,096 exit signals, 1,024 events). The client process also stores one byte for each message of its
record. The test suite runs the same program for 12 seconds with a fault every 0.1 to 1 s. If the variable `CI` is set, it runs for a minute
at the pace above. It prints its seed, and `LASERSELL_TEST_SEED` sets it.
"""


def page(report: dict[str, Any], every_s: tuple[float, float]) -> str:
    """The page."""
    seconds = report["seconds"]
    faults = report["faults"]
    return _PAGE.format(
        title="One hour" if seconds == 3600 else f"{seconds / 60:g} minutes",
        verdict="" if report["ok"] else " **The run failed.**",
        seconds=seconds,
        seed=report["seed"],
        cores=report["cores"],
        system=platform.platform(terse=True),
        python=platform.python_version(),
        backend=backend(),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        least=every_s[0],
        most=every_s[1],
        faults=f"{sum(faults.values()):,}",
        kinds=len(faults),
        by_kind=", ".join(f"{name} {count}" for name, count in sorted(faults.items())),
        connections=report["connections"],
        sessions=report["sessions"],
        messages=report["messages_received"],
        bad=report["bad_frames_written"],
        decode_errors=report["decode_errors"],
        reached=report["high_lane_reached_the_socket"],
        lost=len(report["lost"]),
        doubled=len(report["doubled"]),
        taken=report["consumer"]["taken"],
        missed=report["consumer"]["missed_before_it_came"],
        consumer_wrong=len(report["consumer_wrong"]),
        deaf=report["live_and_deaf_s"],
        children_wrong=len(report["children_wrong"]),
        outdated=len(report["outdated_strategies"]),
        fds_before=report["fds"][0],
        fds_after=report["fds"][1],
        threads="; ".join(str(len(names)) for names in report["threads"]),
        growth=report["rss_growth_bytes"] / 2**20,
        rss=", ".join(f"{mib}" for mib in report["rss_mib"]) + " MiB at equal distances",
    )
