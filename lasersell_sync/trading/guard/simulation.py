"""What a node answers to ``simulateTransaction``: the accounts before and after, and what was called in between.

The node is asked for every account that the transaction may write to, in the order in which the transaction names
them. Agave from 3.0 on says by itself what the accounts held before (``preBalances``, ``preTokenBalances``); of an
older node ``getMultipleAccounts`` says it, at the same slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import attrs

from lasersell_sync.trading.guard.addresses import from_text
from lasersell_sync.trading.guard.decoded import Decoded
from lasersell_sync.trading.guard.inner_instructions import InnerInstruction, Senseless, read_inner_instructions
from lasersell_sync.trading.guard.programs import Program
from lasersell_sync.trading.solana.rpc_node import AccountData, SimulationAnswer
from lasersell_sync.trading.solana.token_accounts import TokenAccount, read_token_account

__all__ = ["NOTHING", "AccountState", "Simulation", "read_simulation", "states_of"]

_U64_MAX: Final = 2**64 - 1
#: Errors that say something about the node or the moment; every other error is the transaction's own.
_INSTRUCTION_ERROR: Final = "InstructionError"
_INSUFFICIENT_RENT: Final = "InsufficientFundsForRent"


class AccountState(NamedTuple):
    """An account at one moment.

    Attributes:
        lamports: 0 when there is no account.
        program: the program that owns it; None where the node did not say.
        token: what it holds as a token account in use, else None.
        size: bytes of data; None where the node did not say.
    """

    lamports: int
    program: bytes | None
    token: TokenAccount | None
    size: int | None


NOTHING: Final = AccountState(0, None, None, 0)


@attrs.frozen
class Simulation:
    """A simulation, read.

    Attributes:
        slot: of the state that it began from.
        failure: the transaction's own error, as JSON; None when it would land without one.
        before: the writable accounts by address; None: the node did not say.
        after: the same accounts afterwards; empty after a failure.
        inner: the instructions that programs called, in order.
    """

    slot: int
    failure: str | None
    before: Mapping[bytes, AccountState] | None
    after: Mapping[bytes, AccountState]
    inner: Sequence[InnerInstruction]


def read_simulation(answer: SimulationAnswer, tx: Decoded, programs: Mapping[bytes, Program]) -> Simulation:
    """The answer, read against the transaction that was simulated.

    Raises:
        Senseless: it says nothing about the transaction: it is not of the documented shape, or an error of the node.
    """
    value = answer.value
    failure = _failure(value.get("err"))
    if failure is not None:
        return Simulation(answer.slot, failure, None, {}, ())
    keys = [key for key in tx.keys if key is not None]
    watched = [key for key in tx.writable_keys if key is not None]
    if len(keys) != len(tx.keys):
        raise Senseless("an account of the transaction is not known")
    return Simulation(
        answer.slot,
        None,
        _said_before(value, keys, watched),
        dict(zip(watched, states_of(answer.accounts, len(watched)), strict=True)),
        read_inner_instructions(
            value.get("innerInstructions"), [item.program_key for item in tx.instructions], keys, programs
        ),
    )


def _failure(error: Any) -> str | None:
    """The transaction's own error in short; None when there is none.

    Raises:
        Senseless: an error that another moment or another node would not show.
    """
    if error is None:
        return None
    name = next(iter(error), "") if isinstance(error, dict) else error
    if name == _INSTRUCTION_ERROR:
        detail = error[name]
        if isinstance(detail, list) and len(detail) == 2:
            return f"instruction {detail[0] + 1 if isinstance(detail[0], int) else detail[0]}: {detail[1]}"[:200]
        return str(detail)[:200]
    if name == _INSUFFICIENT_RENT:
        return "an account is left with less than its rent"
    raise Senseless(f"the node cannot simulate it: {str(name)[:60]}")


def states_of(accounts: Sequence[AccountData | None] | None, count: int) -> list[AccountState]:
    """Accounts as a node shows them.

    Raises:
        Senseless: there are not as many as were asked for, or one has no lamports.
    """
    if accounts is None or len(accounts) != count:
        raise Senseless("not all accounts that were asked for")
    return [NOTHING if account is None else _state(account) for account in accounts]


def _state(account: AccountData) -> AccountState:
    if account.lamports is None:
        raise Senseless("an account without lamports")
    if account.lamports == 0:
        return NOTHING
    try:
        program = from_text(account.owner)
    except ValueError:
        raise Senseless("an account whose owner is no address") from None
    return AccountState(account.lamports, program, read_token_account(account.owner, account.data), len(account.data))


# ── what the simulation says of the time before ──────────────────────────────────────────────────────────────────


def _said_before(
    value: Mapping[str, Any], keys: Sequence[bytes], watched: Sequence[bytes]
) -> dict[bytes, AccountState] | None:
    """From ``preBalances`` and ``preTokenBalances``; None when the node has neither.

    Raises:
        Senseless: they do not fit the transaction.
    """
    balances, token_balances = value.get("preBalances"), value.get("preTokenBalances")
    if balances is None or token_balances is None:
        return None
    if not isinstance(balances, list) or len(balances) != len(keys) or not all(map(_is_amount, balances)):
        raise Senseless("balances of other accounts than the transaction's")
    tokens = dict(_token_balances(token_balances, len(keys)))
    wanted = set(watched)
    return {
        key: AccountState(lamports, None, tokens.get(place), None)
        for place, (key, lamports) in enumerate(zip(keys, balances, strict=True))
        if key in wanted
    }


def _token_balances(values: Any, count: int) -> Iterator[tuple[int, TokenAccount]]:
    if not isinstance(values, list):
        raise Senseless("token balances that are no list")
    for value in values:
        try:
            place, amount = value["accountIndex"], int(value["uiTokenAmount"]["amount"])
            mint, owner = from_text(value["mint"]), from_text(value["owner"])
        except (KeyError, TypeError, ValueError):
            raise Senseless("a token balance that cannot be read") from None
        if not _is_amount(place) or place >= count or not _is_amount(amount):
            raise Senseless("a token balance of no account")
        yield place, TokenAccount(mint, owner, amount, delegate=None, close_authority=None, is_frozen=False)


def _is_amount(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int) and 0 <= value <= _U64_MAX
