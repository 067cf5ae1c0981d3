"""Whether a token account is still as it was recorded: what it holds, and who has touched it since.

Equal balances prove nothing: tokens may have been sold by hand and bought again. So each node is asked for the balance
and for the transactions that name the account (``getSignaturesForAddress``), both from a state that is as new as the
newest block of any node. A wrong "untouched" would sell what nobody signalled; a wrong "touched" ends an exit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, NamedTuple

import attrs

from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.trading.solana.expiry import SlotTime
from lasersell_sync.trading.solana.rpc_node import BEHIND, MAX_SIGNATURES, NO_HISTORY_CODE, AddressTx, RpcNode
from lasersell_sync.trading.solana.token_accounts import amount_of

__all__ = ["AccountHistory", "Finding", "Recorded", "Verdict", "ask_for_history"]

#: A node that cannot say is left out after so long, where that is possible at all.
LEFT_OUT_AFTER_S: Final = 60.0
#: An account with more transactions since an exit was recorded is not looked through.
_MOST_PAGES: Final = 10
#: Block times and the clock of this machine may differ by so much; only used where no slot was recorded.
_CLOCKS_DIFFER_S: Final = 60.0


class Finding(Enum):
    """What a node, or all nodes together, say about an account."""

    #: It holds what was recorded, and nobody else has touched it.
    UNTOUCHED = "untouched"
    #: Somebody else has touched it, or it holds something else than was recorded.
    TOUCHED = "touched"
    #: It holds nothing.
    EMPTY = "empty"


class Verdict(NamedTuple):
    """A finding with its reason, in words."""

    finding: Finding
    detail: str


@attrs.frozen(kw_only=True)
class Recorded:
    """What is known of a token account from a record.

    Attributes:
        began_s: Unix seconds of this machine's clock when the record was made.
        slot: the newest slot at which the account had been seen then; None: not known, and ``began_s`` counts.
        amounts: what it may hold now, in atomic units: what was recorded minus what landed.
        own: every signature that was ever made for it, base58.
        landed: those that are known to have landed, by slot: a history without them is not complete.
        dead: those that were called dead. One that stands in the history has landed after all.
    """

    began_s: float
    slot: int | None
    amounts: frozenset[int]
    own: frozenset[str]
    landed: dict[str, int] = attrs.Factory(dict)
    dead: frozenset[str] = frozenset()

    def is_old(self, each: AddressTx) -> bool:
        """Whether a transaction was there when the record was made."""
        if self.slot is not None:
            return each.slot <= self.slot
        return each.time_s is not None and each.time_s < self.began_s - _CLOCKS_DIFFER_S

    @property
    def since(self) -> int:
        """The chain had reached this slot when the last recorded thing happened; 0: no slot is known."""
        return max((*self.landed.values(), self.slot or 0), default=0)


class AccountHistory:
    """What nodes have said so far about one token account, and what follows from it.

    - A node's answer counts when its state is not older than the newest block that any node named, than the newest
      recorded landing, and than ``announced``. Where neither slot is known, all nodes may lag behind the tokens; that
      much (``SlotTime.lag_blocks``) is added.
    - All nodes that can say must agree, and two must where two are configured. Nodes that contradict each other decide
      nothing.
    - A node that cannot say (silence, an error, no history) is left out after a minute: if two others agree; or if the
      stream says the same as the other (``is_witnessed``); or if the account is not as it was recorded, for then
      nothing is sold.

    Args:
        recorded: what the account was.
        nodes: labels of the nodes that are asked.
        announced: calls for the slot at which the server has seen the tokens last; 0: not known.
        is_witnessed: calls for whether the stream says that the account holds such an amount.

    Threads: none; the caller guards it.
    """

    def __init__(
        self,
        recorded: Recorded,
        *,
        announced: Callable[[], int] = lambda: 0,
        is_witnessed: Callable[[frozenset[int]], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.recorded = recorded
        self._announced = announced
        self._is_witnessed = is_witnessed
        self._clock = clock
        self._asked_first_at: float | None = None
        self._verdicts: dict[int, Verdict] = {}
        #: By node: why it cannot say.
        self._problems: dict[int, str] = {}
        self._labels: tuple[str, ...] = ()
        self._bound: int | None = None
        self._lag_blocks = 0

    def begin_round(self, nodes: Sequence[RpcNode], tips: Sequence[int], slot_time: SlotTime) -> None:
        """All nodes are asked, once more.

        Args:
            nodes: who is asked.
            tips: slots of the newest confirmed blocks of those that answered.
            slot_time: how far a node may lag.
        """
        if self._asked_first_at is None:
            self._asked_first_at = self._clock()
        self._labels = tuple(node.label for node in nodes)
        self._verdicts.clear()
        if tips:
            # A slot that is far above another node's is no slot of this chain.
            believed = max(tip for tip in tips if tip <= min(tips) + slot_time.lag_blocks)
            self._bound = believed if self._bound is None else min(self._bound, believed)
            self._lag_blocks = slot_time.lag_blocks

    @property
    def bound(self) -> int | None:
        """The state that an answer must come from at least; None: no node named its newest block."""
        if self._bound is None:
            return None
        known = max(self.recorded.since, self._announced())
        # Where no slot is known, all nodes may lag behind the tokens.
        return max(self._bound, known) if known else self._bound + self._lag_blocks

    def saw(self, node: int, verdict: Verdict) -> None:
        """A node has answered everything."""
        self._problems.pop(node, None)
        self._verdicts[node] = verdict

    def failed(self, node: int, problem: str) -> None:
        """A node cannot say."""
        self._problems[node] = problem

    def decided(self) -> Verdict | None:
        """What is proven; None: nothing yet."""
        findings = {verdict.finding for verdict in self._verdicts.values()}
        if len(findings) != 1 or (len(self._verdicts) < len(self._labels) and not self._may_leave_out(findings)):
            return None
        return next(iter(self._verdicts.values()))

    def _may_leave_out(self, findings: set[Finding]) -> bool:
        """Whether the nodes that cannot say are not waited for."""
        if self._asked_first_at is None or self._clock() - self._asked_first_at < LEFT_OUT_AFTER_S:
            return False
        if Finding.UNTOUCHED not in findings or len(self._verdicts) >= 2:
            return True
        return self._is_witnessed(self.recorded.amounts)

    def explain(self) -> str:
        """What is missing for a proof, in words."""
        words = [f"{self._labels[node]} says {each.detail}" for node, each in sorted(self._verdicts.items())]
        words += [f"{self._labels[node]} cannot say: {problem}" for node, problem in sorted(self._problems.items())]
        return "; ".join(words) or "no node has answered yet"


def ask_for_history(
    nodes: Sequence[RpcNode], token_account: str, history: AccountHistory, *, slot_time: SlotTime, timeout_s: float
) -> Verdict | None:
    """Ask every node once; what is proven now, or None: ask again a little later, with the same ``history``.

    What nodes fail to answer is in ``history.explain()``.
    """
    budget = TimeBudget(timeout_s)
    tips: list[int] = []
    failed: dict[int, str] = {}
    for number, node in enumerate(nodes):
        try:
            tips.append(node.tip("confirmed", budget=_share(budget, 2 * len(nodes) - number)).slot)
        except TxSubmitError as error:
            failed[number] = _words(error)
    history.begin_round(nodes, tips, slot_time)
    for number, node in enumerate(nodes):
        if number in failed:
            history.failed(number, failed[number])
            continue
        try:
            verdict = _look(node, token_account, history, _share(budget, len(nodes) - number))
        except TxSubmitError as error:
            history.failed(number, _words(error))
        else:
            history.saw(number, verdict)
    return history.decided()


def _share(budget: TimeBudget, parts: int) -> TimeBudget:
    return TimeBudget((budget.remaining_s() or 0.0) / parts)


def _look(node: RpcNode, token_account: str, history: AccountHistory, budget: TimeBudget) -> Verdict:
    """One node's verdict.

    Raises:
        TxSubmitError: it cannot say.
    """
    bound, recorded = history.bound, history.recorded
    assert bound is not None  # this node named its newest block
    slot, found = node.accounts([token_account], budget=budget, min_context_slot=bound)
    if slot < bound:
        raise TxSubmitError("decode_response", f"its state of slot {slot} is older than {bound}", target=node.label)
    amount = 0 if found[0] is None else amount_of(found[0])
    if amount is None:
        raise TxSubmitError("decode_response", "it is not a token account", target=node.label)
    if amount == 0:
        return Verdict(Finding.EMPTY, "nothing is left in the token account")
    if amount not in recorded.amounts:
        expected = " or ".join(map(str, sorted(recorded.amounts))) or "none"
        return Verdict(Finding.TOUCHED, f"it holds {amount} tokens, and {expected} were left by the record")
    return _judge(_newer(node, token_account, bound, recorded, budget), recorded)


def _newer(node: RpcNode, token_account: str, bound: int, recorded: Recorded, budget: TimeBudget) -> list[AddressTx]:
    """The transactions since the record.

    Raises:
        TxSubmitError: the node cannot list them all.
    """
    newer: list[AddressTx] = []
    before: str | None = None
    for _ in range(_MOST_PAGES):
        page = node.transactions_of(token_account, budget=budget, min_context_slot=bound, before=before)
        for each in page:
            if recorded.is_old(each):
                return newer
            newer.append(each)
        if len(page) < MAX_SIGNATURES:
            break
        before = page[-1].signature
    # The transaction that brought the tokens is not listed: either the node has no blocks of then, or it is too old.
    if len(page) < MAX_SIGNATURES and recorded.slot is not None and node.first_block(budget=budget) <= recorded.slot:
        return newer
    raise TxSubmitError("decode_response", "its history does not go back to the record", target=node.label)


def _judge(newer: Sequence[AddressTx], recorded: Recorded) -> Verdict:
    """What a complete list says.

    Raises:
        TxSubmitError: the list lacks what is known to be there.
    """
    listed = {each.signature for each in newer}
    missing = [each for each, slot in recorded.landed.items() if slot > (recorded.slot or 0) and each not in listed]
    if missing and recorded.slot is not None:
        raise TxSubmitError("decode_response", f"its history lacks {missing[0]}, which has landed")
    for each in newer:
        if each.has_failed:
            continue  # it changed nothing
        if each.signature in recorded.dead:
            return Verdict(Finding.TOUCHED, f"{each.signature} was called dead and landed in slot {each.slot}")
        if each.signature not in recorded.own:
            return Verdict(
                Finding.TOUCHED, f"{each.signature}, which is not ours, touched it in slot {each.slot} after the record"
            )
    return Verdict(Finding.UNTOUCHED, "it is as it was recorded")


def _words(error: TxSubmitError) -> str:
    if error.code == NO_HISTORY_CODE:
        return "it keeps no transaction history; start it with --enable-rpc-transaction-history, or add another node"
    if error.code == BEHIND:
        return "its state is older than another node's"
    return str(error)
