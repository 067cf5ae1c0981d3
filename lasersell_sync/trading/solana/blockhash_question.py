"""Whether any node still takes a blockhash, asked of all nodes at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final

from lasersell_sync.exceptions import ConcurrencyError, TxSubmitError
from lasersell_sync.runtime import log as _log
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.trading.solana.rpc_node import RpcNode

__all__ = ["BLOCKHASH_WITHIN_S", "BlockhashQuestion"]

log = _log.logger("trading")

#: A transaction waits no longer for an answer than this.
BLOCKHASH_WITHIN_S: Final = 0.3


class BlockhashQuestion:
    """Calls ``then`` once.

    With True as soon as one node calls the blockhash valid; otherwise when all have answered or failed: with False if
    at least one answered, and with None if none did.

    Threads: ``then`` is called on a thread of an executor, with no lock held.
    """

    def __init__(self, blockhash: str, nodes: Sequence[RpcNode], then: Callable[[bool | None], None]) -> None:
        self._blockhash = blockhash
        self._then = then
        # Guards everything below.
        self._lock = threading.Lock()
        self._missing = len(nodes)
        self._answer: bool | None = None
        self._is_over = False
        self._nodes = nodes

    def ask(self, executors: Sequence[Executor]) -> None:
        """Begin; each node is asked by its own executor."""
        budget = TimeBudget(BLOCKHASH_WITHIN_S)
        for node, executor in zip(self._nodes, executors, strict=True):
            try:
                executor.submit(self._ask_one, node, budget)
            except RuntimeError:  # closed
                self._saw(None)

    def _ask_one(self, node: RpcNode, budget: TimeBudget) -> None:
        is_valid: bool | None = None
        try:
            if not budget.expired():
                is_valid, _ = node.is_blockhash_valid(self._blockhash, budget=budget)
        except (TxSubmitError, ConcurrencyError) as error:
            log.debug("%s does not say whether a blockhash is valid: %s", node.label, error)
        finally:
            self._saw(is_valid)

    def _saw(self, is_valid: bool | None) -> None:  # noqa: FBT001 - an answer
        with self._lock:
            self._missing -= 1
            if is_valid is not None:
                self._answer = self._answer or is_valid
            if self._is_over or (self._missing and not self._answer):
                return
            self._is_over = True
        self._then(self._answer)
