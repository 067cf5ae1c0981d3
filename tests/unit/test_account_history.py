"""Whether a token account is as it was recorded: by nodes that lag, forget, lie, hang or contradict each other."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from lasersell_sync.trading.solana.account_history import (
    LEFT_OUT_AFTER_S,
    AccountHistory,
    Finding,
    Recorded,
    Verdict,
    ask_for_history,
)
from lasersell_sync.trading.solana.expiry import SlotTime
from lasersell_sync.trading.solana.json_rpc import client_for
from lasersell_sync.trading.solana.rpc_node import MAX_SIGNATURES, RpcNode
from lasersell_sync.trading.solana.send_targets import SendTargetRpc
from tests.support.market_transactions import stranger
from tests.support.solana_node import FIRST_HEIGHT, SLOTS_ABOVE_HEIGHT, RpcFailure, SolanaNode

ACCOUNT = str(stranger(1))
TOKEN = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
#: The newest block of a node.
NOW = FIRST_HEIGHT + SLOTS_ABOVE_HEIGHT
#: The account was seen at this slot when the exit was recorded.
SEEN = NOW - 1_000
UNTOUCHED, TOUCHED, EMPTY = Finding.UNTOUCHED, Finding.TOUCHED, Finding.EMPTY


class Clock:
    """Stands still but for ``now_s``."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Rig:
    """Nodes that all know the purchase, and a record of 700 tokens."""

    def __init__(self, make_node: Callable[[], SolanaNode], nodes: int = 1) -> None:
        self.nodes = [make_node() for _ in range(nodes)]
        self.clock = Clock()
        self.announced = 0
        self.is_witnessed = False
        for node in self.nodes:
            self.hold(node, 700)
            node.touch(ACCOUNT, "purchase", SEEN - 5)
        self.record()

    def record(self, **more: Any) -> None:
        known = {"began_s": 1e9, "slot": SEEN, "amounts": frozenset({700}), "own": frozenset({"ours", "dead"})}
        self.history = AccountHistory(
            Recorded(**{**known, **more}),
            announced=lambda: self.announced,
            is_witnessed=lambda amounts: self.is_witnessed and amounts == {700},
            clock=self.clock,
        )
        self._asked = [RpcNode(client_for(SendTargetRpc(node.url))) for node in self.nodes]

    @staticmethod
    def hold(node: SolanaNode, amount: int | None) -> None:
        data = bytes(64) + (amount or 0).to_bytes(8, "little") + bytes(36) + b"\1" + bytes(56)
        account = {"owner": TOKEN, "lamports": 1, "data": [base64.b64encode(data).decode(), "base64"]}
        node.accounts[ACCOUNT] = None if amount is None else account

    def ask(self, timeout_s: float = 5.0) -> Verdict | None:
        return ask_for_history(self._asked, ACCOUNT, self.history, slot_time=SlotTime(), timeout_s=timeout_s)

    def finding(self) -> Finding | None:
        verdict = self.ask()
        return None if verdict is None else verdict.finding


@pytest.fixture
def one(make_node: Any) -> Rig:
    return Rig(make_node)


@pytest.fixture
def two(make_node: Any) -> Rig:
    return Rig(make_node, 2)


@pytest.fixture
def make_node() -> Any:
    made: list[SolanaNode] = []

    def make() -> SolanaNode:
        made.append(SolanaNode().__enter__())
        return made[-1]

    yield make
    for node in made:
        node.__exit__(None, None, None)


# ── one node ──


def test_history_with_nothing_since_the_record_is_untouched(one: Rig) -> None:
    assert one.finding() is UNTOUCHED


def test_history_with_our_own_and_failed_transactions_is_untouched(one: Rig) -> None:
    one.record(landed={"ours": SEEN + 7})
    one.nodes[0].touch(ACCOUNT, "ours", SEEN + 7, err={"InstructionError": [0, {"Custom": 1}]})
    one.nodes[0].touch(ACCOUNT, "somebody", SEEN + 8, err={"InstructionError": [0, {"Custom": 1}]})
    assert one.finding() is UNTOUCHED


def test_history_with_a_foreign_transaction_is_touched(one: Rig) -> None:
    """Sold by hand and bought again: the balance is the same."""
    one.nodes[0].touch(ACCOUNT, "sold", SEEN + 1)
    one.nodes[0].touch(ACCOUNT, "bought", SEEN + 2)
    verdict = one.ask()
    assert verdict is not None
    assert verdict.finding is TOUCHED
    assert "bought" in verdict.detail


@pytest.mark.parametrize(("amount", "finding"), [(None, EMPTY), (0, EMPTY), (699, TOUCHED), (701, TOUCHED)])
def test_history_of_another_balance_is_not_untouched(one: Rig, amount: int | None, finding: Finding) -> None:
    one.hold(one.nodes[0], amount)
    assert one.finding() is finding
    assert one.nodes[0].count("getSignaturesForAddress") == 0


def test_history_with_a_dead_transaction_of_ours_is_touched(one: Rig) -> None:
    one.record(dead=frozenset({"dead"}))
    one.nodes[0].touch(ACCOUNT, "dead", SEEN + 1)
    verdict = one.ask()
    assert verdict is not None
    assert verdict.finding is TOUCHED
    assert "called dead" in verdict.detail


def test_history_without_a_known_landing_proves_nothing(one: Rig) -> None:
    """The node's index is behind its state."""
    one.record(landed={"ours": SEEN + 7})
    assert one.finding() is None
    assert "lacks ours" in one.history.explain()
    one.nodes[0].touch(ACCOUNT, "ours", SEEN + 7)
    assert one.finding() is UNTOUCHED


def test_history_that_begins_after_the_purchase_proves_nothing(one: Rig) -> None:
    """It was pruned, or belongs to another account."""
    one.nodes[0].history[ACCOUNT].clear()
    assert one.finding() is None
    one.nodes[0].touch(ACCOUNT, "ours", SEEN + 7)
    assert one.finding() is None
    assert "go back to the record" in one.history.explain()


def test_history_of_a_node_with_all_blocks_since_the_record_needs_no_purchase(one: Rig) -> None:
    """It has pruned the purchase, and nothing that came after the record."""
    one.nodes[0].history[ACCOUNT].clear()
    one.nodes[0].first_block = SEEN + 1
    assert one.finding() is None
    one.nodes[0].first_block = SEEN
    assert one.finding() is UNTOUCHED


def test_history_of_several_pages_is_read_to_the_record(one: Rig) -> None:
    node = one.nodes[0]
    own = [f"ours{number}" for number in range(MAX_SIGNATURES + 500)]
    one.record(own=frozenset(own))
    for number, signature in enumerate(own):
        node.touch(ACCOUNT, signature, SEEN + 1 + number // 10)
    assert one.finding() is UNTOUCHED
    assert node.count("getSignaturesForAddress") == 2
    node.history[ACCOUNT].insert(-1, {"signature": "foreign", "slot": SEEN + 1, "err": None, "blockTime": None})
    assert one.finding() is TOUCHED


@pytest.mark.parametrize(
    "answer",
    [
        None, {}, [None], [{"signature": "a"}], [{"signature": "a", "slot": -1, "err": None}],
        [{"signature": "a", "slot": 2**63, "err": None}], [{"signature": 5, "slot": 1, "err": None}],
        [{"signature": "a", "slot": 1, "err": None, "blockTime": "now"}],
        [{"signature": "a", "slot": 1, "err": None}, {"signature": "b", "slot": 2, "err": None}],
    ],
)  # fmt: skip
def test_history_that_is_no_answer_proves_nothing(one: Rig, answer: object) -> None:
    one.nodes[0].say["getSignaturesForAddress"] = lambda _: answer
    assert one.finding() is None
    assert "getSignaturesForAddress" in one.history.explain()


def test_history_of_a_node_that_keeps_none_proves_nothing(one: Rig) -> None:
    def no_history(_: object) -> object:
        raise RpcFailure(-32011, "Transaction history is not available from this node")

    one.nodes[0].say["getSignaturesForAddress"] = no_history
    one.clock.now_s += 2 * LEFT_OUT_AFTER_S
    assert one.finding() is None
    assert "--enable-rpc-transaction-history" in one.history.explain()


def test_history_before_the_server_saw_the_tokens_proves_nothing(one: Rig) -> None:
    """The only node lags behind a re-purchase that the stream has announced."""
    one.announced = NOW + 50
    assert one.finding() is None
    one.nodes[0].height += 60
    one.nodes[0].touch(ACCOUNT, "bought", NOW + 50)
    assert one.finding() is TOUCHED


def test_history_without_a_recorded_slot_goes_by_block_times(one: Rig) -> None:
    node = one.nodes[0]
    one.record(slot=None, began_s=10_000.0)
    node.history[ACCOUNT].clear()
    node.touch(ACCOUNT, "purchase", 5, time_s=9_000)
    assert one.finding() is None, "all nodes may lag where no slot is known"
    node.height += SlotTime().lag_blocks + 1
    assert one.finding() is UNTOUCHED
    node.touch(ACCOUNT, "sold", 6, time_s=9_999)
    assert one.finding() is TOUCHED, "the clocks may differ by a little"


# ── several nodes ──


def test_two_nodes_that_agree_decide(two: Rig) -> None:
    assert two.finding() is UNTOUCHED
    for node in two.nodes:
        node.touch(ACCOUNT, "foreign", SEEN + 1)
    two.record()
    assert two.finding() is TOUCHED


@pytest.mark.parametrize("liar", [0, 1])
def test_two_nodes_that_contradict_each_other_decide_nothing(two: Rig, liar: int) -> None:
    """One of them hides what happened; which one, nobody knows."""
    two.nodes[1 - liar].touch(ACCOUNT, "foreign", SEEN + 1)
    two.is_witnessed = True
    for _ in range(3):
        assert two.finding() is None
        two.clock.now_s += LEFT_OUT_AFTER_S
    assert "foreign" in two.history.explain()


def test_node_behind_another_one_is_waited_for(two: Rig) -> None:
    two.nodes[0].height += 100
    assert two.finding() is None
    two.nodes[1].height += 100
    assert two.finding() is UNTOUCHED


def test_node_with_an_absurd_newest_block_spoils_nothing(two: Rig) -> None:
    two.nodes[0].say["getEpochInfo"] = lambda _: {"absoluteSlot": 2**62, "blockHeight": 5}
    assert two.finding() is UNTOUCHED


def test_silent_node_is_left_out_only_where_the_stream_agrees(two: Rig) -> None:
    two.nodes[1].say["getSignaturesForAddress"] = two.nodes[1].hang
    assert two.ask(0.5) is None
    two.clock.now_s += LEFT_OUT_AFTER_S
    assert two.ask(0.5) is None
    two.is_witnessed = True
    verdict = two.ask(0.5)
    assert verdict is not None
    assert verdict.finding is UNTOUCHED


def test_silent_node_is_left_out_after_a_minute_where_nothing_is_sold(two: Rig) -> None:
    two.hold(two.nodes[0], 0)
    two.nodes[1].say["getEpochInfo"] = two.nodes[1].hang
    assert two.ask(0.5) is None
    two.clock.now_s += LEFT_OUT_AFTER_S
    verdict = two.ask(0.5)
    assert verdict is not None
    assert verdict.finding is EMPTY


def test_third_node_that_cannot_say_is_left_out_after_a_minute(make_node: Any) -> None:
    three = Rig(make_node, 3)
    three.nodes[2].say["getMultipleAccounts"] = lambda _: "nonsense"
    assert three.finding() is None
    three.clock.now_s += LEFT_OUT_AFTER_S
    assert three.finding() is UNTOUCHED
