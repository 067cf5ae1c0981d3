"""Fixtures of the sandbox tests; the classes behind them are in ``players.py``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from lasersell_sync.sandbox import Sandbox
from tests.sandbox.players import Rig, Trader


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def make_sandbox() -> Iterator[Callable[..., Sandbox]]:
    """Start sandboxes on free ports, without the Router unless asked; stopped at the end, with no thread left."""
    before = set(threading.enumerate())
    running: list[Sandbox] = []

    def make(**options: Any) -> Sandbox:
        ports = {"stream_port": 0, "api_port": 0, "rpc_port": 0}
        sandbox = Sandbox(**{**ports, "landing_delay_ms": 10, "router": False, **options})
        running.append(sandbox)
        return sandbox.start()

    yield make
    for sandbox in running:
        sandbox.stop()
    left = [thread for thread in threading.enumerate() if thread not in before and "sandbox" in thread.name]
    assert not left, f"threads left: {left}"


@pytest.fixture
def sandbox(make_sandbox: Callable[..., Sandbox]) -> Sandbox:
    return make_sandbox()


@pytest.fixture
def make_trader() -> Iterator[Callable[..., Trader]]:
    traders: list[Trader] = []

    def make(sandbox: Sandbox, **options: Any) -> Trader:
        traders.append(Trader(sandbox, **options))
        return traders[-1]

    yield make
    for trader in traders:
        trader.close()


@pytest.fixture
def trader(sandbox: Sandbox, make_trader: Callable[..., Trader]) -> Trader:
    return make_trader(sandbox).register()


@pytest.fixture
def pair(make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader]) -> Trader:
    """A trader whose sandbox has two nodes, and whose time stands still."""
    return make_trader(make_sandbox(rpc_nodes=2, clock="manual")).register()


@pytest.fixture
def stranger() -> Pubkey:
    return Keypair.from_seed(bytes([99]) * 32).pubkey()
