"""The definition of an opening, case by case."""

from __future__ import annotations

import pytest

from lasersell_sync.openings import Opening, is_same_opening


@pytest.mark.parametrize("facts", [{}, {"was_closed": True}, {"part_landed": True}, {"exit_under_way": True}])
@pytest.mark.parametrize("entry", [50, 100, 150])
def test_opening_both_moments_named_moments_decide(entry: int, facts: dict[str, bool]) -> None:
    known = Opening(100, 7)
    assert is_same_opening(known, Opening(entry, 7), **facts)
    assert not is_same_opening(known, Opening(entry, 8), **facts)
    # 0 is a moment like any other.
    assert not is_same_opening(Opening(100, 0), Opening(entry, 7), **facts)


@pytest.mark.parametrize("moments", [(None, None), (7, None), (None, 7)])
@pytest.mark.parametrize(
    ("entry", "facts", "same"),
    [
        (100, {}, True),
        (150, {}, False),
        (50, {}, False),
        (50, {"part_landed": True}, True),
        (150, {"part_landed": True}, False),
        (150, {"exit_under_way": True}, True),
        (50, {"exit_under_way": True}, True),
        (100, {"was_closed": True}, False),
        (50, {"was_closed": True, "part_landed": True}, False),
        (50, {"was_closed": True, "exit_under_way": True}, False),
    ],
)
def test_opening_moment_not_named_close_entry_and_own_sales_decide(
    moments: tuple[int | None, int | None], entry: int, facts: dict[str, bool], same: bool
) -> None:
    assert is_same_opening(Opening(100, moments[0]), Opening(entry, moments[1]), **facts) is same
