"""Writes docs/chaos.md from the report of a run of the chaos program."""

from __future__ import annotations

import platform
import time
from typing import Any

from lasersell_sync import backend

_PAGE = """\
# {title} of chaos

`python -m tests.faults.chaos --seconds {seconds:.0f} --seed {seed} --page docs/chaos.md` on a {cores}-core machine
({system}, Python {python}, {backend} core), beside other load, on {date}.{verdict}

One session lives through a fault every {least:g} to {most:g} seconds. The proxy breaks the link: resets, half-open links, black holes,
pauses, cuts in mid-frame, refusals, slices, latency, narrow links. The server floods the session with messages that cannot be read or mean
nothing, uses ids again for other accounts, and sends 103 before 101. The client's process runs out of descriptors and threads, and forks, with
and without Python's hooks. In the first third nobody consumes; then a consumer takes the events, and at times none for seconds.

The server numbers every high-lane message. One counts as "reached the socket" when the client's kernel acknowledged its last byte, and as
delivered when the session's tap gets it. Server, proxy and the record of what was sent live in a process of their own, so the memory below is
the client's.

| | |
|---|---|
| faults | {faults} of {kinds} kinds |
| connections tried, sessions opened | {connections:,} and {sessions:,} |
| messages received | {messages:,} |
| bad messages written, unreadable ones received | {bad:,} and {decode_errors:,} |
| high-lane messages that reached the socket | {reached:,} |
| **lost** | **{lost}** |
| **delivered twice** | **{doubled}** |
| taken by the consumer; dropped before it came, as its first event said | {taken:,}; {missed:,} |
| not taken in the tap's order | {consumer_wrong} |
| LIVE, healthy and without a byte, at the longest | {deaf:.1f} s |
| forked children that saw anything but `ForkedProcessError` | {children_wrong} |
| connects with an outdated strategy | {outdated} |
| descriptors, before and after | {fds_before} and {fds_after} |
| threads, before the first fault, after the last, and after `close()` | {threads} |
| memory, growth over the run | {growth:.1f} MiB: {rss} |

Faults by kind: {by_kind}.

The memories that are bounded fill up in the first minutes (4,096 exit signals, 1,024 events), and the client process itself keeps one byte for each
message. In the tests the same program runs for 12 seconds with a fault every 0.1 to 1 s; where `CI` is set in the environment, for a
minute at the pace above. The seed is printed, and `LASERSELL_TEST_SEED` sets it.
"""


def page(report: dict[str, Any], every_s: tuple[float, float]) -> str:
    """The page."""
    seconds = report["seconds"]
    faults = report["faults"]
    return _PAGE.format(
        title="One hour" if seconds == 3600 else f"{seconds / 60:g} minutes",
        verdict="" if report["ok"] else " **It failed.**",
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
        threads=", ".join(str(len(names)) for names in report["threads"]),
        growth=report["rss_growth_bytes"] / 2**20,
        rss=", ".join(f"{mib}" for mib in report["rss_mib"]) + " MiB at equal distances",
    )
