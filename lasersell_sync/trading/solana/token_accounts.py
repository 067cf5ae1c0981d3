"""What token accounts hold, asked of the chain, and what it takes to believe the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.runtime import log as _log
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.trading.solana.expiry import READS_NEEDED, SlotTime
from lasersell_sync.trading.solana.rpc_node import MAX_ACCOUNTS, AccountData, RpcNode

__all__ = ["AmountProof", "TokenAccount", "amount_of", "ask_proven_amounts", "ask_token_amounts", "read_token_account"]

log = _log.logger("trading")


# ── The layout of a token account, of SPL Token and of Token-2022 (spl-token ``state.rs``) ──────────────────────────


_TOKEN_PROGRAMS: Final = {
    "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
    "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb",
}
# Token-2022 puts extensions behind the account, and says in the first byte of them what it is. A multisig has a size of
# its own.
_ACCOUNT_BYTES: Final = 165
_MULTISIG_BYTES: Final = 355
_KIND_AT: Final = 165
_IS_ACCOUNT: Final = 2
_MINT: Final = slice(0, 32)
_OWNER: Final = slice(32, 64)
_AMOUNT: Final = slice(64, 72)
_DELEGATE: Final = slice(72, 108)
_STATE_AT: Final = 108
_INITIALIZED: Final = 1
_FROZEN: Final = 2
_CLOSE_AUTHORITY: Final = slice(129, 165)
_NOBODY: Final = bytes(4)


class TokenAccount(NamedTuple):
    """A token account in use.

    Attributes:
        mint, owner: 32 bytes each.
        amount: in the token's smallest units.
        delegate: who may move tokens beside the owner, or None.
        close_authority: who may close the account in the owner's place, or None.
        is_frozen: whether nothing can be moved.
    """

    mint: bytes
    owner: bytes
    amount: int
    delegate: bytes | None
    close_authority: bytes | None
    is_frozen: bool


def read_token_account(program: str, data: bytes) -> TokenAccount | None:
    """The token account in an account's data; None when it is not a token account in use.

    Args:
        program: base58 of the program that owns the account.
        data: all of the account's bytes.
    """
    if program not in _TOKEN_PROGRAMS or len(data) < _ACCOUNT_BYTES or len(data) == _MULTISIG_BYTES:
        return None
    if len(data) > _ACCOUNT_BYTES and data[_KIND_AT] != _IS_ACCOUNT:
        return None
    if data[_STATE_AT] not in (_INITIALIZED, _FROZEN):
        return None
    amount = int.from_bytes(data[_AMOUNT], "little")
    return TokenAccount(
        data[_MINT], data[_OWNER], amount, _option(data[_DELEGATE]), _option(data[_CLOSE_AUTHORITY]),
        data[_STATE_AT] == _FROZEN,
    )  # fmt: skip


def _option(data: bytes) -> bytes | None:
    """A ``COption<Pubkey>``: four bytes that say whether there is one, then 32."""
    return None if data[:4] == _NOBODY else data[4:]


# ── What token accounts hold, asked of the chain, and what it takes to believe the answers ──────────────────────────


T = TypeVar("T")


class AmountProof:
    """What it takes to believe what nodes say that one token account holds.

    A node that lags tells the past, and one that has not seen the account yet says that it holds nothing. So:

    - An answer from a state older than ``since`` counts for nothing.
    - That there are tokens is believed at once: the sale of what is gone sells nothing.
    - That there are none is believed when two answers in a row say so, each from a state that is not older than
      ``since``, than ``announced``, and than the newest confirmed block that any node told when they were first asked.
      Where neither slot is known, all nodes may lag behind the tokens, as far as ``SlotTime.lag_blocks`` at the most;
      that much is added.

    Args:
        since: a slot that the chain is known to have reached when what is asked about had happened; 0: none is known.
        announced: the slot at which the tokens were there, by the server's word; None: it said nothing.

    Threads: none; the caller guards it.
    """

    def __init__(self, *, since: int = 0, announced: int | None = None) -> None:
        self._since = since
        self._announced = announced
        #: From this slot on an empty account is one.
        self._bound: int | None = None
        #: The newest state that any answer came from.
        self._newest_slot = 0
        self._empty_reads = 0

    @property
    def wants_tips(self) -> bool:
        """Whether the nodes' newest blocks would help: no bound is known, or none that an answer has reached.

        One absurd slot would otherwise stay the bound for ever.
        """
        return self._bound is None or self._bound > self._newest_slot

    def saw_tips(self, newest_slot: int, slot_time: SlotTime) -> None:
        """The newest confirmed block that any node reports is in this slot.

        The lowest bound counts, so that a later answer corrects an absurd one.
        """
        if self._announced is None and not self._since:
            newest_slot += slot_time.lag_blocks
        bound = max(newest_slot, self._since, self._announced or 0)
        self._bound = bound if self._bound is None else min(self._bound, bound)

    def saw(self, amount: int, slot: int) -> int | None:
        """A node answered, from the state of this slot; what the account holds, or None while that is not proven."""
        self._newest_slot = max(self._newest_slot, slot)
        if slot < self._since:
            return None
        if amount:
            self._empty_reads = 0
            return amount
        if self._bound is None or slot < self._bound:
            return None
        self._empty_reads += 1
        return 0 if self._empty_reads >= READS_NEEDED else None


def ask_token_amounts(nodes: Sequence[RpcNode], accounts: Sequence[str], *, timeout_s: float) -> dict[str, int]:
    """Of each account; the nodes are asked one after the other until one answers.

    Raises:
        TxSubmitError: none answered (the last one's error), or an account is no token account (``decode_response``).
    """
    wanted = list(dict.fromkeys(accounts))
    return next(_answers(nodes, lambda node, share: _amounts(node, wanted, share), TimeBudget(timeout_s)))


def ask_proven_amounts(
    nodes: Sequence[RpcNode], proofs: Mapping[str, AmountProof], *, slot_time: SlotTime, timeout_s: float
) -> dict[str, int]:
    """Of the accounts whose balance is proven; ask again with the same proofs for the others, a little later.

    Many accounts are one question. An account that is no token account is logged and has no balance.

    Raises:
        TxSubmitError: none of the nodes answered (the last one's error).
    """
    budget, missing, proven = TimeBudget(timeout_s), dict(proofs), dict[str, int]()
    wanting_tips = [proof for proof in proofs.values() if proof.wants_tips]
    _look(nodes, missing, proven, _part(budget, 3) if wanting_tips else budget)
    if missing and wanting_tips:
        tips = _answers(nodes, lambda node, share: node.tip("confirmed", budget=share).slot, _part(budget, 2))
        newest = max(tips)
        for proof in wanting_tips:
            proof.saw_tips(newest, slot_time)
        _look(nodes, missing, proven, budget)
    return proven


def _look(
    nodes: Sequence[RpcNode], missing: dict[str, AmountProof], proven: dict[str, int], budget: TimeBudget
) -> None:
    """Ask the nodes, one after the other, for what is missing; what is proven moves from the one to the other."""
    for slot, amounts in _answers(nodes, lambda node, share: _read(node, list(missing), share), budget):
        for account, amount in amounts.items():
            if amount is None:
                log.error("%s is not a token account: its balance is not known", account)
            elif (known := missing[account].saw(amount, slot)) is not None:
                proven[account] = known
                del missing[account]
        if not missing:
            return


def _answers(nodes: Sequence[RpcNode], ask: Callable[[RpcNode, TimeBudget], T], budget: TimeBudget) -> Iterator[T]:
    """Of the nodes that answer, one after the other; the last one's error when none does."""
    problem = TxSubmitError("request_send", "there was no time to ask")
    anybody = False
    # One that did not answer is not asked first again before it has answered.
    for index, node in enumerate(sorted(nodes, key=lambda node: node.is_silent)):
        # A node that hangs leaves the others their share.
        share = _part(budget, len(nodes) - index)
        try:
            answer = ask(node, share)
        except TxSubmitError as error:
            node.is_silent = error.kind in {"request_send", "response_read"}
            problem = error
        else:
            node.is_silent = False
            anybody = True
            yield answer
    if not anybody:
        raise problem


def _part(budget: TimeBudget, parts: int) -> TimeBudget:
    return TimeBudget((budget.remaining_s() or 0.0) / parts)


def _amounts(node: RpcNode, addresses: Sequence[str], budget: TimeBudget) -> dict[str, int]:
    amounts = _read(node, addresses, budget)[1]
    for address, amount in amounts.items():
        if amount is None:
            raise TxSubmitError("decode_response", f"{address} is not a token account", target=node.label)
    return {address: amount for address, amount in amounts.items() if amount is not None}


def _read(node: RpcNode, addresses: Sequence[str], budget: TimeBudget) -> tuple[int, dict[str, int | None]]:
    """The oldest slot that they were looked at in, and what each holds; None: it is no token account."""
    slots: list[int] = []
    amounts: dict[str, int | None] = {}
    for start in range(0, len(addresses), MAX_ACCOUNTS):
        batch = addresses[start : start + MAX_ACCOUNTS]
        slot, found = node.accounts(batch, budget=budget)
        slots.append(slot)
        amounts.update(
            (one, 0 if account is None else amount_of(account)) for one, account in zip(batch, found, strict=True)
        )
    return min(slots), amounts


def amount_of(account: AccountData) -> int | None:
    """Atomic units; None when it is not a token account in use."""
    read = read_token_account(account.owner, account.data)
    return None if read is None else read.amount
