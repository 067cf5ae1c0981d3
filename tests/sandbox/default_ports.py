"""The default ports, one test at a time: the official SDKs' local mode knows no others."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lasersell_sync.sandbox import Sandbox

_LOCK_FILE = Path(tempfile.gettempdir()) / f"lasersell-sandbox-default-ports-{os.getuid()}.lock"


@contextmanager
def sandbox_on_default_ports(**options: Any) -> Iterator[Sandbox]:
    """A sandbox where local mode looks for one; waits while another test process of this machine has them."""
    with _LOCK_FILE.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel lets go of it however this process ends
        with Sandbox(**options) as sandbox:
            yield sandbox
