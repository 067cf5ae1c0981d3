"""Sellers that are killed in the middle of a burst of exits: nothing was sent without a record, and all is sold once.

By hand, with the numbers at the end::

    python -m tests.crash.bursts --kills 100 --seed 7

After each kill the journal is opened to read, and every transaction that a node has received must be in it. Then a
seller is started again until all is sold, and the ledger judges as in ``rounds.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.rounds import Round
from tests.crash.tally import RoundFailed, Tally
from tests.crash.template import Template
from tests.crash.world import World

EXITS = 100
#: Bursts in one sandbox, which knows the wallets of all of them.
_BURSTS_PER_SANDBOX = 5
#: Where a process dies by itself, at the n-th arrival; otherwise when a node has received n transactions.
_POINTS = ("journalled", "guarded", "signed", "signature journalled", "before send", "after write", "after answer")


def play(kills: int, seed: str, folder: Path, *, exits: int = EXITS, keep_going: bool = False) -> Tally:
    """Bursts until so many sellers were killed in the middle of one.

    Raises:
        RoundFailed: the first that fails, unless ``keep_going``: then they are counted.
    """
    tally, world, number = Tally(), None, 0
    template = Template()
    try:
        while killed(tally) < kills:
            if world is None or number % _BURSTS_PER_SANDBOX == 0:
                if world is not None:
                    world.close()
                world = World(random.Random(f"{seed}:world:{number}"), is_routed=False)
            own = folder / str(number)
            own.mkdir()
            burst = _burst(world, template, own, random.Random(f"{seed}:{number}"), exits)
            number += 1
            try:
                tally.add(burst.play())
            except RoundFailed as failure:
                print(f"burst {number - 1} of seed {seed} failed ({failure.kind}):\n{failure}", flush=True)
                if not keep_going:
                    raise
                failed = Tally(rounds=1, **{failure.kind: 1})
                failed.kills.update(burst.killed)
                tally.add(failed)
                continue
            shutil.rmtree(own)
    finally:
        if world is not None:
            world.close()
        template.close()
    return tally


def killed(tally: Tally) -> int:
    """How many sellers were."""
    return tally.kills.total() + tally.events["seller killed when a node had received so many"]


def _burst(world: World, template: Template, folder: Path, chance: random.Random, exits: int) -> Round:
    burst = Round(world, template, folder, chance, burst=exits)
    if chance.random() < 0.5:
        burst.kill_first_at(None)
        burst.kill_at_arrival = chance.randint(1, exits)
    else:
        burst.kill_first_at(chance.choice(_POINTS), arrivals=chance.randint(1, exits))
    return burst


def main() -> int:
    """The program."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", default=str(time.time_ns()))
    given = options.parse_args()
    print(f"seed {given.seed}", flush=True)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="crash-bursts-"))
    tally = play(given.kills, given.seed, folder, keep_going=True)
    with contextlib.suppress(OSError):  # the files of bursts that failed are kept
        folder.rmdir()
    print(f"{killed(tally)} sellers killed in the middle of bursts of {EXITS}")
    print(*tally.lines(time.monotonic() - began), sep="\n")
    return 0 if killed(tally) >= given.kills and tally.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
