"""What the guard's nodes answer, and the facts it keeps of it: look-up tables, rents, wallet funds."""

from __future__ import annotations

import queue
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

import attrs

from lasersell_sync.exceptions import ConcurrencyError, TxSubmitError
from lasersell_sync.runtime.log import logger
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.runtime.user_code import passes_through
from lasersell_sync.trading.guard.addresses import PUBKEY_BYTES, to_text
from lasersell_sync.trading.guard.simulators import Peer
from lasersell_sync.trading.solana.json_rpc import client_for
from lasersell_sync.trading.solana.rpc_node import AccountData, RpcNode
from lasersell_sync.trading.solana.send_targets import SendTargetRpc

__all__ = [
    "LOOKUP_TABLE_PROGRAM",
    "OLD_TOKEN_ACCOUNT_RENT_LAMPORTS",
    "GuardNodes",
    "LookupTables",
    "NodeAnswer",
    "TokenAccountRent",
    "WalletFunds",
]

log = logger("trading.guard")


# ── The Solana nodes that a guard asks: all at once, each within the same time limit ────────────────────────────────


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


# ── Address look-up tables: what the user gave, and what the guard's nodes answer ───────────────────────────────────
# A table only ever grows, and an entry never changes: what was read once is kept. A node may still lie about one, so
# that two answers which contradict each other count for nothing.


LOOKUP_TABLE_PROGRAM: Final = "AddressLookupTab1e1111111111111111111111111"
#: ``ProgramState::LookupTable``, and the bytes before the first entry (agave ``LOOKUP_TABLE_META_SIZE``).
_IS_TABLE: Final = (1).to_bytes(4, "little")
_ENTRIES_AT: Final = 56
_MAX_ENTRIES: Final = 256
#: Tables read from nodes; the oldest make room. A server may name as many as it likes.
_KEPT: Final = 256
#: For all nodes together. An exit waits for it once for each new table.
_FETCH_S: Final = 0.8

Entries = tuple[bytes, ...]


class LookupTables:
    """The contents of look-up tables, by address.

    Threads: any. The mappings are replaced as a whole, never changed: a check that runs meanwhile sees the one or the
    other.
    """

    def __init__(self) -> None:
        self._given: Mapping[bytes, Entries] = types.MappingProxyType({})
        self._read: Mapping[bytes, Entries] = types.MappingProxyType({})
        self._known: Mapping[bytes, Entries] = self._given

    @property
    def known(self) -> Mapping[bytes, Entries]:
        """All of them."""
        return self._known

    def give(self, address: bytes, entries: Entries) -> None:
        """The user says what is in a table."""
        self._given = types.MappingProxyType({**self._given, address: entries})
        self._known = types.MappingProxyType({**self._read, **self._given})

    def read(self, nodes: GuardNodes, wanted: Mapping[bytes, int]) -> dict[bytes, str]:
        """Ask the nodes for tables that are not known, or not far enough.

        Args:
            nodes: all are asked at once.
            wanted: tables, and how many entries of each are needed.

        Returns:
            Why a table could not be read, by address; tables that could be are in ``known`` from now on.
        """
        missing = {address: count for address, count in wanted.items() if len(self._known.get(address, ())) < count}
        if not missing:
            return {}
        found, problems = self._agreed(nodes, missing)
        if found:
            # A longer answer of a node replaces what the user gave, of which it is a continuation.
            self._given = types.MappingProxyType({key: value for key, value in self._given.items() if key not in found})
            read = {**{key: value for key, value in self._read.items() if key not in found}, **found}
            self._read = types.MappingProxyType(dict(list(read.items())[-_KEPT:]))
            self._known = types.MappingProxyType({**self._read, **self._given})
        for address, problem in problems.items():
            log.warning("the look-up table %s could not be read: %s", to_text(address), problem)
        return problems

    def _agreed(self, nodes: GuardNodes, missing: Mapping[bytes, int]) -> tuple[dict[bytes, Entries], dict[bytes, str]]:
        """What more than half of the nodes say, or all that answered in time; nothing where two contradict."""
        addresses = list(missing)
        votes: dict[bytes, list[Entries]] = {address: [self._known.get(address, ())] for address in addresses}
        silent: list[str] = []
        for answer in nodes.ask(lambda node, budget: _tables(node, addresses, budget), timeout_s=_FETCH_S):
            if answer.value is None:
                silent.append(str(answer.error))
                continue
            for address, entries in answer.value.items():
                votes[address].append(entries)
            if all(_is_majority(votes[address], count, len(nodes)) for address, count in missing.items()):
                break
        found: dict[bytes, Entries] = {}
        problems: dict[bytes, str] = {}
        for address, count in missing.items():
            longest = max(votes[address], key=len)
            if any(longest[: len(vote)] != vote for vote in votes[address]):
                problems[address] = "nodes contradict each other about its entries"
            elif len(longest) >= count:
                found[address] = longest
            elif len(votes[address]) == 1:
                problems[address] = "; ".join(silent)
            else:
                problems[address] = f"it has {len(longest)} entries, and {count} are needed"
        return found, problems


def _is_majority(votes: Sequence[Entries], count: int, nodes: int) -> bool:
    """Whether more than half of the nodes answered with enough entries, and all answers fit together."""
    longest = max(votes, key=len)
    full = [vote for vote in votes[1:] if len(vote) >= count]
    return len(full) * 2 > nodes and all(longest[: len(vote)] == vote for vote in votes)


def _tables(node: RpcNode, addresses: Sequence[bytes], budget: TimeBudget) -> dict[bytes, Entries]:
    """What one node says is in each table; of an account that does not exist, nothing."""
    found = node.accounts([to_text(address) for address in addresses], budget=budget).found
    return {address: _entries(account, node) for address, account in zip(addresses, found, strict=True)}


def _entries(account: AccountData | None, node: RpcNode) -> Entries:
    if account is None:
        return ()
    data = account.data
    size, rest = divmod(len(data) - _ENTRIES_AT, PUBKEY_BYTES)
    if account.owner != LOOKUP_TABLE_PROGRAM or not data.startswith(_IS_TABLE) or rest or not 0 <= size <= _MAX_ENTRIES:
        raise TxSubmitError("decode_response", "the account is not a look-up table", target=node.label)
    return tuple(data[at : at + PUBKEY_BYTES] for at in range(_ENTRIES_AT, len(data), PUBKEY_BYTES))


# ── What a token account must hold to exist, as the nodes said last ─────────────────────────────────────────────────


#: What it was before rents began to fall: where nobody can be asked.
OLD_TOKEN_ACCOUNT_RENT_LAMPORTS: Final = 2_039_280
#: Of the classic token program.
_TOKEN_ACCOUNT_BYTES: Final = 165
#: The nodes are asked again after so long; nothing waits for their answers.
_KEPT_S: Final = 3_600.0
_ASK_S: Final = 5.0


class TokenAccountRent:
    """Lamports that a token account must hold.

    Args:
        peers: the nodes to ask (``getMinimumBalanceForRentExemption``), on their own threads.

    Threads: every method from any; none blocks.
    """

    def __init__(self, peers: Sequence[Peer]) -> None:
        self._peers = peers
        # Guards everything below.
        self._lock = threading.Lock()
        #: By the node's place.
        self._said: dict[int, int] = {}
        self._ask_at = 0.0

    @property
    def lamports(self) -> int:
        """The most that any node said last; before the first answer, what it was once."""
        with self._lock:
            is_due = time.monotonic() >= self._ask_at
            if is_due:
                self._ask_at = time.monotonic() + _KEPT_S
            known = max(self._said.values(), default=OLD_TOKEN_ACCOUNT_RENT_LAMPORTS)
        if is_due:
            for place, peer in enumerate(self._peers):
                peer.submit(partial(self._ask, place, peer))
        return known

    def _ask(self, place: int, peer: Peer) -> None:
        try:
            rent = peer.node.rent_lamports(_TOKEN_ACCOUNT_BYTES, budget=TimeBudget(_ASK_S))
        except TxSubmitError as error:
            log.info("%s did not say what rent a token account takes: %s", peer.label, error)
            return
        with self._lock:
            self._said[place] = rent


# ── What wallets hold in SOL and wrapped SOL ────────────────────────────────────────────────────────────────────────


class WalletFunds:
    """The newest word of each node about each wallet's lamports.

    Threads: every method from any.
    """

    def __init__(self) -> None:
        # Guards everything below.
        self._lock = threading.Lock()
        #: By wallet and node: lamports of the accounts that hold its SOL, by address.
        self._said: dict[tuple[bytes, str], dict[bytes, int]] = {}
        #: What sales that were signed since without a simulation may have brought, by wallet.
        self._expected: dict[bytes, int] = {}

    def saw(self, wallet: bytes, node: str, lamports: Mapping[bytes, int]) -> None:
        """A node said what these accounts hold: the wallet itself, and its wrapped SOL."""
        with self._lock:
            self._said.setdefault((wallet, node), {}).update(lamports)
            self._expected.pop(wallet, None)

    def expects(self, wallet: bytes, lamports: int) -> None:
        """A sale that nobody simulated may bring so much."""
        with self._lock:
            self._expected[wallet] = self._expected.get(wallet, 0) + max(0, lamports)

    def known_lamports(self, wallet: bytes) -> int | None:
        """The most that any node said last; None: no node has said anything."""
        with self._lock:
            sums = [sum(said.values()) for (owner, _), said in self._said.items() if owner == wallet]
            return max(sums) + self._expected.get(wallet, 0) if sums else None
