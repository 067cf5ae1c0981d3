"""The JSON-RPC methods about slots, blocks and blockhashes."""

from __future__ import annotations

from collections.abc import Callable

from solders.hash import Hash, ParseHashError

from lasersell_sync.sandbox.chain.slots import SLOTS_IN_EPOCH
from lasersell_sync.sandbox.servers.rpc.node import RpcNode
from lasersell_sync.sandbox.servers.rpc.params import Params, config_of, invalid_params, optional_integer, required

_SAMPLE_S = 60
_MAX_SAMPLES = 720


class BlockMethods:
    """Answers about the chain's time.

    Threads: any; all state is the exchange's.
    """

    def __init__(self, node: RpcNode) -> None:
        self._node = node

    def methods(self) -> dict[str, Callable[[Params], object]]:
        """The handlers by method name."""
        return {
            "getSlot": self._get_slot,
            "getBlockHeight": self._get_block_height,
            "getEpochInfo": self._get_epoch_info,
            "getLatestBlockhash": self._get_latest_blockhash,
            "isBlockhashValid": self._is_blockhash_valid,
            # It keeps every block.
            "getFirstAvailableBlock": lambda _params: 0,
            "getRecentPerformanceSamples": self._get_recent_performance_samples,
        }

    def _get_slot(self, params: Params) -> int:
        return self._node.lies().reported(self._node.slot(self._node.commitment(config_of(params, 0))))

    def _get_block_height(self, params: Params) -> int:
        slot = self._node.slot(self._node.commitment(config_of(params, 0)))
        return self._node.lies().reported(self._node.ask_chain(lambda chain: chain.slots.block_height(slot)))

    def _get_epoch_info(self, params: Params) -> object:
        slot = self._node.slot(self._node.commitment(config_of(params, 0)))
        epoch, slot_index = divmod(slot, SLOTS_IN_EPOCH)
        return {
            "absoluteSlot": self._node.lies().reported(slot),
            "blockHeight": self._node.lies().reported(
                self._node.ask_chain(lambda chain: chain.slots.block_height(slot))
            ),
            "epoch": epoch,
            "slotIndex": slot_index,
            "slotsInEpoch": SLOTS_IN_EPOCH,
            "transactionCount": None,
        }

    def _get_latest_blockhash(self, params: Params) -> object:
        commitment = self._node.commitment(config_of(params, 0))
        slot = self._node.lies().reported(self._node.slot(commitment))
        return self._node.in_context(self._node.latest_blockhash(commitment), slot)

    def _is_blockhash_valid(self, params: Params) -> object:
        text = required(params, 0)
        try:
            blockhash = Hash.from_string(text) if isinstance(text, str) else None
        except ParseHashError:  # unlike its siblings, no ValueError
            blockhash = None
        if blockhash is None:
            raise invalid_params("not a blockhash")
        slot = self._node.slot(self._node.commitment(config_of(params, 1)))
        seen = slot + self._node.lies().heights_ahead
        valid = self._node.ask_chain(lambda chain: chain.slots.accepted(blockhash, seen))
        return self._node.in_context(valid, self._node.lies().reported(slot))

    def _get_recent_performance_samples(self, params: Params) -> object:
        """One sample for each minute of chain time, newest first: how many slots went by in it."""
        limit = _MAX_SAMPLES if not params or params[0] is None else optional_integer({"limit": params[0]}, "limit")
        if limit is None or limit > _MAX_SAMPLES:
            raise invalid_params(f"Invalid limit; max {_MAX_SAMPLES}")
        newest = self._node.slot("finalized")
        slot_s = self._node.ask_chain(lambda chain: chain.slots.slot_s)
        slots = round(_SAMPLE_S / slot_s)
        newest -= newest % slots
        return [
            {
                "numNonVoteTransactions": slots,
                "numSlots": slots,
                "numTransactions": slots,
                "samplePeriodSecs": _SAMPLE_S,
                "slot": newest - index * slots,
            }
            for index in range(limit)
        ]
