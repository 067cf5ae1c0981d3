"""Solana JSON-RPC over real HTTP."""

from __future__ import annotations

import base64
from typing import Any

import base58
import pytest
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.token.associated import get_associated_token_address
from solders.transaction import VersionedTransaction

from tests.sandbox.players import PATIENCE_S, Trader, signed

TOKEN_PROGRAM = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"


def transfer_of(trader: Trader, lamports: int, target: Pubkey) -> VersionedTransaction:
    """A transfer built from what the RPC itself told."""
    told = trader.rpc("getLatestBlockhash")["result"]["value"]["blockhash"]
    instruction = transfer(TransferParams(from_pubkey=trader.wallet.pubkey(), to_pubkey=target, lamports=lamports))
    message = MessageV0.try_compile(trader.wallet.pubkey(), [instruction], [], Hash.from_string(told))
    return VersionedTransaction(message, [trader.wallet])


def b64(transaction: VersionedTransaction) -> str:
    return base64.b64encode(bytes(transaction)).decode()


def status_of(trader: Trader, signature: str) -> Any:
    config = {"searchTransactionHistory": True}
    return trader.rpc("getSignatureStatuses", [signature], config)["result"]["value"][0]


def test_send_and_confirm(trader: Trader) -> None:
    """A transaction has no status before it lands, is processed then, and confirmed a slot later."""
    target = Keypair().pubkey()
    transaction = transfer_of(trader, 1_000_000, target)
    signature = trader.send(transaction, skipPreflight=True, maxRetries=3, preflightCommitment="processed")
    assert signature == str(transaction.signatures[0])
    record = trader.landed(signature)
    assert record.err is None
    trader.sandbox.skip_slots(1)
    status = status_of(trader, signature)
    assert status["confirmationStatus"] == "confirmed"
    assert (status["err"], status["status"], status["slot"]) == (None, {"Ok": None}, record.slot)
    assert trader.rpc("getBalance", str(target))["result"]["value"] == 1_000_000
    trader.sandbox.skip_slots(40)
    assert status_of(trader, signature)["confirmationStatus"] == "finalized"


def test_statuses_are_null_before_landing(make_sandbox: Any, make_trader: Any) -> None:
    """With a long landing delay the transaction is accepted but has no status yet; nor has an unknown one."""
    trader = make_trader(make_sandbox(landing_delay_ms=60_000)).register()
    signature = trader.send(transfer_of(trader, 5, Keypair().pubkey()))
    unknown = str(Keypair().sign_message(b"x"))
    answer = trader.rpc("getSignatureStatuses", [signature, unknown])["result"]
    assert answer["value"] == [None, None]
    assert isinstance(answer["context"]["slot"], int)


def test_both_encodings_are_one_transaction(trader: Trader) -> None:
    """Base58 (the default) and base64 of the same bytes have one signature and are executed once."""
    target = Keypair().pubkey()
    transaction = transfer_of(trader, 1_000, target)
    text = base58.b58encode(bytes(transaction)).decode()
    first = trader.rpc("sendTransaction", text)["result"]
    # Without preflight, which would refuse them once the first has landed.
    assert trader.rpc("sendTransaction", text, {"encoding": "base58", "skipPreflight": True})["result"] == first
    assert trader.send(transaction, skipPreflight=True) == first
    trader.landed(first)
    assert trader.send(transaction, skipPreflight=True) == first
    assert trader.sandbox.balance_lamports(str(target)) == 1_000


def test_failures_on_the_chain_are_in_the_status(trader: Trader) -> None:
    """An on-chain failure lands with err set, in Solana's own form."""
    signature = trader.send(transfer_of(trader, 10**15, Keypair().pubkey()), skipPreflight=True)
    trader.landed(signature)
    status = status_of(trader, signature)
    assert status["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert status["status"] == {"Err": status["err"]}


def test_preflight_tells_what_would_fail(trader: Trader) -> None:
    """Without skipPreflight the failure is -32002 with err and logs, and nothing is charged."""
    before = trader.sandbox.balance_lamports(trader.pubkey)
    error = trader.rpc("sendTransaction", b64(transfer_of(trader, 10**15, Keypair().pubkey())), {"encoding": "base64"})[
        "error"
    ]
    assert error["code"] == -32002
    assert error["message"].startswith("Transaction simulation failed: Error processing Instruction 0")
    assert error["data"]["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert error["data"]["logs"]
    assert trader.sandbox.balance_lamports(trader.pubkey) == before


def test_an_old_blockhash_is_not_found(trader: Trader) -> None:
    """After 150 slots preflight answers Blockhash not found, and isBlockhashValid agrees."""
    transaction = transfer_of(trader, 5, Keypair().pubkey())
    blockhash = str(transaction.message.recent_blockhash)
    assert trader.rpc("isBlockhashValid", blockhash)["result"]["value"] is True
    height = trader.rpc("getLatestBlockhash")["result"]["value"]["lastValidBlockHeight"]
    trader.sandbox.skip_slots(152)
    assert trader.rpc("getBlockHeight")["result"] > height
    assert trader.rpc("isBlockhashValid", blockhash)["result"]["value"] is False
    error = trader.rpc("sendTransaction", b64(transaction), {"encoding": "base64"})["error"]
    assert (error["code"], error["data"]["err"]) == (-32002, "BlockhashNotFound")
    assert "Blockhash not found" in error["message"]


def test_signatures_are_verified(trader: Trader) -> None:
    """An unsigned transaction is -32003, whatever the preflight setting."""
    raw = bytes(transfer_of(trader, 5, Keypair().pubkey()))
    unsigned = base64.b64encode(raw[:1] + bytes(64) + raw[65:]).decode()
    for skip in (False, True):
        error = trader.rpc("sendTransaction", unsigned, {"encoding": "base64", "skipPreflight": skip})["error"]
        assert (error["code"], error["message"]) == (-32003, "Transaction signature verification failure")


@pytest.mark.parametrize(
    "params",
    [
        [],
        [5],
        ["!!!", {"encoding": "base64"}],
        ["0OIl", {"encoding": "base58"}],
        ["AAAA", {"encoding": "base64"}],
        ["", {"encoding": "base64"}],
        ["A" * 4_000, {"encoding": "base64"}],
        ["1" * 4_000],
        ["AAAA", {"encoding": "utf-8"}],
        ["AAAA", "base64"],
        [base64.b64encode(bytes([0]) + bytes([0x80, 0, 0, 0, 0])).decode(), {"encoding": "base64"}],
    ],
)
def test_malformed_transactions_are_bad_params(trader: Trader, params: list[object]) -> None:
    """What cannot be decoded is -32602."""
    assert trader.rpc("sendTransaction", *params)["error"]["code"] == -32602


def test_airdrops_land(trader: Trader) -> None:
    """requestAirdrop answers a signature that lands; two at once are two."""
    wallet = str(Keypair().pubkey())
    signatures = [trader.rpc("requestAirdrop", wallet, 2 * 10**9)["result"] for _ in range(2)]
    assert signatures[0] != signatures[1]
    assert trader.sandbox.wait_for(lambda: trader.sandbox.balance_lamports(wallet) == 4 * 10**9, PATIENCE_S)
    assert trader.rpc("requestAirdrop", wallet, -1)["error"]["code"] == -32602
    assert trader.rpc("requestAirdrop", wallet, 10**19)["error"]["code"] == -32002


def test_token_accounts_can_be_read(trader: Trader) -> None:
    """Balances and accounts of tokens come in the forms clients parse."""
    mint = trader.sandbox.mints[0]
    trader.landed(trader.buy(mint))
    address = str(get_associated_token_address(trader.wallet.pubkey(), Pubkey.from_string(mint)))
    tokens = trader.sandbox.token_balance(trader.pubkey, mint)
    amount = trader.rpc("getTokenAccountBalance", address)["result"]["value"]
    assert amount["amount"] == str(tokens)
    assert amount["decimals"] == 6
    assert float(amount["uiAmountString"]) == amount["uiAmount"] == tokens / 10**6
    parsed = trader.rpc("getTokenAccountsByOwner", trader.pubkey, {"mint": mint}, {"encoding": "jsonParsed"})
    (entry,) = parsed["result"]["value"]
    assert entry["pubkey"] == address
    assert entry["account"]["data"]["parsed"]["info"]["tokenAmount"] == amount
    raw = trader.rpc("getTokenAccountsByOwner", trader.pubkey, {"programId": TOKEN_PROGRAM}, {"encoding": "base64"})
    (entry,) = [entry for entry in raw["result"]["value"] if entry["pubkey"] == address]
    data = base64.b64decode(entry["account"]["data"][0])
    assert (len(data), data[:32], data[64:72]) == (165, bytes(Pubkey.from_string(mint)), tokens.to_bytes(8, "little"))
    assert trader.rpc("getTokenAccountBalance", trader.pubkey)["error"]["code"] == -32602
    assert trader.rpc("getTokenAccountsByOwner", trader.pubkey, {"programId": mint})["error"]["code"] == -32602


def test_the_node_presents_itself(trader: Trader) -> None:
    """Health, version, slot and height answer as a node's do."""
    assert trader.rpc("getHealth")["result"] == "ok"
    assert "solana-core" in trader.rpc("getVersion")["result"]
    assert trader.rpc("getSlot")["result"] > trader.rpc("getBlockHeight")["result"] > 0
    assert trader.http.get(trader.sandbox.rpc_url + "/health", timeout=5).text == "ok"


def post(trader: Trader, data: bytes | str) -> Any:
    answer = trader.http.post(trader.sandbox.rpc_url, data=data, timeout=5)
    assert answer.status_code == 200
    return answer.json()


def test_calls_that_are_none(trader: Trader) -> None:
    """Parse errors, invalid requests, unknown methods and bad parameters have their JSON-RPC codes."""
    for data in (b"", b"{", b"\xff", b"[" * 50_000, b'{"id":NaN}'):
        assert post(trader, data)["error"]["code"] == -32700
    for data in ("5", "[]", "{}", '{"method":5,"id":1}', '{"method":"getSlot","id":[]}'):
        assert post(trader, data)["error"]["code"] == -32600
    assert trader.rpc("mintMeAMillion")["error"] == {"code": -32601, "message": "Method not found"}
    assert post(trader, '{"method":"getSlot","params":{},"id":"x"}')["error"]["code"] == -32602
    for method in ("getBalance", "isBlockhashValid", "getTokenAccountBalance"):
        for params in ([], [5], ["nonsense"]):
            assert trader.rpc(method, *params)["error"]["code"] == -32602
    for statuses in (["x"], "x", [5], [str(Keypair().sign_message(b""))] * 257):
        assert trader.rpc("getSignatureStatuses", statuses)["error"]["code"] == -32602


def test_batches(trader: Trader) -> None:
    """A batch is answered call by call, in order; notifications are not."""
    calls = '[{"method":"getHealth","id":1},{"method":"getHealth"},7,{"method":"nope","id":"b"}]'
    answers = post(trader, calls)
    assert [answer["id"] for answer in answers] == [1, None, "b"]
    assert answers[0]["result"] == "ok"
    assert [answer["error"]["code"] for answer in answers[1:]] == [-32600, -32601]


def test_commitments_are_ages(trader: Trader) -> None:
    """Finalized is the default and 32 slots old; what is none is refused, and so is a slot not reached."""
    trader.sandbox.skip_slots(1_000)
    slots = [trader.rpc("getSlot", *config)["result"] for config in ([], [{"commitment": "processed"}])]
    assert 32 <= slots[1] - slots[0] < 100  # asked one after the other
    heights = [
        trader.rpc("getLatestBlockhash", {"commitment": name})["result"]["value"]["lastValidBlockHeight"]
        for name in ("finalized", "confirmed")
    ]
    assert 31 <= heights[1] - heights[0] < 100
    assert trader.rpc("getBalance", trader.pubkey, {"commitment": "recent"})["error"]["code"] == -32602
    for slot, code in ((slots[0], None), (slots[1] + 10_000, -32016)):
        answer = trader.rpc("getBlockHeight", {"minContextSlot": slot})
        assert answer.get("error", {}).get("code") == code
    assert isinstance(answer["error"]["data"]["contextSlot"], int)


def test_accounts_can_be_read(trader: Trader) -> None:
    """Wallets, mints, token accounts, programs and nothing: each as a node shows it."""
    mint = trader.sandbox.mints[0]
    trader.landed(trader.buy(mint))
    address = str(get_associated_token_address(trader.wallet.pubkey(), Pubkey.from_string(mint)))

    def info(account: str, **config: object) -> Any:
        return trader.rpc("getAccountInfo", account, config)["result"]["value"]

    assert info(str(Keypair().pubkey())) is None
    wallet = info(trader.pubkey, encoding="base58")
    assert (wallet["data"], wallet["owner"], wallet["executable"]) == (["", "base58"], "1" * 32, False)
    assert wallet["lamports"] == trader.sandbox.balance_lamports(trader.pubkey)
    assert info(TOKEN_PROGRAM)["executable"] is True
    raw = info(address, encoding="base64")
    assert (raw["owner"], raw["space"]) == (TOKEN_PROGRAM, 165)
    data = base64.b64decode(raw["data"][0])
    assert (len(data), data[:32], data[32:64]) == (165, bytes(Pubkey.from_string(mint)), bytes(trader.wallet.pubkey()))
    part = info(address, encoding="base58", dataSlice={"offset": 32, "length": 32})
    assert part["data"] == [trader.pubkey, "base58"]
    held = info(address, encoding="jsonParsed")["data"]["parsed"]
    assert (held["type"], held["info"]["mint"]) == ("account", mint)
    assert held["info"]["tokenAmount"]["amount"] == str(trader.sandbox.token_balance(trader.pubkey, mint))
    token = info(mint, encoding="jsonParsed")["data"]["parsed"]
    assert (token["type"], token["info"]["decimals"]) == ("mint", 6)
    supply = base64.b64decode(info(mint)["data"][0])[36:44]
    assert int.from_bytes(supply, "little") == int(token["info"]["supply"])
    for config in ({"encoding": "base58"}, {"encoding": "zip"}, {"dataSlice": 5}, {"dataSlice": {"offset": -1}}):
        assert trader.rpc("getAccountInfo", address, config)["error"]["code"] in (-32600, -32602)


def test_simulations_show_what_would_be(trader: Trader) -> None:
    """Nothing need be signed, an old blockhash can be replaced, and accounts are told as they would be left."""
    friend = Keypair().pubkey()
    transaction = transfer_of(trader, 1_000, friend)
    unsigned = b64(VersionedTransaction.populate(transaction.message, [Keypair().sign_message(b"")]))
    watched = {"encoding": "base64", "addresses": [str(friend)]}

    def simulate(**config: object) -> Any:
        return trader.rpc("simulateTransaction", unsigned, {"encoding": "base64", **config})

    value = simulate(accounts=watched)["result"]["value"]
    assert (value["err"], value["unitsConsumed"], value["accounts"][0]["lamports"]) == (None, 150, 1_000)
    assert trader.sandbox.balance_lamports(str(friend)) == 0
    assert simulate(sigVerify=True)["error"]["code"] == -32003
    assert simulate(sigVerify=True, replaceRecentBlockhash=True)["error"]["code"] == -32602
    trader.sandbox.skip_slots(200)
    assert simulate()["result"]["value"]["err"] == "BlockhashNotFound"
    replaced = simulate(replaceRecentBlockhash=True)["result"]["value"]
    assert replaced["err"] is None
    replacement = replaced["replacementBlockhash"]["blockhash"]
    assert trader.rpc("isBlockhashValid", replacement, {"commitment": "processed"})["result"]["value"] is True
    assert trader.rpc("isBlockhashValid", replacement)["result"]["value"] is False, "finalized states do not know it"
    for config in ({"accounts": 5}, {"accounts": {"addresses": ["x"]}}, {"sigVerify": 1}):
        assert simulate(**config)["error"]["code"] == -32602


@pytest.mark.parametrize(("path", "send_mode"), [("/fast", "helius_sender"), ("/iris", "astralane")])
def test_senders_want_their_tip(trader: Trader, path: str, send_mode: str) -> None:
    """A sender takes sendTransaction with its own tip and without preflight, and nothing else."""
    mint = trader.sandbox.mints[0]

    def send(tx_b64: str, **config: object) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": "sendTransaction", "params": [tx_b64, config]}
        return trader.http.post(trader.sandbox.rpc_url + path, json=body, timeout=PATIENCE_S).json()

    def order(**changes: object) -> str:
        answer = trader.post("/v1/buy", trader.buy_body(mint, **changes)).json()
        return b64(signed(answer["tx"], trader.wallet))

    options = {"encoding": "base64", "skipPreflight": True}
    other = "astralane" if send_mode == "helius_sender" else "helius_sender"
    for tipless in (order(), order(send_mode=other)):
        assert "tip" in send(tipless, **options)["error"]["message"]
    tipped = order(send_mode=send_mode, tip_lamports=1_234)
    assert send(tipped, encoding="base64")["error"]["code"] == -32602
    assert trader.landed(send(tipped, **options)["result"]).tip_lamports == 1_234
    body = {"jsonrpc": "2.0", "id": 1, "method": "getSlot"}
    answer = trader.http.post(trader.sandbox.rpc_url + path, json=body, timeout=PATIENCE_S).json()
    assert answer["error"]["code"] == -32601
    assert trader.http.get(trader.sandbox.rpc_url + "/ping", timeout=PATIENCE_S).status_code == 200


def test_costs_can_be_asked_for(trader: Trader) -> None:
    """Rent by size, as the ledger takes it for a token account; a message's fee while its blockhash lives."""
    assert trader.rpc("getMinimumBalanceForRentExemption", 165)["result"] == 1_488_440
    assert trader.rpc("getMinimumBalanceForRentExemption", 0)["result"] == 650_240
    for size in (-1, "165", None, 2**40):
        assert trader.rpc("getMinimumBalanceForRentExemption", size)["error"]["code"] == -32602
    message = transfer_of(trader, 5, Keypair().pubkey()).message
    text = base64.b64encode(to_bytes_versioned(message)).decode()
    assert trader.rpc("getFeeForMessage", text, {"commitment": "processed"})["result"]["value"] == 5_000
    trader.sandbox.skip_slots(200)
    assert trader.rpc("getFeeForMessage", text)["result"]["value"] is None
    for wrong in ("", "AAAA", "!", 5):
        assert trader.rpc("getFeeForMessage", wrong)["error"]["code"] == -32602


def test_many_accounts_at_once(trader: Trader) -> None:
    """In the order asked for, null where there is nothing."""
    nobody = str(Keypair().pubkey())
    shown = trader.rpc("getMultipleAccounts", [nobody, trader.pubkey, TOKEN_PROGRAM])["result"]["value"]
    assert [account and account["executable"] for account in shown] == [None, False, True]
    for wrong in ("x", [5], [nobody] * 101):
        assert trader.rpc("getMultipleAccounts", wrong)["error"]["code"] == -32602
