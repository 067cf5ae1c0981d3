"""The sandbox: a local exchange that speaks the stream, the REST API and Solana JSON-RPC."""

from __future__ import annotations

import ipaddress
import logging
import math
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.ledger import RENT_LAMPORTS_PER_BYTE, U64_MAX
from lasersell_sync.sandbox.chain.transaction_history import TransactionRecord
from lasersell_sync.sandbox.chain.transactions import TRANSACTION_FORMATS
from lasersell_sync.sandbox.exchange.exchange import Exchange, ExchangeSettings, Scheduler
from lasersell_sync.sandbox.exchange.position_book import PositionRecord
from lasersell_sync.sandbox.exchange.sessions import SessionRecord
from lasersell_sync.sandbox.markets.scenario import DEFAULT_SCENARIO, Action, Scenario, load_scenario
from lasersell_sync.sandbox.protocol.policies import Policies
from lasersell_sync.sandbox.protocol.tiers import TIERS
from lasersell_sync.sandbox.router.shapes import SHAPES
from lasersell_sync.sandbox.script import Script
from lasersell_sync.sandbox.servers.control_server import ControlServer, Order, mounted
from lasersell_sync.sandbox.servers.faults import Faults
from lasersell_sync.sandbox.servers.http_server import Application, HttpService
from lasersell_sync.sandbox.servers.rest_server import ApiServer
from lasersell_sync.sandbox.servers.rpc.server import RpcServer
from lasersell_sync.sandbox.servers.sockets import Startable, is_loopback, listen, url_of
from lasersell_sync.sandbox.servers.stream_server import STREAM_PATH, StreamServer

if TYPE_CHECKING:
    from typing_extensions import Self

_log = logging.getLogger("lasersell_sync.sandbox")

T = TypeVar("T")
Address = str | Pubkey

_MAX_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class MintInfo:
    """A token of the sandbox.

    ``price_path`` is ``climb``, ``fall``, ``peak``, ``calm``, or ``scripted`` for phases of its own.
    ``quote`` is what it trades against: ``SOL`` or ``USD1``.
    """

    mint: str
    symbol: str
    name: str
    decimals: int
    market_type: str
    pool: str
    price_path: str
    quote: str = "SOL"


class Sandbox(Startable):
    """A local exchange to trade on with play money: real wire formats, real transactions, no outside world.

    A mint's price path starts when a user's buy lands in it while no user holds it, and depends on nothing but
    ``seed``, the mint and the trades: same seed, same actions, same prices. Without a ``scenario``, ``mints[0]``
    climbs by 40 to 80 % within about ten seconds, and dates are today's. With one, time begins when the first session
    is configured, on the same date every time: same seed and scenario, same messages from clients, same messages to
    them, byte for byte. ``clock="manual"`` makes that independent of how fast clients and machine are.

    Use as a context manager, or ``start`` and ``stop``. Nothing runs before ``start``.

    Args:
        scenario: A shipped scenario's name, the path of a TOML file, or a ``Scenario``; see docs/sandbox.md.
        seed: Chooses mints, pools and price paths.
        api_key: The API key that clients must send.
        api_keys: More keys that are accepted; a mapping gives each its tier.
        tier: 0 (Personal), 1 (Professional), 2 (Advanced) or 3 (Enterprise): the limits and routing fees of
            docs/protocol.md 8, for every key without one.
        stream_port: WebSocket port; 0 picks a free one, here and below.
        api_port: REST port.
        rpc_port: Solana JSON-RPC port.
        rpc_nodes: How many JSON-RPC nodes show the chain, from 1 to 16; those behind the first have free ports
            (``rpc_urls``), and each can lie in its own way (``faults.node``).
        host: An IP address to listen on; None means 127.0.0.1, and ::1 where the machine has it.
        pnl_flush_ms: Interval of ``pnl_update`` per position; virtual time, as all of these.
        landing_delay_ms: Time from ``sendTransaction`` to execution.
        loss_probability: The share of the node's sendings that get lost on the way, from 0 to 1.
        speed: Virtual seconds per real second, 0.01 to 10000: at 600 an hour takes six seconds. A machine that cannot
            keep up slows virtual time down.
        clock: ``"flowing"``, or ``"manual"``: time stands still but for ``advance``.
        start_time_ms: The Unix time at which virtual time begins; None: now, or a scenario's own date.
        session_policy: What a second session on one key meets: ``"refuse"`` (it gets ``session_limit``) or
            ``"replace"`` (the first one is closed); None: as in ``policies``.
        instructions: ``"today"``: trades are written in the instructions of 2026, with more accounts, exact prices and
            second generations, which the seed chooses; ``"classic"``: in those that the markets have always had.
        transaction_format: The format of trades that go to the markets directly: ``"legacy"``, ``"0"``, ``"1"``, or
            ``"drawn"``: the seed chooses for each token. Through the Router the shape's format counts.
        slot_ms: How long a slot takes, from 20 to 10000; virtual time. 200 today, 400 until SIMD-0525.
        rent_lamports_per_byte: What a byte of an account's data costs to be exempt from rent, 128 more bytes each
            account included: 5080 since September 2026, 6960 before.
        router: Trades go through the LaserSell Router, which takes the tier's routing fee; False: to the markets
            directly, and without that fee.
        router_shape: Which of the Router's shapes (0 to 7); None: the seed chooses. See docs/sandbox.md.
        policies: How the service behaves where its documentation is silent; see ``Policies``.
        requests_per_min: REST requests, and stream messages, a key may send in a minute; None: any number.
        initial_lamports: Play money of a wallet when it is first registered.
        initial_usd1_units: The same in USD1, 6 decimals.

    Raises:
        ValueError: An argument makes no sense; the text names it.

    Threads: every method may be called from any thread.
    """

    def __init__(
        self,
        *,
        scenario: str | Path | Scenario = DEFAULT_SCENARIO,
        seed: int = 1,
        api_key: str = "sandbox-key",
        api_keys: Sequence[str] | Mapping[str, int] | None = None,
        tier: int = 2,
        stream_port: int = 8082,
        api_port: int = 8080,
        rpc_port: int = 8899,
        rpc_nodes: int = 1,
        host: str | None = None,
        pnl_flush_ms: int = 100,
        landing_delay_ms: int = 400,
        loss_probability: float = 0.0,
        speed: float = 1.0,
        clock: str = "flowing",
        start_time_ms: int | None = None,
        session_policy: str | None = None,
        instructions: str = "today",
        transaction_format: str = "drawn",
        slot_ms: int = 200,
        rent_lamports_per_byte: int = RENT_LAMPORTS_PER_BYTE,
        router: bool = True,
        router_shape: int | None = None,
        policies: Policies | None = None,
        requests_per_min: int | None = None,
        initial_lamports: int = 10 * 10**9,
        initial_usd1_units: int = 10_000 * 10**6,
    ) -> None:
        _check_integer("seed", seed, least=-U64_MAX, most=U64_MAX)
        if clock not in ("flowing", "manual"):
            raise ValueError(f"clock must be 'flowing' or 'manual', not {clock!r}")
        if start_time_ms is not None:
            _check_integer("start_time_ms", start_time_ms, least=0, most=2**53)
        if requests_per_min is not None:
            _check_integer("requests_per_min", requests_per_min, least=1, most=10**9)
        if instructions not in ("classic", "today"):
            raise ValueError(f"instructions must be 'classic' or 'today', not {instructions!r}")
        _check_format(transaction_format, router=router)
        _check_integer("slot_ms", slot_ms, least=20, most=10_000)
        _check_integer("rent_lamports_per_byte", rent_lamports_per_byte, least=0, most=10**6)
        _check_bool("router", router)
        if router_shape is not None:
            _check_integer("router_shape", router_shape, least=0, most=len(SHAPES) - 1)
        _check_integer("initial_usd1_units", initial_usd1_units, least=0, most=U64_MAX // 10**6)
        ports = {"stream_port": stream_port, "api_port": api_port, "rpc_port": rpc_port}
        for name, port in ports.items():
            _check_integer(name, port, least=0, most=65_535)
        _check_integer("rpc_nodes", rpc_nodes, least=1, most=16)
        _check_host(host)
        _check_integer("pnl_flush_ms", pnl_flush_ms, least=1, most=_MAX_MS)
        _check_integer("landing_delay_ms", landing_delay_ms, least=0, most=_MAX_MS)
        _check_integer("initial_lamports", initial_lamports, least=0, most=U64_MAX)
        self._host = host
        self._ports = ports
        self._api_key = api_key
        settings = ExchangeSettings(
            seed=seed,
            api_keys=_checked_keys(api_key, api_keys),
            pnl_flush_ms=pnl_flush_ms,
            landing_delay_ms=landing_delay_ms,
            loss_probability=_checked_share("loss_probability", loss_probability),
            speed=_checked_speed(speed),
            flowing=clock == "flowing",
            start_ms=start_time_ms,
            scenario=scenario if isinstance(scenario, Scenario) else load_scenario(scenario),
            tiers=_checked_tiers(tier, api_keys),
            policies=_checked_policies(policies, session_policy),
            today=instructions == "today",
            direct_version=TRANSACTION_FORMATS[transaction_format],
            slot_ms=slot_ms,
            rent_lamports_per_byte=rent_lamports_per_byte,
            router=router,
            router_shape=router_shape,
            requests_per_min=requests_per_min,
            initial_lamports=initial_lamports,
            initial_usd1_units=initial_usd1_units,
        )
        self._manual = clock == "manual"
        self._exchange = Exchange(settings)
        self._script = Script(self._exchange)
        # Guards the life cycle: start and stop from two threads at once.
        self._life = threading.Lock()
        self._state = "new"
        self._urls: dict[str, str] = {}
        self._rpc_nodes = rpc_nodes
        self._rpc_urls: list[str] = []
        self._loopback_only = True
        self._stream: StreamServer | None = None
        #: set by `stop`, which must not wait for the end of a restart
        self._stop_asked = threading.Event()
        self._faults = Faults(self._exchange, self._running_stream, self._restart_stream, nodes=rpc_nodes)
        self._services: list[HttpService] = []
        self._scheduler: Scheduler | None = None

    def __repr__(self) -> str:
        return f"<Sandbox {self._state}{''.join(f' {name}={url}' for name, url in self._urls.items())}>"

    # -- life cycle

    def start(self) -> Self:
        """Open the three ports and start the market.

        Raises:
            OSError: A port is taken; the text names port and service. Nothing is left open.
            RuntimeError: It runs already, or has been stopped (a stopped sandbox stays stopped).
        """
        with self._life:
            if self._state != "new":
                raise RuntimeError(f"this sandbox is {self._state}; make a new one")
            try:
                self._open()
            except BaseException:
                self._close()
                self._state = "stopped"
                raise
            self._state = "running"
            return self

    def _open(self) -> None:
        sockets = listen("stream", self._ports["stream_port"], self._host)
        self._stream = StreamServer(self._exchange, sockets, self._faults.conditions)
        self._urls["stream_url"] = url_of("ws", sockets) + STREAM_PATH
        api = mounted(
            self._control_server(self._exchange.keys.match), self._faults.disturb("api", ApiServer(self._exchange))
        )
        self._say_who_can_connect(sockets)
        self._urls["api_url"] = self._serve("api", self._ports["api_port"], api)
        for number in range(self._rpc_nodes):
            application = self._faults.disturb("rpc", self._rpc_node(number), node=number)
            self._rpc_urls.append(self._serve("rpc", 0 if number else self._ports["rpc_port"], application))
        self._urls["rpc_url"] = self._rpc_urls[0]
        # Every port is ours before the first thread starts, so a taken port leaves nothing behind.
        self._scheduler = Scheduler(self._exchange)
        self._scheduler.start()
        self._stream.start()
        for running in self._services:
            running.start()

    def _control_server(self, is_key: Callable[[str | None], object]) -> ControlServer:
        """The control API's application, for a server of its own."""
        acts: dict[str, Order] = {
            "skip-slots": self.skip_slots,
            "price": self.set_price_multiplier,
            "exit": self.force_exit,
        }
        return ControlServer(self._faults, acts, is_key)

    def _rpc_node(self, number: int) -> RpcServer:
        faults = self._faults
        return RpcServer(
            self._exchange, lambda method: faults.rpc_error(method, node=number), lambda: faults.node_lies(number)
        )

    def _serve(self, service: str, port: int, application: Application) -> str:
        """Open a port for a service; its URL."""
        sockets = listen(service, port, self._host)
        self._services.append(HttpService(f"lasersell-sandbox-{service}", sockets, application))
        return url_of("http", sockets)

    def _say_who_can_connect(self, sockets: list[socket.socket]) -> None:
        self._loopback_only = is_loopback(sockets)
        if self._loopback_only:
            _log.info("listening on loopback: nothing outside this machine can connect")
        else:
            _log.warning(
                "listening on %s: whoever can reach this machine can connect, trade and order faults", self._host
            )

    def stop(self) -> None:
        """Close every socket and join every thread, in under two seconds; again is fine."""
        self._stop_asked.set()
        with self._life:
            if self._state == "running":
                self._close()
            self._state = "stopped"

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.stop()
        for service in self._services:
            service.stop()
        if self._scheduler is not None:
            self._scheduler.stop()

    def _restart_stream(self, *, keep_sessions: bool, down_s: float) -> None:
        """Raises RuntimeError, or OSError if somebody took the port meanwhile."""
        with self._life:
            port = urlsplit(self.stream_url).port
            self._running_stream().stop()
            if not keep_sessions:
                self._exchange.forget_sessions()
            if self._stop_asked.wait(down_s):
                return
            sockets = listen("stream", port or 0, self._host)
            self._stream = StreamServer(self._exchange, sockets, self._faults.conditions)
            self._stream.start()

    # -- where it is

    @property
    def stream_url(self) -> str:
        """The WebSocket's URL; after ``start``."""
        return self._url("stream_url")

    @property
    def api_url(self) -> str:
        """The REST service's base URL; after ``start``."""
        return self._url("api_url")

    @property
    def rpc_url(self) -> str:
        """The JSON-RPC URL; after ``start``."""
        return self._url("rpc_url")

    @property
    def rpc_urls(self) -> list[str]:
        """The JSON-RPC URLs of all nodes, ``rpc_url`` first; after ``start``."""
        self._url("rpc_url")
        return list(self._rpc_urls)

    def _url(self, name: str) -> str:
        if name not in self._urls:
            raise RuntimeError(f"{name} is known once the sandbox is started")
        return self._urls[name]

    @property
    def loopback_only(self) -> bool:
        """Whether nothing outside this machine can connect; so it is, unless ``host`` says otherwise."""
        return self._loopback_only

    @property
    def api_key(self) -> str:
        """The API key clients must send."""
        return self._api_key

    @property
    def mints(self) -> list[str]:
        """What trades here; the first is a climber."""
        return [str(mint) for mint in list(self._exchange.market.listings)]

    @property
    def mint_info(self) -> dict[str, MintInfo]:
        """Symbol, market and price path of every mint."""
        infos = {}
        market = self._exchange.market
        for listing in list(market.listings.values()):
            mint, pool = str(listing.mint), str(market.venue(listing).pool(listing))
            infos[mint] = MintInfo(
                mint=mint,
                symbol=listing.symbol,
                name=listing.name,
                decimals=listing.decimals,
                market_type=listing.market_type,
                pool=pool,
                price_path=listing.price_path,
                quote=listing.quote.name,
            )
        return infos

    def ready_line(self) -> dict[str, object]:
        """What a script needs to know, as a JSON-ready dict; contains the API key."""
        return {
            "stream_url": self.stream_url,
            "api_url": self.api_url,
            "rpc_url": self.rpc_url,
            "rpc_urls": self.rpc_urls,
            "api_key": self.api_key,
            "mints": self.mints,
        }

    # -- looking in

    def wait_for(self, predicate: Callable[[], T], timeout_s: float) -> T:
        """Wait until a predicate over the sandbox is true; its last value, false after the timeout.

        It is called on this thread, whenever something has happened, with the sandbox standing still: keep it short.
        """
        return self._exchange.wait_for(predicate, timeout_s)

    def balance_lamports(self, pubkey: Address) -> int:
        """Lamports of an account."""
        with self._exchange.lock:
            return self._exchange.ledger.lamports(_address(pubkey, "pubkey"))

    def token_balance(self, owner: Address, mint: Address) -> int:
        """Smallest units of a token that an owner holds."""
        with self._exchange.lock:
            return self._exchange.ledger.token_balance(_address(owner, "owner"), _address(mint, "mint"))

    def positions(self) -> list[PositionRecord]:
        """Every position so far, oldest first; a closed one has a ``close_reason``."""
        with self._exchange.lock:
            return self._exchange.positions.book.records()

    def transactions(self) -> list[TransactionRecord]:
        """Every landed transaction, oldest first."""
        with self._exchange.lock:
            return self._exchange.chain.records()

    def sessions(self, *, include_closed: bool = False) -> list[SessionRecord]:
        """The configured sessions that are connected; or every connection there ever was."""
        with self._exchange.lock:
            return self._exchange.sessions.records(include_closed=include_closed)

    @property
    def received(self) -> dict[int, list[dict[str, object]]]:
        """Every JSON object that clients sent, in order of arrival, by session id; the newest 16 MiB of them."""
        with self._exchange.lock:
            every = self._exchange.sessions.sessions.values()
            return {session.session_id: list(session.received) for session in every}

    # -- stepping in

    @property
    def faults(self) -> Faults:
        """Makes things go wrong."""
        return self._faults

    @property
    def script(self) -> Script:
        """Makes things happen in the market."""
        return self._script

    @property
    def wallets(self) -> dict[str, Keypair]:
        """The scenario's own wallets, by name: play-money keys that depend on the seed."""
        return dict(self._exchange.player.wallets)

    @property
    def now_s(self) -> float:
        """Virtual seconds since the sandbox began."""
        with self._exchange.lock:
            return self._exchange.clock.now_s()

    def advance(self, seconds: float, *, until: Callable[[], object] | None = None) -> bool:
        """With ``clock="manual"``: play so much virtual time, as fast as the machine can.

        Args:
            seconds: 0 plays what is due now.
            until: Looked at before and after every moment; true ends it there. Called on this thread.

        Returns:
            Whether ``until`` has become true; without one, False.

        Raises:
            RuntimeError: The clock is not manual.
            ValueError: ``seconds`` is negative or not a number.
        """
        if not self._manual:
            raise RuntimeError("time flows by itself here; make the sandbox with clock='manual' to advance it")
        if not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be a number of at least 0, not {seconds!r}")
        return self._exchange.advance(seconds, (lambda: False) if until is None else until)

    def force_exit(self, position_id: int, reason: str) -> None:
        """Send an exit signal for an open position, as if a strategy had fired. Raises ValueError."""
        with self._exchange.change():
            self._exchange.positions.force_exit(position_id, reason)

    def set_price_multiplier(self, mint: Address, multiplier: float) -> None:
        """Multiply a price, by one trade of the crowd; the price path goes on from there. Raises ValueError."""
        if not isinstance(multiplier, (int, float)) or not math.isfinite(multiplier) or not 0 < multiplier < 10**6:
            raise ValueError("multiplier must be a number above 0 and below a million")
        self._exchange.act(Action(0.0, "price", str(_address(mint, "mint")), multiplier=multiplier))

    def skip_slots(self, slots: int, *, empty: bool = False) -> None:
        """Let the chain's time jump ahead: landed transactions become final, and blockhashes age.

        Args:
            slots: From 0 to 10^9.
            empty: No block was made in them: blockhashes, which expire by blocks, do not age. At most 10^6 slots then.

        Raises ValueError.
        """
        _check_integer("slots", slots, least=0, most=10**6 if empty else 10**9)
        _check_bool("empty", empty)
        with self._exchange.change():
            self._exchange.slots.skip(slots, empty=empty)

    def drop_connections(self, code: int | None = None) -> None:
        """End every stream connection: without a code by an abrupt TCP reset or end, with one by a close frame."""
        if code is None:
            self._faults.drop()
        else:
            self._faults.close(code)

    def mute(self) -> None:
        """Fall silent on the stream: nothing is sent, nothing read, no ping answered; sockets stay open."""
        self._faults.mute()

    def unmute(self) -> None:
        """Speak again; what piled up meanwhile is sent and answered."""
        self._faults.unmute()

    def send_raw(self, frame: str | bytes) -> int:
        """Send something to every stream connection; how many there were.

        A text goes out as one text frame whatever it says; bytes go on the socket as they are, framing included.
        """
        return self._faults.raw(frame)

    def _running_stream(self) -> StreamServer:
        if self._stream is None or self._state != "running":
            raise RuntimeError(f"this sandbox is {self._state}")
        return self._stream


def _check_integer(name: str, value: int, *, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be an integer from {least} to {most}, not {value!r}")


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")  # noqa: TRY004 (as documented)


def _check_format(transaction_format: str, *, router: bool) -> None:
    if transaction_format not in TRANSACTION_FORMATS:
        raise ValueError(
            f"transaction_format must be one of {', '.join(TRANSACTION_FORMATS)}, not {transaction_format!r}"
        )
    if router and transaction_format != "drawn":
        raise ValueError(
            f"transaction_format is {transaction_format!r}, but the Router's shape has a format of its own: "
            "choose router=False, or a router_shape"
        )


def _check_host(host: str | None) -> None:
    if host is None or host == "localhost":
        return
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise ValueError(f"host must be an IP address or None, not {host!r}") from error


def _checked_speed(speed: float) -> float:
    if isinstance(speed, bool) or not isinstance(speed, (int, float)) or not 0.01 <= speed <= 10_000:
        raise ValueError(f"speed must be a number from 0.01 to 10000, not {speed!r}")
    return float(speed)


def _checked_share(name: str, share: float) -> float:
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, not {share!r}")
    return float(share)


def _checked_policies(policies: Policies | None, session_policy: str | None) -> Policies:
    if session_policy not in (None, "refuse", "replace"):
        raise ValueError(f"session_policy must be 'refuse' or 'replace', not {session_policy!r}")
    if policies is not None and not isinstance(policies, Policies):
        raise ValueError(f"policies must be a Policies, not {policies!r}")
    chosen = policies or Policies()
    return chosen if session_policy is None else replace(chosen, replace_sessions=session_policy == "replace")


def _checked_tiers(tier: int, api_keys: Sequence[str] | Mapping[str, int] | None) -> tuple[int, ...]:
    """One tier for each key, in their order."""
    more = tuple(api_keys.values()) if isinstance(api_keys, Mapping) else (tier,) * len(api_keys or ())
    for number in (tier, *more):
        _check_integer("tier", number, least=0, most=len(TIERS) - 1)
    return (tier, *more)


def _checked_keys(api_key: str, api_keys: Sequence[str] | Mapping[str, int] | None) -> tuple[str, ...]:
    more_keys = () if api_keys is None or isinstance(api_keys, str) else tuple(api_keys)
    # No value in the texts: keys do not belong into errors.
    if not _is_key(api_key):
        raise ValueError("api_key must be a non-empty string of printable ASCII")
    if isinstance(api_keys, str) or not all(_is_key(key) for key in more_keys):
        raise ValueError("api_keys must be a list of non-empty strings of printable ASCII")
    if len({api_key, *more_keys}) < 1 + len(more_keys):
        raise ValueError("api_keys must name each key once, and not api_key again")
    return (api_key, *more_keys)


def _is_key(key: object) -> bool:
    return isinstance(key, str) and key != "" and key.isascii() and key.isprintable() and key == key.strip()


def _address(value: Address, name: str) -> Pubkey:
    if isinstance(value, Pubkey):
        return value
    try:
        return value if isinstance(value, Pubkey) else Pubkey.from_string(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not a public key: {value!r}") from error
