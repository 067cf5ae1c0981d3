"""The guard's nodes: asked at once, and what they say about look-up tables."""

from __future__ import annotations

import base64
import contextlib
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.pubkey import Pubkey

from lasersell_sync.exceptions import ConfigurationError, TxSubmitError, UnsafeTransactionError
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.trading.guard import SigningGuard
from lasersell_sync.trading.guard.node_facts import GuardNodes
from lasersell_sync.trading.sending.tx_sender import TxSender
from lasersell_sync.trading.solana.rpc_node import RpcNode
from lasersell_sync.trading.solana.send_targets import SendTargetHeliusSender, SendTargetRpc
from tests.support.http_server import Answer
from tests.support.market_transactions import Desk, Draft, desk, draft, stranger
from tests.support.solana_node import RpcFailure, SolanaNode
from tests.support.waiting import PATIENCE_S, until

TABLE_PROGRAM = "AddressLookupTab1e1111111111111111111111111"
TABLE = stranger(50)


@pytest.fixture
def nodes() -> Iterator[list[SolanaNode]]:
    with ExitStack() as stack:
        yield [stack.enter_context(SolanaNode()) for _ in range(3)]


@pytest.fixture
def guard_of() -> Iterator[Callable[..., SigningGuard]]:
    """Makes a guard of some nodes, and closes it: otherwise its threads end two seconds later."""
    with ExitStack() as stack:
        yield lambda *asked: stack.enter_context(contextlib.closing(SigningGuard(rpc=[node.url for node in asked])))


def tip_height(node: RpcNode, budget: TimeBudget) -> int:
    return node.tip("confirmed", budget=budget).height


def guard_nodes(nodes: list[SolanaNode]) -> GuardNodes:
    return GuardNodes([SendTargetRpc(node.url) for node in nodes])


def table_account(addresses: Iterable[Pubkey], *, owner: str = TABLE_PROGRAM, tag: int = 1, cut: int = 0) -> object:
    """As agave stores one: tag, deactivation slot, last extension, authority, padding, entries."""
    meta = struct.pack("<IQQB", tag, 2**64 - 1, 5, 0) + b"\x01" + bytes(32) + bytes(2)
    data = meta + b"".join(map(bytes, addresses))
    data = data[: len(data) - cut]
    return {"owner": owner, "data": [base64.b64encode(data).decode(), "base64"], "lamports": 1, "executable": False}


def sale_with_table() -> tuple[Desk, Draft, list[Pubkey], str]:
    trader = desk("pump_swap")
    parts = draft(trader.sell())
    listed = [meta.pubkey for item in parts.instructions for meta in item.accounts if not meta.is_signer]
    listed = list(dict.fromkeys(listed))
    return trader, parts, listed, parts.b64([AddressLookupTableAccount(TABLE, listed)])


def refusal(guard: SigningGuard, tx_b64: str, wallet: str) -> UnsafeTransactionError:
    with pytest.raises(UnsafeTransactionError) as caught:
        guard.check(tx_b64, wallet=wallet)
    return caught.value


# ── asking ──


def test_guard_nodes_all_answer_yields_each_once(nodes: list[SolanaNode]):
    for number, node in enumerate(nodes):
        node.height += number
    answers = list(guard_nodes(nodes).ask(tip_height, timeout_s=30))
    assert sorted(answer.node for answer in answers) == [0, 1, 2]
    assert {answer.node: answer.value for answer in answers} == {n: node.height - 1 for n, node in enumerate(nodes)}


def test_guard_nodes_one_hangs_others_answer_first(nodes: list[SolanaNode]):
    nodes[0].say["getEpochInfo"] = nodes[0].hang
    answers = list(guard_nodes(nodes).ask(tip_height, timeout_s=0.5))
    assert answers[-1].node == 0
    assert isinstance(answers[-1].error, TxSubmitError)
    assert all(answer.error is None for answer in answers[:2])


def test_guard_nodes_caller_stops_early_does_not_wait_for_a_hanging_node(nodes: list[SolanaNode]):
    nodes[1].say["getEpochInfo"] = nodes[1].hang
    asker = guard_nodes(nodes)
    started = time.monotonic()
    for _ in zip(range(2), asker.ask(tip_height, timeout_s=60), strict=False):
        pass
    assert time.monotonic() - started < 30
    nodes[1].let_go.set()


def test_guard_nodes_errors_of_every_kind_are_answers(nodes: list[SolanaNode]):
    def fail(_params: object) -> object:
        raise RpcFailure(-32005, "node is behind")

    nodes[0].say["getEpochInfo"] = fail
    nodes[1].say["getEpochInfo"] = lambda _: Answer(429, b"slow down")
    nodes[2].say["getEpochInfo"] = lambda _: {"absoluteSlot": "x"}
    kinds = {
        answer.node: answer.error.kind
        for answer in guard_nodes(nodes).ask(tip_height, timeout_s=30)
        if answer.error is not None
    }
    assert kinds == {0: "rpc_error", 1: "http_status", 2: "decode_response"}


def test_guard_nodes_question_that_crashes_is_an_error_and_hangs_nobody(nodes: list[SolanaNode]):
    def crash(_node: RpcNode, _budget: TimeBudget) -> int:
        raise ZeroDivisionError

    answers = list(guard_nodes(nodes).ask(crash, timeout_s=30))
    assert [answer.error.kind for answer in answers if answer.error] == ["decode_response"] * 3


def test_guard_nodes_single_node_is_asked_on_the_calling_thread(nodes: list[SolanaNode]):
    seen = []

    def note(_node: RpcNode, _budget: TimeBudget) -> int:
        seen.append(threading.get_ident())
        return 1

    assert [answer.value for answer in guard_nodes(nodes[:1]).ask(note, timeout_s=30)] == [1]
    assert seen == [threading.get_ident()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_guard_nodes_forked_child_asks_with_threads_of_its_own(nodes: list[SolanaNode]):
    asker = guard_nodes(nodes)
    assert len(list(asker.ask(tip_height, timeout_s=30))) == 3
    child = os.fork()
    if not child:
        values = [answer.value for answer in asker.ask(lambda node, budget: 7, timeout_s=20)]
        os._exit(values != [7, 7, 7])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ── the argument ──


def test_rpc_argument_takes_a_url_a_target_or_several(nodes: list[SolanaNode]):
    target = SendTargetRpc(nodes[0].url)
    assert SigningGuard().rpc == ()
    assert SigningGuard(rpc=nodes[0].url).rpc == (target,)
    assert SigningGuard(rpc=target).rpc == (target,)
    assert SigningGuard(rpc=[target, nodes[1].url]).rpc == (target, SendTargetRpc(nodes[1].url))


@pytest.mark.parametrize(
    ("rpc", "field"),
    [([], "rpc"), (5, "rpc"), ([5], "rpc[0]"), (["http://127.0.0.1:1", SendTargetHeliusSender()], "rpc[1]"), ("ftp://x", "url")],
)  # fmt: skip
def test_rpc_argument_wrong_value_is_named(rpc: object, field: str):
    with pytest.raises(ConfigurationError) as caught:
        SigningGuard(rpc=rpc)  # type: ignore[arg-type]
    assert caught.value.field == field
    with pytest.raises(ConfigurationError):
        SigningGuard().with_rpc(rpc)  # type: ignore[arg-type]


def test_with_rpc_keeps_options_and_tables_and_leaves_the_first_guard_alone(nodes: list[SolanaNode]):
    trader, _, listed, tx_b64 = sale_with_table()
    first = SigningGuard(own_accounts=[str(stranger(3))])
    second = first.with_rpc(nodes[0].url)
    assert (first.rpc, second.rpc) == ((), (SendTargetRpc(nodes[0].url),))
    first.add_lookup_table(str(TABLE), [str(key) for key in listed])
    with contextlib.closing(second):
        second.check(tx_b64, wallet=trader.address)
    assert not nodes[0].asked


def test_tx_sender_names_its_nodes(nodes: list[SolanaNode]):
    target = SendTargetRpc(nodes[0].url)
    with TxSender(target) as sender:
        assert sender.rpcs == (target,)
    with TxSender(target, rpcs=[nodes[1].url, nodes[2].url]) as sender:
        assert [rpc.url for rpc in sender.rpcs] == [nodes[1].url, nodes[2].url]


# ── look-up tables ──


def test_lookup_table_read_from_a_node_once_and_kept(nodes: list[SolanaNode], guard_of: Callable[..., SigningGuard]):
    trader, _, listed, tx_b64 = sale_with_table()
    nodes[0].accounts[str(TABLE)] = table_account(listed)
    guard = guard_of(nodes[0])
    for _ in range(3):
        guard.check(tx_b64, wallet=trader.address)
    assert nodes[0].count("getMultipleAccounts") == 1


def test_lookup_table_that_grew_is_read_again(nodes: list[SolanaNode], guard_of: Callable[..., SigningGuard]):
    trader, _, listed, tx_b64 = sale_with_table()
    nodes[0].accounts[str(TABLE)] = table_account(listed)
    guard = guard_of(nodes[0])
    guard.add_lookup_table(str(TABLE), [str(key) for key in listed[:2]])
    guard.check(tx_b64, wallet=trader.address)
    assert nodes[0].count("getMultipleAccounts") == 1
    guard.check(tx_b64, wallet=trader.address)
    assert nodes[0].count("getMultipleAccounts") == 1


def test_lookup_table_entries_are_judged_like_any_account(
    nodes: list[SolanaNode], guard_of: Callable[..., SigningGuard]
):
    """A thief's account in the table: the transaction is read with it, and refused."""
    trader, _, listed, tx_b64 = sale_with_table()
    own = next(n for n, key in enumerate(listed) if str(key) in str(SigningGuard().explain(trader.sell())))
    nodes[0].accounts[str(TABLE)] = table_account([*listed[:own], stranger(9), *listed[own + 1 :]])
    error = refusal(guard_of(nodes[0]), tx_b64, trader.address)
    assert error.rule != "lookup_table"


@pytest.mark.parametrize(
    "account",
    [
        None,
        {"owner": TABLE_PROGRAM, "data": ["!!", "base64"]},
        table_account([], owner="11111111111111111111111111111111"),
        table_account([stranger(1)] * 40, tag=0),
        table_account([stranger(1)] * 40, cut=5),
        table_account([], cut=1),
        table_account([stranger(1)] * 257),
        table_account([stranger(1)] * 2),
    ],
    ids=["missing", "not base64", "another owner", "uninitialized", "cut entry", "cut head", "too many", "too short"],
)
def test_lookup_table_not_readable_is_refused_with_the_reason(
    nodes: list[SolanaNode], guard_of: Callable[..., SigningGuard], account: object
):
    trader, _, _, tx_b64 = sale_with_table()
    nodes[0].accounts[str(TABLE)] = account
    error = refusal(guard_of(nodes[0]), tx_b64, trader.address)
    assert (error.rule, error.account) == ("lookup_table", str(TABLE))
    assert "could not be read" in error.problem


def test_lookup_table_nodes_contradict_is_refused(nodes: list[SolanaNode], guard_of: Callable[..., SigningGuard]):
    """Two of three lie in two ways, or one of two: nobody can say who is right."""
    trader, _, listed, tx_b64 = sale_with_table()
    nodes[0].accounts[str(TABLE)] = table_account(listed)
    nodes[1].accounts[str(TABLE)] = table_account([stranger(9), *listed[1:]])
    guard = guard_of(*nodes[:2])
    error = refusal(guard, tx_b64, trader.address)
    assert (error.rule, "contradict" in error.problem) == ("lookup_table", True)
    nodes[1].accounts[str(TABLE)] = table_account(listed)
    guard.check(tx_b64, wallet=trader.address)


def test_lookup_table_contradicts_what_the_user_gave_is_refused(
    nodes: list[SolanaNode], guard_of: Callable[..., SigningGuard]
):
    trader, _, listed, tx_b64 = sale_with_table()
    nodes[0].accounts[str(TABLE)] = table_account([stranger(9), *listed[1:]])
    guard = guard_of(nodes[0])
    guard.add_lookup_table(str(TABLE), [str(key) for key in listed[:3]])
    assert refusal(guard, tx_b64, trader.address).rule == "lookup_table"


def test_lookup_table_node_that_lags_does_not_stand_in_the_way(
    nodes: list[SolanaNode], guard_of: Callable[..., SigningGuard]
):
    """It has not seen the last entries yet, or the table at all; what it knows fits."""
    trader, _, listed, tx_b64 = sale_with_table()
    nodes[0].accounts[str(TABLE)] = table_account(listed[:4])
    nodes[2].accounts[str(TABLE)] = table_account(listed)
    guard_of(*nodes).check(tx_b64, wallet=trader.address)


def test_lookup_table_majority_agrees_does_not_wait_for_the_last_node(
    nodes: list[SolanaNode], guard_of: Callable[..., SigningGuard]
):
    trader, _, listed, tx_b64 = sale_with_table()
    for node in nodes:
        node.accounts[str(TABLE)] = table_account(listed)
    nodes[0].say["getMultipleAccounts"] = nodes[0].hang
    guard_of(*nodes).check(tx_b64, wallet=trader.address)


def test_lookup_table_all_nodes_fail_is_refused_with_their_errors(
    nodes: list[SolanaNode], guard_of: Callable[..., SigningGuard]
):
    trader, _, _, tx_b64 = sale_with_table()
    for node in nodes:
        node.say["getMultipleAccounts"] = lambda _: Answer(429, b"slow down")
    error = refusal(guard_of(*nodes), tx_b64, trader.address)
    assert error.rule == "lookup_table"
    assert "429" in error.problem


def test_lookup_tables_many_are_kept_and_the_oldest_make_room(
    nodes: list[SolanaNode], guard_of: Callable[..., SigningGuard]
):
    """A server that names ever new tables fills no memory."""
    trader, parts, listed, _ = sale_with_table()
    guard = guard_of(nodes[0])
    everything = table_account(listed)
    nodes[0].say["getMultipleAccounts"] = lambda params: nodes[0].in_context([everything] * len(params[0]))
    for number in range(300):
        table = Pubkey.from_bytes(bytes([9]) + number.to_bytes(31, "big"))
        guard.check(parts.b64([AddressLookupTableAccount(table, listed)]), wallet=trader.address)
    assert len(guard._tables.known) == 256


def test_rent_of_a_new_token_account_is_what_the_nodes_say_and_no_sale_waits_for_them():
    """Before the first answer it is what rents were once; where nobody can be asked, for ever."""
    trader = Desk("raydium_cpmm")  # whose sale creates an account for wrapped SOL
    signal, _ = trader.signals("rpc")
    limits: dict[str, Any] = {"max_rent_lamports": 1_000_000}
    with SolanaNode() as node, contextlib.closing(SigningGuard(rpc=node.url, **limits)) as guard:
        is_asked = threading.Event()

        def rent(params: list[Any]) -> int:
            assert params == [165]
            node.let_go.wait()
            is_asked.set()
            return 890_880

        node.say["getMinimumBalanceForRentExemption"] = rent
        with pytest.raises(UnsafeTransactionError, match="2039280 lamports go to own accounts"):
            guard.check(signal, wallet=trader.address)
        node.let_go.set()
        assert is_asked.wait(PATIENCE_S)
        until(lambda: guard.explain(signal).accepted)
        assert guard.check(signal, wallet=trader.address)
        assert node.count("getMinimumBalanceForRentExemption") == 1  # and kept
        loaded = SigningGuard(**limits)
        loaded.load()
        with contextlib.closing(loaded.with_rpc(node.url)) as asking:
            until(lambda: asking.explain(signal).accepted)
    assert SigningGuard(**limits).explain(signal).broken == ("lamports",)
