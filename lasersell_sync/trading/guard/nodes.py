"""The Solana nodes that a guard asks: all at once, each within the same time limit."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import attrs

from lasersell_sync.exceptions import ConcurrencyError, TxSubmitError
from lasersell_sync.timeouts import TimeBudget
from lasersell_sync.trading._json_rpc import client_for
from lasersell_sync.trading.rpc_node import RpcNode
from lasersell_sync.trading.send_targets import SendTargetRpc
from lasersell_sync.user_code import passes_through

__all__ = ["GuardNodes", "NodeAnswer"]

T = TypeVar("T")


@attrs.frozen
class NodeAnswer(Generic[T]):
    """What one node answered.

    Attributes:
        node: the node's place among ``GuardNodes.targets``, from 0.
        value: the answer; None when there is none.
        error: why there is none. A node that was silent until the time limit has ``response_read``.
    """

    node: int
    value: T | None
    error: TxSubmitError | None


class GuardNodes:
    """Asks every node the same question at the same time.

    Args:
        targets: the nodes, at least one.

    Threads: any, in a forked child too: there is no state but the process's connections. A single node is asked on the
    calling thread; of several, each is asked on a thread ``lasersell-guard-<number>`` that ends with the answer.
    """

    def __init__(self, targets: Sequence[SendTargetRpc]) -> None:
        self.targets = tuple(targets)
        self._nodes = [RpcNode(client_for(target)) for target in targets]

    def __len__(self) -> int:
        return len(self._nodes)

    def label(self, node: int) -> str:
        """What texts call a node: its host, never its path, which may hold a key."""
        return self.targets[node].endpoint.shown

    def ask(self, question: Callable[[RpcNode, TimeBudget], T], *, timeout_s: float) -> Iterator[NodeAnswer[T]]:
        """The answers of all nodes, in the order in which they come; one of each node.

        A caller that knows enough stops iterating: the other requests end at their time limit.

        Args:
            question: asks one node, within the budget; raises ``TxSubmitError`` where there is no answer.
            timeout_s: seconds for all nodes together.

        Threads: any; blocks between answers. ``question`` runs on several threads at once.
        """
        budget = TimeBudget(timeout_s)
        if len(self._nodes) == 1:
            yield _answer(0, self._nodes[0], question, budget)
            return
        answers: queue.SimpleQueue[NodeAnswer[T]] = queue.SimpleQueue()

        def ask(number: int) -> None:
            answers.put(_answer(number, self._nodes[number], question, budget))

        for number in range(len(self._nodes)):
            try:
                threading.Thread(target=ask, args=(number,), name=f"lasersell-guard-{number}", daemon=True).start()
            except (RuntimeError, MemoryError) as error:
                problem = f"no thread to ask with: {error or 'out of memory'}"
                error_of_ours = TxSubmitError("request_send", problem, target=self._nodes[number].label)
                answers.put(NodeAnswer(number, None, error_of_ours))
        silent = set(range(len(self._nodes)))
        while silent:
            try:
                answer = answers.get(timeout=budget.remaining_s())
            except queue.Empty:
                break
            silent.discard(answer.node)
            yield answer
        for number in sorted(silent):
            problem = f"no answer within {timeout_s:g} s"
            yield NodeAnswer(number, None, TxSubmitError("response_read", problem, target=self._nodes[number].label))


def _answer(
    number: int, node: RpcNode, question: Callable[[RpcNode, TimeBudget], T], budget: TimeBudget
) -> NodeAnswer[T]:
    try:
        return NodeAnswer(number, question(node, budget), None)
    except TxSubmitError as error:
        return NodeAnswer(number, None, error)
    except ConcurrencyError as error:  # somebody closed the process's connections meanwhile
        return NodeAnswer(number, None, TxSubmitError("request_send", error.problem, target=node.label))
    except BaseException as error:  # an answer that nobody thought of is no answer, and must not hang a sale
        if passes_through(error):
            raise
        problem = f"the answer could not be read ({type(error).__name__})"
        return NodeAnswer(number, None, TxSubmitError("decode_response", problem, target=node.label))
