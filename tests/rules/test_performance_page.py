"""docs/performance.md is made from the kept results: every number on it is in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.page import PLOTS, make_page, make_plots
from benchmarks.report import LENGTHS
from benchmarks.rounds import Table

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "results"


def test_the_page_and_its_plots_are_what_the_results_make() -> None:
    """A number changed by hand, on either side, shows."""
    raw = {name: json.loads((FOLDER / f"{name}.json").read_text("utf-8")) for name in LENGTHS}
    assert make_page(raw) == (ROOT / "docs" / "performance.md").read_text("utf-8")
    for name, svg in make_plots(raw).items():
        assert svg == (ROOT / "docs" / PLOTS / name).read_text("utf-8"), name


def test_results_stay_small() -> None:
    """Medians, quantiles, ratios and the machine are kept; single rounds are not."""
    assert sum(path.read_text("utf-8").count("\n") for path in FOLDER.glob("*.json")) < 2_000


def test_table_read_back_from_json_gives_the_same_ratios() -> None:
    """Contestants are compared within a round: the ratio of the medians would be another one."""
    measured = {"ours": [[1.0], [2.0], [30.0], [4.0]], "theirs": [[3.0], [2.0], [15.0], [16.0]]}
    for more_is_better in (False, True):
        table = Table("k", "t", "ms", more_is_better).fill(measured)
        kept = Table.from_json(json.loads(json.dumps(table.to_json())))
        expected = pytest.approx(2 / 3 if more_is_better else 2.0)
        assert table.ratio("ours", "theirs") == expected
        assert kept.ratio("ours", "theirs") == expected
