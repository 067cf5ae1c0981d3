"""A JSON-RPC node's view of the chain: how far it lags, and the commitments that callers ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lasersell_sync.sandbox.chain.blockchain import Chain
from lasersell_sync.sandbox.chain.slots import COMMITMENT_SLOTS
from lasersell_sync.sandbox.exchange.exchange import Exchange
from lasersell_sync.sandbox.servers.node_lies import NodeLies
from lasersell_sync.sandbox.servers.rpc.params import RpcError, invalid_params, optional_integer

API_VERSION = "4.3.0"

T = TypeVar("T")


class RpcNode:
    """What every method of a node needs.

    Args:
        exchange: Whose chain it shows.
        lies: What it says that is not so, looked up for each call.

    Threads: any; all state is the exchange's.
    """

    def __init__(self, exchange: Exchange, lies: Callable[[], NodeLies]) -> None:
        self.exchange = exchange
        self.lies = lies

    def ask_chain(self, question: Callable[[Chain], T]) -> T:
        """Ask the chain something, with everything standing still."""
        with self.exchange.request():
            return question(self.exchange.chain)

    def in_context(self, value: object, slot: int | None = None) -> dict[str, object]:
        """An answer with the slot that it belongs to."""
        slot = self.lies().reported(self.slot("processed")) if slot is None else slot
        return {"context": {"apiVersion": API_VERSION, "slot": slot}, "value": value}

    def slot(self, commitment: str) -> int:
        """The newest slot that the node really knows at a commitment; it reports ``lies().reported`` of it."""
        lag_slots = self.lies().lag_slots
        return self.ask_chain(lambda chain: chain.slots.slot(commitment) - lag_slots)

    def commitment(self, config: dict[str, object], *, key: str = "commitment", default: str = "finalized") -> str:
        """The commitment asked for, once the node has reached ``minContextSlot`` at it. Raises ``RpcError``."""
        commitment = config.get(key)
        if commitment is None:
            commitment = default
        if not isinstance(commitment, str) or commitment not in COMMITMENT_SLOTS:
            raise invalid_params(f"unknown variant `{commitment}`, expected one of {', '.join(COMMITMENT_SLOTS)}")
        wanted, slot = optional_integer(config, "minContextSlot"), self.lies().reported(self.slot(commitment))
        if wanted is not None and wanted > slot:
            raise RpcError(-32016, "Minimum context slot has not been reached", {"contextSlot": slot})
        return commitment

    def latest_blockhash(self, commitment: str) -> dict[str, object]:
        """The newest blockhash that the node knows, and how long it lives."""
        lag_slots = self.lies().lag_slots
        blockhash, last_height = self.ask_chain(
            lambda chain: chain.slots.latest_blockhash(commitment, lag_slots=lag_slots)
        )
        return {"blockhash": str(blockhash), "lastValidBlockHeight": self.lies().reported(last_height)}
