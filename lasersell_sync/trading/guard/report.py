"""What the guard says about a transaction: verdicts of nodes, and the report for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

import attrs

from lasersell_sync.exceptions import BrokenRule, UnsafeTransactionError
from lasersell_sync.trading.guard.decoded import Decoded, Instruction, Swap, shown, transferred_lamports
from lasersell_sync.trading.guard.expected import Expected
from lasersell_sync.trading.guard.rules import Limits
from lasersell_sync.trading.guard.rules.rule import Offence, Rule
from lasersell_sync.trading.solana.tx_codec import TxConfig

__all__ = [
    "Finding",
    "GuardReport",
    "SimulationVerdict",
    "Verdict",
    "Verdicts",
    "agreed",
    "describe",
    "describe_simulation",
    "simulation_verdict",
]


# ── What nodes make of a simulation, one by one and together ────────────────────────────────────────────────────────


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


# ── What the guard says about a transaction, for people to read ─────────────────────────────────────────────────────


@attrs.frozen
class Verdict:
    """One rule's.

    Attributes:
        rule: its name.
        demand: what it demands, in words.
        error: how it is broken, or None.
    """

    rule: str
    demand: str
    error: UnsafeTransactionError | None


@attrs.frozen
class GuardReport:
    """What ``SigningGuard.explain`` returns.

    Attributes:
        lines: what the transaction does, one line an instruction.
        verdicts: of every rule, in order; of the first alone when the bytes are not a transaction.
    """

    lines: tuple[str, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def accepted(self) -> bool:
        """Whether ``check`` lets it pass."""
        return all(verdict.error is None for verdict in self.verdicts)

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of the broken rules."""
        return tuple(verdict.rule for verdict in self.verdicts if verdict.error is not None)

    def __str__(self) -> str:
        judged = [
            f"  ok       {verdict.rule}: {verdict.demand}" if verdict.error is None else f"  REFUSED  {verdict.error}"
            for verdict in self.verdicts
        ]
        return "\n".join(["may be signed" if self.accepted else "must not be signed", *self.lines, *judged])


def describe(tx: Decoded, trade: Expected, limits: Limits) -> Iterator[str]:
    """One line an instruction, in order."""
    swaps = {swap.instruction.number: swap for swap in tx.swaps}
    yield f"  paid for and signed by {shown(tx.fee_payer)}" + ("" if tx.signers == 1 else f" and {tx.signers - 1} more")
    if tx.config is not None:
        yield f"  version 1: {_limits_of(tx.config)}"
    for item in tx.instructions:
        swap = swaps.get(item.number)
        what = _instruction(item) if swap is None else _swap(swap, limits)
        yield f"  {item.number}. {item.name}{what}"
    if trade.mint is not None:
        yield f"  expected: a {trade.side} of {shown(trade.mint)}"


def _limits_of(config: TxConfig) -> str:
    named = {
        "lamports of priority fee": config.priority_fee_lamports,
        "compute units": config.unit_limit,
        "bytes of accounts": config.loaded_accounts_bytes,
        "bytes of heap": config.heap_bytes,
    }
    return ", ".join(f"{value} {name}" for name, value in named.items() if value is not None) or "no limits set"


def describe_simulation(simulation: Verdicts | None) -> Iterator[str]:
    """One line a node."""
    if simulation is None:
        yield "  not simulated"
        return
    for finding in simulation.findings:
        yield f"  simulated by {finding}"


def simulation_verdict(broken: Sequence[BrokenRule]) -> Verdict:
    """What the simulation shows, as a rule's verdict."""
    error = UnsafeTransactionError.of(broken) if broken else None
    return Verdict(
        "simulation" if error is None else error.rule, "a simulation shows the trade and nothing else", error
    )


def _swap(swap: Swap, limits: Limits) -> str:
    def amount(units: int, mint: bytes | None) -> str:
        currency = limits.known.currencies.get(mint)  # type: ignore[arg-type]
        name = {None: f"units of {shown(mint)}", "SOL": "lamports"}.get(currency, f"{currency} base units")
        return f"{units} {name}"

    return (
        f": pays at most {amount(swap.most_in, swap.paid_mint)}, gets at least {amount(swap.least_out, swap.got_mint)}"
    )


def _instruction(item: Instruction) -> str:
    if item.is_trusted:
        return ": allowed by you, not looked into"
    if item.program is not None and item.program.is_opaque:
        return f": a layout that is not known, {len(item.data)} bytes of data and {len(item.places)} accounts"
    if item.layout is None:
        return ": not on the list"
    if item.name == "system.transfer":
        return f": {transferred_lamports(item)} lamports to {shown(item.account(1))}"
    if item.name == "compute_budget.set_compute_unit_limit":
        return f": {item.u32(1)} units"
    if item.name == "compute_budget.set_compute_unit_price":
        return f": {item.u64(1)} microlamports a unit"
    accounts = [shown(account) for account in item.accounts[:2]]
    return f": {', '.join(accounts)}" if accounts else ""
