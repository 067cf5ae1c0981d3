"""Contestants measured in turn, and what is told of them.

A machine that slows down slows whoever is being measured. So every contestant has its turn in every round, each round
begins with another one, and contestants are compared within a round only.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Row", "Table", "Turn", "interleave", "percentile"]

Turn = Callable[[], Sequence[float]]


def interleave(turns: Mapping[str, Turn], seconds: float, *, at_least: int = 3) -> dict[str, list[Sequence[float]]]:
    """What each contestant measured in each round.

    Args:
        turns: name to one turn, which returns what it measured: one number, or many of the same kind.
        seconds: no round begins after this time, except for the first ``at_least`` ones.
        at_least: rounds, however long they take.
    """
    names = list(turns)
    measured: dict[str, list[Sequence[float]]] = {name: [] for name in names}
    deadline = time.monotonic() + seconds
    done = 0
    while done < at_least or time.monotonic() < deadline:
        first = done % len(names)
        for name in names[first:] + names[:first]:
            measured[name].append(turns[name]())
        done += 1
    return measured


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@dataclass(frozen=True)
class Row:
    """One contestant.

    Attributes:
        median: of all its values.
        p99: the 99th percentile on the bad side.
        worst: the worst value.
        quartiles: of its rounds' medians: how steady the machine was.
        against: how many times better it is than each other contestant: the median of the ratios within each round.
        rounds: the median of each round. Results that are kept in a file have none.
    """

    median: float
    p99: float
    worst: float
    quartiles: tuple[float, float]
    against: Mapping[str, float]
    rounds: tuple[float, ...] = ()


@dataclass
class Table:
    """The contestants of one measurement, the one of ours that the others are compared with first.

    Attributes:
        key: short name, unique in its benchmark.
        title: what was measured.
        unit: of every number in it.
        more_is_better: a rate; else a time or a size. The 99th percentile is always of the bad side.
        rows: by contestant.
        notes: by contestant, what else is to be known of it.
    """

    key: str
    title: str
    unit: str
    more_is_better: bool = False
    rows: dict[str, Row] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def fill(self, measured: Mapping[str, Sequence[Sequence[float]]]) -> Table:
        """Take in what ``interleave`` returned; the table itself."""
        medians = {name: tuple(statistics.median(one) for one in rounds) for name, rounds in measured.items()}
        for name, rounds in measured.items():
            values = [value for one in rounds for value in one]
            bad = [-value for value in values] if self.more_is_better else values
            self.rows[name] = Row(
                median=statistics.median(values),
                p99=abs(percentile(bad, 0.99)),
                worst=abs(max(bad)),
                quartiles=(percentile(medians[name], 0.25), percentile(medians[name], 0.75)),
                against={peer: self._times_better(medians[name], medians[peer]) for peer in medians if peer != name},
                rounds=medians[name],
            )
        return self

    def _times_better(self, ours: Sequence[float], peer: Sequence[float]) -> float:
        pairs = zip(ours, peer, strict=True)
        if self.more_is_better:
            return statistics.median(_times(own, other) for own, other in pairs)
        return statistics.median(_times(other, own) for own, other in pairs)

    def ratio(self, ours: str, peer: str) -> float:
        """How many times better ``ours`` is: the median over rounds of the ratio within each round."""
        return 1.0 if ours == peer else self.rows[ours].against[peer]

    def to_json(self) -> dict[str, Any]:
        """As a dictionary: what the page needs of each contestant, with ten digits, and not every round."""
        fields = asdict(self)
        for row in fields["rows"].values():
            del row["rounds"]
        return _rounded(fields)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Table:
        """Back from ``to_json``."""
        rows = {name: Row(**{**row, "quartiles": tuple(row["quartiles"])}) for name, row in fields["rows"].items()}
        return cls(**{**fields, "rows": rows})


def _times(value: float, other: float) -> float:
    return value / other if other else math.inf


def _rounded(value: Any) -> Any:
    """The same with floats of ten significant digits."""
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
