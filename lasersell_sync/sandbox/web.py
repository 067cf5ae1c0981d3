"""The web page: the exchange, live in a browser, with buttons for the faults.

Static files, one stream of server-sent events, and a way through to the control API. No build step, nothing fetched
from anywhere else, and nothing that other websites could reach: requests must name this server as their host, and a
fault must be ordered as JSON, which a foreign page may not send.
"""

from __future__ import annotations

import ipaddress
import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from importlib import resources
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Request, Response

from lasersell_sync.sandbox.exchange.exchange import Exchange
from lasersell_sync.sandbox.exchange.position_book import PositionRecord
from lasersell_sync.sandbox.exchange.sessions import Frame, SessionRecord
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.pools import market_cap_lamports, price_lamports
from lasersell_sync.sandbox.sandbox import Sandbox
from lasersell_sync.sandbox.servers.control_server import CONTROL_PREFIX
from lasersell_sync.sandbox.servers.http_server import HttpService, json_response
from lasersell_sync.sandbox.servers.sockets import Startable, listen, url_of

if TYPE_CHECKING:
    from typing_extensions import Self

_FILES = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
#: At most ten pictures a second and page: eyes see no more.
MIN_INTERVAL_S = 0.1
#: A quiet exchange says so this often; that is also how soon a page that was closed is noticed.
HEARTBEAT_S = 5.0
#: How soon a page that has lost us looks for us again.
RETRY_MS = 1000
#: Each page that is open holds one worker of the HTTP server.
MAX_PAGES = 4


class WebPage(Startable):
    """Serves the page of one sandbox.

    Use as a context manager, or ``start`` and ``stop``. Signals are shown from the moment it is made.

    Args:
        sandbox: What is shown.
        port: HTTP port; 0 picks a free one.
        host: An IP address to listen on; None means loopback only.

    Threads: those of ``HttpService``, named ``lasersell-sandbox-web``. Every method may be called from any thread.
    """

    def __init__(self, sandbox: Sandbox, *, port: int = 8083, host: str | None = None) -> None:
        self._exchange = sandbox._exchange
        # The page has no key to send: what is asked of every request here stands in for it.
        self._control = sandbox._control_server(lambda _key: True)
        self._address = (port, host)
        self._signals = SignalLog()
        self._exchange.observers.append(self._signals.observe)
        self._stopping = threading.Event()
        # A page takes one, and gives it back when it is closed.
        self._free_pages = threading.BoundedSemaphore(MAX_PAGES)
        self._service: HttpService | None = None
        self._url: str | None = None

    def start(self) -> Self:
        """Open the port and serve. Raises OSError for a port that is taken."""
        sockets = listen("web", *self._address)
        self._url = url_of("http", sockets) + "/"
        self._service = HttpService("lasersell-sandbox-web", sockets, self.answer)
        self._service.start()
        return self

    def stop(self) -> None:
        """Close every page's connection and join the threads; again is fine, and without ``start``."""
        self._stopping.set()
        self._exchange.wake()
        if self._service is not None:
            self._service.stop()
            self._service = None

    @property
    def url(self) -> str:
        """Where to point a browser; after ``start``."""
        if self._url is None:
            raise RuntimeError("url is known once the web page is started")
        return self._url

    # -- requests

    def answer(self, request: Request) -> Response:
        """The page, its events, or the control API's answer."""
        if not self._is_our_name(request.host):
            return json_response({"error": f"this server is not {request.host}"}, HTTPStatus.FORBIDDEN)
        if request.path.startswith(CONTROL_PREFIX):
            return self._pass_on(request)
        if request.method not in ("GET", "HEAD"):
            return json_response({"error": "only GET here"}, HTTPStatus.METHOD_NOT_ALLOWED)
        if request.path == "/events":
            return self._events()
        if request.path in _FILES:
            name, mimetype = _FILES[request.path]
            text = (resources.files("lasersell_sync.sandbox") / "web" / name).read_bytes()
            return Response(text, mimetype=mimetype, headers=_HEADERS)
        return json_response({"error": "not found"}, HTTPStatus.NOT_FOUND)

    def _is_our_name(self, host: str) -> bool:
        """Whether a Host header means us: a foreign name that leads here belongs to a page that must not see us."""
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name.lower() == "localhost"
        # Who listens on other addresses was asked to; an address in the header is no name that could be bent.
        return address.is_loopback or self._address[1] is not None

    def _pass_on(self, request: Request) -> Response:
        if request.method == "POST" and request.mimetype != "application/json":
            # A foreign page may post a form here, but JSON only with our leave, which it does not get.
            return json_response({"error": "send application/json"}, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        return self._control(request)

    # -- events

    def _events(self) -> Response:
        if not self._free_pages.acquire(blocking=False):
            problem = f"{MAX_PAGES} pages are open already; close one"
            return json_response({"error": problem}, HTTPStatus.SERVICE_UNAVAILABLE)
        response = Response(self._pictures(), mimetype="text/event-stream", headers=_HEADERS)
        response.call_on_close(self._free_pages.release)
        return response

    def _pictures(self) -> Iterator[bytes]:
        """A picture now, and one whenever something has changed."""
        last = ""
        while not self._stopping.is_set():
            news = self._exchange.wait_for(partial(self._news, last), HEARTBEAT_S)
            if news is None:
                yield b": nothing new\n\n"
                continue
            last, took_s = news
            yield f"retry: {RETRY_MS}\nevent: picture\ndata: {last}\n\n".encode()
            # The exchange stood still meanwhile: a page may cost it a tenth of its time, no more.
            self._stopping.wait(max(MIN_INTERVAL_S, 9 * took_s))

    def _news(self, last: str) -> tuple[str, float] | None:
        """The picture as JSON, and the seconds it took; None if it is the last one and the server goes on."""
        started_s = time.monotonic()
        text = json.dumps(picture(self._exchange, self._signals), separators=(",", ":"))
        took_s = time.monotonic() - started_s
        return (text, took_s) if text != last or self._stopping.is_set() else None


#: Rows of one table; the newest are shown.
ROWS = 100
SIGNALS = ("exit_signal_with_tx", "mirror_buy_signal", "mirror_buy_failed", "mirror_wallet_auto_disabled")
View = dict[str, Any]


class SignalLog:
    """The newest signals that sessions were sent.

    Threads: ``observe`` under the exchange's lock, as every listener; ``rows`` too.
    """

    def __init__(self) -> None:
        self._signals: deque[View] = deque(maxlen=ROWS)
        self.count = 0

    def observe(self, frame: Frame) -> None:
        """Keep a signal; everything else is let pass."""
        if isinstance(frame, bytes) or not any(f'"{kind}"' in frame for kind in SIGNALS):
            return
        try:
            message = json.loads(frame)
        except ValueError:
            return  # a damaged frame, sent on purpose
        if isinstance(message, dict) and message.get("type") in SIGNALS:
            self.count += 1
            self._signals.append({"number": self.count, **_signal(message)})

    def rows(self) -> list[View]:
        """Newest first."""
        return list(reversed(self._signals))


def _signal(message: View) -> View:
    wallet = message.get("wallet_pubkey") or message.get("user_wallet") or message.get("watched_wallet")
    return {
        "type": message["type"],
        "session": message.get("session_id"),
        "position": message.get("position_id"),
        "wallet": wallet,
        "mint": message.get("mint"),
        "reason": message.get("reason", ""),
        "profit": message.get("profit_units"),
    }


def picture(exchange: Exchange, signals: SignalLog) -> View:
    """Everything the page shows, newest first, each table cut at ``ROWS``. Under the exchange's lock: be quick."""
    with exchange.request():
        slot = exchange.slots.slot()
    open_positions, positions = exchange.positions.book.newest(ROWS)
    transactions = exchange.chain.records()
    sessions = exchange.sessions.records(include_closed=True)
    listings = {str(mint): listing for mint, listing in exchange.market.listings.items()}
    symbols = {mint: listing.symbol for mint, listing in listings.items()}
    return {
        "slot": slot,
        "counts": {
            "positions": open_positions,
            "sessions": sum(record.configured and record.closed_at_ms is None for record in sessions),
            "signals": signals.count,
            "transactions": len(transactions),
        },
        "pools": [_pool(exchange, listing) for listing in listings.values()],
        "positions": [_position(exchange, listings[record.mint], record) for record in positions],
        "sessions": [_session(record) for record in list(reversed(sessions))[:ROWS]],
        "signals": [{**row, "symbol": symbols.get(row["mint"], "")} for row in signals.rows()],
        "transactions": [
            {
                "signature": record.signature,
                "slot": record.slot,
                "error": None if record.err is None else json.dumps(record.err),
                "payer": record.fee_payer,
                "fee": record.fee_lamports,
                "trades": [
                    {"side": swap.side, "tokens": swap.tokens, "symbol": symbols[str(swap.mint)]}
                    for swap in record.swaps
                ],
            }
            for record in list(reversed(transactions))[:ROWS]
        ],
    }


def _pool(exchange: Exchange, listing: Listing) -> View:
    reserves, supply = exchange.market.reserves(listing), exchange.market.supply(listing)
    return {
        "mint": str(listing.mint),
        "symbol": listing.symbol,
        "name": listing.name,
        "market": listing.market_type,
        "price_path": listing.price_path,
        "halted": listing.halted,
        "quote": listing.quote.name,
        "quote_decimals": listing.quote.decimals,
        "price": price_lamports(reserves, listing.decimals),
        "market_cap": market_cap_lamports(reserves, supply),
        "liquidity": reserves.lamports,
    }


def _position(exchange: Exchange, listing: Listing, record: PositionRecord) -> View:
    profit = None
    if record.close_reason is None:
        fee = next(iter(exchange.tiers.values())).routing_fee
        profit = exchange.positions.exits.proceeds(listing, record.tokens, fee) - record.entry_lamports
    return {
        "position": record.position_id,
        "wallet": record.wallet_pubkey,
        "symbol": listing.symbol,
        "tokens": record.tokens,
        "quote_decimals": listing.quote.decimals,
        "entry": record.entry_lamports,
        "profit": profit,
        "signalled": record.exit_reason,
        "closed": record.close_reason,
        "copy_of": record.mirror_source,
    }


def _session(record: SessionRecord) -> View:
    state = "closed" if record.closed_at_ms is not None else "live" if record.configured else "connected"
    return {
        "session": record.session_id,
        "key": record.key_id,
        "state": state,
        "wallets": list(record.wallet_pubkeys),
        "positions": len(record.position_ids),
        "watched": len(record.watch_wallets),
    }
