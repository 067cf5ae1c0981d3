"""Faults on the client's own side, for the chaos program: shortages of descriptors and threads, and forks."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from lasersell_sync import ForkedProcessError, StreamSession
from tests.support.raw_fork import raw_fork

#: A child that has not ended by itself then is killed, and counts as a failure.
CHILD_PATIENCE_S = 10.0


class ClientFaults:
    """Seeded faults in this process, one after the other.

    Threads: one.
    """

    def __init__(self, session: StreamSession, rand: random.Random) -> None:
        self._session = session
        self._rand = rand
        self.done: Counter[str] = Counter()
        #: What a forked child should not have seen, in words.
        self.wrong: list[str] = []
        self._faults: dict[str, Callable[[], object]] = {
            "no_descriptors": lambda: self._short_of(no_descriptors),
            "no_threads": lambda: self._short_of(no_threads),
            "fork": lambda: self._fork(os.fork),
            # With the interpreter lock held, as servers do it: in the child nobody else could release it.
            "fork_without_hooks": lambda: self._fork(raw_fork),
        }

    def strike(self) -> None:
        """One fault; a shortage lasts for a moment."""
        name = self._rand.choice(sorted(self._faults))
        self.done[name] += 1
        self._faults[name]()

    def _short_of(self, shortage: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        with shortage():
            threading.Event().wait(self._rand.uniform(0.1, 1.5))

    def _fork(self, fork: Callable[[], int]) -> None:
        pid = fork()
        if pid == 0:
            self._be_a_child()
        code = _exit_code(pid)
        if code != 0:
            self.wrong.append(f"a forked child ended with {code}")

    def _be_a_child(self) -> None:
        """What a worker does that inherits a session; ends this process."""
        code = 1
        try:
            with contextlib.suppress(ForkedProcessError):
                self._session.recv(timeout=1)
                os._exit(2)
            with contextlib.suppress(ForkedProcessError):
                self._session.request_exit_signal(self._session.positions()[0])
                os._exit(3)
            self._session.close()
            code = 0
        finally:
            os._exit(code)


def _exit_code(pid: int) -> int:
    ends_at = time.monotonic() + CHILD_PATIENCE_S
    pause = threading.Event()
    while time.monotonic() < ends_at:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        pause.wait(0.01)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """No further descriptor can be opened (EMFILE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """No further thread can be started."""
    start = threading.Thread.start

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threading.Thread.start = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
