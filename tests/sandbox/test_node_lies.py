"""Nodes that lie: each lie over real HTTP, beside a second node that tells the truth."""

from __future__ import annotations

from typing import Any

import pytest

from lasersell_sync.sandbox import Sandbox
from tests.sandbox.players import PATIENCE_S, Trader

NEWEST = {"commitment": "processed"}
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
    told = [pair.ask_node(node, "getLatestBlockhash", NEWEST)["result"]["value"] for node in (0, 1)]
    assert told[1]["lastValidBlockHeight"] - told[0]["lastValidBlockHeight"] == 500
    valid = [pair.ask_node(node, "isBlockhashValid", blockhash, NEWEST)["result"]["value"] for node in (0, 1)]
    assert valid == [True, False]


def test_node_stale_index_does_not_know_what_has_landed(pair: Trader) -> None:
    """Statuses and signatures are two minutes old while the slot is now's; later it knows."""
    pair.sandbox.faults.node(1, stale_index_slots=600)
    (signature,) = pair.airdrops()
    (record,) = [item for item in pair.sandbox.transactions() if item.signature == signature]
    told = [pair.ask_node(node, "getSignatureStatuses", [signature], SEARCH)["result"] for node in (0, 1)]
    assert told[0]["context"] == told[1]["context"]
    assert (told[0]["value"][0]["err"], told[1]["value"]) == (None, [None])
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


@pytest.mark.parametrize(("kind", "item"), [("text", "processed"), ("number", 5), ("list", []), ("empty", {})])
def test_node_odd_item_spoils_one_of_a_batch(pair: Trader, kind: Any, item: object) -> None:
    """The middle one is nonsense, its neighbours are right."""
    pair.sandbox.faults.node(1, odd_item=kind)
    made = pair.airdrops(3)
    value = pair.ask_node(1, "getSignatureStatuses", made)["result"]["value"]
    assert value[1] == item
    assert [value[place]["err"] for place in (0, 2)] == [None, None]


def test_node_absurd_numbers_lie_beyond_63_bits(pair: Trader) -> None:
    """Slots, heights and the slot of a status are JSON integers above 2^63."""
    pair.sandbox.faults.node(1, absurd_numbers=True)
    (signature,) = pair.airdrops()
    answer = pair.ask_node(1, "getSignatureStatuses", [signature])["result"]
    numbers = [pair.ask_node(1, method)["result"] for method in ("getSlot", "getBlockHeight")]
    numbers += [answer["context"]["slot"], answer["value"][0]["slot"]]
    assert all(2**63 < number < 2**64 for number in numbers), numbers


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
    "lie", [{"heights_ahead": -1}, {"stale_index_slots": 10**7}, {"lag_slots": True}, {"odd_item": "x"}, {"number": 1}]
)
def test_node_lie_that_makes_no_sense_is_refused(sandbox: Sandbox, lie: dict[str, Any]) -> None:
    """The error names the field."""
    with pytest.raises(ValueError, match=next(iter(lie))):
        sandbox.faults.node(**lie)
