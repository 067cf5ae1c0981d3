"""The REST service: wallets, account, and unsigned buys and sales (docs/protocol.md 7)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from solders.pubkey import Pubkey
from werkzeug.wrappers import Request, Response

from lasersell_sync.sandbox.chain.addresses import TIP_ACCOUNTS
from lasersell_sync.sandbox.chain.ledger import U64_MAX
from lasersell_sync.sandbox.exchange.api_keys import ProofRejected
from lasersell_sync.sandbox.exchange.exchange import Exchange
from lasersell_sync.sandbox.exchange.orders import Delivery, OrderRejected, OrderTerms, PartnerFee, UnsignedTransaction
from lasersell_sync.sandbox.markets.currencies import CURRENCIES
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.pools import BPS
from lasersell_sync.sandbox.protocol.json_fields import BadField, Fields, decode_object
from lasersell_sync.sandbox.servers.http_server import json_response

SEND_MODES = ("rpc", *TIP_ACCOUNTS)
_HISTORY_PAGE, _MAX_HISTORY_PAGE = 50, 200
_MAX_DIGITS = 20
_MAX_PARTNER_BPS = 50
_MAX_PARTNER_LAMPORTS = 50_000_000
#: Of SOL or USD1: more than anybody has.
_MAX_AMOUNT = 10_000_000


class _Refusal(Exception):
    """The answer to a request that cannot be served."""

    def __init__(self, status: int, body: dict[str, object], *, retry_after_s: int | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.retry_after_s = retry_after_s


def _unsupported(status: int, reason: str, message: str) -> _Refusal:
    return _Refusal(status, {"status": "unsupported", "reason": reason, "message": message})


@dataclass(frozen=True, slots=True)
class _Trade:
    """What buys and sales have in common."""

    listing: Listing
    user: Pubkey
    terms: OrderTerms


class ApiServer:
    """The application; ``HttpService`` gives it its socket.

    Threads: called on the connections' threads; all state is the exchange's.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._routes: dict[str, dict[str, Callable[[str, Request], dict[str, object]]]] = {
            "/v1/buy": {"POST": self._buy},
            "/v1/sell": {"POST": self._sell},
            "/v1/wallets/register": {"POST": self._register},
            "/v1/wallets": {"DELETE": self._remove},
            "/v1/history": {"GET": self._history},
            "/v1/account": {"GET": lambda key_id, _request: self._exchange.tiers[key_id].account_answer()},
        }

    def __call__(self, request: Request) -> Response:
        """Answer one request; never raises for what a client sent."""
        try:
            return json_response(self._answer(request))
        except _Refusal as refusal:
            response = json_response(refusal.body, refusal.status)
            if refusal.retry_after_s is not None:
                response.headers["Retry-After"] = str(refusal.retry_after_s)
            return response
        except (BadField, OrderRejected) as error:
            return json_response({"error": str(error)}, 400)
        except ProofRejected as error:
            return json_response({"error": str(error)}, 403 if error.forged else 400)

    def _answer(self, request: Request) -> dict[str, object]:
        if request.path == "/healthz" and request.method in ("GET", "HEAD"):
            return {"status": "ok"}
        methods = self._routes.get(request.path)
        if methods is None:
            raise _Refusal(404, {"error": "not found"})
        handler = methods.get(request.method)
        if handler is None:
            raise _Refusal(405, {"error": "method not allowed"})
        key_id = self._authenticate(request)
        with self._exchange.lock:
            wait_s = self._exchange.rest_limiter.wait_s(key_id, self._exchange.clock.target_s())
        if wait_s:
            raise _Refusal(429, {"error": "rate limit exceeded"}, retry_after_s=math.ceil(wait_s))
        return handler(key_id, request)

    def _authenticate(self, request: Request) -> str:
        api_key = request.headers.get("x-api-key")
        key_id = self._exchange.keys.match(api_key)
        if key_id is None:
            raise _Refusal(401, {"error": "missing x-api-key" if api_key is None else "invalid api key"})
        return key_id

    # -- wallets

    def _register(self, key_id: str, request: Request) -> dict[str, object]:
        fields = Fields(decode_object(request.get_data()))
        wallet_pubkey = fields.text("wallet_pubkey")
        self._exchange.register_wallet(
            key_id,
            wallet_pubkey=wallet_pubkey,
            signature=fields.text("signature"),
            message=fields.text("message"),
            label=fields.optional_text("label"),
        )
        return {"wallet_pubkey": wallet_pubkey, "registered": True}

    def _remove(self, key_id: str, request: Request) -> dict[str, object]:
        wallet = Fields(decode_object(request.get_data())).pubkey("wallet_pubkey")
        with self._exchange.change():
            self._exchange.keys.remove(key_id, wallet)
        return {"wallet_pubkey": str(wallet), "removed": True}

    # -- past trades

    def _history(self, key_id: str, request: Request) -> dict[str, object]:
        limit = _query_integer(request, "limit", default=_HISTORY_PAGE, most=_MAX_HISTORY_PAGE)
        if not limit:
            raise BadField(f"limit must be from 1 to {_MAX_HISTORY_PAGE}")
        offset = _query_integer(request, "offset", default=0, most=U64_MAX)
        mint, wallet = _query_pubkey(request, "mint"), _query_pubkey(request, "wallet")
        with self._exchange.lock:
            return self._exchange.positions.history.page(key_id, limit=limit, offset=offset, mint=mint, wallet=wallet)

    # -- trades

    def _buy(self, key_id: str, request: Request) -> dict[str, object]:
        fields = Fields(decode_object(request.get_data()))
        trade = self._trade(key_id, fields, currency_field="input")
        budget = _budget(fields, trade.listing.quote.decimals)
        with self._exchange.lock:
            order = self._exchange.orders.buy(trade.listing, trade.user, budget, trade.terms)
        return self._ok(order)

    def _sell(self, key_id: str, request: Request) -> dict[str, object]:
        fields = Fields(decode_object(request.get_data()))
        if fields.has("market_context"):
            fields.child("market_context").text("market_type")
        trade = self._trade(key_id, fields, currency_field="output")
        tokens = fields.integer("amount_tokens")
        with self._exchange.lock:
            order = self._exchange.orders.sell(trade.listing, trade.user, tokens, trade.terms)
        return self._ok(order)

    def _ok(self, order: UnsignedTransaction) -> dict[str, object]:
        route = {"market_type": self._exchange.market.venue(order.listing).route_name, "pool_id": str(order.pool)}
        return {"status": "ok", "tx": order.tx_b64, "route": route}

    def _trade(self, key_id: str, fields: Fields, *, currency_field: str) -> _Trade:
        mint = _mint(fields)
        user = fields.pubkey("user_pubkey")
        slippage_bps = fields.integer("slippage_bps", most=BPS)
        currency = fields.text(currency_field)
        if currency not in CURRENCIES:
            raise BadField(f"{currency_field} must be {' or '.join(CURRENCIES)}")
        fields.optional_text("mode")
        delivery, partner_fee = _delivery(fields), _partner_fee(fields)
        # Looked up last: a malformed request is the caller's fault whatever the mint.
        listing = self._exchange.market.listings.get(mint)
        if listing is None:
            raise _unsupported(404, "no_route", f"no market trades {mint}")
        if currency != listing.quote.name:
            raise _unsupported(422, "no_route", f"{mint} trades against {listing.quote.name} only")
        tier = self._exchange.tiers[key_id]
        if partner_fee is not None and not tier.partner_fees:
            raise _Refusal(403, {"error": "partner fees need tier 2 (Advanced)"})
        if partner_fee is not None and partner_fee.bps is not None and not listing.quote.is_native:
            raise BadField("partner_fee_bps needs a market that trades against SOL; use partner_fee_lamports")
        return _Trade(listing, user, OrderTerms(slippage_bps, delivery, partner_fee, tier.routing_fee))


def _query_integer(request: Request, name: str, *, default: int, most: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS) or int(text) > most:
        raise BadField(f"{name} must be an integer from 0 to {most}")
    return int(text)


def _query_pubkey(request: Request, name: str) -> Pubkey | None:
    text = request.args.get(name)
    return None if text is None else Fields({name: text}).pubkey(name)


def _mint(fields: Fields) -> Pubkey:
    fields.text("mint")
    try:
        return fields.pubkey("mint")
    except BadField as error:
        raise _unsupported(400, "invalid_mint", str(error)) from error


def _budget(fields: Fields, decimals: int) -> int:
    """What to spend, in the quote currency's smallest unit."""
    if fields.has("amount") == fields.has("amount_in_total"):
        raise BadField("exactly one of amount and amount_in_total is needed")
    if fields.has("amount_in_total"):
        budget = fields.integer("amount_in_total")
    else:
        amount = fields.number("amount")
        if not 0 < amount <= _MAX_AMOUNT:
            raise BadField(f"amount must be above 0 and at most {_MAX_AMOUNT}")
        budget = round(amount * 10**decimals)
    if budget == 0:
        raise BadField("amount must be above 0")
    return budget


def _delivery(fields: Fields) -> Delivery:
    send_mode = fields.optional_text("send_mode")
    if send_mode is not None and send_mode not in SEND_MODES:
        raise BadField(f"send_mode must be one of {', '.join(SEND_MODES)}")
    return Delivery(send_mode, fields.optional_integer("tip_lamports"))


def _partner_fee(fields: Fields) -> PartnerFee | None:
    recipient = fields.optional_pubkey("partner_fee_recipient")
    bps = fields.optional_integer("partner_fee_bps", most=_MAX_PARTNER_BPS)
    lamports = fields.optional_integer("partner_fee_lamports", most=_MAX_PARTNER_LAMPORTS)
    if bps is not None and lamports is not None:
        raise BadField("partner_fee_bps and partner_fee_lamports exclude each other")
    if recipient is None:
        if bps is not None or lamports is not None:
            raise BadField("partner_fee_recipient is missing")
        return None
    return PartnerFee(recipient, bps, lamports)
