"""Address look-up tables: what the user gave, and what the guard's nodes answer.

A table only ever grows, and an entry never changes: what was read once is kept. A node may still lie about one, so that
two answers which contradict each other count for nothing.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Final

from lasersell_sync._log import logger
from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.timeouts import TimeBudget
from lasersell_sync.trading.guard.addresses import PUBKEY_BYTES, to_text
from lasersell_sync.trading.guard.nodes import GuardNodes
from lasersell_sync.trading.rpc_node import AccountData, RpcNode

__all__ = ["LOOKUP_TABLE_PROGRAM", "LookupTables"]

log = logger("trading.guard")

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
