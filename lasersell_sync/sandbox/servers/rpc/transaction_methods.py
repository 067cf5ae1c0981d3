"""The JSON-RPC methods that send transactions and ask what became of them."""

from __future__ import annotations

from collections.abc import Callable

from lasersell_sync.sandbox.chain.blockchain import Chain
from lasersell_sync.sandbox.chain.compute_budget import InvalidBudget
from lasersell_sync.sandbox.chain.ledger import U64_MAX
from lasersell_sync.sandbox.servers.node_lies import NO_HISTORY
from lasersell_sync.sandbox.servers.rpc.node import RpcNode
from lasersell_sync.sandbox.servers.rpc.params import (
    Params,
    RpcError,
    config_of,
    decoded,
    flag,
    invalid_params,
    optional_integer,
    pubkey_of,
    required,
    signature_of,
    transaction_of,
    unsigned,
)

_MAX_SIGNATURES = 256


class TransactionMethods:
    """Takes transactions in and answers about them.

    Threads: any; all state is the exchange's.
    """

    def __init__(self, node: RpcNode) -> None:
        self._node = node

    def methods(self) -> dict[str, Callable[[Params], object]]:
        """The handlers by method name."""
        return {
            "sendTransaction": self._send_transaction,
            "requestAirdrop": self._request_airdrop,
            "getSignatureStatuses": self._get_signature_statuses,
            "getFeeForMessage": self._get_fee_for_message,
        }

    def _send_transaction(self, params: Params) -> str:
        config = config_of(params, 1)
        transaction = transaction_of(params, config, default_encoding="base58")
        self._node.commitment(config, key="preflightCommitment")
        return str(
            self._node.exchange.send_transaction(
                transaction,
                skip_preflight=flag(config, "skipPreflight"),
                max_retries=optional_integer(config, "maxRetries"),
            )
        )

    def _request_airdrop(self, params: Params) -> str:
        wallet, lamports = pubkey_of(params, 0), required(params, 1)
        if isinstance(lamports, bool) or not isinstance(lamports, int) or not 0 < lamports <= U64_MAX:
            raise invalid_params("lamports must be a positive integer")
        self._node.commitment(config_of(params, 2))
        return str(self._node.exchange.airdrop(wallet, lamports))

    def _get_signature_statuses(self, params: Params) -> object:
        texts = required(params, 0)
        if not isinstance(texts, list):
            raise invalid_params("expected an array of signatures")
        if len(texts) > _MAX_SIGNATURES:
            raise invalid_params(f"Too many inputs provided; max {_MAX_SIGNATURES}")
        search, lies = flag(config_of(params, 1), "searchTransactionHistory"), self._node.lies()
        if search and lies.no_history:
            raise RpcError(*NO_HISTORY)
        signatures = [signature_of(text) for text in texts]

        def look(chain: Chain) -> tuple[list[dict[str, object] | None], int]:
            age_slots = lies.lag_slots + lies.stale_index_slots
            statuses = [chain.status(signature, search_history=search, lag_slots=age_slots) for signature in signatures]
            return statuses, chain.slots.slot() - lies.lag_slots

        statuses, slot = self._node.ask_chain(look)
        return self._node.in_context(lies.spoiled(statuses), lies.reported(slot))

    def _get_fee_for_message(self, params: Params) -> object:
        """The fee, or null for a message whose blockhash is dead."""
        text = required(params, 0)
        if not isinstance(text, str):
            raise invalid_params("the message must be a base64 string")
        self._node.commitment(config_of(params, 1))
        transaction = unsigned(decoded(text, "base64"))

        def fee(chain: Chain) -> int | None:
            return chain.fee_lamports(transaction) if chain.slots.accepts(transaction.blockhash) else None

        try:
            return self._node.in_context(self._node.ask_chain(fee))
        except InvalidBudget as error:
            raise invalid_params(str(error)) from error
