"""What ``import lasersell_sync`` costs, against the packages that it needs and against the official SDK.

Usage: ``python -m benchmarks.bench_import [--json] [--versions] [--seconds S] [--require-peers]``

Each import is timed by a fresh process, from its first line on, with byte code compiled and files in the page cache.
The smallest time is the one least disturbed; it is told beside the median.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

from benchmarks import command
from benchmarks.command import missing_packages
from benchmarks.rounds import Table, interleave

OURS: Final = "lasersell_sync"
PACKAGES: Final = ("attrs", "tenacity", "websocket-client", "lasersell-sdk")
NEEDED: Final = "websocket-client + attrs + tenacity"
IMPORTS: Final = {
    OURS: "lasersell_sync",
    NEEDED: "websocket, attrs, tenacity",
    "official SDK (lasersell_sdk.stream, websockets)": "lasersell_sdk.stream, websockets.asyncio.client",
}
PROGRAM: Final = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def measure(seconds: float) -> command.Outcome:
    """Fresh processes in turn."""
    imports = dict(IMPORTS)
    if missing_packages(["lasersell-sdk"]):
        del imports["official SDK (lasersell_sdk.stream, websockets)"]
    for modules in imports.values():
        _import_ms(modules)
    turns = {name: lambda modules=modules: [_import_ms(modules)] for name, modules in imports.items()}
    table = Table("import", "import in a fresh process", "ms").fill(interleave(turns, seconds))
    table.notes = {name: f"at best {min(row.rounds):.1f} ms" for name, row in table.rows.items()}
    return command.Outcome([table])


def _import_ms(modules: str) -> float:
    # The first run leaves the byte code, as an installation does; also where the environment forbids it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command_line = [sys.executable, "-c", PROGRAM.format(modules)]
    done = subprocess.run(command_line, capture_output=True, text=True, check=True, timeout=60, env=environment)
    return float(done.stdout) * 1e3


if __name__ == "__main__":
    sys.exit(command.main(__doc__, measure, peers=PACKAGES, seconds=20))
