"""How an exit is pursued: numbers that make sense, and the slippage of each try."""

from __future__ import annotations

from typing import Any

import pytest

from lasersell_sync.autosell import LegPlan, SellPolicy
from lasersell_sync.exceptions import ConfigurationError


def test_slippage_rises_as_the_reference_daemon_raises_it():
    """From 2 000: +20, then +40 each, never above 2 500 (docs/protocol.md 9)."""
    policy = SellPolicy()
    assert [policy.slippage_bps(dead) for dead in range(5)] == [2_000, 2_020, 2_060, 2_100, 2_140]
    assert policy.slippage_bps(1_000) == 2_500
    flat = SellPolicy(base_slippage_bps=100, first_bump_bps=0, next_bump_bps=0, max_slippage_bps=100)
    assert flat.slippage_bps(7) == 100


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_slippage_bps", -1),
        ("base_slippage_bps", 2_501),
        ("max_slippage_bps", 10_001),
        ("first_bump_bps", 1.5),
        ("max_refreshes", True),
        ("max_signal_age_s", 0),
        ("max_signal_age_s", float("nan")),
        ("refresh_wait_s", float("inf")),
        ("max_unanswered", 0),
        ("overlap_full_exit", 1),
        ("overlap_after_s", -1.0),
    ],
)
def test_what_makes_no_sense_is_named(field: str, value: Any):
    with pytest.raises(ConfigurationError) as caught:
        SellPolicy(**{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize(("slippage_bps", "band"), [(100, 100), (199, 100), (500, 500), (2_500, 1_000)])
def test_a_leg_plan_looks_at_the_widest_band_within_its_limit(slippage_bps: int, band: int):
    assert LegPlan(slippage_bps=slippage_bps).band_bps == band


@pytest.mark.parametrize(
    ("field", "value"),
    [("slippage_bps", 99), ("min_tokens", 0), ("draining_share", 0), ("shrink", 2), ("timeout_s", 0)],
)
def test_a_leg_plan_that_cannot_work_is_named(field: str, value: Any):
    with pytest.raises(ConfigurationError) as caught:
        LegPlan(**{"slippage_bps": 500, field: value})
    assert caught.value.field == field
