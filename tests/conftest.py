"""Fixtures and guards shared by all suites: loopback only, no thread left behind, seeds printed."""

from __future__ import annotations

import ipaddress
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from lasersell_sync.runtime.log import repeat_limit

#: A look-up that hangs in the resolver cannot be ended; it is the one thread that may outlive its owner.
MAY_OUTLIVE = ("lasersell-dns",)
THREAD_PATIENCE_S = 5.0


def pytest_report_header() -> str:
    """Which backend this run tests, so that a green run says what it was green on."""
    from lasersell_sync import backend

    return f"lasersell_sync backend: {backend()}"


def _is_loopback(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # unix sockets and the like stay on the machine
    host = str(address[0])
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.split("%", maxsplit=1)[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def _loopback_only() -> Iterator[None]:
    """No test may reach another machine."""
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex"):
        real = getattr(socket.socket, name)

        def guarded(sock: socket.socket, address: object, *, _real: object = real) -> object:
            if not _is_loopback(address):
                raise AssertionError(f"a test tried to reach {address}; tests stay on loopback")
            return _real(sock, address)  # type: ignore[operator]

        patch.setattr(socket.socket, name, guarded)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    """Every library thread that a test starts ends with it."""
    before = set(threading.enumerate())
    yield
    selling = sys.modules.get("tests.support.selling")
    if selling is not None:
        selling.close_rigs()
    deadline = time.monotonic() + THREAD_PATIENCE_S
    while True:
        left = [
            thread
            for thread in threading.enumerate()
            if thread not in before and thread.name.startswith("lasersell") and thread.name not in MAY_OUTLIVE
        ]
        if not left:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"threads left behind: {[thread.name for thread in left]}")
        left[0].join(0.1)


@pytest.fixture(autouse=True)
def _unlimited_log() -> None:
    """One test's lines are none of the next one's flood."""
    repeat_limit.log_sums(all_kinds=True)
    repeat_limit.forget()


@pytest.fixture(autouse=True)
def _clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own key and endpoints have no part in a test."""
    for name in [name for name in os.environ if name.startswith("LASERSELL_") and name.endswith(("_KEY", "_URL"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def rand(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers; the seed is in the test's captured output and can be set with LASERSELL_TEST_SEED."""
    seed = os.environ.get("LASERSELL_TEST_SEED") or f"{time.time_ns()}"
    print(f"seed: LASERSELL_TEST_SEED={seed}")
    return random.Random(f"{request.node.nodeid}:{seed}")
