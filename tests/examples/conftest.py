"""Fixtures of the tests that run examples and the README."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lasersell_sync import close_rpc_connections
from lasersell_sync.sandbox import Sandbox
from tests.examples.trading import Account


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    """A wallet on a sandbox whose market runs five times as fast as usual."""
    with Sandbox(stream_port=0, api_port=0, rpc_port=0, speed=5, landing_delay_ms=20, pnl_flush_ms=20) as sandbox:
        yield Account.on(sandbox, tmp_path)
        close_rpc_connections()
