"""Python programs in a process of their own: one that crashes is seen, one that grows is measured alone."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT_S = 110  # a little below a test's own limit, so that what the program said is in the failure


def run(program: str, *arguments: str) -> str:
    """What it printed; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def resident_kib() -> int:
    """The memory of this process now.

    Not ``ru_maxrss``, which a process takes over from the one that started it: a program of 50 MiB that a test suite of
    200 MiB runs could grow by 150 MiB unseen.
    """
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024
