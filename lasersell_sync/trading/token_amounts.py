"""What token accounts hold, asked of the chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.timeouts import TimeBudget
from lasersell_sync.trading.rpc_node import MAX_ACCOUNTS, AccountData, RpcNode

__all__ = ["amount_of", "ask_token_amounts"]

_TOKEN_PROGRAMS: Final = {
    "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
    "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb",
}
# The layout of an account of either program (spl-token ``state.rs``); Token-2022 puts extensions behind it, and says
# in the first byte of them what it is. A multisig has another size.
_ACCOUNT_BYTES: Final = 165
_MULTISIG_BYTES: Final = 355
_AMOUNT = slice(64, 72)
_STATE_AT: Final = 108
_IN_USE: Final = {1, 2}  # initialized, frozen
_IS_ACCOUNT: Final = 2


def ask_token_amounts(nodes: Sequence[RpcNode], accounts: Sequence[str], *, timeout_s: float) -> dict[str, int]:
    """Of each account; the nodes are asked one after the other until one answers.

    Raises:
        TxSubmitError: none answered (the last one's error), or an account is no token account (``decode_response``).
    """
    wanted, budget = list(dict.fromkeys(accounts)), TimeBudget(timeout_s)
    problem = TxSubmitError("request_send", "there was no time to ask")
    for index, node in enumerate(nodes):
        # A node that hangs leaves the others their share.
        share = TimeBudget((budget.remaining_s() or 0.0) / (len(nodes) - index))
        try:
            found = _accounts(node, wanted, share)
        except TxSubmitError as error:
            problem = error
            continue
        return {address: _amount(address, account, node) for address, account in zip(wanted, found, strict=True)}
    raise problem


def _accounts(node: RpcNode, addresses: Sequence[str], budget: TimeBudget) -> list[AccountData | None]:
    found: list[AccountData | None] = []
    for start in range(0, len(addresses), MAX_ACCOUNTS):
        found += node.accounts(addresses[start : start + MAX_ACCOUNTS], budget=budget)
    return found


def _amount(address: str, account: AccountData | None, node: RpcNode) -> int:
    if account is None:
        return 0
    amount = amount_of(account)
    if amount is None:
        raise TxSubmitError("decode_response", f"{address} is not a token account", target=node.label)
    return amount


def amount_of(account: AccountData) -> int | None:
    """Atomic units; None when it is not a token account in use."""
    data = account.data
    if account.owner not in _TOKEN_PROGRAMS or len(data) < _ACCOUNT_BYTES or len(data) == _MULTISIG_BYTES:
        return None
    if len(data) > _ACCOUNT_BYTES and data[_ACCOUNT_BYTES] != _IS_ACCOUNT:
        return None
    return int.from_bytes(data[_AMOUNT], "little") if data[_STATE_AT] in _IN_USE else None
