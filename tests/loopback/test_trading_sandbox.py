"""The whole road of a trade against the sandbox: register, buy, sign, send, confirm, sell, confirm."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from solders.keypair import Keypair
from solders.transaction import VersionedTransaction

from lasersell_sync.exceptions import ExitApiError, TxSubmitError
from lasersell_sync.retry import RetryPolicy
from lasersell_sync.sandbox import Sandbox
from lasersell_sync.trading import (
    BuildBuyTxRequest,
    BuildSellTxRequest,
    ConfirmedSignature,
    ExitApiClient,
    ExitApiClientOptions,
    SellOutput,
    SendTargetRpc,
    close_rpc_connections,
    confirm_signature,
    prove_ownership,
    send_transaction,
    send_transaction_b64_to,
    sign_unsigned_tx,
    sign_unsigned_tx_b64,
    warm_send_target,
)

# Generous: a busy machine must not fail a test of meaning.
PATIENT = ExitApiClientOptions(connect_timeout_s=5.0, attempt_timeout_s=20.0)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(seed=1, stream_port=0, api_port=0, rpc_port=0) as running:
        yield running
        close_rpc_connections()


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[ExitApiClient]:
    with ExitApiClient(sandbox.api_key, PATIENT).with_base_url(sandbox.api_url) as ready:
        yield ready


def purchase(sandbox: Sandbox, keypair: Keypair, lamports: int = 10_000_000) -> BuildBuyTxRequest:
    return BuildBuyTxRequest(
        mint=sandbox.mints[0], user_pubkey=str(keypair.pubkey()), slippage_bps=2_000, amount_in_total=lamports
    )


def landed(sandbox: Sandbox, signature: str) -> ConfirmedSignature:
    return confirm_signature(sandbox.rpc_url, signature, timeout_s=30.0, poll_interval_s=0.05)


def test_register_buy_and_sell(sandbox: Sandbox, client: ExitApiClient):
    """Every step of a trade works against servers that share no code with the client."""
    keypair = Keypair()
    rpc = SendTargetRpc(sandbox.rpc_url)
    client.warm()
    client.register_wallet(prove_ownership(keypair), label="test")
    client.register_wallet(prove_ownership(keypair))

    built = client.build_buy_tx(purchase(sandbox, keypair))
    assert built.route["market_type"]
    bought = send_transaction(rpc, sign_unsigned_tx(built.tx, keypair))
    confirmed = landed(sandbox, bought)
    assert confirmed.signature == bought
    assert confirmed.slot > 0
    assert confirmed.confirmation_status in {"confirmed", "finalized"}
    assert sandbox.token_balance(str(keypair.pubkey()), sandbox.mints[0]) > 0

    sale = BuildSellTxRequest(sandbox.mints[0], str(keypair.pubkey()), 0, SellOutput.SOL, 2_000)
    sold = send_transaction_b64_to(rpc, sign_unsigned_tx_b64(client.build_sell_tx_b64(sale), keypair))
    assert sold != bought
    assert landed(sandbox, sold).slot >= confirmed.slot
    assert sandbox.token_balance(str(keypair.pubkey()), sandbox.mints[0]) == 0


def test_what_is_signed_is_what_solders_signs(sandbox: Sandbox, client: ExitApiClient):
    """For the transactions of every market that the exchange has: byte for byte."""
    keypair = Keypair()
    client.register_wallet(prove_ownership(keypair))
    markets = set()
    for mint, info in sandbox.mint_info.items():
        request = BuildBuyTxRequest(
            mint, str(keypair.pubkey()), slippage_bps=2_000, amount_in_total=10_000_000, input=info.quote
        )
        built = client.build_buy_tx(request)
        markets.add(built.route["market_type"])
        message = VersionedTransaction.from_bytes(base64.b64decode(built.tx)).message
        by_solders = base64.b64encode(bytes(VersionedTransaction(message, [keypair]))).decode()
        assert sign_unsigned_tx_b64(built.tx, keypair) == by_solders
    assert len(markets) > 1


def test_a_part_of_a_position_is_sold(sandbox: Sandbox, client: ExitApiClient):
    """build_partial_sell_tx leaves the rest, which can be sold after it."""
    keypair = Keypair()
    rpc = SendTargetRpc(sandbox.rpc_url)
    client.register_wallet(prove_ownership(keypair))
    unsigned = client.build_buy_tx(purchase(sandbox, keypair)).tx
    landed(sandbox, send_transaction(rpc, sign_unsigned_tx(unsigned, keypair)))

    class Handle:
        mint = sandbox.mints[0]
        wallet_pubkey = str(keypair.pubkey())

    held = sandbox.token_balance(Handle.wallet_pubkey, Handle.mint)
    part = client.build_partial_sell_tx(Handle(), 1_000, 2_000)
    landed(sandbox, send_transaction(rpc, sign_unsigned_tx(part.tx, keypair)))
    assert sandbox.token_balance(Handle.wallet_pubkey, Handle.mint) == held - 1_000
    rest = client.build_sell_tx(BuildSellTxRequest(Handle.mint, Handle.wallet_pubkey, 0, SellOutput.SOL, 2_000))
    landed(sandbox, send_transaction(rpc, sign_unsigned_tx(rest.tx, keypair)))
    assert sandbox.token_balance(Handle.wallet_pubkey, Handle.mint) == 0


def test_the_rest_of_the_api(client: ExitApiClient):
    """Health, account, and a wallet that comes and goes, as often as one likes."""
    client.healthz()
    account = client.account()
    assert account.tier in {0, 1, 2}
    assert account.tier_name
    assert account.limits.max_wallets
    keypair = Keypair()
    wallet = str(keypair.pubkey())
    for _ in range(2):
        client.register_wallet(prove_ownership(keypair))
        client.remove_wallet(wallet)
        client.remove_wallet(wallet)


def test_a_warmed_node_takes_the_transaction(sandbox: Sandbox, client: ExitApiClient):
    """Warming sells nothing and spoils nothing."""
    keypair = Keypair()
    rpc = SendTargetRpc(sandbox.rpc_url)
    client.register_wallet(prove_ownership(keypair))
    warm_send_target(rpc)
    assert sandbox.transactions() == []
    signed = sign_unsigned_tx_b64(client.build_buy_tx(purchase(sandbox, keypair)).tx, keypair)
    assert landed(sandbox, send_transaction_b64_to(rpc, signed)).slot > 0


def test_sending_the_same_bytes_twice_trades_once(sandbox: Sandbox, client: ExitApiClient):
    """The signature deduplicates: a re-send after a broken connection is harmless."""
    keypair = Keypair()
    rpc = SendTargetRpc(sandbox.rpc_url)
    client.register_wallet(prove_ownership(keypair))
    signed = sign_unsigned_tx_b64(client.build_buy_tx(purchase(sandbox, keypair)).tx, keypair)
    first = send_transaction_b64_to(rpc, signed)
    assert send_transaction_b64_to(rpc, signed) == first
    landed(sandbox, first)
    assert [record.signature for record in sandbox.transactions()].count(first) == 1


def test_a_wrong_key_is_refused_without_retry(sandbox: Sandbox):
    """401/403 with the server's words."""
    options = ExitApiClientOptions(attempt_timeout_s=20.0, connect_timeout_s=5.0, retry_policy=RetryPolicy(5))
    client = ExitApiClient("wrong-key-0123456789", options).with_base_url(sandbox.api_url)
    with client, pytest.raises(ExitApiError) as caught:
        client.register_wallet(prove_ownership(Keypair()))
    assert caught.value.status in {401, 403}
    assert "wrong-key" not in str(caught.value)


def test_an_old_proof_is_refused(client: ExitApiClient):
    """Proofs are good for five minutes."""
    with pytest.raises(ExitApiError) as caught:
        client.register_wallet(prove_ownership(Keypair(), now_s=1_600_000_000))
    assert caught.value.status in {400, 403}


def test_another_wallets_transaction_is_not_signed(sandbox: Sandbox, client: ExitApiClient):
    """The keypair must be the fee payer of what the server built."""
    keypair, other = Keypair(), Keypair()
    client.register_wallet(prove_ownership(keypair))
    unsigned = client.build_buy_tx(purchase(sandbox, keypair)).tx
    with pytest.raises(TxSubmitError) as caught:
        sign_unsigned_tx(unsigned, other)
    assert caught.value.kind == "sign_tx"


def test_a_transaction_that_was_changed_after_signing_does_not_land(sandbox: Sandbox, client: ExitApiClient):
    """A bad signature is refused by the node, or never confirmed; it is never reported as landed."""
    keypair = Keypair()
    client.register_wallet(prove_ownership(keypair))
    raw = bytearray(bytes(sign_unsigned_tx(client.build_buy_tx(purchase(sandbox, keypair)).tx, keypair)))
    raw[10] ^= 1  # inside the signature

    def submit() -> None:
        signature = send_transaction_b64_to(SendTargetRpc(sandbox.rpc_url), base64.b64encode(raw).decode())
        confirm_signature(sandbox.rpc_url, signature, timeout_s=1.0, poll_interval_s=0.1)

    with pytest.raises(TxSubmitError) as caught:
        submit()
    assert caught.value.kind in {"rpc_error", "confirm_timeout", "tx_failed"}


def test_an_unknown_signature_times_out(sandbox: Sandbox):
    """Never sent, never seen: the wait ends with its limit."""
    signature = str(Keypair().sign_message(b"nothing"))
    with pytest.raises(TxSubmitError) as caught:
        confirm_signature(sandbox.rpc_url, signature, timeout_s=0.3, poll_interval_s=0.05)
    assert caught.value.kind == "confirm_timeout"
