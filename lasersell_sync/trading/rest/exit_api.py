"""The REST API ("Exit API"): unsigned transactions, wallets, and what the key may do (docs/protocol.md 7)."""

from __future__ import annotations

import json
import math
import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from lasersell_sync.exceptions import (
    ConcurrencyError,
    ConfigurationError,
    ExitApiAuthenticationError,
    ExitApiError,
)
from lasersell_sync.network import tls
from lasersell_sync.network.endpoints import require_api_key
from lasersell_sync.network.http_endpoint import Endpoint, parse_endpoint, route_to
from lasersell_sync.network.http_framing import HttpAnswer, HttpFailure
from lasersell_sync.network.proxy import Proxy, to_proxy
from lasersell_sync.pubkeys import require_pubkey
from lasersell_sync.retry import RetryPolicy
from lasersell_sync.runtime import log as _log
from lasersell_sync.runtime.fork_guard import refuse_late_patching
from lasersell_sync.runtime.locks import signal_safe_lock
from lasersell_sync.runtime.timeouts import bounded_s
from lasersell_sync.trading.rest.account import Account, HistoryPage, history_pages
from lasersell_sync.trading.rest.request_shares import LOOK_UPS, REQUESTS, RequestShares, shares_of
from lasersell_sync.trading.rest.tx_requests import BuildBuyTxRequest, BuildSellTxRequest, BuildTxResponse, SellOutput
from lasersell_sync.trading.solana.signing import WalletProof

if TYPE_CHECKING:
    from typing_extensions import Self

    # urllib3 is most of the import time of this package; a program that only reads the stream never needs it, so the
    # first client that sends something loads it.
    from lasersell_sync.network.http_pool import HttpPool

__all__ = [
    "EXIT_API_BASE_URL",
    "LOCAL_EXIT_API_BASE_URL",
    "ExitApiClient",
    "ExitApiClientOptions",
]

log = _log.logger("trading")

EXIT_API_BASE_URL: Final = "https://api.lasersell.io"
LOCAL_EXIT_API_BASE_URL: Final = "http://localhost:8080"

_SELL = "/v1/sell"
_BUY = "/v1/buy"
#: Between two machines that keep time; a ``Date`` has whole seconds.
_CLOCKS_AGREE_S = 10.0
_REGISTER = "/v1/wallets/register"
_WALLETS = "/v1/wallets"
_ACCOUNT = "/v1/account"
_HEALTH = "/healthz"
_UNAUTHORIZED = 401
_TOO_MANY = 429
#: A health check tells what is now.
_ONCE = RetryPolicy(max_attempts=1)


def _not_indexed_policy() -> RetryPolicy:
    """Four looks in a little under two seconds: docs/protocol.md 7 says "after a short wait" and gives no number."""
    return RetryPolicy(max_attempts=4, initial_backoff_ms=250, max_backoff_ms=1_000, jitter_ms=50)


def _positive_seconds(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(attribute.name, "a positive, finite number of seconds is needed")


def _verifying(_: object, attribute: attrs.Attribute[Any], value: ssl.SSLContext | None) -> None:
    tls.require_verifying(attribute.name, value)


def _readable_ca_file(instance: ExitApiClientOptions, attribute: attrs.Attribute[Any], value: object) -> None:
    tls.require_ca_file(attribute.name, value, beside=instance.ssl_context)


@attrs.frozen(kw_only=True)
class ExitApiClientOptions:
    """Time limits, retries and network of an ``ExitApiClient``; the defaults are those of the official clients.

    Args:
        connect_timeout_s: seconds for each of: TCP to one address, the TLS handshake, sending the request.
        attempt_timeout_s: seconds for one attempt, from its start to the last byte of the answer; the look-up of the
            host's name is not bounded by it.
        retry_policy: attempts and pauses; what is retried is docs/protocol.md 7's table.
        not_indexed_policy: the same for a mint that the service has not seen yet (404 ``not_indexed``: a token of a
            second ago), which takes longer than a hiccup; default: 4 attempts, 250, 500 and 1 000 ms apart.
            ``RetryPolicy(max_attempts=1)`` tells it at once.
        allow_insecure: ``http://`` to other machines, which shows the API key to everyone on the way.
        ssl_context: None for the system's trust store (certifi's where the system has none). Verification cannot be
            switched off.
        ca_file: PEM file with the only authorities to trust, in place of the system's.
        proxy: ``http://``, ``socks5://`` (names are looked up here) or ``socks5h://`` (by the proxy), with
            ``user:password@`` if need be. SOCKS needs the extra ``proxy``. What the proxy needs to reach the server is
            part of ``attempt_timeout_s``: a distant one may need more of it.
        trust_env: without ``proxy``, use that of HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.

    Raises:
        ConfigurationError: a value out of range; names the field.
        ImportError: a SOCKS proxy without the extra ``proxy``.

    Threads: immutable, any.
    """

    connect_timeout_s: float = attrs.field(default=0.2, converter=bounded_s, validator=_positive_seconds)
    attempt_timeout_s: float = attrs.field(default=0.9, converter=bounded_s, validator=_positive_seconds)
    retry_policy: RetryPolicy = attrs.field(factory=RetryPolicy)
    not_indexed_policy: RetryPolicy = attrs.field(factory=_not_indexed_policy)
    allow_insecure: bool = False
    ssl_context: ssl.SSLContext | None = attrs.field(default=None, validator=_verifying)
    ca_file: str | None = attrs.field(default=None, validator=_readable_ca_file)
    proxy: Proxy | None = attrs.field(default=None, converter=to_proxy)
    trust_env: bool = False


class SellablePosition(Protocol):
    """What ``build_partial_sell_tx`` needs of a position; every ``PositionHandle`` is one."""

    @property
    def mint(self) -> str:
        """The token's mint, base58."""

    @property
    def wallet_pubkey(self) -> str:
        """The wallet that holds it, base58."""


# ── the client ───────────────────────────────────────────────────────────────────────────────────────────────────


class ExitApiClient:
    """Builds unsigned transactions, registers and removes wallets, tells what the key may do.

    Connections are kept and reused; call ``warm()`` shortly before the first trade, and ``close()`` at the end (or use
    it as a context manager). No request changes anything on the chain and each may be repeated, so all are retried.

    Args:
        api_key: sent as ``x-api-key`` and shown nowhere; None sends none.
        options: time limits and retries.

    Raises:
        ConcurrencyError: gevent or eventlet came too late.
        ConfigurationError: a key that cannot stand in a header.

    Threads: requests and ``close()`` from any, at once; ``with_…`` before the client is shared.
    """

    def __init__(self, api_key: str | None = None, options: ExitApiClientOptions | None = None) -> None:
        refuse_late_patching()
        self._api_key = None if api_key is None else require_api_key(api_key)
        self._options = options if options is not None else ExitApiClientOptions()
        self._local = False
        self._chosen: Endpoint | None = None
        #: Guards ``_pool`` and ``_closed``.
        self._lock = signal_safe_lock()
        self._pool: HttpPool | None = None
        self._shares: RequestShares | None = None
        self._closed = False

    # ── making one ──

    @classmethod
    def with_api_key(cls, api_key: str) -> ExitApiClient:
        """A client with default options."""
        return cls(api_key)

    @classmethod
    def with_options(cls, api_key: str | None, options: ExitApiClientOptions) -> ExitApiClient:
        """A client with these options."""
        return cls(api_key, options)

    @classmethod
    def connect(
        cls, api_key: str, proofs: Iterable[WalletProof], options: ExitApiClientOptions | None = None
    ) -> ExitApiClient:
        """A client whose wallets are registered.

        Raises:
            ConfigurationError: a key or proof that cannot work.
            ExitApiError: a registration failed; the client is closed.
        """
        client = cls(api_key, options)
        try:
            for proof in proofs:
                client.register_wallet(proof)
        except BaseException:
            client.close()
            raise
        return client

    @classmethod
    def from_env(cls, options: ExitApiClientOptions | None = None) -> ExitApiClient:
        """A client from ``LASERSELL_API_KEY`` and, when set, ``LASERSELL_API_URL``.

        Raises:
            ConfigurationError: no key, or a key or URL that cannot work.
        """
        client = cls(os.environ.get("LASERSELL_API_KEY", ""), options)
        url = os.environ.get("LASERSELL_API_URL")
        return client._use("LASERSELL_API_URL", url) if url else client

    def with_local_mode(self, local: bool) -> ExitApiClient:  # noqa: FBT001 - the official signature
        """Uses ``LOCAL_EXIT_API_BASE_URL`` (or, with False, production again), unless a base URL is set."""
        self._local = local
        self._drop_pool()
        return self

    def with_base_url(self, url: str) -> ExitApiClient:
        """Uses this URL in place of the production one; a path in it goes before the API's own paths.

        Raises:
            ConfigurationError: not an ``https://`` URL (``http://`` works to this machine, or with
                ``allow_insecure``), or one with a query. Names the problem, not the URL.
        """
        return self._use("base_url", url)

    # ── requests ──

    def build_sell_tx(self, request: BuildSellTxRequest) -> BuildTxResponse:
        """Builds an unsigned sale.

        Raises:
            ExitApiError: ``transport``, ``http_status``, ``envelope_status`` or ``parse``, after the retries. For a
                refused key (401) it is an ``AuthenticationError``, too.
            ConcurrencyError: the client is closed.
        """
        return _built(*self._post(_SELL, request.to_payload()))

    def build_sell_tx_b64(self, request: BuildSellTxRequest) -> str:
        """Like ``build_sell_tx``: the transaction's base64 alone."""
        return self.build_sell_tx(request).tx

    def build_partial_sell_tx(
        self,
        handle: SellablePosition,
        amount_tokens: int,
        slippage_bps: int,
        output: SellOutput | str = SellOutput.SOL,
    ) -> BuildTxResponse:
        """Builds an unsigned sale of a part of a position.

        Args:
            handle: the position (``PositionHandle``).
            amount_tokens: the token's atomic units, at least 1: a 0 would sell everything (``build_sell_tx`` does).
            slippage_bps: basis points, 0 to 10 000.
            output: what to be paid in.

        Raises:
            ConfigurationError: a value out of range.
            ExitApiError: as ``build_sell_tx``.
        """
        if amount_tokens == 0:
            raise ConfigurationError(
                "amount_tokens", "0 means the whole balance to the server: use build_sell_tx to sell everything"
            )
        return self.build_sell_tx(
            BuildSellTxRequest(handle.mint, handle.wallet_pubkey, amount_tokens, output, slippage_bps)
        )

    def build_buy_tx(self, request: BuildBuyTxRequest) -> BuildTxResponse:
        """Builds an unsigned purchase.

        Connect and configure the stream before sending it: the stream sees a position by watching its tokens arrive
        (docs/protocol.md 2.10).

        Raises:
            ExitApiError: as ``build_sell_tx``.
            ConcurrencyError: the client is closed.
        """
        return _built(*self._post(_BUY, request.to_payload()))

    def register_wallet(self, proof: WalletProof, label: str | None = None) -> None:
        """Registers a wallet for this key; needed once before a stream may name it, and harmless when repeated.

        Args:
            proof: from ``prove_ownership``, at most five minutes old.
            label: a name of your own for the wallet.

        Raises:
            ConfigurationError: not a proof, or an empty label.
            ExitApiError: as ``build_sell_tx``; ``parse`` also when the answer does not say that it is registered.
        """
        if not isinstance(proof, WalletProof):
            raise ConfigurationError("proof", f"a WalletProof is needed, not {type(proof).__name__}")
        if label is not None and (not isinstance(label, str) or not label):
            raise ConfigurationError("label", "a non-empty str, or None, is needed")
        payload: dict[str, object] = attrs.asdict(proof)
        if label is not None:
            payload["label"] = label
        try:
            answer, snippet = self._post(_REGISTER, payload)
        except ExitApiError as error:
            if "expired" in error.detail.lower():
                error.detail += f" ({_clock_remedy(error.clock_offset_s)})"
            raise
        _require_done("registered", proof.wallet_pubkey, answer, snippet)

    def remove_wallet(self, wallet_pubkey: str) -> None:
        """Takes a wallet off this key: a stream may not name it any more until it is registered again.

        Args:
            wallet_pubkey: base58.

        Raises:
            ConfigurationError: not a public key.
            ExitApiError: as ``build_sell_tx``; ``parse`` also when the answer does not say that it is removed.
            ConcurrencyError: the client is closed.
        """
        wallet = require_pubkey("wallet_pubkey", wallet_pubkey)
        _require_done("removed", wallet, *self._ask("DELETE", _WALLETS, {"wallet_pubkey": wallet}))

    def account(self) -> Account:
        """The tier of this API key and what it allows.

        Raises:
            ExitApiError: as ``build_sell_tx``; ``parse`` when a field is missing or of another kind; 429 as for
                ``history``.
            ConcurrencyError: the client is closed.
        """
        answer, snippet = self._ask("GET", _ACCOUNT)
        try:
            return Account.from_answer(answer)
        except ValueError as error:
            raise ExitApiError("parse", f"the answer tells no account: {error}", body=snippet) from None

    def history(
        self, *, mint: str | None = None, wallet: str | None = None, page_size: int = 50
    ) -> Iterator[HistoryPage]:
        """Pages of this key's trades, newest first; each page is requested when the iteration reaches it.

        The history is how a client learns which positions closed while it was away, and for how much::

            for page in api.history(wallet=signer.wallet):
                for trade in page:
                    print(trade.mint, trade.exit_reason, trade.profit_quote_units)

        Args:
            mint: base58; None for every token.
            wallet: base58; None for every wallet.
            page_size: trades in one request, 1 to 200. The service allows 60 requests a minute; ``history`` and
                ``account`` take 15 of them at the most, counted for this key in this process. A page beyond that waits
                for up to ``retry_policy.max_retry_after_s``, or raises.

        Raises:
            ConfigurationError: a value out of range; raised by this call.
            ExitApiError: as ``build_sell_tx``, raised by the iteration; ``parse`` when the answer is no history;
                ``http_status`` 429 with ``retry_after_s`` when the share of a minute is used up: nothing was sent.
            ConcurrencyError: the client is closed.

        Threads: any; one iterator belongs to one thread at a time.
        """
        return history_pages(lambda path: self._ask("GET", path), mint=mint, wallet=wallet, page_size=page_size)

    def healthz(self) -> None:
        """Returns when the service says that it is well; one attempt, and no key is sent.

        Raises:
            ExitApiError: it is not well (``http_status``, ``envelope_status``), or cannot be asked.
            ConcurrencyError: the client is closed.
        """
        answer, snippet = self._ask("GET", _HEALTH, with_key=False, retry_policy=_ONCE)
        if answer.get("status") is None:
            raise ExitApiError("parse", "the answer does not say that the service is well", body=snippet)

    # ── life ──

    def warm(self) -> None:
        """Opens a connection, so that the first request does not wait for TCP and TLS; sends no key.

        A server closes idle connections after some time: warm shortly before use.

        Raises:
            ExitApiError: ``transport``: the server cannot be reached.
            ConcurrencyError: the client is closed.
        """
        pool, endpoint = self._ready()
        try:
            pool.warm(_path(endpoint, _HEALTH))
        except HttpFailure as failure:
            raise self._failed(failure) from failure.__cause__

    def close(self) -> None:
        """Closes idle connections now and busy ones after their answer. Idempotent."""
        with self._lock:
            self._closed = True
        self._drop_pool()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        key = "no API key" if self._api_key is None else "an API key"
        return f"<ExitApiClient {self._endpoint().shown} with {key}>"

    # ── inside ──

    def _use(self, field: str, url: str) -> ExitApiClient:
        endpoint = parse_endpoint(field, url, allow_insecure=self._options.allow_insecure)
        if "?" in endpoint.target:
            raise ConfigurationError(field, "a base URL has no query (?…): the API's own paths are appended to it")
        self._chosen = endpoint
        self._drop_pool()
        return self

    def _endpoint(self) -> Endpoint:
        if self._chosen is not None:
            return self._chosen
        return parse_endpoint("base_url", LOCAL_EXIT_API_BASE_URL if self._local else EXIT_API_BASE_URL)

    def _ready(self) -> tuple[HttpPool, Endpoint]:
        from lasersell_sync.network.http_pool import HttpPool

        endpoint = self._endpoint()
        with self._lock:
            if self._closed:
                raise ConcurrencyError("this ExitApiClient is closed: make a new one")
            if self._pool is None:
                options = self._options
                self._pool = HttpPool(
                    endpoint,
                    connect_timeout_s=options.connect_timeout_s,
                    attempt_timeout_s=options.attempt_timeout_s,
                    route=route_to(endpoint, proxy=options.proxy, trust_env=options.trust_env, ca_file=options.ca_file),
                    ssl_context=options.ssl_context,
                )
            return self._pool, endpoint

    def _drop_pool(self) -> None:
        with self._lock:
            pool, self._pool, self._shares = self._pool, None, None
        if pool is not None:
            pool.close()

    def _post(self, path: str, payload: Mapping[str, object]) -> tuple[dict[str, Any], str]:
        return self._ask("POST", path, payload)

    def _ask(
        self,
        method: str,
        path: str,
        payload: Mapping[str, object] | None = None,
        *,
        with_key: bool = True,
        retry_policy: RetryPolicy | None = None,
    ) -> tuple[dict[str, Any], str]:
        """The answer's object, with ``status`` ok or absent, and the answer's first characters for errors."""
        pool, endpoint = self._ready()
        body, headers = None, {"accept": "application/json"}
        if payload is not None:
            body = json.dumps(payload, separators=(",", ":"), allow_nan=False).encode()
            headers["content-type"] = "application/json"
        if with_key and self._api_key is not None:
            headers["x-api-key"] = self._api_key

        shares = self._shares_at(endpoint)

        def attempt() -> tuple[dict[str, Any], str]:
            self._take_share(shares, is_look_up=with_key and method == "GET")
            try:
                answer = pool.request(
                    method, _path(endpoint, path), headers=headers, body=body, is_expected=_is_of_the_api
                )
            except HttpFailure as failure:
                raise self._failed(failure) from failure.__cause__
            return self._understood(answer)

        once_indexed, policy = self._options.not_indexed_policy, retry_policy or self._options.retry_policy
        return once_indexed.call(lambda: policy.call(attempt, _is_passing), _is_not_indexed)

    def _shares_at(self, endpoint: Endpoint) -> RequestShares:
        with self._lock:
            if self._shares is None:
                self._shares = shares_of(endpoint.origin, self._api_key)
            return self._shares

    @staticmethod
    def _take_share(shares: RequestShares, *, is_look_up: bool) -> None:
        """Count a request. Raises ExitApiError for a look-up that is over its share; the retry policy may wait."""
        if not is_look_up:
            shares.count()
        elif wait_s := shares.wait_for_look_up_s():
            problem = (
                f"not sent: history and account have {LOOK_UPS} of the key's {REQUESTS} requests a minute, so that "
                f"sales can be built. Ask again in {wait_s:.0f} s, or for larger pages"
            )
            log.warning("%s", problem)
            raise ExitApiError("http_status", problem, status=_TOO_MANY, retry_after_s=wait_s)

    def _failed(self, failure: HttpFailure) -> ExitApiError:
        kind = {"redirect": "http_status", "oversize": "parse"}.get(failure.stage, "transport")
        return ExitApiError(kind, _log.scrub(failure.problem, self._api_key), status=failure.status)

    def _understood(self, answer: HttpAnswer) -> tuple[dict[str, Any], str]:
        # A server may quote the request that it did not like.
        snippet = _log.shorten(_log.scrub(answer.text, self._api_key))
        parsed = _json_object(answer.body)
        if not 200 <= answer.status < 300:
            detail = _first_text(parsed, ("error", "message", "reason"))
            cls = ExitApiAuthenticationError if answer.status == _UNAUTHORIZED else ExitApiError
            raise cls(
                "http_status",
                self._shown(detail) or snippet or "no words from the server",
                status=answer.status,
                body=snippet,
                body_status=self._shown(_first_text(parsed, ("status",))) or None,
                retry_after_s=answer.retry_after_s,
                clock_offset_s=answer.clock_offset_s,
            )
        return _require_ok(parsed, snippet, answer.status, self._shown), snippet

    def _shown(self, text: str | None) -> str:
        return "" if text is None else _log.shorten(_log.scrub(text, self._api_key), 1000)


def _is_passing(error: Exception) -> bool:
    """A hiccup of server or network; a mint that is not indexed needs longer pauses."""
    return isinstance(error, ExitApiError) and error.is_retryable() and not error.is_not_indexed()


def _is_not_indexed(error: Exception) -> bool:
    return isinstance(error, ExitApiError) and error.is_not_indexed()


def _clock_remedy(offset_s: float | None) -> str:
    """What to do about a proof that the server calls expired."""
    if offset_s is None:
        return "the server's clock decides: set this machine's clock, and make the proof anew"
    if abs(offset_s) < _CLOCKS_AGREE_S:
        return "this machine's clock agrees with the server's: make the proof anew, it is good for five minutes"
    way = "ahead of" if offset_s > 0 else "behind"
    return f"this machine's clock is {abs(offset_s):.0f} s {way} the server's: set it, and make the proof anew"


def _is_of_the_api(answer: HttpAnswer) -> bool:
    """A success that is no JSON object comes from something else on the way: its connection is not used again."""
    return not 200 <= answer.status < 300 or _json_object(answer.body) is not None


def _path(endpoint: Endpoint, path: str) -> str:
    return endpoint.target.rstrip("/") + path


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _first_text(parsed: Mapping[str, Any] | None, names: tuple[str, ...]) -> str | None:
    if parsed is None:
        return None
    return next((parsed[name] for name in names if isinstance(parsed.get(name), str)), None)


def _require_ok(
    parsed: dict[str, Any] | None, snippet: str, http_status: int | None, shown: Callable[[str | None], str]
) -> dict[str, Any]:
    """The answer's object, if its own ``status`` is "ok" or absent."""
    if parsed is None:
        raise ExitApiError("parse", "the answer is not a JSON object", status=http_status, body=snippet)
    status = parsed.get("status")
    if status is not None and not (isinstance(status, str) and status.lower() == "ok"):
        raise ExitApiError(
            "envelope_status",
            shown(_first_text(parsed, ("reason", "message", "error"))) or snippet,
            status=http_status,
            body=snippet,
            body_status=shown(_first_text(parsed, ("status",))) or None,
        )
    return parsed


def parse_built(body: bytes) -> BuildTxResponse:
    """The transaction in an answer of ``/v1/sell`` or ``/v1/buy``.

    Raises:
        ExitApiError: ``envelope_status`` or ``parse``.
    """
    snippet = _log.shorten(body.decode("utf-8", "replace"))
    return _built(_require_ok(_json_object(body), snippet, None, lambda text: _log.shorten(text or "", 1000)), snippet)


def summarize_error_body(body: str) -> str:
    """What an error's body says: its ``error``, ``message`` or ``reason``, else its beginning. Threads: any."""
    return _first_text(_json_object(body.encode()), ("error", "message", "reason")) or _log.shorten(body)


def _require_done(what: str, wallet_pubkey: str, answer: Mapping[str, Any], snippet: str) -> None:
    if answer.get(what) is not True or answer.get("wallet_pubkey", wallet_pubkey) != wallet_pubkey:
        raise ExitApiError("parse", f"the answer does not say that the wallet is {what}", body=snippet)


def _built(answer: Mapping[str, Any], snippet: str) -> BuildTxResponse:
    found = {answer[name] for name in ("tx", "unsigned_tx_b64") if isinstance(answer.get(name), str) and answer[name]}
    if not found:
        raise ExitApiError("parse", "the answer holds no transaction (tx or unsigned_tx_b64)", body=snippet)
    if len(found) > 1:
        raise ExitApiError("parse", "the answer holds two different transactions (tx and unsigned_tx_b64)")
    return BuildTxResponse(found.pop(), answer.get("route"), answer.get("debug"))
