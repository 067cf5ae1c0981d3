"""The REST client against real servers: what is sent, how every answer is read, and what a failure tells."""

from __future__ import annotations

import logging
import math
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from solders.keypair import Keypair

from lasersell_sync.exceptions import ConcurrencyError, ConfigurationError, ExitApiError
from lasersell_sync.messages import MarketContext, PumpSwapContext, RaydiumCpmmContext
from lasersell_sync.retry import RetryPolicy
from lasersell_sync.trading import (
    EXIT_API_BASE_URL,
    LOCAL_EXIT_API_BASE_URL,
    Account,
    AccountLimits,
    BuildBuyTxRequest,
    BuildSellTxRequest,
    BuildTxResponse,
    ExitApiClient,
    ExitApiClientOptions,
    SellOutput,
    WalletProof,
    prove_ownership,
)
from tests.support.http_server import (
    GENEROUS_S,
    Answer,
    HttpServer,
    Seen,
    closed_port,
    json_answer,
    trusting_context,
)

CANARY = "canary-key-0123456789"
KEYPAIR = Keypair.from_seed(bytes(range(32)))
WALLET = str(KEYPAIR.pubkey())
MINT = "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"
PROOF = prove_ownership(KEYPAIR, now_s=1_700_000_000)

PATIENT = ExitApiClientOptions(
    connect_timeout_s=5.0,
    attempt_timeout_s=5.0,
    retry_policy=RetryPolicy(2, initial_backoff_ms=0, jitter_ms=0),
    not_indexed_policy=RetryPolicy(3, initial_backoff_ms=0, jitter_ms=0),
)
NOT_INDEXED = {"status": "not_indexed", "mint": MINT, "reason": "r"}
OK = {"status": "ok", "tx": "AQID", "route": {"market_type": "pumpfun"}}


def client_to(server: HttpServer, options: ExitApiClientOptions = PATIENT) -> ExitApiClient:
    return ExitApiClient(CANARY, options).with_base_url(server.url)


def sale(**changes: Any) -> BuildSellTxRequest:
    fields = {"mint": MINT, "user_pubkey": WALLET, "amount_tokens": 5, "output": "SOL", "slippage_bps": 100}
    return BuildSellTxRequest(**{**fields, **changes})


def purchase(**changes: Any) -> BuildBuyTxRequest:
    fields = {"mint": MINT, "user_pubkey": WALLET, "slippage_bps": 100, "amount_in_total": 7}
    return BuildBuyTxRequest(**{**fields, **changes})


def build(*answers: Answer, options: ExitApiClientOptions = PATIENT) -> BuildTxResponse:
    with HttpServer(*answers) as server, client_to(server, options) as client:
        return client.build_sell_tx(sale())


def failure(*answers: Answer, requests: int, options: ExitApiClientOptions = PATIENT) -> ExitApiError:
    with HttpServer(*answers) as server:
        with client_to(server, options) as client, pytest.raises(ExitApiError) as caught:
            client.build_sell_tx(sale())
        assert len(server.requests) == requests
    return caught.value


# ── what is sent ──


def test_a_sale_is_sent_as_documented():
    """POST /v1/sell with exactly the given fields, and the key in its header only."""
    with HttpServer(json_answer(OK)) as server, client_to(server) as client:
        client.build_sell_tx(sale(amount_tokens=2**64 - 1, output=SellOutput.USD1))
    (seen,) = server.requests
    assert (seen.method, seen.path) == ("POST", "/v1/sell")
    assert seen.json == {
        "mint": MINT,
        "user_pubkey": WALLET,
        "amount_tokens": 2**64 - 1,
        "output": "USD1",
        "slippage_bps": 100,
    }
    assert seen.headers["x-api-key"] == CANARY
    assert seen.headers["content-type"] == "application/json"
    assert CANARY.encode() not in seen.body


def test_every_optional_field_of_a_sale_is_sent():
    """Nothing that was given is lost."""
    request = sale(
        mode="fast",
        market_context=MarketContext(market_type="pump_swap", pumpswap=PumpSwapContext(pool="P", global_config=None)),
        send_mode="helius_sender",
        tip_lamports=1000,
        partner_fee_recipient=WALLET,
        partner_fee_bps=50,
    )
    assert {name: value for name, value in request.to_payload().items() if name not in sale().to_payload()} == {
        "mode": "fast",
        "market_context": {"market_type": "pump_swap", "pumpswap": {"pool": "P"}},
        "send_mode": "helius_sender",
        "tip_lamports": 1000,
        "partner_fee_recipient": WALLET,
        "partner_fee_bps": 50,
    }


def test_a_market_context_is_written_by_its_schema():
    """All members are there, and objects that are not given are left out."""
    members = {"pool": "a", "config": "b", "quote_mint": "c", "user_quote_account": "d"}
    context = MarketContext(market_type="anything", raydium_cpmm=RaydiumCpmmContext(**members))
    assert sale(market_context=context).to_payload()["market_context"] == {
        "market_type": "anything",
        "raydium_cpmm": members,
    }


def test_a_purchase_is_sent_as_documented():
    """POST /v1/buy with one of the two amounts."""
    with HttpServer(respond=lambda _: json_answer(OK)) as server, client_to(server) as client:
        client.build_buy_tx(purchase())
        client.build_buy_tx(purchase(amount_in_total=None, amount=0.25, input=SellOutput.USD1))
    common = {"mint": MINT, "user_pubkey": WALLET, "slippage_bps": 100}
    assert [seen.path for seen in server.requests] == ["/v1/buy", "/v1/buy"]
    assert server.requests[0].json == {**common, "amount_in_total": 7, "input": "SOL"}
    assert server.requests[1].json == {**common, "amount": 0.25, "input": "USD1"}


def test_a_partial_sale_takes_mint_and_wallet_from_the_position():
    """Any object with mint and wallet_pubkey will do; a PositionHandle is one."""

    @attrs.frozen
    class Handle:
        mint: str = MINT
        wallet_pubkey: str = WALLET

    with HttpServer(json_answer(OK)) as server, client_to(server) as client:
        client.build_partial_sell_tx(Handle(), 3, 250)
        with pytest.raises(ConfigurationError, match="whole balance"):
            client.build_partial_sell_tx(Handle(), 0, 250)
    assert [seen.json for seen in server.requests] == [sale(amount_tokens=3, slippage_bps=250).to_payload()]


def test_a_registration_is_sent_as_documented():
    """POST /v1/wallets/register with the proof, and a label only when given."""
    yes = json_answer({"wallet_pubkey": WALLET, "registered": True})
    with HttpServer(yes, yes) as server, client_to(server) as client:
        client.register_wallet(PROOF)
        client.register_wallet(PROOF, "main")
    proof = {"wallet_pubkey": WALLET, "signature": PROOF.signature, "message": PROOF.message}
    assert [seen.path for seen in server.requests] == ["/v1/wallets/register"] * 2
    assert [seen.json for seen in server.requests] == [proof, {**proof, "label": "main"}]


def test_a_base_urls_path_goes_before_the_apis_own():
    """A gateway in front of the API works, with and without a final slash."""
    with HttpServer(respond=lambda _: json_answer(OK)) as server:
        for base in (f"{server.url}/gate", f"{server.url}/gate/"):
            with ExitApiClient(CANARY, PATIENT).with_base_url(base) as client:
                client.build_sell_tx(sale())
    assert [seen.path for seen in server.requests] == ["/gate/v1/sell"] * 2


def test_without_a_key_none_is_sent():
    """A local service may need none."""
    with HttpServer(json_answer(OK)) as server, ExitApiClient(options=PATIENT).with_base_url(server.url) as client:
        client.build_sell_tx(sale())
    assert "x-api-key" not in server.requests[0].headers


# ── what is answered ──


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "ok", "tx": "AQID"},
        {"status": "OK", "tx": "AQID"},
        {"status": "ok", "unsigned_tx_b64": "AQID"},
        {"tx": "AQID"},
        {"unsigned_tx_b64": "AQID"},
        {"status": None, "tx": "AQID", "unsigned_tx_b64": None},
        {"tx": "AQID", "unsigned_tx_b64": "AQID", "new_field": [1]},
    ],
)
def test_every_known_form_of_success_is_read(answer: dict[str, Any]):
    """With or without status, under either name."""
    assert build(json_answer(answer)) == BuildTxResponse("AQID", None, None)


def test_route_and_debug_are_passed_on():
    """What the server adds is there for the user."""
    route = {"market_type": "pumpswap", "pool_id": "P"}
    built = build(json_answer({**OK, "route": route, "debug": {"ms": 3}}))
    assert (built.route, built.debug) == (route, {"ms": 3})


def test_the_b64_form_is_the_transaction_alone():
    """build_sell_tx_b64 for those who need no more."""
    with HttpServer(json_answer(OK)) as server, client_to(server) as client:
        assert client.build_sell_tx_b64(sale()) == "AQID"


def test_a_transaction_is_not_in_the_repr():
    """A repr ends up in logs."""
    assert "AQIDBAUGBwg" not in repr(BuildTxResponse("AQIDBAUGBwg=", None, None))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"5",
        b'"ok"',
        b"{}",
        b'{"status":"ok"}',
        b'{"status":"ok","tx":""}',
        b'{"status":"ok","tx":5}',
        b'{"tx":null}',
        b'{"tx":"AQID","unsigned_tx_b64":"BAUG"}',
        b"\xff\xfe",
        b'{"tx":"AQ',
        b"[" * 100_000,
    ],
)
def test_a_success_that_holds_no_transaction_is_a_parse_error(body: bytes):
    """A captive portal's page, half a body, endless nesting, two transactions: never a transaction, never retried."""
    error = failure(Answer(200, body), requests=1)
    assert error.kind == "parse"
    assert not error.is_retryable()


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        ({"status": "unsupported", "reason": "r", "message": "m", "error": "e"}, "r"),
        ({"status": "unsupported", "message": "m", "error": "e"}, "m"),
        ({"status": "unsupported", "reason": 5, "error": "e"}, "e"),
        ({"status": "not_indexed"}, '{"status": "not_indexed"}'),
        ({"status": 7, "tx": "AQID"}, '{"status": 7, "tx": "AQID"}'),
    ],
)
def test_a_success_whose_status_is_not_ok_tells_the_reason(answer: dict[str, Any], detail: str):
    """The first of reason, message, error that is a text, else the body."""
    error = failure(json_answer(answer), requests=1)
    assert (error.kind, error.detail, error.status) == ("envelope_status", detail, 200)
    assert not error.is_retryable()


@pytest.mark.parametrize(
    ("status", "answer", "detail"),
    [
        (400, {"error": "e", "message": "m", "reason": "r"}, "e"),
        (400, {"status": "unsupported", "reason": "invalid_mint", "message": "m"}, "m"),
        (404, {"status": "unsupported", "reason": "no_route", "message": "m"}, "m"),
        (404, {"error": "route not found"}, "route not found"),
        (400, NOT_INDEXED, "r"),
        (404, {"status": 5, "reason": "not_indexed"}, "not_indexed"),
        (401, {"error": {"code": 1}}, '{"error": {"code": 1}}'),
        (403, [], "[]"),
        (422, {}, "{}"),
    ],
)
def test_a_refusal_tells_the_servers_words_and_is_not_repeated(status: int, answer: Any, detail: str):
    """The first of error, message, reason that is a text, else the body; one request only."""
    error = failure(json_answer(answer, status), requests=1)
    assert (error.kind, error.status, error.detail) == ("http_status", status, detail)
    assert not error.is_retryable()


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (json_answer({"status": "unsupported", "reason": "no_route"}, 404), "unsupported"),
        (json_answer({"status": "refused"}), "refused"),
        (json_answer({"status": 5}, 422), None),
        (json_answer({"error": "e"}, 400), None),
        (Answer(400, b"<html>"), None),
    ],
)
def test_the_answers_own_status_is_told(answer: Answer, word: str | None):
    """One word for a program to decide by, in place of a search in sentences."""
    assert failure(answer, requests=1).body_status == word


def test_a_mint_that_is_not_indexed_yet_is_asked_for_again():
    """A token of a second ago: the caller gets its transaction, and a hiccup in between does not use up the patience."""
    unknown, busy = json_answer(NOT_INDEXED, 404), json_answer({"error": "busy"}, 503)
    assert build(unknown, json_answer(OK)).tx == "AQID"
    assert build(unknown, busy, unknown, Answer(raw=b""), json_answer(OK)).tx == "AQID"


def test_a_mint_that_stays_unknown_is_told():
    """After the last look, with the server's word for it and the advice to try later."""
    error = failure(*[json_answer(NOT_INDEXED, 404)] * 3, requests=3)
    assert (error.kind, error.status, error.detail, error.body_status) == ("http_status", 404, "r", "not_indexed")
    assert error.is_not_indexed()
    assert error.is_retryable()


def test_waiting_for_the_index_can_be_switched_off():
    """Who has a clock of their own is told at once."""
    options = attrs.evolve(PATIENT, not_indexed_policy=RetryPolicy(1))
    assert failure(json_answer(NOT_INDEXED, 404), requests=1, options=options).is_not_indexed()


def test_a_server_that_names_a_long_wait_for_the_index_is_not_waited_for():
    """Retry-After counts here too."""
    error = failure(json_answer(NOT_INDEXED, 404, retry_after="60"), requests=1)
    assert error.retry_after_s == 60.0


def test_a_long_body_is_cut_to_220_characters():
    """An HTML error page does not fill the log."""
    error = failure(Answer(400, b"<p>" + "ä".encode() * 5000), requests=1)
    assert len(error.detail) == 220
    assert error.body == error.detail


def test_an_empty_refusal_still_says_something():
    """No body is no reason for an empty error."""
    error = failure(Answer(403), requests=1)
    assert str(error) == "http_status 403: no words from the server"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(status: int):
    """429 and 5xx are retried once; success then is all the caller sees."""
    assert build(json_answer({"error": "busy"}, status), json_answer(OK)).tx == "AQID"


def test_a_server_that_stays_busy_is_told_as_it_is():
    """After the attempts the last answer is the error, and it says that waiting may help."""
    busy = json_answer({"error": "rate limit exceeded"}, 429, retry_after="0")
    error = failure(busy, busy, requests=2)
    assert (error.status, error.detail, error.retry_after_s) == (429, "rate limit exceeded", 0.0)
    assert error.is_retryable()


def test_a_long_retry_after_is_told_in_place_of_waited_for():
    """A caller is not blocked for a minute, and no attempt is wasted."""
    error = failure(json_answer({"error": "x"}, 429, retry_after="60"), requests=1)
    assert error.retry_after_s == 60.0


def test_a_broken_connection_is_tried_again():
    """Builds change nothing on the chain, so they may be repeated."""
    assert build(Answer(raw=b""), json_answer(OK)).tx == "AQID"


def test_a_silent_server_is_a_transport_error_after_all_attempts():
    """The caller waits for attempts times the attempt's limit, not longer."""
    options = attrs.evolve(PATIENT, attempt_timeout_s=0.2)
    error = failure(Answer(hold=threading.Event()), Answer(hold=threading.Event()), requests=2, options=options)
    assert error.kind == "transport"
    assert error.is_retryable()


def test_an_unreachable_server_is_a_transport_error():
    """The words name the server and the reason."""
    with ExitApiClient(CANARY, PATIENT).with_base_url(f"http://127.0.0.1:{closed_port()}") as client:
        with pytest.raises(ExitApiError, match="no connection: Connection refused") as caught:
            client.build_sell_tx(sale())
        with pytest.raises(ExitApiError, match="Connection refused"):
            client.warm()
    assert caught.value.kind == "transport"


def test_a_huge_answer_is_a_parse_error(monkeypatch: pytest.MonkeyPatch):
    """It is not asked for a second time."""
    error = failure(Answer(200, b"x" * (8 * 1024 * 1024 + 1)), requests=1)
    assert error.kind == "parse"


def test_a_redirect_is_an_error_and_the_next_host_hears_nothing():
    """The API key would go along."""
    with HttpServer() as other:
        error = failure(Answer(307, headers={"location": f"{other.url}/v1/sell"}), requests=1)
    assert (error.kind, error.status) == ("http_status", 307)
    assert "never followed" in error.detail
    assert other.connections == 0


# ── registration ──


@pytest.mark.parametrize(
    "answer",
    [{}, {"registered": False}, {"registered": "true"}, {"registered": True, "wallet_pubkey": MINT}],
)
def test_only_a_clear_yes_is_a_registration(answer: dict[str, Any]):
    """The stream would refuse the wallet otherwise, with a less helpful error."""
    with HttpServer(json_answer(answer)) as server, client_to(server) as client, pytest.raises(ExitApiError) as caught:
        client.register_wallet(PROOF)
    assert caught.value.kind == "parse"


def test_registration_is_retried():
    """It is idempotent (the official SDK gives up at the first failure)."""
    yes = json_answer({"wallet_pubkey": WALLET, "registered": True})
    with HttpServer(Answer(503), yes) as server, client_to(server) as client:
        client.register_wallet(PROOF)
    assert len(server.requests) == 2


@pytest.mark.parametrize(("proof", "label"), [(KEYPAIR, None), ({}, None), (PROOF, ""), (PROOF, 5)])
def test_what_is_not_a_proof_is_refused_before_it_is_sent(proof: Any, label: Any):
    """A keypair in this place must not be looked at."""
    with HttpServer() as server, client_to(server) as client, pytest.raises(ConfigurationError) as caught:
        client.register_wallet(proof, label)
    assert str(KEYPAIR) not in str(caught.value)
    assert server.connections == 0


# ── removal, account, health ──


def test_a_removal_is_sent_as_documented():
    """DELETE /v1/wallets with the wallet, and the key in its header."""
    with HttpServer(json_answer({"wallet_pubkey": WALLET, "removed": True})) as server, client_to(server) as client:
        client.remove_wallet(WALLET)
    (seen,) = server.requests
    assert (seen.method, seen.path, seen.json) == ("DELETE", "/v1/wallets", {"wallet_pubkey": WALLET})
    assert seen.headers["x-api-key"] == CANARY


@pytest.mark.parametrize("answer", [{}, {"removed": False}, {"removed": 1}, {"removed": True, "wallet_pubkey": MINT}])
def test_only_a_clear_yes_is_a_removal(answer: dict[str, Any]):
    """A wallet that is believed to be gone and is not would count against the limit."""
    with HttpServer(json_answer(answer)) as server, client_to(server) as client, pytest.raises(ExitApiError) as caught:
        client.remove_wallet(WALLET)
    assert caught.value.kind == "parse"


@pytest.mark.parametrize("wallet", [KEYPAIR, str(KEYPAIR), "short", None])
def test_what_is_not_a_wallet_is_not_removed(wallet: Any):
    """A secret key in this place is neither sent nor repeated."""
    with HttpServer() as server, client_to(server) as client, pytest.raises(ConfigurationError) as caught:
        client.remove_wallet(wallet)
    assert caught.value.field == "wallet_pubkey"
    assert str(KEYPAIR) not in str(caught.value)
    assert server.connections == 0


LIMITS = {"max_wallets": 200, "max_positions_per_wallet": 100, "max_positions_per_session": 20_000}
ACCOUNT = {"tier": 2, "tier_name": "Advanced", "limits": LIMITS}


def test_the_account_is_read():
    """GET /v1/account with the key and without a body: the tier, its name and its limits."""
    with HttpServer(json_answer({**ACCOUNT, "new": 1})) as server, client_to(server) as client:
        account = client.account()
    assert account == Account(2, "Advanced", AccountLimits(200, 100, 20_000))
    (seen,) = server.requests
    assert (seen.method, seen.path, seen.body) == ("GET", "/v1/account", b"")
    assert seen.headers["x-api-key"] == CANARY


@pytest.mark.parametrize("limits", [{}, {"max_wallets": None}, {"something_else": 5}])
def test_a_limit_that_is_not_told_is_none(limits: dict[str, Any]):
    """Not zero, which would mean that nothing is allowed."""
    with HttpServer(json_answer({**ACCOUNT, "limits": limits})) as server, client_to(server) as client:
        assert client.account().limits == AccountLimits(None, None, None)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tier": None}, "tier"),
        ({"tier": "2"}, "tier"),
        ({"tier": True}, "tier"),
        ({"tier": -1}, "tier"),
        ({"tier_name": 5}, "tier_name"),
        ({"limits": None}, "limits"),
        ({"limits": [1]}, "limits"),
        ({"limits": {**LIMITS, "max_wallets": "200"}}, "max_wallets"),
        ({"limits": {**LIMITS, "max_positions_per_session": 1.5}}, "max_positions_per_session"),
    ],
)
def test_an_account_that_cannot_be_read_is_a_parse_error(change: dict[str, Any], field: str):
    """The field is named; a guess would let a bot trade beyond its limits."""
    with (
        HttpServer(json_answer({**ACCOUNT, **change})) as server,
        client_to(server) as client,
        pytest.raises(ExitApiError, match=f"{field} is not") as caught,
    ):
        client.account()
    assert caught.value.kind == "parse"


def test_the_services_health_is_asked_without_a_key():
    """GET /healthz; returning says that it is well."""
    with HttpServer(json_answer({"status": "ok"})) as server, client_to(server) as client:
        client.healthz()
    (seen,) = server.requests
    assert (seen.method, seen.path) == ("GET", "/healthz")
    assert "x-api-key" not in seen.headers


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (json_answer({"status": "degraded", "reason": "no node"}), "envelope_status"),
        (json_answer({"error": "starting"}, 503), "http_status"),
        (json_answer({}), "parse"),
        (json_answer({"status": None}), "parse"),
        (Answer(200, b"<html>fine</html>"), "parse"),
        (Answer(raw=b""), "transport"),
    ],
)
def test_a_service_that_is_not_well_is_told_after_one_attempt(answer: Answer, kind: str):
    """A health check tells what is now."""
    with HttpServer(answer) as server, client_to(server) as client, pytest.raises(ExitApiError) as caught:
        client.healthz()
    assert caught.value.kind == kind
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda client: client.remove_wallet(WALLET), {"wallet_pubkey": WALLET, "removed": True}),
        (lambda client: client.account(), ACCOUNT),
    ],
    ids=["remove", "account"],
)
def test_removal_and_account_are_retried(call: Callable[[ExitApiClient], object], answer: dict[str, Any]):
    """Both may be repeated."""
    with HttpServer(Answer(503), json_answer(answer)) as server, client_to(server) as client:
        call(client)
    assert len(server.requests) == 2


def test_connect_registers_every_wallet(monkeypatch: pytest.MonkeyPatch):
    """One step from proofs to a ready client."""
    proofs = [prove_ownership(Keypair()) for _ in range(3)]
    with HttpServer(
        respond=lambda seen: json_answer({"wallet_pubkey": seen.json["wallet_pubkey"], "registered": True})
    ) as server:
        monkeypatch.setattr("lasersell_sync.trading.rest.exit_api.EXIT_API_BASE_URL", server.url)
        with ExitApiClient.connect(CANARY, proofs, PATIENT):
            pass
    assert [seen.json["wallet_pubkey"] for seen in server.requests] == [proof.wallet_pubkey for proof in proofs]


def test_connect_closes_what_it_opened_when_a_registration_fails(monkeypatch: pytest.MonkeyPatch):
    """No socket is left behind by a refused proof."""
    closed: list[ExitApiClient] = []
    close = ExitApiClient.close
    monkeypatch.setattr(ExitApiClient, "close", lambda self: (closed.append(self), close(self))[1])
    with HttpServer(json_answer({"error": "signature"}, 403)) as server:
        monkeypatch.setattr("lasersell_sync.trading.rest.exit_api.EXIT_API_BASE_URL", server.url)
        with pytest.raises(ExitApiError, match="signature"):
            ExitApiClient.connect(CANARY, [PROOF], PATIENT)
    assert len(closed) == 1


# ── requests that cannot work ──

_SHARED_REFUSALS: list[tuple[str, Any]] = [
    ("mint", "short"),
    ("mint", None),
    ("mint", KEYPAIR),
    ("user_pubkey", MINT + "xx"),
    ("slippage_bps", -1),
    ("slippage_bps", 10_001),
    ("slippage_bps", 1.5),
    ("slippage_bps", True),
    ("slippage_bps", None),
    ("mode", ""),
    ("mode", 5),
    ("send_mode", "jito"),
    ("tip_lamports", -1),
    ("tip_lamports", 2**64),
    ("partner_fee_recipient", "nobody"),
    ("partner_fee_bps", 51),
    ("partner_fee_bps", -1),
    ("partner_fee_lamports", 50_000_001),
]


@pytest.mark.parametrize("make", [sale, purchase])
@pytest.mark.parametrize(("field", "value"), _SHARED_REFUSALS)
def test_values_out_of_range_are_refused_by_name(make: Callable[..., Any], field: str, value: Any):
    """Found when the request is made, not when money waits."""
    with pytest.raises(ConfigurationError) as caught:
        make(**{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount_tokens", -1),
        ("amount_tokens", 2**64),
        ("amount_tokens", 1.0),
        ("amount_tokens", True),
        ("output", "EUR"),
        ("output", KEYPAIR),
        ("market_context", {"market": "pump_fun"}),
        ("market_context", "pump_fun"),
    ],
)
def test_a_sales_own_fields_are_checked(field: str, value: Any):
    """Amounts are whole atomic units; the output is one of two."""
    with pytest.raises(ConfigurationError) as caught:
        sale(**{field: value})
    assert caught.value.field == field
    assert str(KEYPAIR) not in str(caught.value)


@pytest.mark.parametrize("amount", [0, -0.5, math.nan, math.inf, -math.inf, True, "1", 10**400, KEYPAIR])
def test_a_purchases_amount_is_a_positive_number(amount: Any):
    """Nothing that JSON or a chain cannot carry."""
    with pytest.raises(ConfigurationError) as caught:
        purchase(amount_in_total=None, amount=amount)
    assert caught.value.field == "amount"
    assert str(KEYPAIR) not in str(caught.value)


@pytest.mark.parametrize("total", [0, -1, 2**64, 0.5])
def test_a_purchases_total_is_a_positive_whole_number(total: Any):
    """Atomic units have no fractions, and buying nothing is a mistake."""
    with pytest.raises(ConfigurationError) as caught:
        purchase(amount_in_total=total)
    assert caught.value.field == "amount_in_total"


@pytest.mark.parametrize("both", [{"amount": 1.0, "amount_in_total": 1}, {"amount_in_total": None}])
def test_a_purchase_has_exactly_one_amount(both: dict[str, Any]):
    """The two exclude each other, and one is needed."""
    with pytest.raises(ConfigurationError, match="exactly one"):
        purchase(**both)


@pytest.mark.parametrize("make", [sale, purchase])
def test_partner_fees_exclude_each_other(make: Callable[..., Any]):
    """A share or a fixed sum; either alone is fine."""
    with pytest.raises(ConfigurationError, match="not both"):
        make(partner_fee_bps=1, partner_fee_lamports=1)
    make(partner_fee_bps=50)
    make(partner_fee_lamports=50_000_000)


def test_the_edges_of_every_range_are_allowed():
    """Bounds are inclusive; 0 tokens mean the whole balance."""
    sale(amount_tokens=0, slippage_bps=0)
    sale(slippage_bps=10_000, tip_lamports=0)
    purchase(amount_in_total=2**64 - 1)
    purchase(amount_in_total=None, amount=1)


def test_requests_take_their_fields_in_the_official_order():
    """Positional calls of migrating users keep their meaning."""
    assert BuildSellTxRequest(MINT, WALLET, 5, SellOutput.SOL, 100) == sale()
    assert BuildBuyTxRequest(MINT, WALLET, 100, 7) == purchase()


# ── making a client ──


@pytest.mark.parametrize("key", ["", "two words", "line\r\nx-evil: 1", "tab\t", "schlüssel", b"bytes", 5])
def test_a_key_that_cannot_stand_in_a_header_is_refused_without_repeating_it(key: Any):
    """A key with a line break could smuggle a header in."""
    with pytest.raises(ConfigurationError) as caught:
        ExitApiClient(key)
    if key and isinstance(key, str):
        assert key not in str(caught.value)


def test_the_endpoints_are_chosen_as_in_the_official_sdk():
    """Production by default, local mode on request, an explicit base URL above both."""
    client = ExitApiClient.with_api_key("k")
    assert EXIT_API_BASE_URL in repr(client)
    assert LOCAL_EXIT_API_BASE_URL in repr(client.with_local_mode(True))
    assert "https://example.com" in repr(client.with_base_url("https://example.com/"))
    assert "https://example.com" in repr(client.with_local_mode(False))
    client.close()


@pytest.mark.parametrize("url", ["http://example.com", "example.com", "https://a.b/?key=1", "https://u:p@a.b", "", 5])
def test_a_bad_base_url_is_refused_by_name(url: Any):
    """With the problem, without the URL."""
    with pytest.raises(ConfigurationError) as caught:
        ExitApiClient("k").with_base_url(url)
    assert caught.value.field == "base_url"
    assert "key=1" not in str(caught.value)


def test_plain_http_needs_the_option():
    """allow_insecure is the user's explicit choice."""
    options = ExitApiClientOptions(allow_insecure=True)
    assert "http://example.com" in repr(ExitApiClient("k", options).with_base_url("http://example.com"))


def test_the_environment_can_hold_key_and_url(monkeypatch: pytest.MonkeyPatch):
    """from_env reads LASERSELL_API_KEY and LASERSELL_API_URL when it is called."""
    with HttpServer(json_answer(OK)) as server:
        monkeypatch.setenv("LASERSELL_API_KEY", CANARY)
        monkeypatch.setenv("LASERSELL_API_URL", server.url)
        with ExitApiClient.from_env(PATIENT) as client:
            client.build_sell_tx(sale())
    assert server.requests[0].headers["x-api-key"] == CANARY


def test_a_missing_or_bad_environment_is_named(monkeypatch: pytest.MonkeyPatch):
    """The error tells which variable."""
    monkeypatch.delenv("LASERSELL_API_KEY", raising=False)
    monkeypatch.delenv("LASERSELL_API_URL", raising=False)
    with pytest.raises(ConfigurationError, match="LASERSELL_API_KEY"):
        ExitApiClient.from_env()
    monkeypatch.setenv("LASERSELL_API_KEY", "k")
    assert EXIT_API_BASE_URL in repr(ExitApiClient.from_env())
    monkeypatch.setenv("LASERSELL_API_URL", "http://example.com")
    with pytest.raises(ConfigurationError) as caught:
        ExitApiClient.from_env()
    assert caught.value.field == "LASERSELL_API_URL"


def test_options_are_the_official_defaults_and_checked():
    """200 ms to connect, 900 ms per attempt, two attempts."""
    options = ExitApiClientOptions()
    assert (options.connect_timeout_s, options.attempt_timeout_s, options.retry_policy) == (0.2, 0.9, RetryPolicy())
    assert options.not_indexed_policy == RetryPolicy(4, initial_backoff_ms=250, max_backoff_ms=1_000, jitter_ms=50)
    for field in ("connect_timeout_s", "attempt_timeout_s"):
        for value in (0, -1, math.nan, math.inf, "1", None):
            with pytest.raises(ConfigurationError) as caught:
                ExitApiClientOptions(**{field: value})  # type: ignore[arg-type]
            assert caught.value.field == field
    with pytest.raises(TypeError):
        ExitApiClientOptions(conect_timeout_s=1)  # type: ignore[call-arg]


def test_making_a_client_touches_no_network_and_loads_no_heavy_package():
    """A program that only reads the stream pays neither for urllib3 nor for solders."""
    code = (
        "import sys, lasersell_sync.trading as t; c = t.ExitApiClient('k').with_base_url('https://example.com'); "
        "t.SendTargetAstralane('k'); repr(c); c.close(); "
        "print(sorted({'urllib3', 'solders'} & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


# ── life ──


def test_warm_opens_the_connection_that_the_first_request_uses():
    """The handshake is not part of the first trade; warming sends no key."""
    with HttpServer(json_answer({"status": "ok"}), json_answer(OK)) as server, client_to(server) as client:
        client.warm()
        client.build_sell_tx(sale())
    assert server.connections == 1
    assert [seen.path for seen in server.requests] == ["/healthz", "/v1/sell"]
    assert "x-api-key" not in server.requests[0].headers


def test_warming_takes_tls_out_of_the_first_trade():
    """The handshake was made, with the server's certificate checked, before there was anything to sell."""
    answers = json_answer({"status": "ok"}), json_answer(OK)
    options = attrs.evolve(PATIENT, ssl_context=trusting_context())
    with HttpServer(*answers, tls=True) as server, client_to(server, options) as client:
        client.warm()
        assert server.connections == 1
        client.build_sell_tx(sale())
    assert server.connections == 1


def test_one_connection_serves_many_requests():
    """Keep-alive across all kinds of calls and across refusals."""

    def respond(seen: Seen) -> Answer:
        return json_answer({"error": "no"}, 404) if seen.path == "/v1/buy" else json_answer({**OK, "registered": True})

    with HttpServer(respond=respond) as server, client_to(server) as client:
        for _ in range(3):
            client.build_sell_tx(sale())
            with pytest.raises(ExitApiError):
                client.build_buy_tx(purchase())
            client.register_wallet(PROOF)
    assert server.connections == 1


def test_a_closed_client_says_so():
    """Programming errors are not network errors, and closing twice is fine."""
    with HttpServer(json_answer(OK)) as server:
        client = client_to(server)
        client.build_sell_tx(sale())
        client.close()
        client.close()
        calls = (lambda: client.build_sell_tx(sale()), lambda: client.remove_wallet(WALLET), client.account)
        for call in (*calls, client.healthz, client.warm):
            with pytest.raises(ConcurrencyError, match="closed"):
                call()


def test_threads_may_share_a_client():
    """Eight threads build at once; every one gets its own transaction."""
    results: dict[int, str] = {}

    def respond(seen: Seen) -> Answer:
        return json_answer({"tx": f"tx{seen.json['amount_tokens']}"})

    with HttpServer(respond=respond) as server, client_to(server) as client:

        def work(number: int) -> None:
            results[number] = client.build_sell_tx_b64(sale(amount_tokens=number))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GENEROUS_S)
    assert results == {number: f"tx{number}" for number in range(8)}


# ── secrets ──

_BAD_ANSWERS = {
    "refused": json_answer({"error": f"bad key {CANARY}"}, 401),
    "echoed body": Answer(500, f"x-api-key: {CANARY}".encode()),
    "echoed late": Answer(500, (b"x" * 200) + CANARY.encode() * 3),
    "envelope": json_answer({"status": "no", "reason": f"{CANARY}!"}),
    "parse": Answer(200, f"<{CANARY}>".encode()),
    "no transaction": json_answer({"status": "ok", "you_sent": CANARY}),
    "redirect": Answer(302, headers={"location": f"https://evil.example/?k={CANARY}"}),
    "redirect host": Answer(302, headers={"location": f"https://{CANARY}.evil.example/"}),
    "garbage": Answer(raw=f"{CANARY} garbage\r\n\r\n".encode()),
    "broken body": Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n" + CANARY.encode()),
    "bad chunk": Answer(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + CANARY.encode() + b"\r\n"),
    "silent": Answer(hold=threading.Event()),
}


@pytest.mark.parametrize("name", _BAD_ANSWERS)
def test_the_key_is_in_no_text_of_any_failure(name: str, caplog: pytest.LogCaptureFixture):
    """Not in the error, its fields, its repr, and in no log, ours or urllib3's, even when the server repeats it."""
    caplog.set_level(logging.DEBUG)
    limit_s = 0.2 if name == "silent" else 30.0
    options = ExitApiClientOptions(attempt_timeout_s=limit_s, retry_policy=RetryPolicy(1))
    with HttpServer(_BAD_ANSWERS[name]) as server, client_to(server, options) as client:
        with pytest.raises(ExitApiError) as caught:
            client.build_sell_tx(sale())
        assert server.requests[0].headers["x-api-key"] == CANARY
        shown = repr(client) + repr(vars(caught.value))
    texts = (str(caught.value), repr(caught.value), shown, caplog.text)
    assert all(CANARY not in text for text in texts)
    assert "urllib3" in caplog.text
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda client: client.register_wallet(PROOF), id="register"),
        pytest.param(lambda client: client.remove_wallet(WALLET), id="remove"),
        pytest.param(lambda client: client.account(), id="account"),
        pytest.param(lambda client: client.healthz(), id="healthz"),
        pytest.param(lambda client: client.warm(), id="warm"),
    ],
)
@pytest.mark.parametrize("name", ["refused", "envelope", "parse", "redirect", "not a yes"])
def test_the_key_is_in_no_text_of_the_other_calls_either(
    call: Callable[[ExitApiClient], object], name: str, caplog: pytest.LogCaptureFixture
):
    """Whatever the server repeats."""
    caplog.set_level(logging.DEBUG)
    answer = {**_BAD_ANSWERS, "not a yes": json_answer({"you_sent": CANARY, "tier": CANARY})}[name]
    options = attrs.evolve(PATIENT, retry_policy=RetryPolicy(1))
    text = ""
    with HttpServer(answer) as server, client_to(server, options) as client:
        try:
            call(client)
        except ExitApiError as error:
            text = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
        assert len(server.requests) == 1
    assert CANARY not in text
    assert CANARY not in caplog.text


def test_errors_survive_pickling():
    """A worker process can hand them back."""
    error = failure(json_answer({"error": "no", "status": "unsupported"}, 404), requests=1)
    copy = pickle.loads(pickle.dumps(error))
    assert vars(copy) == vars(error)
    assert (copy.kind, copy.status, copy.detail, copy.body_status) == ("http_status", 404, "no", "unsupported")


def test_a_proof_of_another_shape_is_not_needed():
    """WalletProof is a plain value: one made elsewhere, in an HSM say, is as good."""
    with HttpServer(json_answer({"wallet_pubkey": "W", "registered": True})) as server, client_to(server) as client:
        client.register_wallet(WalletProof("W", "S", "M"))
    assert server.requests[0].json == {"wallet_pubkey": "W", "signature": "S", "message": "M"}
