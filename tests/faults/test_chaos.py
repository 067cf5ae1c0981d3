"""The chaos program, shortly; the long run is by hand (``python -m tests.faults.chaos --seconds 3600 --page docs/chaos.md``)."""

from __future__ import annotations

import os
import time

import pytest

from tests.faults import chaos


def _seed() -> int:
    seed = int(os.environ.get("LASERSELL_TEST_SEED") or time.time_ns() % 2**31)
    print(f"seed: LASERSELL_TEST_SEED={seed}")
    return seed


#: The gate has the patience for the promised minute and pace; who waits for the tests gets the same in small.
SECONDS, EVERY_S = (60.0, (0.2, 5.0)) if "CI" in os.environ else (12.0, (0.1, 1.0))


@pytest.mark.timeout(240)
def test_some_chaos_loses_and_doubles_nothing() -> None:
    """What reached our socket is delivered once; every connect carries the latest strategy; nothing leaks."""
    report = chaos.run(SECONDS, _seed(), every_s=EVERY_S)
    assert report["ok"], report
    # Most faults end the link, and the last message came on a good one.
    assert report["sessions"] >= 2
    assert report["high_lane_reached_the_socket"] > 100
