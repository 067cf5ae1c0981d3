"""Sending and following, against nodes that answer anything, late, or not at all; every one a real server on loopback."""

from __future__ import annotations

import base64
import logging
import multiprocessing
import os
import pickle
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from lasersell_sync.exceptions import ConcurrencyError, ConfigurationError, ForkedProcessError, TxSubmitError
from lasersell_sync.trading import (
    PendingTx,
    SellOutcome,
    SendTargetAstralane,
    SendTargetHeliusSender,
    SendTargetRpc,
    TxResult,
    TxSender,
    close_rpc_connections,
)
from lasersell_sync.trading.sending import status_poller
from lasersell_sync.trading.sending import tx_tracker as pending_txs
from lasersell_sync.trading.sending.target_sender import NOT_TAKEN_CODES
from lasersell_sync.trading.solana.expiry import BLOCKHASH_LIFE_BLOCKS, SlotTime
from lasersell_sync.trading.solana.token_accounts import AmountProof
from tests.support.http_server import Answer, closed_port
from tests.support.solana_node import FIRST_HEIGHT, RpcFailure, SignedTransfer, SolanaNode, advance_nonce
from tests.support.waiting import PATIENCE_S, until

CONFIRMED, UNKNOWN, REJECTED = SellOutcome.CONFIRMED, SellOutcome.UNKNOWN, SellOutcome.REJECTED
EXPIRED, FAILED = SellOutcome.EXPIRED, SellOutcome.FAILED_ONCHAIN
#: Nothing happens for this long, where something must not happen.
QUIET_S = 0.1
#: Between two rounds of questions: many of them in ``QUIET_S``.
POLL_S = 0.005


@pytest.fixture(autouse=True)
def _first_look_comes_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes are asked when a transaction was under way for this long."""
    for module in (status_poller, pending_txs):
        monkeypatch.setattr(module, "FIRST_LOOK_S", POLL_S)


@pytest.fixture
def world() -> Iterator[ExitStack]:
    """Servers and senders, ended in the right order."""
    with ExitStack() as stack:
        stack.callback(close_rpc_connections)
        yield stack


@pytest.fixture
def make_node(world: ExitStack) -> Callable[..., SolanaNode]:
    return lambda **options: world.enter_context(SolanaNode(**options))


@pytest.fixture
def node(make_node: Callable[..., SolanaNode]) -> SolanaNode:
    return make_node()


@pytest.fixture
def make_sender(world: ExitStack) -> Callable[..., TxSender]:
    def make(*targets: object, **options: Any) -> TxSender:
        options = {"poll_s": POLL_S, "rebroadcast_s": 60.0, "keep_warm_s": None, **options}
        given = [SendTargetRpc(target.url) if isinstance(target, SolanaNode) else target for target in targets]
        rpcs = options.pop("rpcs", None)
        if rpcs is not None:
            options["rpcs"] = [rpc.url if isinstance(rpc, SolanaNode) else rpc for rpc in rpcs]
        sender = TxSender(given, **options)
        # Whatever hangs is let go before, or its threads would outlive the test.
        nodes = [thing for thing in (*targets, *(rpcs or ())) if isinstance(thing, SolanaNode)]

        def end() -> None:
            for each in nodes:
                each.let_go.set()
            sender.close()

        world.callback(end)
        return sender

    return make


def passes(*nodes: SolanaNode, blocks: int) -> None:
    for node in nodes:
        node.height += blocks


def rounds(node: SolanaNode, count: int = 3) -> None:
    """Wait until the node was asked for statuses so many times more, from now."""
    enough = node.count("getSignatureStatuses") + count
    until(lambda: node.count("getSignatureStatuses") >= enough)


def outcome(pending: PendingTx) -> SellOutcome:
    return pending.result(PATIENCE_S).outcome


# ── what became of it ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_transaction_is_confirmed(node: SolanaNode, make_sender: Any) -> None:
    """Sent once, accepted, found at commitment confirmed."""
    tx = SignedTransfer()
    pending = make_sender(node).submit(tx.b64)
    until(lambda: pending.result(0).accepted_by == "rpc")
    assert node.sent == [tx.b64]
    assert pending.signature == tx.signature
    assert not pending.done()
    node.land(tx.signature)
    result = pending.result(PATIENCE_S)
    assert (result.outcome, result.accepted_by, result.signature) == (CONFIRMED, "rpc", tx.signature)
    assert result.slot is not None
    assert pending.done()


def test_processed_is_not_enough(node: SolanaNode, make_sender: Any) -> None:
    """Neither for a success nor for a failure: its branch may be given up."""
    good, bad = SignedTransfer(1), SignedTransfer(2)
    sender = make_sender(node)
    node.land(good.signature, level="processed")
    node.land(bad.signature, level="processed", err={"InstructionError": [0, {"Custom": 1}]})
    ends = [sender.submit(tx.b64) for tx in (good, bad)]
    rounds(node)
    assert not any(pending.done() for pending in ends)
    node.land(good.signature, level="finalized")
    node.land(bad.signature, err={"InstructionError": [0, {"Custom": 6003}]})
    assert [outcome(pending) for pending in ends] == [CONFIRMED, FAILED]
    assert "6003" in ends[1].result().detail


def test_nodes_of_before_2020_tell_finality_by_null_confirmations(node: SolanaNode, make_sender: Any) -> None:
    """And anything less by a number."""
    tx = SignedTransfer()
    node.statuses[tx.signature] = {"slot": 5, "confirmations": 3, "err": None}
    pending = make_sender(node).submit(tx.b64)
    rounds(node)
    assert not pending.done()
    node.statuses[tx.signature] = {"slot": 5, "confirmations": None, "err": None}
    assert outcome(pending) is CONFIRMED


def test_send_waits_and_goes_on_behind_the_callers_back(node: SolanaNode, make_sender: Any) -> None:
    """UNKNOWN when the time is over; the same bytes wait for it anew, and are not sent twice by that."""
    tx = SignedTransfer()
    sender = make_sender(node)
    result = sender.send(tx.b64, timeout_s=0.1)
    assert result.outcome is UNKNOWN
    assert "no status" in result.detail
    node.land(tx.signature)
    assert sender.send(tx.b64, timeout_s=PATIENCE_S).outcome is CONFIRMED
    assert sender.send(tx.b64).outcome is CONFIRMED, "a late duplicate"
    assert node.sent == [tx.b64]


def test_statuses_are_asked_for_in_batches(node: SolanaNode, make_sender: Any) -> None:
    """Of 256 at the most (the node asserts it), every one answered."""
    txs = [SignedTransfer(number) for number in range(1, 301)]
    sender = make_sender(node, poll_s=0.2)
    pending = [sender.track(tx.signature, blockhash=tx.blockhash) for tx in txs]

    def sizes() -> list[int]:
        requests = [seen.json for seen in list(node.requests)]
        return [len(asked["params"][0]) for asked in requests if asked["method"] == "getSignatureStatuses"]

    # The first rounds may have begun before all were tracked.
    until(lambda: max(sizes(), default=0) == 256)
    for tx in txs:
        node.land(tx.signature)
    assert {outcome(each) for each in pending} == {CONFIRMED}
    assert max(sizes()) == 256


# ── nodes that do not answer as they should ──────────────────────────────────────────────────────────────────────


def html(_: object) -> Answer:
    return Answer(200, b"<html>down for maintenance</html>", {"content-type": "text/html"})


def fails(code: int) -> Callable[[object], Any]:
    def say(_: object) -> Any:
        raise RpcFailure(code)

    return say


BAD_ANSWERS: dict[str, Callable[[Any], Any]] = {
    "500": lambda _: Answer(500, b"{}"),
    "429": lambda _: Answer(429, b"slow down", {"retry-after": "0.01"}),
    "html": html,
    "empty": lambda _: Answer(200, b""),
    "garbage": lambda _: Answer(200, b"\xff\x00{["),
    "deep": lambda _: Answer(200, b"[" * 100_000),
    "hang up": lambda _: Answer(raw=b""),
    "not HTTP": lambda _: Answer(raw=b"SSH-2.0\r\n"),
    "rpc error": fails(-32005),
    "no history": fails(-32011),
    "null": lambda _: None,
    "a list": lambda _: [],
    "a text": lambda _: "ok",
    "no context": lambda _: {"value": [None]},
    "no value": lambda _: {"context": {"slot": 5}},
    "senseless": lambda _: {"context": {"slot": "x"}, "value": [None], "absoluteSlot": True, "blockHeight": -1},
    "too few": lambda _: {"context": {"slot": 10**12}, "value": [], "absoluteSlot": 1, "blockHeight": 2},
    "too many": lambda _: {"context": {"slot": 10**12}, "value": [None, None]},
    "no statuses": lambda _: {"context": {"slot": 10**12}, "value": [{}]},
    "unknown level": lambda _: {
        "context": {"slot": 10**12},
        "value": [{"slot": 1, "err": None, "confirmationStatus": "rooted"}],
    },
    "numbers": lambda _: {"context": {"slot": 10**12}, "value": [1]},
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
def test_what_a_bad_node_says_settles_nothing_and_hinders_nobody(kind: str, make_node: Any, make_sender: Any) -> None:
    """It is asked again and again; the good node beside it tells the outcome."""
    good, bad, tx = make_node(), make_node(), SignedTransfer()
    for method in ("isBlockhashValid", "getEpochInfo", "getSignatureStatuses"):
        bad.say[method] = BAD_ANSWERS[kind]
    pending = make_sender(good, rpcs=[bad, good]).submit(tx.b64)
    rounds(bad, 2)
    assert pending.result(0).outcome is UNKNOWN
    good.land(tx.signature)
    assert outcome(pending) is CONFIRMED


@pytest.mark.parametrize("kind", BAD_ANSWERS)
def test_a_bad_node_alone_leaves_it_unknown_until_it_recovers(kind: str, node: SolanaNode, make_sender: Any) -> None:
    """Not expired, however high its blocks."""
    tx = SignedTransfer()
    node.valid.add(tx.blockhash)
    pending = make_sender(node).submit(tx.b64)
    until(lambda: node.count("getSignatureStatuses"))
    node.say["getSignatureStatuses"] = BAD_ANSWERS[kind]
    rounds(node, 1)
    passes(node, blocks=10_000)
    rounds(node, 2)
    assert pending.result(0).outcome is UNKNOWN
    node.land(tx.signature)
    del node.say["getSignatureStatuses"]
    assert outcome(pending) is CONFIRMED


def test_a_hanging_node_hinders_nobody(make_node: Any, make_sender: Any) -> None:
    """Each is asked on a thread of its own."""
    good, bad, tx = make_node(), make_node(), SignedTransfer()
    for method in ("isBlockhashValid", "getEpochInfo", "getSignatureStatuses"):
        bad.say[method] = bad.hang
    pending = make_sender(good, rpcs=[bad, good]).submit(tx.b64)
    until(lambda: bad.asked)
    good.land(tx.signature)
    assert outcome(pending) is CONFIRMED


def test_a_node_without_heights_still_tells_that_it_landed(node: SolanaNode, make_sender: Any) -> None:
    """Questions that fail do not keep the others from being asked."""
    tx = SignedTransfer()
    node.say["isBlockhashValid"] = node.say["getEpochInfo"] = fails(-32601)
    pending = make_sender(node).submit(tx.b64)
    node.land(tx.signature)
    assert outcome(pending) is CONFIRMED


# ── expired ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_expires_with_proof(node: SolanaNode, make_sender: Any) -> None:
    """Not one block earlier."""
    tx = SignedTransfer()
    node.valid.add(tx.blockhash)
    pending = make_sender(node).submit(tx.b64)
    until(lambda: node.count("getEpochInfo") >= 2)  # the second one bounds what is not confirmed yet
    node.valid.clear()
    passes(node, blocks=1)
    rounds(node)  # now a confirmed block stands on the blockhash: the bound is exact
    passes(node, blocks=BLOCKHASH_LIFE_BLOCKS - 1)
    assert node.height - 1 == FIRST_HEIGHT + BLOCKHASH_LIFE_BLOCKS - 1
    rounds(node, 5)
    assert not pending.done()
    passes(node, blocks=1)
    result = pending.result(PATIENCE_S)
    assert result.outcome is EXPIRED
    assert str(FIRST_HEIGHT + BLOCKHASH_LIFE_BLOCKS) in result.detail


def test_it_lands_in_the_last_block(node: SolanaNode, make_sender: Any) -> None:
    """Found there although everything below it was searched in vain."""
    tx = SignedTransfer()
    node.valid.add(tx.blockhash)
    pending = make_sender(node).submit(tx.b64)
    until(lambda: node.count("getEpochInfo") >= 2)
    node.valid.clear()
    passes(node, blocks=1)
    rounds(node)
    passes(node, blocks=BLOCKHASH_LIFE_BLOCKS - 1)
    rounds(node, 4)
    node.land(tx.signature)
    passes(node, blocks=1_000)
    assert outcome(pending) is CONFIRMED


def test_a_blockhash_that_nobody_knows_expires_late(node: SolanaNode, make_sender: Any) -> None:
    """Dead on arrival, or every node lags: only what a node may lag behind tells them apart."""
    tx = SignedTransfer()
    pending = make_sender(node).submit(tx.b64)
    rounds(node, 2)
    passes(node, blocks=BLOCKHASH_LIFE_BLOCKS + SlotTime().lag_blocks - 1)
    rounds(node, 5)
    assert not pending.done()
    passes(node, blocks=2)
    assert outcome(pending) is EXPIRED


def test_a_node_that_lags_proves_nothing(make_node: Any, make_sender: Any) -> None:
    """200 blocks behind, it finds nothing of what has landed; the other one does not answer."""
    behind, ahead, tx = make_node(height=FIRST_HEIGHT - 200), make_node(), SignedTransfer()
    ahead.valid.add(tx.blockhash)
    pending = make_sender(ahead, rpcs=[behind, ahead]).submit(tx.b64)
    until(lambda: ahead.count("getEpochInfo") >= 2)
    for method in ("isBlockhashValid", "getEpochInfo", "getSignatureStatuses"):
        ahead.say[method] = fails(-32005)
    passes(behind, ahead, blocks=200)  # the blockhash is known to the one that lags only now
    behind.valid.add(tx.blockhash)
    rounds(behind)
    passes(behind, blocks=BLOCKHASH_LIFE_BLOCKS - 5)
    rounds(behind, 5)
    assert not pending.done()
    behind.land(tx.signature)
    assert outcome(pending) is CONFIRMED


def test_two_nodes_behind_one_url(node: SolanaNode, make_sender: Any) -> None:
    """The heights come from one at the tip, the statuses from one that lags 200 slots: no read counts."""
    tx = SignedTransfer()
    node.valid.add(tx.blockhash)
    pending = make_sender(node).submit(tx.b64)
    until(lambda: node.count("getEpochInfo") >= 2)
    node.say["getSignatureStatuses"] = lambda params: {
        "context": {"slot": node.height + 21_000_000 - 200},
        "value": [None] * len(params[0]),
    }
    passes(node, blocks=300)
    rounds(node, 5)
    assert not pending.done()
    del node.say["getSignatureStatuses"]
    assert outcome(pending) is EXPIRED


def test_heights_are_asked_for_only_when_they_could_tell_something(node: SolanaNode, make_sender: Any) -> None:
    """Between the first ones and the end, one question a round is enough."""
    tx = SignedTransfer()
    node.valid.add(tx.blockhash)
    make_sender(node, poll_s=0.01).submit(tx.b64)
    until(lambda: node.count("getEpochInfo") >= 2)
    passes(node, blocks=1)
    rounds(node, 2)
    before = node.count("getEpochInfo"), node.count("isBlockhashValid")
    rounds(node, 10)
    assert (node.count("getEpochInfo"), node.count("isBlockhashValid")) == before


def test_on_a_durable_nonce_it_never_expires(node: SolanaNode, make_sender: Any) -> None:
    """What looks like a blockhash does not age."""
    tx = SignedTransfer(first=(advance_nonce(),))
    pending = make_sender(node).submit(tx.b64)
    rounds(node, 2)
    passes(node, blocks=100_000)
    rounds(node, 5)
    assert pending.result(0).outcome is UNKNOWN
    assert "nonce" in pending.result(0).detail
    node.land(tx.signature)
    assert outcome(pending) is CONFIRMED


# ── rejected ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", sorted(NOT_TAKEN_CODES))
def test_a_definite_refusal_by_all_settles_at_once(code: int, make_node: Any, make_sender: Any) -> None:
    """By two targets, with the words of both."""
    first, second, tx = make_node(), make_node(), SignedTransfer()

    def refuse(words: str) -> Callable[[Any], Any]:
        def say(_: object) -> Any:
            raise RpcFailure(code, words, {"err": "BlockhashNotFound"})

        return say

    first.say["sendTransaction"], second.say["sendTransaction"] = refuse("no thanks"), refuse("nor here")
    pending = make_sender(first, second).submit(tx.b64)
    result = pending.result(PATIENCE_S)
    assert result.outcome is REJECTED
    assert "no thanks" in result.detail
    assert "nor here" in result.detail
    assert result.accepted_by is None


UNCERTAIN_ANSWERS: dict[str, Callable[[Any], Any]] = {
    **{kind: BAD_ANSWERS[kind] for kind in ("500", "429", "html", "empty", "garbage", "hang up", "null", "rpc error")},
    "a code of its own": fails(-32099),
    "internal error": fails(-32603),
    "another signature": lambda _: SignedTransfer(99).signature,
    "refusal with HTTP 400": lambda _: Answer(400, b'{"jsonrpc":"2.0","error":{"code":-32602,"message":"x"},"id":1}'),
    "refusal of another request": lambda _: Answer(
        200, b'{"jsonrpc":"2.0","error":{"code":-32602,"message":"x"},"id":-5}'
    ),
    "a code that is a text": lambda _: Answer(200, b'{"jsonrpc":"2.0","error":{"code":"-32602"},"id":null}'),
}


@pytest.mark.parametrize("kind", UNCERTAIN_ANSWERS)
def test_anything_else_is_no_refusal(kind: str, make_node: Any, make_sender: Any) -> None:
    """One target refuses, the other one says something else: it may be on its way, and is followed."""
    refusing, vague, tx = make_node(), make_node(), SignedTransfer()
    refusing.say["sendTransaction"] = fails(-32602)
    vague.say["sendTransaction"] = UNCERTAIN_ANSWERS[kind]
    pending = make_sender(refusing, vague, rpcs=[refusing]).submit(tx.b64)
    until(lambda: vague.sent)
    rounds(refusing)
    assert pending.result(0).outcome is UNKNOWN
    refusing.land(tx.signature)
    assert outcome(pending) is CONFIRMED


def test_refused_because_it_has_landed_is_no_refusal(node: SolanaNode, make_sender: Any) -> None:
    """AlreadyProcessed comes with the code of a failed preflight."""
    tx = SignedTransfer()

    def say(_: object) -> Any:
        raise RpcFailure(-32002, "Transaction simulation failed: This transaction has already been processed",
                         {"err": "AlreadyProcessed"})  # fmt: skip

    node.say["sendTransaction"] = say
    pending = make_sender(node).submit(tx.b64)
    rounds(node)
    assert pending.result(0).outcome is UNKNOWN
    node.land(tx.signature)
    assert outcome(pending) is CONFIRMED


def test_a_refusal_does_not_settle_while_another_target_is_silent(make_node: Any, make_sender: Any) -> None:
    """Until that one has refused as well."""
    refusing, slow, tx = make_node(), make_node(), SignedTransfer()
    refusing.say["sendTransaction"] = fails(-32602)

    def late(_: object) -> Any:
        assert slow.let_go.wait(PATIENCE_S)
        raise RpcFailure(-32003)

    slow.say["sendTransaction"] = late
    pending = make_sender(refusing, slow, send_timeout_s=PATIENCE_S).submit(tx.b64)
    rounds(refusing)
    assert not pending.done()
    slow.let_go.set()
    assert outcome(pending) is REJECTED


def test_a_refusal_after_a_time_out_is_not_one_of_all_copies(make_node: Any, make_sender: Any) -> None:
    """The first copy may have got through."""
    node, tx = make_node(), SignedTransfer()
    node.say["sendTransaction"] = node.hang
    sender = make_sender(node, send_timeout_s=0.1, rebroadcast_s=0.15)
    pending = sender.submit(tx.b64)
    until(lambda: node.sent)
    node.say["sendTransaction"] = fails(-32602)
    until(lambda: len(node.sent) >= 3)
    rounds(node)
    assert pending.result(0).outcome is UNKNOWN


def test_a_rejected_one_may_be_tried_again(node: SolanaNode, make_sender: Any) -> None:
    """The node was only late: the same bytes are another transaction under way."""
    tx = SignedTransfer()
    sender = make_sender(node)
    node.say["sendTransaction"] = fails(-32002)
    assert sender.send(tx.b64, timeout_s=PATIENCE_S).outcome is REJECTED
    del node.say["sendTransaction"]
    node.land(tx.signature)
    assert sender.send(tx.b64, timeout_s=PATIENCE_S).outcome is CONFIRMED


# ── targets ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", [0, 1, 2])
def test_submit_one_of_three_targets_hangs_forty_copies_reach_the_others(
    place: int, make_node: Any, make_sender: Any
) -> None:
    """Nobody waits for it: neither the caller nor the copies to the other targets."""
    nodes, txs = [make_node() for _ in range(3)], [SignedTransfer(number) for number in range(1, 41)]
    nodes[place].say["sendTransaction"] = nodes[place].hang
    sender = make_sender(*nodes, send_timeout_s=PATIENCE_S)
    began = time.monotonic()
    for tx in txs:
        sender.submit(tx.b64)
    assert time.monotonic() - began < PATIENCE_S / 2
    wanted = {tx.b64 for tx in txs}
    for node in nodes[:place] + nodes[place + 1 :]:
        until(lambda node=node: set(node.sent) == wanted)
    until(lambda: len(nodes[place].sent) == 16)  # as many as it has connections


def test_submit_all_targets_hang_the_landing_is_found(make_node: Any, make_sender: Any) -> None:
    targets, node, tx = [make_node() for _ in range(3)], make_node(), SignedTransfer()
    for target in targets:
        target.say["sendTransaction"] = target.hang
    node.land(tx.signature)
    told = threading.Event()
    sender = make_sender(*targets, rpcs=[node], send_timeout_s=PATIENCE_S)
    pending = sender.submit(tx.b64, on_settled=lambda _: told.set())
    assert outcome(pending) is CONFIRMED
    assert told.wait(PATIENCE_S)
    until(lambda: [target.sent for target in targets] == [[tx.b64]] * 3)


def test_connections_bound_the_copies_on_their_way_to_one_target(make_node: Any, make_sender: Any) -> None:
    hanging, fine = make_node(), make_node()
    hanging.say["sendTransaction"] = hanging.hang
    sender = make_sender(hanging, fine, send_timeout_s=PATIENCE_S, connections=2)
    txs = [SignedTransfer(number) for number in range(1, 9)]
    for tx in txs:
        sender.submit(tx.b64)
    until(lambda: len(fine.sent) == 8)
    until(lambda: len(hanging.sent) == 2)
    hanging.let_go.set()
    until(lambda: len(hanging.sent) >= 8)


def test_the_first_to_accept_is_remembered(make_node: Any, make_sender: Any) -> None:
    """Also when the caller's own target fails."""
    bad, good, tx = make_node(), make_node(), SignedTransfer()
    bad.say["sendTransaction"] = BAD_ANSWERS["500"]
    sender = make_sender(bad, SendTargetAstralane(api_key="key-of-a-trader", url=good.url), rpcs=[bad])
    pending = sender.submit(tx.b64)
    until(lambda: pending.result(0).accepted_by)
    bad.land(tx.signature)
    assert pending.result(PATIENCE_S).accepted_by == "astralane"
    assert good.requests[0].headers["x-api-key"] == "key-of-a-trader"


def test_a_kept_connection_that_broke_costs_no_rebroadcast(node: SolanaNode, make_sender: Any) -> None:
    """The same bytes go again at once."""
    sender = make_sender(node)
    sender.warm()
    answers = iter([Answer(raw=b"")])
    node.say["sendTransaction"] = lambda params: next(answers, None) or node._sendTransaction(params)
    tx = SignedTransfer()
    pending = sender.submit(tx.b64)
    until(lambda: pending.result(0).accepted_by == "rpc")
    assert node.sent == [tx.b64] * 2


def test_a_refusal_of_the_second_copy_says_nothing_of_the_first(node: SolanaNode, make_sender: Any) -> None:
    """Its connection broke behind it."""
    answers = iter([Answer(raw=b"")])

    def say(params: object) -> Any:
        broken = next(answers, None)
        if broken is None:
            raise RpcFailure(-32602)
        return broken

    node.say["sendTransaction"] = say
    pending = make_sender(node).submit(SignedTransfer().b64)
    until(lambda: len(node.sent) == 2)
    rounds(node)
    assert pending.result(0).outcome is UNKNOWN


def test_a_refusal_by_all_does_not_settle_while_a_further_copy_is_on_its_way(make_node: Any, make_sender: Any) -> None:
    """The target that refused its first copy has got a second one, and is silent."""
    eager, slow, tx = make_node(), make_node(), SignedTransfer()
    second = threading.Event()

    def refuse_then_hang(_: object) -> Any:
        if len(eager.sent) == 1:
            raise RpcFailure(-32002)
        second.set()
        return eager.hang()

    def refuse_late(_: object) -> Any:
        assert second.wait(PATIENCE_S)
        raise RpcFailure(-32003)

    eager.say["sendTransaction"], slow.say["sendTransaction"] = refuse_then_hang, refuse_late
    sender = make_sender(eager, slow, rebroadcast_s=0.2, send_timeout_s=PATIENCE_S)
    pending = sender.submit(tx.b64)
    until(lambda: 1 in pending._tracked.refused_by)
    rounds(eager)
    assert pending.result(0).outcome is UNKNOWN
    eager.land(tx.signature)
    assert outcome(pending) is CONFIRMED


def test_a_blockhash_is_asked_about_for_everyone_who_shares_it(
    node: SolanaNode, make_sender: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for one that comes right behind the answer, and not only when those are asked about again that it lacks."""
    monkeypatch.setattr(status_poller, "_ASK_AGAIN_S", 3600.0)
    tx, other = SignedTransfer(1), SignedTransfer(2)
    node.valid.add(tx.blockhash)
    sender = make_sender(node)
    first = sender.submit(tx.b64)
    until(lambda: first._tracked.rule.is_known_to(0))
    second = sender.track(other.signature, blockhash=tx.blockhash)
    until(lambda: second._tracked.rule.is_known_to(0))


def test_nobody_listens(node: SolanaNode, make_sender: Any) -> None:
    """A network failure is not raised, and not a refusal."""
    tx = SignedTransfer()
    nowhere = SendTargetRpc(f"http://127.0.0.1:{closed_port()}")
    pending = make_sender(nowhere, rpcs=[node]).submit(tx.b64)
    rounds(node)
    assert pending.result(0).outcome is UNKNOWN
    assert "rpc: request_send" in pending.result(0).detail


# ── again ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_bytes_go_to_every_target_until_settled(make_node: Any, make_sender: Any) -> None:
    """And not after that."""
    first, second, tx = make_node(), make_node(), SignedTransfer()
    sender = make_sender(first, second, rebroadcast_s=0.05)
    pending = sender.submit(tx.b64)
    until(lambda: len(first.sent) >= 4 and len(second.sent) >= 4)
    assert {*first.sent, *second.sent} == {tx.b64}
    first.land(tx.signature)
    assert outcome(pending) is CONFIRMED
    rest = len(first.sent), len(second.sent)
    time.sleep(QUIET_S)
    assert len(first.sent) + len(second.sent) <= sum(rest) + 2  # those that were on their way


def test_a_target_that_still_hangs_gets_no_further_copy(make_node: Any, make_sender: Any) -> None:
    """The others do."""
    hanging, fine, tx = make_node(), make_node(), SignedTransfer()
    hanging.say["sendTransaction"] = hanging.hang
    sender = make_sender(fine, hanging, rebroadcast_s=0.05, send_timeout_s=PATIENCE_S)
    sender.submit(tx.b64)
    until(lambda: len(fine.sent) >= 5)
    assert len(hanging.sent) == 1


def test_what_settled_while_it_waited_for_a_thread_is_not_sent(make_node: Any, make_sender: Any) -> None:
    """A target that hangs holds all its connections; copies queue behind them and are dropped."""
    fine, hanging = make_node(), make_node()
    hanging.say["sendTransaction"] = hanging.hang
    sender = make_sender(fine, hanging, send_timeout_s=PATIENCE_S, connections=8)
    txs = [SignedTransfer(number) for number in range(1, 13)]
    pending = [sender.submit(tx.b64) for tx in txs]
    until(lambda: len(hanging.sent) == 8)
    for tx in txs:
        fine.land(tx.signature)
    assert {outcome(each) for each in pending} == {CONFIRMED}
    del hanging.say["sendTransaction"]
    hanging.let_go.set()
    time.sleep(QUIET_S)
    assert len(hanging.sent) <= 8


@pytest.mark.parametrize("landed_before", [False, True])
def test_a_hundred_submits_of_one_are_one(landed_before: bool, make_node: Any, make_sender: Any) -> None:
    """From eight threads: one copy to each target, one pending transaction, every callback called once."""
    first, second, tx = make_node(), make_node(), SignedTransfer()
    sender = make_sender(first, second)
    if landed_before:
        first.land(tx.signature)
    told: Counter[int] = Counter()
    ends: list[PendingTx] = []
    gate = threading.Barrier(8)

    def submit(worker: int) -> None:
        gate.wait()
        for number in range(worker, 100, 8):
            ends.append(sender.submit(tx.b64, on_settled=lambda _, number=number: told.update([number])))

    workers = [threading.Thread(target=submit, args=(worker,)) for worker in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    first.land(tx.signature)
    assert {id(end) for end in ends} == {id(ends[0])}
    assert outcome(ends[0]) is CONFIRMED
    until(lambda: len(told) == 100)
    assert set(told.values()) == {1}
    until(lambda: second.sent)
    assert (first.sent, second.sent) == ([tx.b64], [tx.b64])


# ── watching only ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tracked_one_is_only_watched(node: SolanaNode, make_sender: Any) -> None:
    """Never sent, confirmed when it lands."""
    tx = SignedTransfer()
    pending = make_sender(node, rebroadcast_s=0.02).track(tx.signature, blockhash=tx.blockhash)
    rounds(node, 5)
    assert node.sent == []
    node.land(tx.signature)
    assert outcome(pending) is CONFIRMED


def test_a_tracked_one_expires(node: SolanaNode, make_sender: Any) -> None:
    """With the same proof."""
    tx = SignedTransfer()
    pending = make_sender(node).track(tx.signature, blockhash=tx.blockhash)
    rounds(node, 2)
    passes(node, blocks=1_000)
    assert outcome(pending) is EXPIRED


def test_a_tracked_one_is_never_rejected(node: SolanaNode, make_sender: Any) -> None:
    """Its bytes turn up, and are refused: an earlier copy may be on its way."""
    tx = SignedTransfer()
    node.say["sendTransaction"] = fails(-32602)
    sender = make_sender(node)
    pending = sender.track(tx.signature, blockhash=tx.blockhash)
    assert sender.submit(tx.b64) is pending
    until(lambda: node.sent == [tx.b64])
    rounds(node)
    assert pending.result(0).outcome is UNKNOWN


def test_many_dead_ones_do_not_delay_statuses(node: SolanaNode, make_sender: Any) -> None:
    """After a restart: the nodes are asked about a few blockhashes a round."""
    sender = make_sender(node, poll_s=0.01)
    txs = [SignedTransfer(number) for number in range(1, 201)]
    for tx in txs:
        sender.track(tx.signature, blockhash=tx.blockhash)
    until(lambda: node.count("isBlockhashValid") >= 200)
    rounds(node, 1)
    by_round = " ".join(node.asked).split("getSignatureStatuses")
    assert max(names.count("isBlockhashValid") for names in by_round) <= 16
    asked = Counter(seen.json["params"][0] for seen in node.requests if seen.json["method"] == "isBlockhashValid")
    assert len(asked) == 200


# ── telling ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_callbacks_come_on_a_thread_of_ours_and_may_do_anything(node: SolanaNode, make_sender: Any) -> None:
    """No lock is held: one submits the next transaction, asks for results, and fails; the next one is told all the same."""
    first, second = SignedTransfer(1), SignedTransfer(2)
    sender = make_sender(node)
    told: list[tuple[str, TxResult]] = []
    nexts: list[PendingTx] = []

    def fail(result: TxResult) -> None:
        nexts.append(sender.submit(second.b64, on_settled=note))
        assert pending.result(0) == result
        raise RuntimeError("a bug of the user")

    def note(result: TxResult) -> None:
        told.append((threading.current_thread().name, result))

    node.land(first.signature)
    node.land(second.signature)
    pending = sender.submit(first.b64, on_settled=fail)
    sender.submit(first.b64, on_settled=note)
    until(lambda: len(told) == 2)
    assert {name for name, _ in told} == {"lasersell-confirm-calls"}
    assert {result.signature for _, result in told} == {first.signature, second.signature}
    assert nexts[0].done()


def test_a_slow_callback_delays_neither_copies_nor_questions(node: SolanaNode, make_sender: Any) -> None:
    """It has its own thread."""
    first, second = SignedTransfer(1), SignedTransfer(2)
    sender = make_sender(node, rebroadcast_s=0.05)
    gate = threading.Event()
    node.land(first.signature)
    assert outcome(sender.submit(first.b64, on_settled=lambda _: gate.wait(PATIENCE_S))) is CONFIRMED
    pending = sender.submit(second.b64)
    until(lambda: node.sent.count(second.b64) >= 3)
    node.land(second.signature)
    assert outcome(pending) is CONFIRMED
    gate.set()


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_close_lets_waiters_go_and_calls_nobody(node: SolanaNode, make_sender: Any) -> None:
    """UNKNOWN, with words; nothing is sent or asked after it, and nothing can be begun."""
    tx, told, results = SignedTransfer(), [], []
    sender = make_sender(node, rebroadcast_s=0.05)
    pending = sender.submit(tx.b64, on_settled=told.append)
    waiter = threading.Thread(target=lambda: results.append(pending.result()))
    waiter.start()
    sender.close()
    waiter.join(PATIENCE_S)
    assert results[0].outcome is UNKNOWN
    assert "closed" in results[0].detail
    assert pending.done()
    node.land(tx.signature)
    asked = len(node.asked)
    time.sleep(QUIET_S)
    assert len(node.asked) == asked
    assert told == []
    for use in (lambda: sender.submit(tx.b64), lambda: sender.track(tx.signature, blockhash=tx.blockhash), sender.warm):
        with pytest.raises(ConcurrencyError):
            use()
    sender.close()


def test_an_answer_that_comes_after_the_end_changes_nothing(node: SolanaNode, make_sender: Any) -> None:
    """A node told of the landing when the sender was closed already."""
    tx, told = SignedTransfer(), []
    asked = threading.Event()

    def late(params: list[Any]) -> Any:
        asked.set()
        assert node.let_go.wait(PATIENCE_S)
        node.land(tx.signature)
        return node._getSignatureStatuses(params)

    node.say["getSignatureStatuses"] = late
    sender = make_sender(node)
    pending = sender.submit(tx.b64, on_settled=told.append)
    assert asked.wait(PATIENCE_S)
    sender.close(timeout=0.05)
    node.let_go.set()
    sender.close()
    assert pending.result().outcome is UNKNOWN
    assert told == []


def test_close_ends_every_thread(make_node: Any, make_sender: Any) -> None:
    """From several threads at once, and in the middle of requests, which end by their own limit."""
    node, hanging = make_node(), make_node()
    hanging.say["sendTransaction"] = hanging.say["getSignatureStatuses"] = hanging.hang
    before = set(threading.enumerate())
    sender = make_sender(node, hanging, send_timeout_s=0.5)
    sender.warm()
    sender.submit(SignedTransfer().b64)
    closers = [threading.Thread(target=sender.close, args=(10.0,)) for _ in range(3)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(PATIENCE_S)
    until(lambda: not [each for each in threading.enumerate() if each not in before and "lasersell" in each.name])


def test_close_from_a_callback(node: SolanaNode, make_sender: Any) -> None:
    """It does not wait for itself, and what was settled before is still told."""
    first, second = SignedTransfer(1), SignedTransfer(2)
    sender = make_sender(node)
    told: list[str] = []
    gate = threading.Event()

    def end(result: TxResult) -> None:
        assert gate.wait(PATIENCE_S)
        sender.close()
        told.append("closed")

    node.land(first.signature)
    node.land(second.signature)
    assert outcome(sender.submit(first.b64, on_settled=end)) is CONFIRMED
    assert outcome(sender.submit(second.b64, on_settled=lambda _: told.append("second"))) is CONFIRMED
    gate.set()
    until(lambda: told == ["closed", "second"])


def test_what_does_not_end_in_time_is_named(node: SolanaNode, make_sender: Any, caplog: Any) -> None:
    """A warning, and close returns."""
    sender = make_sender(node)
    gate = threading.Event()
    tx = SignedTransfer()
    node.land(tx.signature)
    sender.submit(tx.b64, on_settled=lambda _: gate.wait(PATIENCE_S)).result(PATIENCE_S)
    until(lambda: any(thread.name == "lasersell-confirm-calls" for thread in threading.enumerate()))
    began = time.monotonic()
    sender.close(timeout=0.1)
    assert time.monotonic() - began < 5
    assert "lasersell-confirm-calls" in caplog.text
    gate.set()


def _in_child(connection: Any, sender: TxSender, pending: PendingTx) -> None:
    told = []
    for use in (
        lambda: sender.submit(SignedTransfer(2).b64),
        lambda: sender.track(pending.signature, blockhash=SignedTransfer().blockhash),
        lambda: sender.token_amounts([]),
        lambda: sender.proven_amount(ADDRESSES[0], AmountProof()),
        lambda: pending.result(0),
        pending.done,
        sender.warm,
    ):
        try:
            use()
            told.append("no error")
        except ForkedProcessError as error:
            told.append(type(error).__name__)
    sender.close()  # silent: the transactions are the parent's
    connection.send(told)
    connection.close()
    os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told(node: SolanaNode, make_sender: Any) -> None:
    """At once, by every method; the parent's goes on."""
    tx = SignedTransfer()
    sender = make_sender(node)
    pending = sender.submit(tx.b64)
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(theirs, sender, pending))
    child.start()
    assert ours.poll(PATIENCE_S)
    assert set(ours.recv()) == {"ForkedProcessError"}
    child.join(PATIENCE_S)
    node.land(tx.signature)
    assert outcome(pending) is CONFIRMED


# ── idle, warm ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_asked_while_nothing_is_under_way(node: SolanaNode, make_sender: Any) -> None:
    """Neither before the first nor after the last."""
    tx = SignedTransfer()
    sender = make_sender(node, poll_s=0.01, rebroadcast_s=0.01)
    before = {thread.name for thread in threading.enumerate()}
    assert not [name for name in before if name.startswith("lasersell-confirm")]
    node.land(tx.signature)
    assert outcome(sender.submit(tx.b64)) is CONFIRMED
    time.sleep(0.1)
    asked = len(node.asked)
    time.sleep(QUIET_S)
    assert len(node.asked) == asked


def test_warming_opens_a_connection_to_everybody(make_node: Any, make_sender: Any, caplog: Any) -> None:
    """All at once; Helius by its ping; what fails is logged."""
    rpc, helius, hanging = make_node(), make_node(), make_node()
    hanging.say["getHealth"] = hanging.hang
    nowhere = SendTargetRpc(f"http://127.0.0.1:{closed_port()}")
    targets = [rpc, SendTargetHeliusSender(helius.url), hanging, nowhere]
    sender = make_sender(*targets, rpcs=[rpc])
    opened = 16 + 1  # all that copies may use, and one for questions
    with ThreadPoolExecutor(1) as threads:
        warmed = threads.submit(sender.warm, timeout_s=PATIENCE_S)
        until(lambda: helius.asked == ["GET /ping"])
        until(lambda: rpc.asked == ["getHealth"] * 2)
        until(lambda: rpc.connections == opened)
        until(lambda: "warming rpc failed" in caplog.text)
        assert not warmed.done()
        hanging.let_go.set()
        warmed.result(PATIENCE_S)
    tx = SignedTransfer()
    rpc.land(tx.signature)
    sender.submit(tx.b64)
    assert rpc.connections == opened


def test_warming_a_target_that_hangs_ends_with_its_time_limit(node: SolanaNode, make_sender: Any) -> None:
    node.say["getHealth"] = node.hang
    sender = make_sender(node)
    began = time.monotonic()
    sender.warm(timeout_s=0.1)
    assert time.monotonic() - began < 8  # the node hangs for longer


def test_connections_are_kept_warm(make_node: Any, make_sender: Any) -> None:
    """Each that was not used for so long, from the first use on; and never where that is not wanted."""
    first, second, cold = make_node(), make_node(), make_node()
    sender = make_sender(first, SendTargetHeliusSender(second.url), keep_warm_s=0.03)
    time.sleep(QUIET_S)
    assert first.asked == second.asked == []
    sender.warm()
    until(lambda: first.count("getHealth") >= 6 and second.count("GET /ping") >= 3)
    never = make_sender(cold, keep_warm_s=None)
    never.warm()
    time.sleep(QUIET_S)
    assert cold.count("getHealth") == 2


# ── tips ─────────────────────────────────────────────────────────────────────────────────────────────────────────

HELIUS_TIP = "4ACfpUFoaSD9bfPdeu6DBt89gB6ENTeHBXCAi87NhDEE"
ASTRALANE_TIP = "astrazznxsGUhWShqgNtAdfrzP2G83DzcWVJDxwV9bF"


@pytest.mark.parametrize(
    ("make", "to", "lamports", "warned"),
    [
        (SendTargetHeliusSender, HELIUS_TIP, 999_999, "1000000"),
        (SendTargetHeliusSender, HELIUS_TIP, 1_000_000, ""),
        (lambda url: SendTargetHeliusSender(url + "?swqos_only=true"), HELIUS_TIP, 4_999, "5000"),
        (lambda url: SendTargetHeliusSender(url + "?swqos_only=true"), HELIUS_TIP, 5_000, ""),
        (lambda url: SendTargetHeliusSender(url, minimum_tip_lamports=7), HELIUS_TIP, 6, "7"),
        (lambda url: SendTargetHeliusSender(url, minimum_tip_lamports=0), None, 1, ""),
        (lambda url: SendTargetAstralane(api_key="key-of-a-trader", url=url), ASTRALANE_TIP, 9_999, "10000"),
        (lambda url: SendTargetAstralane(api_key="key-of-a-trader", url=url), ASTRALANE_TIP, 10_000, ""),
        (lambda url: SendTargetAstralane(api_key="key-of-a-trader", url=url), HELIUS_TIP, 10_000, "tips astralane 0 "),
        (SendTargetRpc, None, 1, ""),
    ],
)
def test_a_tip_below_the_targets_minimum_is_warned_of(
    make: Any, to: str | None, lamports: int, warned: str, node: SolanaNode, make_sender: Any, caplog: Any
) -> None:
    """Once for each amount."""
    sender = make_sender(make(node.url), rpcs=[node])
    for _ in range(2):
        sender.submit(SignedTransfer(lamports, to=to).b64)
    warnings = [record.getMessage() for record in caplog.records if "tips" in record.getMessage()]
    assert len(warnings) == bool(warned)
    assert warned in "".join(warnings)
    if warned and lamports > 1:
        sender.submit(SignedTransfer(lamports - 1, to=to).b64)
        told = len([record for record in caplog.records if "tips" in record.getMessage()])
        assert told == (1 if warned == "tips astralane 0 " else 2)


# ── token accounts ───────────────────────────────────────────────────────────────────────────────────────────────

TOKEN, TOKEN_2022 = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA", "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb"
ADDRESSES = [SignedTransfer(number).blockhash for number in range(1, 251)]


def account(amount: int, *, owner: str = TOKEN, state: int = 1, rest: bytes = b"", size: int = 165) -> dict[str, Any]:
    data = (bytes(64) + amount.to_bytes(8, "little") + bytes(36) + bytes([state])).ljust(size, b"\0")[:size] + rest
    return {"owner": owner, "lamports": 1, "data": [base64.b64encode(data).decode(), "base64"], "executable": False}


def test_token_accounts_are_read(node: SolanaNode, make_sender: Any) -> None:
    """Of both programs, with and without extensions; 0 for one that is not there; as many as one likes."""
    node.accounts[ADDRESSES[0]] = account(2**64 - 1)
    node.accounts[ADDRESSES[1]] = account(5, owner=TOKEN_2022, state=2)
    node.accounts[ADDRESSES[2]] = account(7, owner=TOKEN_2022, rest=bytes([2, 7, 0, 0, 0]))
    sender = make_sender(node)
    amounts = sender.token_amounts([*ADDRESSES, ADDRESSES[0]])
    assert amounts == {**dict.fromkeys(ADDRESSES, 0), **dict(zip(ADDRESSES, (2**64 - 1, 5, 7), strict=False))}
    assert node.count("getMultipleAccounts") == 3
    assert sender.token_amounts([]) == {}


@pytest.mark.parametrize(
    "data",
    [
        account(5, owner="11111111111111111111111111111111"),
        account(5, size=82),
        account(5, size=164),
        account(5, owner=TOKEN_2022, rest=bytes([1, 0, 0])),  # a mint with extensions
        account(5, size=355),  # a multisig
        account(5, state=0),
        {"owner": TOKEN, "data": {"parsed": {}}},
        {"owner": TOKEN, "data": ["!", "base64"]},
        {"owner": TOKEN, "data": ["", "base58"]},
        {"data": ["", "base64"]},
        5,
    ],
)
def test_what_is_no_token_account_is_an_error(data: object, node: SolanaNode, make_sender: Any) -> None:
    """Never a number."""
    node.accounts[ADDRESSES[0]] = data
    with pytest.raises(TxSubmitError) as caught:
        make_sender(node).token_amounts(ADDRESSES[:1])
    assert caught.value.kind == "decode_response"


@pytest.mark.parametrize("kind", [kind for kind in BAD_ANSWERS if kind != "no value"])
def test_the_next_node_is_asked_when_one_does_not_answer(kind: str, make_node: Any, make_sender: Any) -> None:
    """Errors, garbage, silence; the last one's error when none does."""
    bad, good = make_node(), make_node()
    bad.say["getMultipleAccounts"] = BAD_ANSWERS[kind]
    good.accounts[ADDRESSES[0]] = account(9)
    if kind == "too many":
        bad.say["getMultipleAccounts"] = lambda _: bad.in_context([None, None])
    assert make_sender(good, rpcs=[bad, good]).token_amounts(ADDRESSES[:1]) == ({ADDRESSES[0]: 9})
    with pytest.raises(TxSubmitError):
        make_sender(good, rpcs=[bad]).token_amounts(ADDRESSES[:1])


def test_a_hanging_node_leaves_the_others_their_share_of_time(make_node: Any, make_sender: Any) -> None:
    """Half of it, of two."""
    bad, good = make_node(), make_node()
    bad.say["getMultipleAccounts"] = bad.hang
    good.accounts[ADDRESSES[0]] = account(9)
    assert make_sender(good, rpcs=[bad, good]).token_amounts(ADDRESSES[:1], timeout_s=1.0) == {ADDRESSES[0]: 9}


def test_an_empty_account_is_proven_by_two_looks_at_the_newest_block(make_node: Any, make_sender: Any) -> None:
    """A node that lags behind the other one, and one that has never seen the account, prove nothing."""
    ahead, behind = make_node(height=FIRST_HEIGHT + 40), make_node()
    sender, proof = make_sender(ahead, rpcs=[behind, ahead]), AmountProof(announced=1)
    assert sender.proven_amount(ADDRESSES[0], proof) is None
    ahead.say["getMultipleAccounts"] = BAD_ANSWERS["500"]
    for _ in range(3):
        assert sender.proven_amount(ADDRESSES[0], proof) is None
    behind.height += 40
    assert sender.proven_amount(ADDRESSES[0], proof) == 0
    assert (ahead.count("getEpochInfo"), behind.count("getEpochInfo")) == (1, 1)


def test_tokens_are_believed_from_the_first_node_that_sees_them(make_node: Any, make_sender: Any) -> None:
    """Though another one, just as new, does not; nobody is asked for its newest block."""
    nodes = [make_node() for _ in range(3)]
    nodes[1].accounts[ADDRESSES[0]] = account(9)
    assert make_sender(nodes[0], rpcs=nodes).proven_amount(ADDRESSES[0], AmountProof()) == 9
    assert [node.asked for node in nodes] == [["getMultipleAccounts"]] * 2 + [[]]


def test_an_amount_that_nobody_tells_is_an_error(make_node: Any, make_sender: Any) -> None:
    """Of accounts or of blocks; with nodes that hang as well, within the time."""
    hangs, bad = make_node(), make_node()
    hangs.say["getMultipleAccounts"] = hangs.say["getEpochInfo"] = hangs.hang
    bad.say["getMultipleAccounts"] = BAD_ANSWERS["html"]
    sender, proof = make_sender(bad, rpcs=[hangs, bad]), AmountProof()
    with pytest.raises(TxSubmitError):
        sender.proven_amount(ADDRESSES[0], proof, timeout_s=0.6)
    del bad.say["getMultipleAccounts"]
    bad.say["getEpochInfo"] = BAD_ANSWERS["html"]
    with pytest.raises(TxSubmitError):
        sender.proven_amount(ADDRESSES[0], proof, timeout_s=0.6)
    assert proof.wants_tips
    with pytest.raises(ConfigurationError, match="token_account"):
        sender.proven_amount("x", proof)


# ── arguments ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("targets", "options", "field"),
    [
        ([], {}, "targets"),
        (["https://rpc.example"], {}, "targets"),
        (None, {}, "targets"),
        ([SendTargetHeliusSender()], {}, "rpcs"),
        ([SendTargetRpc("http://127.0.0.1:1")], {"connections": 0}, "connections"),
        ([SendTargetRpc("http://127.0.0.1:1")], {"connections": 257}, "connections"),
        ([SendTargetRpc("http://127.0.0.1:1")], {"connections": True}, "connections"),
        ([SendTargetHeliusSender(), SendTargetAstralane(api_key="key-of-a-trader")], {}, "rpcs"),
        ([SendTargetRpc()], {"rpcs": []}, "rpcs"),
        ([SendTargetRpc()], {"rpcs": [SendTargetHeliusSender()]}, "rpcs[0]"),
        ([SendTargetRpc()], {"rpcs": "ftp://rpc.example"}, "url"),
        ([SendTargetRpc()], {"rpcs": 5}, "rpcs"),
        ([SendTargetRpc()], {"poll_s": 0}, "poll_s"),
        ([SendTargetRpc()], {"rebroadcast_s": float("nan")}, "rebroadcast_s"),
        ([SendTargetRpc()], {"send_timeout_s": True}, "send_timeout_s"),
        ([SendTargetRpc()], {"keep_warm_s": -1}, "keep_warm_s"),
    ],
)
def test_senseless_arguments_are_named(targets: Any, options: dict[str, Any], field: str) -> None:
    """Before anything runs."""
    with pytest.raises(ConfigurationError) as caught:
        TxSender(targets, **options)
    assert caught.value.field == field


def test_senders_alone_tell_why_they_are_not_enough() -> None:
    """They answer no questions."""
    with pytest.raises(ConfigurationError, match="answer no questions"):
        TxSender(SendTargetHeliusSender())


def test_what_is_no_transaction_is_not_sent(node: SolanaNode, make_sender: Any) -> None:
    """serialize_tx, and nothing is under way; a signature or a blockhash that is none would spoil a batch."""
    sender, tx = make_sender(node), SignedTransfer()
    unsigned = base64.b64decode(tx.b64)
    unsigned = unsigned[:1] + bytes(64) + unsigned[65:]
    for wrong in ("", "!!!", "AAAA", tx.b64 + "AAAA", base64.b64encode(unsigned).decode(), None):
        with pytest.raises(TxSubmitError) as caught:
            sender.submit(wrong)
        assert caught.value.kind == "serialize_tx"
    for signature in ("", "x", tx.blockhash, "1" * 63, "1" * 65, "z" * 88, None):
        with pytest.raises(ConfigurationError, match="signature"):
            sender.track(signature, blockhash=tx.blockhash)
    for blockhash in ("", tx.signature, "0" * 44, None):
        with pytest.raises(ConfigurationError, match="blockhash"):
            sender.track(tx.signature, blockhash=blockhash)
    for accounts in ("x", ["x"], tx.blockhash):
        with pytest.raises(ConfigurationError, match="token_accounts"):
            sender.token_amounts(accounts)
    assert node.asked == []


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_neither_keys_nor_the_transaction_are_ever_shown(make_node: Any, make_sender: Any, caplog: Any) -> None:
    """Whatever servers send back: in no log, error, result or repr, and nothing can be pickled that holds them."""
    caplog.set_level(logging.DEBUG)
    secret_key, url_key = "CANARY-astralane-key-0123456789", "CANARYurlkey0123456789abcdef"
    tx, node, other = SignedTransfer(), make_node(), make_node()

    def quote(*secrets: str) -> Callable[[Any], Any]:
        def say(_: object) -> Any:
            raise RpcFailure(-32099, f"bad request {' '.join(secrets)}", {"err": list(secrets)})

        return say

    for method in ("sendTransaction", "getSignatureStatuses", "getEpochInfo", "isBlockhashValid"):
        node.say[method] = quote(tx.b64, url_key)
    node.say["getMultipleAccounts"] = quote(url_key)
    other.say["sendTransaction"] = quote(tx.b64, secret_key)
    rpc = SendTargetRpc(f"{node.url}/v2/{url_key}")
    astralane = SendTargetAstralane(api_key=secret_key, url=other.url)
    sender = make_sender(rpc, astralane, rebroadcast_s=0.05)
    pending = sender.submit(tx.b64)
    until(lambda: len(node.sent) >= 3 and len(other.sent) >= 3)
    rounds(node, 2)
    shown = [repr(sender), repr(pending), repr(pending._tracked), repr(pending.result(0)), str(rpc), str(astralane)]
    with pytest.raises(TxSubmitError) as caught:
        sender.token_amounts(ADDRESSES[:1])
    shown += traceback.format_exception(caught.value)
    with pytest.raises(TxSubmitError) as caught:
        sender.proven_amount(ADDRESSES[0], AmountProof())
    shown += traceback.format_exception(caught.value)
    for thing in (sender, pending):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
    shown.append(str(pickle.dumps(pending.result(0))))
    text = caplog.text + "\n".join(shown)
    for secret in (secret_key, url_key, tx.b64):
        assert secret not in text
    assert text.count("redacted") > 5


# ── a target that asks to wait ───────────────────────────────────────────────────────────────────────────────────


def test_target_that_limits_the_rate_gets_no_copy_before_its_time(make_node: Any, make_sender: Any) -> None:
    """Nothing of the transaction is lost with that: the next copy goes when the target's time is over."""
    held, times = threading.Event(), []
    limited, other, tx = make_node(), make_node(), SignedTransfer()

    def limit(_: object) -> Answer:
        times.append(time.monotonic())
        held.set()
        return Answer(429, b"slow down", {"retry-after": "1"})

    limited.say["sendTransaction"] = limit
    sender = make_sender(limited, other, rebroadcast_s=0.02)
    pending = sender.submit(tx.b64)
    assert held.wait(PATIENCE_S)
    del limited.say["sendTransaction"]
    until(lambda: len(other.sent) >= 3)  # the other target is not held
    assert len(limited.sent) == 1
    until(lambda: len(limited.sent) == 2)
    assert time.monotonic() - times[0] >= 1
    assert len(times) == 1
    limited.land(tx.signature)
    other.land(tx.signature)
    assert outcome(pending) is CONFIRMED


def test_node_that_limits_the_rate_of_one_question_is_asked_the_others(node: SolanaNode, make_sender: Any) -> None:
    """A limit that one kind of question runs into again and again must not hide that the transaction landed."""
    tx = SignedTransfer()
    node.say["isBlockhashValid"] = lambda _: Answer(429, b"slow down", {"retry-after": "0.05"})
    pending = make_sender(node).submit(tx.b64)
    until(lambda: node.count("isBlockhashValid") >= 2)
    node.land(tx.signature)
    assert outcome(pending) is CONFIRMED


def test_slot_time_of_the_nodes_sets_how_far_a_node_may_lag(node: SolanaNode, make_sender: Any) -> None:
    """Slots of 400 ms: two minutes are 300 blocks, where the fallback of 200 ms would wait for 600."""
    node.say["getRecentPerformanceSamples"] = lambda _: [{"numSlots": 150, "samplePeriodSecs": 60, "slot": 9}] * 4
    pending = make_sender(node).submit(SignedTransfer().b64)
    until(lambda: node.count("getRecentPerformanceSamples"))
    rounds(node, 2)
    passes(node, blocks=BLOCKHASH_LIFE_BLOCKS + 300 - 1)
    rounds(node, 5)
    assert not pending.done()
    passes(node, blocks=2)
    assert outcome(pending) is EXPIRED
    assert node.count("getRecentPerformanceSamples") == 1


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, [5], [{}], [{"numSlots": 0, "samplePeriodSecs": 60}], [{"numSlots": -1, "samplePeriodSecs": 60}],
     [{"numSlots": True, "samplePeriodSecs": 60}], [{"numSlots": 1.5, "samplePeriodSecs": 60}],
     [{"numSlots": 300, "samplePeriodSecs": 60}, None]],
)  # fmt: skip
def test_slot_time_that_makes_no_sense_stops_no_confirmation(
    node: SolanaNode, make_sender: Any, answer: object
) -> None:
    node.say["getRecentPerformanceSamples"] = lambda _: answer
    tx = SignedTransfer()
    pending = make_sender(node).submit(tx.b64)
    until(lambda: node.count("getRecentPerformanceSamples"))
    rounds(node, 2)
    node.land(tx.signature)
    assert outcome(pending) is CONFIRMED
