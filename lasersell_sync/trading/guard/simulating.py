"""Simulations of one transaction: the question to each node, and the verdict of all."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property, partial
from typing import Final

from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.runtime.log import logger
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.trading.guard.addresses import to_text, token_account
from lasersell_sync.trading.guard.decoded import Decoded
from lasersell_sync.trading.guard.expected import SELL, Expected
from lasersell_sync.trading.guard.inner_instructions import Senseless
from lasersell_sync.trading.guard.node_facts import TokenAccountRent, WalletFunds
from lasersell_sync.trading.guard.report import Finding, SimulationVerdict, Verdicts
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, Rule
from lasersell_sync.trading.guard.simulation import AccountState, Simulation, read_simulation, states_of
from lasersell_sync.trading.guard.simulation_rules import simulation_offences
from lasersell_sync.trading.guard.simulators import Peer, Simulators
from lasersell_sync.trading.solana.rpc_node import BEHIND, SimulationAnswer
from lasersell_sync.trading.solana.send_targets import SendTargetRpc

__all__ = ["SIMULATION", "SIMULATION_FAILS", "Simulating", "SimulationQuestion", "without_nodes"]

log = logger("trading.guard")


# ── The question that one node is asked about a transaction, and what its answer comes to ───────────────────────────


States = Mapping[bytes, AccountState]
Sample = tuple[int, States]
#: A node that is behind is asked again after so long.
_BEHIND_S: Final = 0.05
#: Rent is asked of the chain; where it does not answer, what it was before it began to fall.
_OLD_RENT_LAMPORTS_PER_BYTE: Final = 6_960
_ACCOUNT_HEAD_BYTES: Final = 128


class SimulationQuestion:
    """What a transaction would do, asked of one node after the other.

    Args:
        tx_b64: the transaction.
        tx: decoded, every account known.
        trade: what it should be.
        limits: the guard's.
        saw: told a node's number and the wallet's states before, for the wallet's known funds.

    Threads: called on several at once.
    """

    def __init__(
        self,
        tx_b64: str,
        tx: Decoded,
        trade: Expected,
        limits: Limits,
        *,
        saw: Callable[[Peer, States], None],
    ) -> None:
        self._tx_b64 = tx_b64
        self._tx = tx
        self._trade = trade
        self._limits = limits
        self._min_slot = trade.context.newest_slot
        self._saw = saw

    @cached_property
    def _watched(self) -> list[str]:
        return [to_text(key) for key in self._tx.writable_keys]

    def __call__(self, peer: Peer, budget: TimeBudget) -> Finding:
        """Asks one node.

        Raises:
            TxSubmitError: it does not answer.
        """
        try:
            simulation, before = self._simulated(peer, budget)
        except Senseless as error:
            return Finding(peer.label, SimulationVerdict.CANNOT, str(error))
        if simulation.failure is not None:
            return Finding(peer.label, SimulationVerdict.FAILS, simulation.failure)
        assert before is not None  # without a failure it is asked for
        self._saw(peer, before)
        offences = simulation_offences(
            simulation, before, self._tx, self._trade, self._limits, lambda size: _rent(peer, size, budget)
        )
        if not offences:
            return Finding(peer.label, SimulationVerdict.OK)
        words = "; ".join(offence.problem for _, offence in offences)
        return Finding(peer.label, SimulationVerdict.THEFT, words, tuple(offences))

    def _simulated(self, peer: Peer, budget: TimeBudget) -> tuple[Simulation, States | None]:
        """A simulation, and the state that it began from.

        Raises:
            TxSubmitError, Senseless: the node says nothing that counts.
        """
        samples: list[Sample] = []
        while True:
            # Together with the simulation, so that both are more likely of one slot, and take one round trip.
            sampling = None if peer.says_before is not False else self._start_sample(peer, budget)
            simulation = read_simulation(self._answer(peer, budget), self._tx, self._limits.programs)
            if simulation.failure is not None:
                return simulation, None
            peer.says_before = simulation.before is not None
            if simulation.before is not None:
                return simulation, simulation.before
            samples.append(self._sample(peer, budget) if sampling is None else self._end_sample(sampling, peer, budget))
            before = _state_at(simulation.slot, samples)
            if before is not None:
                return simulation, before
            if budget.expired():
                raise Senseless("the accounts before and the simulation are of different slots")

    def _start_sample(self, peer: Peer, budget: TimeBudget) -> Future[Sample]:
        future: Future[Sample] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self._sample(peer, budget))
                except BaseException as error:  # noqa: BLE001 - for whoever waits
                    future.set_exception(error)

        with contextlib.suppress(RuntimeError, MemoryError):  # no thread now: ``_end_sample`` takes it over
            peer.submit(job)
        return future

    def _end_sample(self, future: Future[Sample], peer: Peer, budget: TimeBudget) -> Sample:
        if future.cancel():  # no thread was free for it
            return self._sample(peer, budget)
        return future.result()

    def _answer(self, peer: Peer, budget: TimeBudget) -> SimulationAnswer:
        while True:
            try:
                answer = peer.node.simulate(self._tx_b64, self._watched, budget=budget, min_context_slot=self._min_slot)
            except TxSubmitError as error:
                if error.code != BEHIND or (budget.remaining_s() or 0.0) <= 2 * _BEHIND_S:
                    raise
                time.sleep(_BEHIND_S)
                continue
            if self._min_slot is not None and answer.slot < self._min_slot:
                raise Senseless(f"its state is of slot {answer.slot}, before the position ({self._min_slot})")
            return answer

    def _sample(self, peer: Peer, budget: TimeBudget) -> Sample:
        """What the accounts hold now, and the slot of that."""
        slot = self._min_slot
        found = peer.node.accounts(self._watched, budget=budget, commitment="processed", min_context_slot=slot)
        keys = self._tx.writable_keys
        return found.slot, dict(zip(keys, states_of(found.found, len(keys)), strict=True))  # type: ignore[arg-type]


def _state_at(slot: int, samples: list[Sample]) -> States | None:
    """The state at one slot: a sample of it, or two equal ones around it."""
    for sampled, states in samples:
        if sampled == slot:
            return states
    earlier = [states for sampled, states in samples if sampled < slot]
    later = [states for sampled, states in samples if sampled > slot]
    return earlier[-1] if earlier and later and earlier[-1] == later[0] else None


def _rent(peer: Peer, size: int, budget: TimeBudget) -> int:
    try:
        return peer.rent_lamports(size, budget)
    except TxSubmitError:
        return (size + _ACCOUNT_HEAD_BYTES) * _OLD_RENT_LAMPORTS_PER_BYTE


# ── What a guard makes of transactions whose layout nobody knows ────────────────────────────────────────────────────


#: Seconds for a question about funds; nothing waits for it.
_FUNDS_S: Final = 5.0


def _nothing(_: Decoded, __: Expected, ___: Limits) -> Iterator[Offence]:
    return iter(())


#: No node could say whether the transaction does what it should.
SIMULATION: Final = Rule(
    "simulation", "a node simulated it, or the wallet holds little enough", _nothing, is_kept_in_report_mode=False
)
#: The nodes say that the transaction would land with an error: a fresh one is worth asking for.
SIMULATION_FAILS: Final = Rule(
    "simulation_fails", "it would not land with an error", _nothing, is_kept_in_report_mode=False
)

Offences = list[tuple[Rule, Offence]]


def without_nodes() -> Offences:
    """There is nobody who could simulate."""
    return [
        (
            SIMULATION,
            Offence(
                "its layout is not known, and no node can simulate it", None,
                "name a Solana node: SigningGuard(rpc='https://...')",
            ),
        )
    ]  # fmt: skip


class Simulating:
    """The nodes of one guard, and what they have said.

    Args:
        targets: at least one.
        timeout_s: seconds after which a transaction is decided on.
        max_unsimulated_lamports: a wallet that holds more signs nothing that no node has simulated.

    Threads: every method from any.
    """

    def __init__(self, targets: Sequence[SendTargetRpc], timeout_s: float, max_unsimulated_lamports: int) -> None:
        self._simulators = Simulators(targets, timeout_s)
        self._max_unsimulated_lamports = max_unsimulated_lamports
        self._funds = WalletFunds()
        self._rent = TokenAccountRent(self._simulators.peers)

    def run_aside(self, work: Callable[[], None]) -> None:
        """Run what blocks on a thread of the first node."""
        self._simulators.peers[0].submit(work)

    def close(self) -> None:
        """Ends idle threads."""
        self._simulators.close()

    def start(
        self, tx_b64: str, tx: Decoded, trade: Expected, limits: Limits, on_done: Callable[[Verdicts], None]
    ) -> None:
        """Have a transaction simulated by every node at once.

        Args:
            tx_b64: the transaction.
            tx: the same, decoded; it broke no rule.
            trade: what it should be.
            limits: the guard's.
            on_done: called once, on a thread of a node; it must be quick.
        """
        self._simulators.ask(self._question(tx_b64, tx, trade, limits), on_done)

    def run(self, tx_b64: str, tx: Decoded, trade: Expected, limits: Limits, *, hears_all: bool = False) -> Verdicts:
        """As ``start``, but waits; with ``hears_all`` for every node, though the verdict is known."""
        return self._simulators.ask_and_wait(self._question(tx_b64, tx, trade, limits), hears_all=hears_all)

    def _question(self, tx_b64: str, tx: Decoded, trade: Expected, limits: Limits) -> SimulationQuestion:
        return SimulationQuestion(tx_b64, tx, trade, limits, saw=partial(self._saw, trade.signer, limits))

    def offences(self, verdicts: Verdicts, trade: Expected) -> Offences:
        """What the verdicts come to; none: it may be signed."""
        decisive = verdicts.decisive
        if verdicts.verdict is SimulationVerdict.OK:
            return []
        if verdicts.verdict is SimulationVerdict.THEFT and decisive is not None:
            return list(decisive.offences)
        if verdicts.verdict is SimulationVerdict.FAILS and decisive is not None:
            problem = f"it would fail, says {decisive.node}: {decisive.detail}"
            return [(SIMULATION_FAILS, Offence(problem, None, "ask for a fresh transaction"))]
        return self._unsimulated(verdicts, trade)

    def _unsimulated(self, verdicts: Verdicts, trade: Expected) -> Offences:
        """No node could say anything."""
        problem = f"no node could simulate it ({verdicts})"
        if trade.side != SELL:
            remedy = "a purchase waits for a node that answers: name another one in SigningGuard(rpc=[...])"
            return [(SIMULATION, Offence(problem, None, remedy))]
        limit, known = self._max_unsimulated_lamports, self._funds.known_lamports(trade.signer)
        if known is not None and known <= limit:
            log.warning(
                "a sale is signed without a simulation, because its wallet holds %d lamports (%d at most): %s",
                known, limit, problem,
            )  # fmt: skip
            self._funds.expects(trade.signer, trade.reference_units or 0)
            return []
        held = "an unknown number of" if known is None else str(known)
        problem += f", and the wallet holds {held} lamports ({limit} at most)"
        remedy = "name another node in SigningGuard(rpc=[...]), or raise max_unsimulated_lamports"
        return [(SIMULATION, Offence(problem, None, remedy, amount=known))]

    def token_account_rent(self) -> int:
        """Lamports that a token account must hold, as the nodes said last; does not block."""
        return self._rent.lamports

    # ── what wallets hold ──

    def known_lamports(self, wallet: bytes) -> int | None:
        """SOL and wrapped SOL of a wallet, as nodes said last; None: they said nothing yet."""
        return self._funds.known_lamports(wallet)

    def learn_funds(self, wallet: bytes, limits: Limits, then: Callable[[], None] | None = None) -> None:
        """Ask every node what a wallet holds, and open a connection with it; returns at once.

        Args:
            wallet: whose.
            limits: the guard's.
            then: called on a node's thread, after each node's answer.
        """
        accounts = [wallet, *_wrapped_sol(wallet, limits)]

        def job(peer: Peer) -> None:
            try:
                found = peer.node.accounts(list(map(to_text, accounts)), budget=TimeBudget(_FUNDS_S)).found
            except TxSubmitError as error:
                log.info("what %s holds could not be asked of %s: %s", to_text(wallet), peer.label, error)
                return
            lamports = [0 if account is None else account.lamports or 0 for account in found]
            self._funds.saw(wallet, peer.label, dict(zip(accounts, lamports, strict=True)))
            if then is not None:
                then()

        for peer in self._simulators.peers:
            peer.submit(partial(job, peer))

    def _saw(self, wallet: bytes, limits: Limits, peer: Peer, before: Mapping[bytes, AccountState]) -> None:
        """A simulation began from these states."""
        seen = {key: before[key].lamports for key in (wallet, *_wrapped_sol(wallet, limits)) if key in before}
        self._funds.saw(wallet, peer.label, seen)


def _wrapped_sol(wallet: bytes, limits: Limits) -> list[bytes]:
    known = limits.known
    return [token_account(wallet, known.wrapped_sol, program) for program in known.token_programs]
