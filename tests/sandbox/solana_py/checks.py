"""solana-py against a running sandbox: somebody else's Solana client, which parses every answer strictly.

Runs in an interpreter that has solana-py and what it needs, and nothing of ours. ``SANDBOX_READY`` is the sandbox's
ready line. Each check that holds is told by one line.
"""

from __future__ import annotations

import base64
import json
import os
import time
from typing import Any

import httpx
from solana.rpc.api import Client
from solana.rpc.commitment import Confirmed, Finalized, Processed
from solana.rpc.core import RPCException, TransactionExpiredBlockheightExceededError
from solana.rpc.types import TokenAccountOpts, TxOpts
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.token.associated import get_associated_token_address
from solders.transaction import Transaction, VersionedTransaction
from solders.transaction_status import TransactionConfirmationStatus

READY = json.loads(os.environ["SANDBOX_READY"])
PATIENCE_S = 20.0
SEND = TxOpts(skip_preflight=True, max_retries=0)

client = Client(READY["rpc_url"], timeout=PATIENCE_S)
rest = httpx.Client(
    base_url=READY["api_url"], headers={"x-api-key": READY["api_key"]}, timeout=PATIENCE_S, trust_env=False
)


def post(path: str, **body: object) -> Any:
    answer = rest.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def registered_wallet() -> Keypair:
    """A wallet with play money."""
    wallet = Keypair()
    message = f"lasersell-register:{wallet.pubkey()}:{int(time.time())}"
    signature = str(wallet.sign_message(message.encode()))
    post("/v1/wallets/register", wallet_pubkey=str(wallet.pubkey()), signature=signature, message=message)
    return wallet


def gift(giver: Keypair, taker: Pubkey, lamports: int) -> VersionedTransaction:
    blockhash = client.get_latest_blockhash(Processed).value.blockhash
    instruction = transfer(TransferParams(from_pubkey=giver.pubkey(), to_pubkey=taker, lamports=lamports))
    return VersionedTransaction(MessageV0.try_compile(giver.pubkey(), [instruction], [], blockhash), [giver])


def refusal(transaction: VersionedTransaction) -> str:
    try:
        client.send_transaction(transaction)
    except RPCException as error:
        return str(error)
    raise AssertionError("the transaction was accepted")


def check_a_wallet_is_paid_and_pays() -> None:
    """Airdrop, transfers in both transaction formats, every stage of confirmation, balances."""
    wallet, friend = Keypair(), Keypair().pubkey()
    airdrop = client.request_airdrop(wallet.pubkey(), 2_000_000_000).value
    client.confirm_transaction(airdrop, Processed)
    post("/sandbox/skip-slots", slots=40)
    assert client.confirm_transaction(airdrop, Finalized).value[0] is not None
    assert client.get_balance(wallet.pubkey()).value == 2_000_000_000
    signature = client.send_transaction(gift(wallet, friend, 5_000)).value
    client.confirm_transaction(signature, Processed)
    post("/sandbox/skip-slots", slots=1)
    (status,) = client.get_signature_statuses([signature], search_transaction_history=True).value
    assert status is not None
    assert (status.err, status.confirmation_status) == (None, TransactionConfirmationStatus.Confirmed)
    blockhash = client.get_latest_blockhash().value.blockhash
    instruction = transfer(TransferParams(from_pubkey=wallet.pubkey(), to_pubkey=friend, lamports=7))
    legacy = Transaction([wallet], Message.new_with_blockhash([instruction], wallet.pubkey(), blockhash), blockhash)
    client.confirm_transaction(client.send_transaction(legacy, SEND).value, Processed)
    assert client.get_balance(friend).value == 5_007


def check_confirmation_is_waited_for() -> None:
    """The library's own waiting ends when the chain has confirmed, or when the blockhash is dead."""
    confirmed = TxOpts(skip_preflight=True, preflight_commitment=Confirmed, skip_confirmation=False)
    signature = client.send_transaction(gift(registered_wallet(), Keypair().pubkey(), 5_000), confirmed).value
    (status,) = client.get_signature_statuses([signature]).value
    assert status is not None
    height = client.get_latest_blockhash().value.last_valid_block_height
    post("/sandbox/skip-slots", slots=400)
    assert client.get_block_height().value > height
    try:
        client.confirm_transaction(Signature.default(), Confirmed, last_valid_block_height=height)
    except TransactionExpiredBlockheightExceededError:
        return
    raise AssertionError("an expired transaction was confirmed")


def check_failures_have_types() -> None:
    """What the chain would refuse comes as the library's typed errors, on-chain failures in the status."""
    wallet = registered_wallet()
    too_much = gift(wallet, Keypair().pubkey(), 10**15)
    simulated = client.simulate_transaction(too_much, sig_verify=True).value
    assert "Custom(1)" in str(simulated.err).replace(" ", "").replace("\n", ""), simulated.err
    assert simulated.logs
    assert "Transaction simulation failed: Error processing Instruction 0" in refusal(too_much)
    signature = client.send_transaction(too_much, SEND).value
    (status,) = client.confirm_transaction(signature, Processed).value
    assert status is not None
    assert status.err is not None
    stale = MessageV0.try_compile(wallet.pubkey(), [], [], Hash.default())
    assert "Blockhash not found" in refusal(VersionedTransaction(stale, [wallet]))


def check_tokens_are_bought_and_read() -> None:
    """A buy built by the REST API is sent with solana-py; accounts, mint and balances are parsed by it."""
    wallet, mint = registered_wallet(), READY["mints"][0]
    order = {"mint": mint, "user_pubkey": str(wallet.pubkey()), "amount_in_total": 10**9, "slippage_bps": 500}
    unsigned = VersionedTransaction.from_bytes(base64.b64decode(post("/v1/buy", **order, input="SOL")["tx"]))
    signature = client.send_transaction(VersionedTransaction(unsigned.message, [wallet]), SEND).value
    (status,) = client.confirm_transaction(signature, Processed).value
    assert status is not None
    assert status.err is None
    owner, token = wallet.pubkey(), Pubkey.from_string(mint)
    address = get_associated_token_address(owner, token)
    held = client.get_token_account_balance(address).value.amount
    assert int(held) > 0
    (parsed,) = client.get_token_accounts_by_owner_json_parsed(owner, TokenAccountOpts(mint=token)).value
    assert parsed.pubkey == address
    assert parsed.account.data.parsed["info"]["tokenAmount"]["amount"] == held
    (raw,) = client.get_token_accounts_by_owner(owner, TokenAccountOpts(mint=token)).value
    assert raw.account.data[64:72] == int(held).to_bytes(8, "little")
    info = client.get_account_info(address).value
    assert info is not None
    assert (len(info.data), info.owner) == (165, raw.account.owner)
    shown = client.get_account_info_json_parsed(token).value
    assert shown is not None
    assert shown.data.parsed["info"]["decimals"] == 6
    nobody = Keypair().pubkey()
    assert client.get_account_info(nobody).value is None
    accounts = client.get_multiple_accounts([nobody, owner]).value
    assert [account is None for account in accounts] == [True, False]


def check_small_questions() -> None:
    """Connected, version, slots, blockhashes, rent, fees."""
    assert client.is_connected()
    assert client.get_version().value.solana_core
    finalized = client.get_slot(Finalized).value
    assert client.get_slot(Processed).value - finalized >= 32
    newer, older = (client.get_latest_blockhash(commitment).value for commitment in (Confirmed, Finalized))
    assert newer.last_valid_block_height > older.last_valid_block_height
    assert client.get_minimum_balance_for_rent_exemption(165).value == 1_488_440
    message = gift(registered_wallet(), Keypair().pubkey(), 5).message
    assert isinstance(message, MessageV0)
    assert client.get_fee_for_message(message, Processed).value == 5_000


if __name__ == "__main__":
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            check()
            print(name, flush=True)
