"""The numbers of many rounds."""

from __future__ import annotations

import collections
import json

import attrs

from tests.crash.points import POINTS

#: What worlds and users do beside killing; in the order in which it is printed.
EVENTS = (
    "round with two nodes of which one lies", "answer that was a lie", "round through the Router",
    "round whose simulating node hung or lied", "burst of 40", "re-buy during the gap, signalled",
    "re-buy during the gap, signalled by nobody", "re-buy that was sold", "journal by a symbolic link",
    "second seller refused by the other name", "forked child that outlived its seller",
    "whole exit signed while a part could land", "second transaction of a whole exit after a false answer",
    "exit refused, reported and signalled again", "seller killed when a node had received so many",
    "received transaction looked up in the journal after a kill",
)  # fmt: skip


@attrs.define
class Tally:
    """The numbers of many rounds."""

    rounds: int = 0
    exits: int = 0
    sales: int = 0
    doubles: int = 0
    forgotten: int = 0
    wrong: int = 0
    #: Sales of an opening that nobody signalled.
    unwanted: int = 0
    #: Transactions that a node received, and that the journal of the seller that died did not have.
    unrecorded: int = 0
    #: Signals that died with a process before they were written down, and that the server does not repeat.
    unheard: int = 0
    lives: int = 0
    transactions: int = 0
    kills: collections.Counter[str] = attrs.field(factory=collections.Counter)
    events: collections.Counter[str] = attrs.field(factory=collections.Counter)

    def add(self, other: Tally) -> None:
        for name, value in attrs.asdict(other, recurse=False).items():
            if isinstance(value, collections.Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    def as_json(self) -> str:
        return json.dumps(attrs.asdict(self, recurse=False))

    @classmethod
    def from_json(cls, text: str) -> Tally:
        values = json.loads(text)
        counters = {name: collections.Counter(values[name]) for name in ("kills", "events")}
        return cls(**{**values, **counters})

    @property
    def is_good(self) -> bool:
        return not (self.doubles or self.forgotten or self.wrong or self.unwanted or self.unrecorded)

    def lines(self, seconds: float) -> list[str]:
        """The report."""
        breaches = f"double sales: {self.doubles}, forgotten exits: {self.forgotten}, wrong reports: {self.wrong}"
        unasked = f"sales of an opening that nobody signalled: {self.unwanted}"
        return [
            f"{self.rounds} rounds in {seconds:.0f} s, {self.lives} processes, {self.exits} exits,",
            f"{self.sales} sales by {self.transactions} transactions; signals that nobody heard: {self.unheard}",
            f"{breaches}, {unasked}, transactions sent without a record: {self.unrecorded}",
            *(f"  {self.events[event]:5d} times: {event}" for event in EVENTS),
            *(f"  killed {self.kills[point]:5d} times: {point}" for point in POINTS),
        ]


class RoundFailed(AssertionError):
    """What must never happen has happened; the text has the whole story, ``kind`` is the tally's name for it."""

    def __init__(self, kind: str, story: str) -> None:
        super().__init__(story)
        self.kind = kind
