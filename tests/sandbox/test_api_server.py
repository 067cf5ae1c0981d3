"""REST over real HTTP: registration, account, trades, and every way to get them wrong."""

from __future__ import annotations

import base64
import http.client
import json
import math
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from solders.keypair import Keypair
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.markets.currencies import USD1 as USD1_CURRENCY
from tests.sandbox.players import Trader, proof, signed

USD1 = USD1_CURRENCY.mint


def test_the_service_is_healthy_without_a_key(sandbox: Sandbox) -> None:
    """GET /healthz needs no key."""
    answer = requests.get(sandbox.api_url + "/healthz", timeout=5)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/v1/buy", "/v1/sell", "/v1/wallets/register"])
def test_a_key_is_needed(trader: Trader, path: str) -> None:
    """Without a key, or with a wrong one, every call is 401 with an error text that does not repeat the key."""
    for headers in ({}, {"x-api-key": "not-the-key"}):
        answer = trader.post(path, {}, headers=headers)
        assert answer.status_code == 401
        assert "not-the-key" not in answer.text
        assert isinstance(answer.json()["error"], str)


def test_the_account_is_advanced(trader: Trader) -> None:
    """GET /v1/account tells tier and limits."""
    answer = trader.http.get(trader.sandbox.api_url + "/v1/account", headers=trader.headers, timeout=5)
    assert answer.json() == {
        "tier": 2,
        "tier_name": "tier_2",
        "limits": {"max_wallets": 200, "max_positions_per_wallet": 100, "max_positions_per_session": 20_000},
    }


def test_registration_is_idempotent_and_pays_once(trader: Trader) -> None:
    """A valid proof registers, again is fine, and play money comes once; removal works and is idempotent too."""
    assert trader.sandbox.balance_lamports(trader.pubkey) == 10 * 10**9
    answer = trader.post("/v1/wallets/register", {**proof(trader.wallet), "label": "mine"})
    assert answer.json() == {"wallet_pubkey": trader.pubkey, "registered": True}
    assert trader.sandbox.balance_lamports(trader.pubkey) == 10 * 10**9
    for _ in range(2):
        url = trader.sandbox.api_url + "/v1/wallets"
        gone = trader.http.delete(url, json={"wallet_pubkey": trader.pubkey}, headers=trader.headers, timeout=5)
        assert gone.json() == {"wallet_pubkey": trader.pubkey, "removed": True}


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (lambda good, other: {**good, "message": good["message"] + "0"}, 400),
        (lambda good, other: {**good, "message": "hello"}, 400),
        (lambda good, other: {**good, "wallet_pubkey": other["wallet_pubkey"]}, 400),
        (lambda good, other: {**good, "signature": other["signature"]}, 403),
        (lambda good, other: {**good, "signature": "zz"}, 400),
        (lambda good, other: {key: value for key, value in good.items() if key != "signature"}, 400),
        (lambda good, other: {**good, "signature": 5}, 400),
        (lambda good, other: [good], 400),
    ],
)
def test_bad_proofs_register_nothing(
    sandbox: Sandbox, make_trader: Callable[..., Trader], spoil: Callable[[Any, Any], object], status: int
) -> None:
    """A proof for another wallet, with another's signature, or without shape is refused and pays nothing."""
    trader = make_trader(sandbox)
    answer = trader.post("/v1/wallets/register", spoil(proof(trader.wallet), proof(Keypair())))
    assert answer.status_code == status
    assert isinstance(answer.json()["error"], str)
    assert sandbox.balance_lamports(trader.pubkey) == 0


@pytest.mark.parametrize(("offset_s", "status"), [(-290, 200), (290, 200), (-310, 400), (310, 400)])
def test_proofs_live_five_minutes(
    sandbox: Sandbox, make_trader: Callable[..., Trader], offset_s: int, status: int
) -> None:
    """A proof is good for five minutes in both directions of the clock."""
    trader = make_trader(sandbox)
    assert trader.post("/v1/wallets/register", proof(trader.wallet, time.time() + offset_s)).status_code == status


@pytest.mark.parametrize("market_type", ["pump_fun", "pump_swap"])
def test_a_buy_is_an_unsigned_transaction_of_the_market(trader: Trader, market_type: str) -> None:
    """The answer holds a transaction with one empty signature, payable by the user, to the market's real program."""
    info = next(item for item in trader.sandbox.mint_info.values() if item.market_type == market_type)
    answer = trader.post("/v1/buy", trader.buy_body(info.mint)).json()
    assert list(answer) == ["status", "tx", "route"]
    assert answer["status"] == "ok"
    assert answer["route"] == {"market_type": market_type.replace("_", ""), "pool_id": info.pool}
    raw = base64.b64decode(answer["tx"], validate=True)
    transaction = VersionedTransaction.from_bytes(raw)
    assert len(raw) <= 1_232
    assert [bytes(signature) for signature in transaction.signatures] == [bytes(64)]
    assert str(transaction.message.account_keys[0]) == trader.pubkey
    programs = {
        str(transaction.message.account_keys[item.program_id_index]) for item in transaction.message.instructions
    }
    real = {
        "pump_fun": "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P",
        "pump_swap": "pAMMBay6oceH9fJKBRHGP5D4bD4sWpmSwMn52FMfXEA",
    }
    assert real[market_type] in programs


def test_human_and_atomic_amounts_agree(trader: Trader) -> None:
    """0.25 SOL and 250 000 000 lamports buy the same."""
    bodies = [trader.buy_body(trader.sandbox.mints[0], amount_in_total=None, amount=0.25)]
    bodies.append(trader.buy_body(trader.sandbox.mints[0], amount_in_total=250_000_000))
    calls = []
    for body in bodies:
        raw = base64.b64decode(trader.post("/v1/buy", body).json()["tx"])
        calls.append(bytes(VersionedTransaction.from_bytes(raw).message.instructions[3].data))
    assert calls[0] == calls[1]


def test_senders_get_tips_and_partners_their_fee(trader: Trader) -> None:
    """A sender's send_mode adds the tip, a partner fee its transfer; `rpc` pays no tip."""
    mint, partner = trader.sandbox.mints[0], str(Keypair().pubkey())
    fee = {"partner_fee_recipient": partner, "partner_fee_bps": 50}
    for send_mode, tips in (("helius_sender", 1), ("astralane", 1), ("rpc", 0), (None, 0)):
        trader.landed(trader.buy(mint, send_mode=send_mode, tip_lamports=12_345, **fee))
        said = trader.sandbox.transactions()[-1].instructions
        assert said.count("system.transfer lamports=12345") == tips
        assert "system.transfer lamports=5000000" in said
    assert trader.sandbox.balance_lamports(partner) == 4 * 5_000_000


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"mint": "not-a-key"}, 400, "invalid_mint"),
        ({"mint": str(Keypair().pubkey())}, 404, "no_route"),
        ({"input": "USD1"}, 422, "no_route"),
        ({"mint": None}, 400, None),
        ({"mint": 7}, 400, None),
        ({"user_pubkey": "nobody"}, 400, None),
        ({"slippage_bps": 10_001}, 400, None),
        ({"slippage_bps": -1}, 400, None),
        ({"slippage_bps": "5"}, 400, None),
        ({"slippage_bps": None}, 400, None),
        ({"input": "EUR"}, 400, None),
        ({"amount_in_total": 0}, 400, None),
        ({"amount_in_total": 2**64}, 400, None),
        ({"amount_in_total": 1.5}, 400, None),
        ({"amount": 1}, 400, None),
        ({"amount_in_total": None}, 400, None),
        ({"amount_in_total": None, "amount": -1}, 400, None),
        ({"amount_in_total": None, "amount": 1e300}, 400, None),
        ({"amount_in_total": 1}, 400, None),
        ({"send_mode": "pigeon"}, 400, None),
        ({"tip_lamports": -5}, 400, None),
        ({"partner_fee_bps": 51, "partner_fee_recipient": str(Keypair().pubkey())}, 400, None),
        ({"partner_fee_lamports": 50_000_001, "partner_fee_recipient": str(Keypair().pubkey())}, 400, None),
        (
            {"partner_fee_bps": 1, "partner_fee_lamports": 1, "partner_fee_recipient": str(Keypair().pubkey())},
            400,
            None,
        ),
        ({"partner_fee_bps": 1}, 400, None),
    ],
)
def test_orders_that_cannot_be(trader: Trader, changes: dict[str, object], status: int, reason: str | None) -> None:
    """Every field is validated, with the status and body of the protocol."""
    answer = trader.post("/v1/buy", {**trader.buy_body(trader.sandbox.mints[0]), **changes})
    assert answer.status_code == status
    body = answer.json()
    if reason is None:
        assert isinstance(body["error"], str)
    else:
        assert (body["status"], body["reason"]) == ("unsupported", reason)
        assert isinstance(body["message"], str)


def test_a_sale_of_nothing_is_refused(trader: Trader) -> None:
    """Amount 0 means the whole balance; when there is none, that is an error."""
    answer = trader.post("/v1/sell", trader.sell_body(trader.sandbox.mints[0]))
    assert answer.status_code == 400
    context = {"market_type": "whatever", "pumpfun": {}}
    answer = trader.post("/v1/sell", trader.sell_body(trader.sandbox.mints[0], amount_tokens=9, market_context=context))
    assert answer.json()["status"] == "ok"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/buy", 405), ("GET", "/", 404), ("POST", "/v2/buy", 404)]
)
def test_there_is_nothing_elsewhere(trader: Trader, method: str, path: str, status: int) -> None:
    """Unknown paths and methods get JSON errors."""
    answer = trader.http.request(method, trader.sandbox.api_url + path, headers=trader.headers, timeout=5)
    assert answer.status_code == status
    assert "error" in answer.json()


def test_connections_are_kept_and_answers_come_at_once(trader: Trader) -> None:
    """Many requests go over one TCP connection, whatever their outcome, without 40 ms pauses."""
    address = urlsplit(trader.sandbox.api_url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)
    connection.connect()
    local = connection.sock.getsockname()
    body = json.dumps(trader.buy_body(trader.sandbox.mints[0]))
    fastest_s = dict.fromkeys(["/v1/buy", "/nowhere", "/v1/sell"], math.inf)
    for path in [*fastest_s] * 10:
        started_s = time.perf_counter()
        connection.request("POST", path, body, {"x-api-key": trader.sandbox.api_key})
        answer = connection.getresponse()
        assert int(answer.headers["Content-Length"]) == len(answer.read())
        assert connection.sock.getsockname() == local
        fastest_s[path] = min(fastest_s[path], time.perf_counter() - started_s)
    # A pause would be in each of them.
    assert max(fastest_s.values()) < 0.040
    connection.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\xfe\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /v1/buy HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/buy HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /v1/buy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /v1/buy HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{",
    ],
)
def test_garbage_leaves_the_service_alive(trader: Trader, garbage: bytes) -> None:
    """Bytes that are no HTTP, or half of it, cost their connection and nothing else."""
    import socket

    address = urlsplit(trader.sandbox.api_url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as wire:
        wire.sendall(garbage)
        wire.shutdown(socket.SHUT_WR)
        while wire.recv(4_096):
            pass
    for body in (b"", b"{", b"\xff\xfe", b"[1]", b"null", b"[" * 50_000, b'{"mint":NaN}'):
        answer = trader.http.post(trader.sandbox.api_url + "/v1/buy", data=body, headers=trader.headers, timeout=5)
        assert answer.status_code == 400
    assert trader.post("/v1/buy", trader.buy_body(trader.sandbox.mints[0])).status_code == 200


def test_both_loopback_addresses_answer(sandbox: Sandbox) -> None:
    """The port is the same on 127.0.0.1 and, where there is one, ::1."""
    import socket

    port = urlsplit(sandbox.api_url).port
    addresses = ["127.0.0.1"]
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        addresses.append("[::1]")
    except OSError:
        pass
    for address in addresses:
        assert requests.get(f"http://{address}:{port}/healthz", timeout=5).status_code == 200


# -- quote currencies, tiers and the rate


def test_usd1_markets_are_bought_and_sold_in_usd1(trader: Trader) -> None:
    """`input` and `output` name the market's currency, amounts count its units, and the proceeds are USD1."""
    info = next(item for item in trader.sandbox.mint_info.values() if item.quote == "USD1")
    before = trader.sandbox.token_balance(trader.pubkey, USD1)
    body = trader.buy_body(info.mint, input="USD1", amount_in_total=None, amount=25.5)
    answer = trader.post("/v1/buy", body).json()
    assert answer["route"] == {"market_type": "raydium_launchpad", "pool_id": info.pool}
    assert trader.landed(trader.send(signed(answer["tx"], trader.wallet))).err is None
    spent = before - trader.sandbox.token_balance(trader.pubkey, USD1)
    assert 25_500_000 - 10 < spent <= 25_500_000
    answer = trader.post("/v1/sell", trader.sell_body(info.mint, output="USD1", slippage_bps=5_000)).json()
    assert trader.landed(trader.send(signed(answer["tx"], trader.wallet))).err is None
    assert trader.sandbox.token_balance(trader.pubkey, info.mint) == 0
    assert trader.sandbox.token_balance(trader.pubkey, USD1) > before - spent


@pytest.mark.parametrize(("quote", "other"), [("SOL", "USD1"), ("USD1", "SOL")])
def test_a_market_has_one_currency(trader: Trader, quote: str, other: str) -> None:
    """The other currency has no route to the token, in either direction."""
    mint = next(item.mint for item in trader.sandbox.mint_info.values() if item.quote == quote)
    answers = [
        trader.post("/v1/buy", trader.buy_body(mint, input=other)),
        trader.post("/v1/sell", trader.sell_body(mint, output=other, amount_tokens=5)),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["reason"]) == (422, "no_route")
        assert quote in answer.json()["message"]


@pytest.mark.parametrize(("tier", "status"), [(0, 403), (1, 403), (2, 200)])
def test_partner_fees_are_for_tier_2(
    make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader], tier: int, status: int
) -> None:
    """Lower tiers may trade, but not for a partner."""
    sandbox = make_sandbox(tier=tier)
    trader = make_trader(sandbox).register()
    fee = {"partner_fee_recipient": str(Keypair().pubkey()), "partner_fee_bps": 10}
    assert trader.post("/v1/buy", trader.buy_body(sandbox.mints[0])).status_code == 200
    assert trader.post("/v1/buy", trader.buy_body(sandbox.mints[0], **fee)).status_code == status
    account = trader.http.get(sandbox.api_url + "/v1/account", headers=trader.headers, timeout=5).json()
    assert account["tier"] == tier


def test_a_partners_share_needs_sol(trader: Trader) -> None:
    """A share of a USD1 trade cannot be paid in lamports; fixed lamports can."""
    mint = next(item.mint for item in trader.sandbox.mint_info.values() if item.quote == "USD1")
    partner = {"partner_fee_recipient": str(Keypair().pubkey())}
    body = trader.buy_body(mint, input="USD1", amount_in_total=10**6, **partner)
    answer = trader.post("/v1/buy", {**body, "partner_fee_bps": 10})
    assert answer.status_code == 400
    assert "partner_fee_lamports" in answer.json()["error"]
    assert trader.post("/v1/buy", {**body, "partner_fee_lamports": 1_000}).status_code == 200


def test_too_many_requests_a_minute(make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader]) -> None:
    """The request above the rate gets 429 with Retry-After; other keys, and calls without a key, are not counted."""
    sandbox = make_sandbox(requests_per_min=3, api_keys=["other"])
    trader = make_trader(sandbox).register()
    url = sandbox.api_url + "/v1/account"
    answers = [trader.http.get(url, headers=trader.headers, timeout=5) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[-1].json() == {"error": "rate limit exceeded"}
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert trader.http.get(url, headers={"x-api-key": "other"}, timeout=5).status_code == 200
    assert trader.http.get(sandbox.api_url + "/healthz", timeout=5).status_code == 200
