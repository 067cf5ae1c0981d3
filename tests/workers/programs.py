"""Real processes for the worker tests: a program text, run with a server's URL."""

from __future__ import annotations

import subprocess
import textwrap

from tests.support.processes import Program
from tests.support.stream_server import WALLET
from tests.support.waiting import PATIENCE_S

#: Every program begins with the library and a way to connect.
PRELUDE = f"""
import os, sys, threading, time
from lasersell_sync import *
from lasersell_sync.exceptions import *
URL = sys.argv[1]
def connect(**options):
    client = StreamClient("key", options=StreamOptions(**options)).with_endpoint(URL)
    return StreamSession.connect(client, StreamConfigure([{WALLET!r}], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=0.0)))
"""


def run(program: str, url: str, *, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``before``, the prelude and ``program``; a hang is a failure."""
    text = textwrap.dedent(before) + PRELUDE + textwrap.dedent(program)
    with Program("-W", "ignore", "-c", text, url, stderr=subprocess.PIPE) as child:
        code, stdout, stderr = child.end(3 * PATIENCE_S)
        return subprocess.CompletedProcess(child.process.args, code, stdout, stderr)
