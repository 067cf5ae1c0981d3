"""What a guard makes of transactions whose layout nobody knows: has them simulated, and decides by the verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from lasersell_sync._log import logger
from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.timeouts import TimeBudget
from lasersell_sync.trading.guard.addresses import to_text, token_account
from lasersell_sync.trading.guard.decoded import Decoded
from lasersell_sync.trading.guard.expected import SELL, Expected
from lasersell_sync.trading.guard.rents import TokenAccountRent
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, Rule
from lasersell_sync.trading.guard.simulation import AccountState
from lasersell_sync.trading.guard.simulation_question import SimulationQuestion
from lasersell_sync.trading.guard.simulators import Peer, Simulators
from lasersell_sync.trading.guard.verdicts import SimulationVerdict, Verdicts
from lasersell_sync.trading.guard.wallet_funds import WalletFunds
from lasersell_sync.trading.send_targets import SendTargetRpc

__all__ = ["SIMULATION", "SIMULATION_FAILS", "Simulating", "without_nodes"]

log = logger("trading.guard")

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
