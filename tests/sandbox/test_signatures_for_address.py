"""getSignaturesForAddress over real HTTP: pages, places in the chain, and nodes that lag or lie."""

from __future__ import annotations

from typing import Any

import pytest
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from tests.sandbox.players import Trader

METHOD = "getSignaturesForAddress"
CONFIRMED = {"commitment": "confirmed"}


def signatures(trader: Trader, account: str, node: int = 0, **config: object) -> list[str]:
    """What a node lists, by signature."""
    answer = trader.ask_node(node, METHOD, account, {**CONFIRMED, **config})
    return [entry["signature"] for entry in answer["result"]]


def payer_of(trader: Trader, signature: str) -> str:
    (payer,) = {item.fee_payer for item in trader.sandbox.transactions() if item.signature == signature}
    return payer


def failing_transfer(trader: Trader) -> VersionedTransaction:
    """A transfer of more than anybody has."""
    blockhash = trader.rpc("getLatestBlockhash")["result"]["value"]["blockhash"]
    pay = transfer(TransferParams(from_pubkey=trader.wallet.pubkey(), to_pubkey=Keypair().pubkey(), lamports=10**16))
    message = MessageV0.try_compile(trader.wallet.pubkey(), [pay], [], Hash.from_string(blockhash))
    return VersionedTransaction(message, [trader.wallet])


def test_signatures_for_address_page_newest_first(trader: Trader) -> None:
    """Every landed transaction that names the account, failed ones too, in pages that neither overlap nor skip."""
    sent = [trader.buy(trader.sandbox.mints[index]) for index in (0, 1, 2)]
    for signature in sent:
        trader.landed(signature)
    trader.sandbox.skip_slots(40)
    landed = [record.signature for record in reversed(trader.sandbox.transactions()) if record.signature in sent]

    def page(**config: object) -> list[str]:
        entries = trader.rpc("getSignaturesForAddress", trader.pubkey, config)["result"]
        assert all(entry["err"] is None and entry["confirmationStatus"] == "finalized" for entry in entries)
        return [entry["signature"] for entry in entries]

    assert page() == landed
    assert page(limit=2) == landed[:2]
    assert page(before=landed[0]) == landed[1:]
    assert page(until=landed[2]) == landed[:2]
    assert page(before=landed[0], until=landed[2]) == [landed[1]]
    assert trader.rpc("getSignaturesForAddress", str(Keypair().pubkey()))["result"] == []
    for config in ({"limit": 0}, {"limit": 1_001}, {"before": "x"}, {"commitment": "processed"}):
        assert trader.rpc("getSignaturesForAddress", trader.pubkey, config)["error"]["code"] == -32602


def test_signatures_for_address_list_failed_transactions_with_their_error(pair: Trader) -> None:
    """A failed transaction has its error; every entry has the documented fields."""
    sent = pair.send(failing_transfer(pair), skipPreflight=True)
    pair.sandbox.advance(1)
    (entry,) = pair.rpc(METHOD, pair.pubkey, CONFIRMED)["result"]
    assert set(entry) == {"signature", "slot", "err", "memo", "blockTime", "confirmationStatus"}
    assert (entry["signature"], entry["err"]) == (sent, {"InstructionError": [0, {"Custom": 1}]})
    assert pair.rpc(METHOD, pair.pubkey)["result"] == [], "finalized is the default"


def test_signatures_for_address_before_and_until_of_other_accounts_are_places_in_the_chain(pair: Trader) -> None:
    """Both may name transactions that the account has no part in."""
    faucet = payer_of(pair, pair.airdrops()[0])
    first, second = (pair.airdrops()[0] for _ in range(2))
    foreign = pair.send(failing_transfer(pair), skipPreflight=True)
    pair.sandbox.advance(1)
    third = pair.airdrops()[0]
    assert signatures(pair, faucet)[:3] == [third, second, first]
    assert signatures(pair, faucet, before=foreign)[:2] == [second, first]
    assert signatures(pair, faucet, until=foreign) == [third]
    assert signatures(pair, faucet, before=foreign, until=first) == [second]


def test_signatures_for_address_unknown_before_finds_nothing_and_unknown_until_ends_nothing(pair: Trader) -> None:
    """As Agave's nodes answer."""
    made = pair.airdrops(3)
    faucet, unknown = payer_of(pair, made[0]), str(Keypair().sign_message(b"x"))
    assert signatures(pair, faucet, before=unknown) == []
    assert signatures(pair, faucet, until=unknown) == signatures(pair, faucet)
    assert len(signatures(pair, faucet)) >= 3


def test_signatures_for_address_min_context_slot_not_reached_is_refused(pair: Trader) -> None:
    """The slot of the commitment asked for counts."""
    slot = pair.rpc("getSlot", CONFIRMED)["result"]
    assert "result" in pair.rpc(METHOD, pair.pubkey, {**CONFIRMED, "minContextSlot": slot})
    error = pair.rpc(METHOD, pair.pubkey, {**CONFIRMED, "minContextSlot": slot + 1})["error"]
    assert (error["code"], error["data"]["contextSlot"]) == (-32016, slot)
    assert pair.rpc(METHOD, pair.pubkey, {"minContextSlot": slot})["error"]["code"] == -32016


@pytest.mark.parametrize("lie", ["stale_index_slots", "lag_slots"])
def test_signatures_for_address_old_index_ends_where_it_was(pair: Trader, lie: str) -> None:
    """An index of long ago neither knows what landed since, nor takes it for a place in the chain."""
    old = pair.airdrops()[0]
    faucet = payer_of(pair, old)
    pair.sandbox.skip_slots(100)
    new = pair.airdrops()[0]
    pair.sandbox.faults.node(1, **{lie: 90})
    assert signatures(pair, faucet)[:2] == [new, old]
    assert signatures(pair, faucet, 1)[0] == old
    assert signatures(pair, faucet, 1, until=new)[0] == old
    assert signatures(pair, faucet, 1, before=new) == []
    stages = [pair.ask_node(node, METHOD, faucet, {**CONFIRMED, "before": old})["result"] for node in (0, 1)]
    assert stages[0] == stages[1]


def test_signatures_for_address_confirmation_status_is_as_old_as_the_node(pair: Trader) -> None:
    """What is finalized by now is confirmed to a node that lags."""
    made = pair.airdrops()[0]
    faucet = payer_of(pair, made)
    pair.sandbox.skip_slots(40)
    pair.sandbox.faults.node(1, lag_slots=40)
    told = [pair.ask_node(node, METHOD, faucet, CONFIRMED)["result"][0] for node in (0, 1)]
    assert [entry["confirmationStatus"] for entry in told] == ["finalized", "confirmed"]
    assert {entry["signature"] for entry in told} == {made}


@pytest.mark.parametrize(("kind", "item"), [("text", "processed"), ("number", 5), ("empty", {}), ("null", None)])
def test_signatures_for_address_odd_item_spoils_one_of_them(pair: Trader, kind: Any, item: object) -> None:
    """The middle one is nonsense, its neighbours are right."""
    made = pair.airdrops(3)
    faucet = payer_of(pair, made[0])
    pair.sandbox.faults.node(1, odd_item=kind)
    entries = pair.ask_node(1, METHOD, faucet, {**CONFIRMED, "limit": 3})["result"]
    assert entries[1] == item
    assert [entries[place]["signature"] for place in (0, 2)] == [made[2], made[0]]


def test_signatures_for_address_absurd_numbers_are_slots_beyond_63_bits(pair: Trader) -> None:
    """Every entry's slot lies beyond what a signed 64-bit integer holds."""
    faucet = payer_of(pair, pair.airdrops(2)[0])
    pair.sandbox.faults.node(1, absurd_numbers=True)
    entries = pair.ask_node(1, METHOD, faucet, CONFIRMED)["result"]
    assert entries
    assert all(2**63 < entry["slot"] < 2**64 for entry in entries)
