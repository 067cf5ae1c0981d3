"""Fixtures of the fault tests: both servers behind a fault proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.rigs import RIGS, Rig, WebsocketsRig


@pytest.fixture(params=sorted(RIGS))
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A server behind a fault proxy: the sandbox, then one written by someone else."""
    made = RIGS[request.param]()
    yield made
    made.stop()


@pytest.fixture
def plain_rig() -> Iterator[WebsocketsRig]:
    """The foreign server alone, where the fault has nothing to do with the server."""
    made = WebsocketsRig()
    yield made
    made.stop()
