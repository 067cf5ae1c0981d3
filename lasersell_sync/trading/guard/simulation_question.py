"""The question that one node is asked about a transaction, and what its answer comes to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import cached_property
from typing import Final

from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.timeouts import TimeBudget
from lasersell_sync.trading.guard.addresses import to_text
from lasersell_sync.trading.guard.decoded import Decoded
from lasersell_sync.trading.guard.expected import Expected
from lasersell_sync.trading.guard.inner_instructions import Senseless
from lasersell_sync.trading.guard.rules.rule import Limits
from lasersell_sync.trading.guard.simulation import AccountState, Simulation, read_simulation, states_of
from lasersell_sync.trading.guard.simulation_rules import simulation_offences
from lasersell_sync.trading.guard.simulators import Peer
from lasersell_sync.trading.guard.verdicts import Finding, SimulationVerdict
from lasersell_sync.trading.rpc_node import BEHIND, SimulationAnswer

__all__ = ["SimulationQuestion"]

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
