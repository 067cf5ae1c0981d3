"""Nodes that lie: each lie over real HTTP, beside a second node that tells the truth."""

from __future__ import annotations

import base64
import json
import socket
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address

from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.chain.transactions import read_transaction
from tests.sandbox.players import PATIENCE_S, Trader, signed

NEWEST = {"commitment": "processed"}
#: kind, and what it makes of an item; ...: its fields as lists
ODD_ITEMS = [
    ("text", "processed"),
    ("number", 5),
    ("list", []),
    ("empty", {}),
    ("null", None),
    ("missing", None),
    ("wrong_types", ...),
]
SEARCH = {"searchTransactionHistory": True}


def test_nodes_each_have_a_url_and_one_chain(pair: Trader) -> None:
    """Two addresses, one truth; the first is rpc_url."""
    sandbox = pair.sandbox
    assert len(set(sandbox.rpc_urls)) == 2
    assert sandbox.rpc_urls[0] == sandbox.rpc_url
    (signature,) = pair.airdrops()
    answers = [pair.ask_node(node, "getSignatureStatuses", [signature])["result"] for node in (0, 1)]
    assert answers[0] == answers[1]
    assert answers[0]["value"][0]["err"] is None


def test_node_heights_ahead_calls_blockhashes_dead(pair: Trader) -> None:
    """Slots, heights and last valid heights lie 500 ahead, and a living blockhash is called dead; the other knows."""
    pair.sandbox.faults.node(1, heights_ahead=500)
    blockhash = pair.ask_node(0, "getLatestBlockhash", NEWEST)["result"]["value"]["blockhash"]
    for method in ("getSlot", "getBlockHeight"):
        assert pair.ask_node(1, method, NEWEST)["result"] - pair.ask_node(0, method, NEWEST)["result"] == 500
    shown = [pair.ask_node(node, "getLatestBlockhash", NEWEST)["result"]["value"] for node in (0, 1)]
    assert shown[1]["lastValidBlockHeight"] - shown[0]["lastValidBlockHeight"] == 500
    valid = [pair.ask_node(node, "isBlockhashValid", blockhash, NEWEST)["result"]["value"] for node in (0, 1)]
    assert valid == [True, False]


def test_node_stale_index_does_not_know_what_has_landed(pair: Trader) -> None:
    """Statuses and signatures are two minutes old while the slot is now's; later it knows."""
    pair.sandbox.faults.node(1, stale_index_slots=600)
    (signature,) = pair.airdrops()
    (record,) = [item for item in pair.sandbox.transactions() if item.signature == signature]
    shown = [pair.ask_node(node, "getSignatureStatuses", [signature], SEARCH)["result"] for node in (0, 1)]
    assert shown[0]["context"] == shown[1]["context"]
    assert (shown[0]["value"][0]["err"], shown[1]["value"]) == (None, [None])
    pair.sandbox.skip_slots(100)
    named = [pair.ask_node(node, "getSignaturesForAddress", record.fee_payer)["result"] for node in (0, 1)]
    assert ([item["signature"] for item in named[0]], named[1]) == ([signature], [])
    pair.sandbox.skip_slots(600)
    assert pair.ask_node(1, "getSignatureStatuses", [signature], SEARCH)["result"]["value"][0]["err"] is None


def test_node_without_history_answers_32011(pair: Trader) -> None:
    """Asked with history: -32011; without: what its cache holds."""
    pair.sandbox.faults.node(0, no_history=True)
    (signature,) = pair.airdrops()
    assert pair.ask_node(0, "getSignatureStatuses", [signature], SEARCH)["error"]["code"] == -32011
    assert pair.ask_node(0, "getSignaturesForAddress", pair.pubkey)["error"]["code"] == -32011
    assert pair.ask_node(0, "getSignatureStatuses", [signature])["result"]["value"][0]["err"] is None
    pair.sandbox.skip_slots(400)
    assert pair.ask_node(0, "getSignatureStatuses", [signature])["result"]["value"] == [None]
    assert pair.ask_node(1, "getSignatureStatuses", [signature], SEARCH)["result"]["value"][0]["err"] is None


@pytest.mark.parametrize(("kind", "item"), ODD_ITEMS)
def test_node_odd_item_spoils_one_of_a_batch(pair: Trader, kind: Any, item: object) -> None:
    """The middle one is nonsense, its neighbours are right: of statuses and of accounts."""
    pair.sandbox.faults.node(1, odd_item=kind)
    made = pair.airdrops(3)
    wallets = [pair.pubkey, str(Pubkey.default()), pair.pubkey]
    for method, names in (("getSignatureStatuses", made), ("getMultipleAccounts", wallets)):
        true, shown = (pair.ask_node(node, method, names)["result"]["value"] for node in (0, 1))
        assert len(true) == 3
        if kind == "missing":
            assert shown == [true[0], true[2]]
        else:
            assert (shown[0], shown[2]) == (true[0], true[2])
            assert shown[1] == ({name: [value] for name, value in true[1].items()} if item is ... else item)


def test_node_odd_item_spoils_a_wallets_token_accounts(pair: Trader) -> None:
    """getTokenAccountsByOwner has batches, too."""
    mint = pair.sandbox.mints[0]
    pair.buy(mint)
    pair.sandbox.advance(1)
    pair.sandbox.faults.node(1, odd_item="wrong_types")
    asked = ("getTokenAccountsByOwner", pair.pubkey, {"mint": mint}, {"encoding": "base64"})
    (true,), (shown,) = (pair.ask_node(node, *asked)["result"]["value"] for node in (0, 1))
    assert shown == {"account": [true["account"]], "pubkey": [true["pubkey"]]}


def test_node_absurd_numbers_lie_beyond_63_bits(pair: Trader) -> None:
    """Slots, heights and the slot of a status are JSON integers above 2^63."""
    pair.sandbox.faults.node(1, absurd_numbers=True)
    (signature,) = pair.airdrops()
    answer = pair.ask_node(1, "getSignatureStatuses", [signature])["result"]
    numbers = [pair.ask_node(1, method)["result"] for method in ("getSlot", "getBlockHeight")]
    numbers += [answer["context"]["slot"], answer["value"][0]["slot"]]
    numbers.append(pair.ask_node(1, "getBalance", pair.pubkey)["result"]["value"])
    numbers.append(pair.ask_node(1, "getAccountInfo", pair.pubkey)["result"]["value"]["lamports"])
    assert all(2**63 < number < 2**64 for number in numbers), numbers


@pytest.mark.parametrize(("lie", "honest"), [("stale_accounts_slots", False), ("lag_slots", True)])
def test_node_old_accounts_are_those_of_then(pair: Trader, lie: str, honest: bool) -> None:
    """Before a purchase, after it, after the sale: each as it was so many slots ago; the slot is of now, or as old."""
    mint, empty = pair.sandbox.mints[0], {"commitment": "processed", "encoding": "base64"}
    account = str(get_associated_token_address(pair.wallet.pubkey(), Pubkey.from_string(mint)))

    def look(node: int) -> tuple[Any, ...]:
        held = pair.ask_node(node, "getMultipleAccounts", [account, pair.pubkey], empty)["result"]
        token, wallet = held["value"]
        amount = pair.ask_node(node, "getTokenAccountBalance", account, NEWEST)
        owned = pair.ask_node(node, "getTokenAccountsByOwner", pair.pubkey, {"mint": mint}, empty)["result"]["value"]
        balance = pair.ask_node(node, "getBalance", pair.pubkey, NEWEST)["result"]["value"]
        assert wallet["lamports"] == balance
        assert [item["account"] for item in owned] == ([] if token is None else [token])
        assert pair.ask_node(node, "getAccountInfo", account, empty)["result"]["value"] == token
        assert ("error" in amount) == (token is None)
        return held["context"]["slot"], token and token["data"][0], balance

    moments = [look(0)]
    pair.sandbox.skip_slots(1)
    pair.buy(mint)
    pair.sandbox.advance(1)
    moments.append(look(0))
    pair.sandbox.skip_slots(100)
    built = pair.post("/v1/sell", pair.sell_body(mint)).json()["tx"]
    pair.send(signed(built, pair.wallet))
    pair.sandbox.advance(1)
    moments.append(look(0))
    assert len({moment[1:] for moment in moments}) == 3
    now_slot = moments[-1][0]
    for slot, data, balance in moments:
        pair.sandbox.faults.node(1, **{lie: now_slot - slot})
        assert look(1) == (slot if honest else now_slot, data, balance)
    pair.sandbox.faults.clear()
    assert look(1) == moments[-1]


def test_node_simulation_lies_show_a_failure_or_nothing_at_all(pair: Trader) -> None:
    """Of a purchase: beside the true answer a failure of its last instruction, or a success that changes nothing."""
    mint = pair.sandbox.mints[0]
    text = pair.post("/v1/buy", pair.buy_body(mint)).json()["tx"]
    watched = {"encoding": "base64", "addresses": [pair.pubkey]}
    config = {"encoding": "base64", "innerInstructions": True, "accounts": watched, "commitment": "processed"}

    def simulate(node: int) -> Any:
        return pair.ask_node(node, "simulateTransaction", text, config)["result"]["value"]

    true = simulate(0)
    assert true["err"] is None
    assert true["innerInstructions"]
    assert true["preBalances"] != true["postBalances"]
    pair.sandbox.faults.node(1, simulation="harmless")
    shown = simulate(1)
    assert (shown["err"], shown["innerInstructions"], shown["preBalances"]) == (None, [], shown["postBalances"])
    assert shown["accounts"][0]["lamports"] == pair.sandbox.balance_lamports(pair.pubkey)
    assert shown["accounts"][0]["lamports"] != true["accounts"][0]["lamports"]
    pair.sandbox.faults.node(1, simulation="fails")
    shown = simulate(1)
    last = len(read_transaction(base64.b64decode(text)).instructions) - 1
    assert (shown["err"], shown["accounts"]) == ({"InstructionError": [last, {"Custom": 6001}]}, [None])
    assert simulate(0) == true
    pair.sandbox.faults.clear()
    assert simulate(1) == true


def test_node_that_hangs_answers_nobody_and_obeys_nothing(pair: Trader) -> None:
    """Its connections stay open and silent, its neighbour answers, a transaction is not taken; cleared, it answers."""
    pair.sandbox.faults.node(1, hangs=True)
    url = urlsplit(pair.sandbox.rpc_urls[1])
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "requestAirdrop", "params": [pair.pubkey, 5]})
    before = pair.sandbox.balance_lamports(pair.pubkey)
    with socket.create_connection((url.hostname, url.port), timeout=PATIENCE_S) as asked:
        asked.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        assert "result" in pair.ask_node(0, "getSlot")
        with pytest.raises(requests.exceptions.ReadTimeout):
            pair.http.post(pair.sandbox.rpc_urls[1], data=body, timeout=0.3)
        pair.sandbox.faults.clear()
        assert "result" in pair.ask_node(1, "getSlot")
        asked.settimeout(0.05)
        with pytest.raises(TimeoutError):
            asked.recv(1)
    pair.sandbox.advance(1)
    assert pair.sandbox.balance_lamports(pair.pubkey) == before


def test_node_that_hangs_serves_many_askers_and_lets_the_sandbox_stop(make_sandbox: Any) -> None:
    """Fifty open questions neither hold up the other node nor the end."""
    sandbox = make_sandbox(rpc_nodes=2)
    sandbox.faults.node(1, hangs=True)
    url = urlsplit(sandbox.rpc_urls[1])
    with ExitStack() as open_sockets:
        for _ in range(50):
            asked = open_sockets.enter_context(socket.create_connection((url.hostname, url.port), timeout=PATIENCE_S))
            asked.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        answer = requests.get(f"{sandbox.rpc_urls[0]}/health", timeout=PATIENCE_S)
        assert answer.text == "ok"
        sandbox.stop()


def test_node_lies_are_pending_until_cleared(pair: Trader) -> None:
    """By node, with what was ordered."""
    pair.sandbox.faults.node(1, lag_slots=3, hangs=True)
    assert pair.sandbox.faults.pending["nodes"] == {"1": {"lag_slots": 3, "hangs": True}}
    pair.sandbox.faults.node(1)
    assert pair.sandbox.faults.pending["nodes"] == {}


def test_node_faults_are_cleared_and_ordered_over_http(pair: Trader) -> None:
    """POST /sandbox/node does the same; clear makes every node honest; a fault of one node leaves the other alone."""

    def control(name: str, **body: object) -> Any:
        url = f"{pair.sandbox.api_url}/sandbox/{name}"
        return pair.http.post(url, json=body, headers=pair.headers, timeout=PATIENCE_S)

    assert control("node", number=1, heights_ahead=7).status_code == 200
    assert pair.ask_node(1, "getSlot", NEWEST)["result"] - pair.ask_node(0, "getSlot", NEWEST)["result"] == 7
    assert control("node", number=2).status_code == 400
    assert "odd_item" in control("node", odd_item="none").json()["error"]
    assert control("clear").status_code == 200
    assert len({pair.ask_node(node, "getSlot", NEWEST)["result"] for node in (0, 1)}) == 1
    pair.sandbox.faults.rpc("getSlot", times=None, error_code=-32005, node=1)
    assert [("error" in pair.ask_node(node, "getSlot")) for node in (0, 1)] == [False, True]


@pytest.mark.parametrize(
    "lie",
    [
        {"heights_ahead": -1},
        {"stale_index_slots": 10**7},
        {"stale_accounts_slots": 1.5},
        {"lag_slots": True},
        {"odd_item": "x"},
        {"number": 1},
        {"hangs": "yes"},
        {"simulation": "works"},
        {"no_history": 1},
    ],
)
def test_node_lie_that_makes_no_sense_is_refused(sandbox: Sandbox, lie: dict[str, Any]) -> None:
    """The error names the field."""
    with pytest.raises(ValueError, match=next(iter(lie))):
        sandbox.faults.node(**lie)
