"""Killed at each of twelve points and started again, a seller sells what was wanted, once, and tells it.

The ledger judges (``rounds.py``). A thousand rounds: ``python -m tests.crash.rounds``, or ``pytest -m slow``.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import bursts
from tests.crash.points import POINTS
from tests.crash.rounds import any_point, play
from tests.crash.tally import Tally

#: Beside one that begins with each of the points.
MORE_ROUNDS = 4


#: Further tries at points that no seller came to.
MOST_TRIES = 4


@pytest.fixture
def seed() -> Iterator[str]:
    """Chooses what a round leaves to chance; the machine's own pace is not in it."""
    seed = os.environ.get("LASERSELL_TEST_SEED") or str(time.time_ns())
    print(f"seed: LASERSELL_TEST_SEED={seed}")
    return seed


@pytest.fixture(autouse=True)
def _connections_of_this_process_end() -> Iterator[None]:
    yield
    from lasersell_sync.trading import close_rpc_connections

    close_rpc_connections()


def test_a_seller_that_is_killed_anywhere_sells_everything_once(tmp_path: Path, seed: str):
    """Each of the twelve points at least once, then wherever chance wants it."""
    points = random.Random(seed).sample(POINTS, len(POINTS))
    tally = play(len(POINTS) + MORE_ROUNDS, seed, tmp_path, itertools.chain(points, any_point()))
    print(tally)
    killed_at = set(tally.kills)
    for again in range(MOST_TRIES):
        # A round may end before its seller comes to the point.
        if missed := sorted(set(POINTS) - killed_at):
            folder = tmp_path / f"again-{again}"
            folder.mkdir()
            killed_at |= set(play(len(missed), f"{seed}-{again}", folder, itertools.chain(missed, any_point())).kills)
    assert killed_at == set(POINTS)


def test_nothing_is_sent_without_a_record_when_a_burst_is_killed(tmp_path: Path, seed: str):
    """A hundred times with a hundred exits: ``python -m tests.crash.bursts``."""
    tally = bursts.play(3, seed, tmp_path, exits=40)
    print(tally)
    assert tally.is_good
    assert tally.events["received transaction looked up in the journal after a kill"] > 0


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_thousand_rounds(tmp_path: Path, seed: str):
    tally = play(1_000, seed, tmp_path, any_point(), keep_going=True)
    print(tally)
    assert tally.is_good
    assert set(tally.kills) == set(POINTS)


def test_what_is_counted_is_added_up():
    """Nothing is lost between the processes that play."""
    one = Tally(rounds=2, sales=3)
    one.kills["signed"] = 1
    two = Tally.from_json(one.as_json())
    two.add(one)
    assert (two.rounds, two.sales, two.kills["signed"]) == (4, 6, 2)
