"""The chaos program, shortly; the long run is by hand (``python -m tests.faults.chaos --seconds 1800``)."""

from __future__ import annotations

import os
import time

import pytest

from tests.faults import chaos


def _seed() -> int:
    seed = int(os.environ.get("LASERSELL_TEST_SEED") or time.time_ns() % 2**31)
    print(f"seed: LASERSELL_TEST_SEED={seed}")
    return seed


def test_some_chaos_loses_and_doubles_nothing() -> None:
    """What reached our socket is delivered once; every connect carries the latest strategy; nothing leaks."""
    report = chaos.run(12.0, _seed(), every_s=(0.1, 1.0))
    assert report["ok"], report
    assert report["sessions"] > 3


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_minute_of_chaos_at_the_promised_pace() -> None:
    """60 s with a fault every 0.2 to 5 s."""
    report = chaos.run(60.0, _seed())
    assert report["ok"], report
