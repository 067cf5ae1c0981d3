"""What nodes make of a simulation, one by one and together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

import attrs

from lasersell_sync.trading.guard.rules.rule import Offence, Rule

__all__ = ["Finding", "SimulationVerdict", "Verdicts", "agreed"]


class SimulationVerdict(str, Enum):
    """One node's verdict, and that of all nodes together."""

    #: The transaction takes something that it must not take.
    THEFT = "theft"
    #: It does what it should.
    OK = "ok"
    #: It would land with an error.
    FAILS = "fails"
    #: The node says nothing that counts: silence, 429, an old state, nonsense.
    CANNOT = "cannot"


@attrs.frozen
class Finding:
    """One node's verdict.

    Attributes:
        node: the node's host.
        verdict: what it comes to.
        detail: why, in words.
        offences: what is broken, of a ``THEFT``.
    """

    node: str
    verdict: SimulationVerdict
    detail: str = ""
    offences: Sequence[tuple[Rule, Offence]] = ()

    def __str__(self) -> str:
        return f"{self.node}: {self.verdict.value}" + (f" ({self.detail})" if self.detail else "")


@attrs.frozen
class Verdicts:
    """All nodes' verdicts.

    Attributes:
        verdict: any ``THEFT``, else any ``OK``, else any ``FAILS``, else ``CANNOT``.
        findings: one for each node.
    """

    verdict: SimulationVerdict
    findings: tuple[Finding, ...]

    @property
    def decisive(self) -> Finding | None:
        """The first finding that has the verdict; None where there is no node."""
        return next((finding for finding in self.findings if finding.verdict is self.verdict), None)

    def __str__(self) -> str:
        return "; ".join(map(str, self.findings)) or "no node"


_ORDER = (SimulationVerdict.THEFT, SimulationVerdict.OK, SimulationVerdict.FAILS)


def agreed(findings: Iterable[Finding]) -> Verdicts:
    """The verdict of all nodes together."""
    known = tuple(findings)
    said = {finding.verdict for finding in known}
    return Verdicts(next((verdict for verdict in _ORDER if verdict in said), SimulationVerdict.CANNOT), known)
