"""The process that sellers are forked from, as the rounds see it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from typing import Any

from tests.support.processes import IMPORT_ROOT, TESTS_ROOT, surroundings

#: A seller is begun, and buried, in far less.
_WITHIN_S = 60.0


class Template:
    """The process that sellers are forked from."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(IMPORT_ROOT), str(TESTS_ROOT)])
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.crash.seller_program"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**surroundings(), "PYTHONPATH": path},
        )
        self._said = b""

    def begin(self, plan: dict[str, Any]) -> int:
        """Fork a seller; its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(plan).encode() + b"\n")
        self._process.stdin.flush()
        words = self._line(_WITHIN_S)
        assert words is not None, "the template is gone"
        assert words.startswith("begun "), words
        return int(words.split()[1])

    def ended(self, within_s: float) -> int | None:
        """The wait status of the seller that runs, once it has ended; None: it runs on."""
        words = self._line(within_s)
        return None if words is None else int(words.split()[1])

    def has_ended(self, within_s: float) -> bool:
        """As ``ended``, which tells it afterwards all the same."""
        words = self._line(within_s)
        if words is not None:
            self._said = words.encode() + b"\n" + self._said
        return words is not None

    def _line(self, within_s: float) -> str | None:
        assert self._process.stdout is not None
        ends_at = time.monotonic() + within_s
        while b"\n" not in self._said:
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, ends_at - time.monotonic()))
            if not readable:
                return None
            self._said += os.read(self._process.stdout.fileno(), 4096)
        line, self._said = self._said.split(b"\n", 1)
        return line.decode()

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(10)
        self._process.stdout.close()  # type: ignore[union-attr]
