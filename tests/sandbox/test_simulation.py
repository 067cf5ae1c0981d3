"""``simulateTransaction``, look-up tables and the questions about accounts, over real HTTP."""

from __future__ import annotations

import base64
import struct
from typing import Any

import base58
import pytest
from solders.address_lookup_table_account import AddressLookupTable, AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0, MessageV1, TransactionConfig
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.token.associated import get_associated_token_address
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox import Policies
from tests.sandbox.players import Rig, Trader

SYSTEM, TOKEN = "11111111111111111111111111111111", "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
TABLE_PROGRAM = "AddressLookupTab1e1111111111111111111111111"


def b64(transaction: VersionedTransaction) -> str:
    return base64.b64encode(bytes(transaction)).decode()


def blockhash(trader: Trader) -> Hash:
    return Hash.from_string(trader.rpc("getLatestBlockhash")["result"]["value"]["blockhash"])


def order(trader: Trader, mint: str) -> VersionedTransaction:
    """A purchase, unsigned."""
    answer = trader.post("/v1/buy", trader.buy_body(mint)).json()
    return VersionedTransaction.from_bytes(base64.b64decode(answer["tx"]))


def simulated(trader: Trader, transaction: VersionedTransaction, **config: object) -> Any:
    options = {"encoding": "base64", "sigVerify": False, "replaceRecentBlockhash": True, **config}
    return trader.rpc("simulateTransaction", b64(transaction), options)["result"]["value"]


def test_simulation_inner_instructions_name_every_call(trader: Trader) -> None:
    """Creating the token account calls System and Token programs, with the wallet as payer; heights count from 2."""
    transaction = order(trader, trader.sandbox.mints[0])
    value = simulated(trader, transaction, innerInstructions=True)
    assert value["err"] is None
    keys = [str(key) for key in transaction.message.account_keys]
    index, calls = value["innerInstructions"][0]["index"], value["innerInstructions"][0]["instructions"]
    assert keys[transaction.message.instructions[index].program_id_index].startswith("AToken")
    told = [(keys[call["programIdIndex"]], base58.b58decode(call["data"])[0], call["stackHeight"]) for call in calls]
    assert told == [(TOKEN, 21, 2), (SYSTEM, 0, 2), (TOKEN, 22, 2), (TOKEN, 18, 2)]
    create = base58.b58decode(calls[1]["data"])
    assert struct.unpack_from("<Q", create, 12)[0] == 165
    assert keys[calls[1]["accounts"][0]] == trader.pubkey
    without = simulated(trader, transaction)
    assert without["innerInstructions"] is None
    assert any(line.endswith("invoke [2]") for line in value["logs"])


def test_simulation_parsed_inner_instructions_are_words_where_known(make_sandbox: Any, make_trader: Any) -> None:
    """With Agave's form, calls of Token and System programs are parsed, those of a market partially decoded."""
    trader = make_trader(make_sandbox(policies=Policies(parsed_inner_instructions=True))).register()
    value = simulated(trader, order(trader, trader.sandbox.mints[0]), innerInstructions=True)
    calls = value["innerInstructions"][0]["instructions"]
    assert [call["parsed"]["type"] for call in calls] == [
        "getAccountDataSize",
        "createAccount",
        "initializeImmutableOwner",
        "initializeAccount3",
    ]
    assert calls[1]["parsed"]["info"]["source"] == trader.pubkey
    assert {call["stackHeight"] for call in calls} == {2}


def test_simulation_shows_balances_fee_and_accounts_as_landing_leaves_them(trader: Trader) -> None:
    """What the simulation says before is what the ledger holds after the transaction has landed."""
    mint = trader.sandbox.mints[0]
    transaction = order(trader, mint)
    account = str(get_associated_token_address(trader.wallet.pubkey(), Pubkey.from_string(mint)))
    watched = {"encoding": "base64", "addresses": [trader.pubkey, account]}
    before = trader.sandbox.balance_lamports(trader.pubkey)
    value = simulated(trader, transaction, accounts=watched)
    assert trader.sandbox.balance_lamports(trader.pubkey) == before
    signature = trader.send(VersionedTransaction(transaction.message, [trader.wallet]))
    record = trader.landed(signature)
    assert record.err is None
    assert value["fee"] == record.fee_lamports
    assert (value["preBalances"][0], value["postBalances"][0]) == (
        before,
        trader.sandbox.balance_lamports(trader.pubkey),
    )
    assert value["accounts"][0]["lamports"] == trader.sandbox.balance_lamports(trader.pubkey)
    data = base64.b64decode(value["accounts"][1]["data"][0])
    tokens = trader.sandbox.token_balance(trader.pubkey, mint)
    assert (data[:32], data[32:64]) == (bytes(Pubkey.from_string(mint)), bytes(trader.wallet.pubkey()))
    assert int.from_bytes(data[64:72], "little") == tokens
    mine = [entry for entry in value["postTokenBalances"] if entry["owner"] == trader.pubkey]
    assert [entry["uiTokenAmount"]["amount"] for entry in mine] == [str(tokens)]
    assert not [entry for entry in value["preTokenBalances"] if entry["owner"] == trader.pubkey]
    assert value["loadedAccountsDataSize"] > 165


def test_simulation_failure_shows_nulls_for_accounts(trader: Trader) -> None:
    """A failed simulation has err, logs and units, and null for each account that was asked for."""
    instruction = transfer(
        TransferParams(from_pubkey=trader.wallet.pubkey(), to_pubkey=Keypair().pubkey(), lamports=10**18)
    )
    message = MessageV0.try_compile(trader.wallet.pubkey(), [instruction], [], blockhash(trader))
    watched = {"addresses": [trader.pubkey, str(Keypair().pubkey())]}
    value = simulated(trader, VersionedTransaction(message, [trader.wallet]), accounts=watched)
    assert value["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert value["accounts"] == [None, None]
    assert value["unitsConsumed"] == 150
    assert value["logs"]


def test_simulation_min_context_slot_ahead_is_refused(trader: Trader) -> None:
    """A node that has not reached the slot says so; and too many accounts are refused."""
    transaction = order(trader, trader.sandbox.mints[0])
    slot = trader.rpc("getSlot", {"commitment": "processed"})["result"]
    config = {"encoding": "base64", "minContextSlot": slot + 1_000, "commitment": "processed"}
    error = trader.rpc("simulateTransaction", b64(transaction), config)["error"]
    assert (error["code"], error["data"]["contextSlot"] >= slot) == (-32016, True)
    many = {"addresses": [trader.pubkey] * (len(transaction.message.account_keys) + 1)}
    error = trader.rpc("simulateTransaction", b64(transaction), {"encoding": "base64", "accounts": many})["error"]
    assert error["code"] == -32602


def test_lookup_table_is_read_by_solders_and_used_by_transactions(trader: Trader) -> None:
    """The table's data has the real encoding; a version 0 transaction pays an account that only the table names."""
    friend = Keypair().pubkey()
    table = trader.sandbox.script.lookup_table([SYSTEM, str(friend)])
    shown = trader.rpc("getAccountInfo", table, {"encoding": "base64"})["result"]["value"]
    data = base64.b64decode(shown["data"][0])
    assert (shown["owner"], shown["space"]) == (TABLE_PROGRAM, 56 + 64)
    assert AddressLookupTable.deserialize(data).addresses == [Pubkey.from_string(SYSTEM), friend]
    assert shown["lamports"] == trader.rpc("getMinimumBalanceForRentExemption", len(data))["result"]
    instruction = transfer(TransferParams(from_pubkey=trader.wallet.pubkey(), to_pubkey=friend, lamports=12_345_678))
    known = AddressLookupTableAccount(Pubkey.from_string(table), [Pubkey.from_string(SYSTEM), friend])
    message = MessageV0.try_compile(trader.wallet.pubkey(), [instruction], [known], blockhash(trader))
    assert friend not in message.account_keys
    transaction = VersionedTransaction(message, [trader.wallet])
    value = simulated(trader, transaction)
    assert value["loadedAddresses"] == {"writable": [str(friend)], "readonly": []}
    assert trader.landed(trader.send(transaction)).err is None
    assert trader.sandbox.balance_lamports(str(friend)) == 12_345_678


@pytest.mark.parametrize(
    ("table", "places", "err"),
    [
        ("nobody", [0], "AddressLookupTableNotFound"),
        ("wallet", [0], "InvalidAddressLookupTableOwner"),
        ("table", [9], "InvalidAddressLookupTableIndex"),
        ("table", [0, 0], "AccountLoadedTwice"),
    ],
)
def test_lookup_that_finds_nothing_never_lands(rig: Rig, table: str, places: list[int], err: str) -> None:
    """A table that is not there, another account, a place that is not there, an account twice."""
    wallet = rig.wallet()
    friend = Keypair().pubkey()
    tables = {"nobody": Keypair().pubkey(), "wallet": wallet.pubkey(), "table": rig.exchange.put_lookup_table([friend])}
    instruction = transfer(TransferParams(from_pubkey=wallet.pubkey(), to_pubkey=friend, lamports=5))
    known = AddressLookupTableAccount(tables[table], [friend])
    compiled = MessageV0.try_compile(wallet.pubkey(), [instruction], [known], rig.latest_blockhash()[0])
    lookup = compiled.address_table_lookups[0]
    wrong = type(lookup)(lookup.account_key, bytes(places), b"")
    message = MessageV0(
        compiled.header, compiled.account_keys, compiled.recent_blockhash, compiled.instructions, [wrong]
    )
    transaction = VersionedTransaction(message, [wallet])
    assert rig.ask_chain(lambda chain: chain.simulate(transaction)).err == err
    assert rig.send(transaction, skip_preflight=True) is None


def test_version_1_lands_and_pays_its_total_priority_fee(trader: Trader) -> None:
    """A version 1 transaction of more than a packet lands; its priority fee is a total, not a price."""
    friend = Keypair().pubkey()
    pay = transfer(TransferParams(from_pubkey=trader.wallet.pubkey(), to_pubkey=friend, lamports=1_000_000))
    budget = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
    padding = [Instruction(budget, bytes(400), []) for _ in range(3)]
    config = TransactionConfig(priority_fee=7_777, compute_unit_limit=100_000)
    message = MessageV1.try_compile(trader.wallet.pubkey(), [pay, *padding], blockhash(trader), config)
    transaction = VersionedTransaction(message, [trader.wallet])
    assert len(bytes(transaction)) > 1_232
    record = trader.landed(trader.send(transaction))
    assert (record.err, record.fee_lamports) == (None, 12_777)
    assert trader.sandbox.balance_lamports(str(friend)) == 1_000_000
    forged = VersionedTransaction.populate(message, [Keypair().sign_message(b"x")])
    assert trader.rpc("sendTransaction", b64(forged), {"encoding": "base64"})["error"]["code"] == -32003


def test_performance_samples_show_the_slot_time(trader: Trader) -> None:
    """A minute's slots, newest sample first."""
    first, second = trader.rpc("getRecentPerformanceSamples", 2)["result"]
    slot_s = first["samplePeriodSecs"] / first["numSlots"]
    assert slot_s == pytest.approx(0.2)
    assert first["slot"] - second["slot"] == first["numSlots"]
    assert first["slot"] <= trader.rpc("getSlot")["result"]
    assert trader.rpc("getRecentPerformanceSamples", 721)["error"]["code"] == -32602
