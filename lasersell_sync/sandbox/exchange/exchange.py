"""The exchange: ledger, market, chain and stream service under one lock, and the moments at which they act.

Synchronous and without I/O. The servers and the test hooks call in from their threads; ``run_due`` is called by the
thread of ``Scheduler`` whenever something is due.

What is planned is played moment by moment on a virtual clock, in one order: transactions land, wallets of the scenario
act, the market ticks, profits and liquidity are sent, silent sessions end. What comes from outside is dated between two
such moments. So one seed, one scenario and the same messages from clients give the same messages to them.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from solders.compute_budget import set_compute_unit_limit
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox.chain.addresses import LASERSELL_ROUTER_PROGRAM
from lasersell_sync.sandbox.chain.blockchain import AnyTransaction, Chain
from lasersell_sync.sandbox.chain.clock import SCENARIO_START_MS, VirtualClock
from lasersell_sync.sandbox.chain.instructions import transfer
from lasersell_sync.sandbox.chain.ledger import (
    RENT_LAMPORTS_PER_BYTE,
    Ledger,
    LookupTable,
)
from lasersell_sync.sandbox.chain.programs import Programs
from lasersell_sync.sandbox.chain.slots import SlotClock
from lasersell_sync.sandbox.chain.transactions import Version
from lasersell_sync.sandbox.exchange.api_keys import KeyRing, check_proof
from lasersell_sync.sandbox.exchange.orders import (
    OrderBuilder,
)
from lasersell_sync.sandbox.exchange.scenario_player import ScenarioPlayer
from lasersell_sync.sandbox.exchange.sessions import (
    KeptMessages,
    ObservedOutbox,
    Observer,
    Outbox,
    Session,
)
from lasersell_sync.sandbox.exchange.stream_service import StreamService
from lasersell_sync.sandbox.markets.market import Market, seeded_keypair
from lasersell_sync.sandbox.markets.pools import NO_ROUTING_FEE
from lasersell_sync.sandbox.markets.scenario import DEFAULT_SCENARIO, Action, Scenario, load_scenario
from lasersell_sync.sandbox.markets.venues import summaries
from lasersell_sync.sandbox.protocol.policies import Policies
from lasersell_sync.sandbox.protocol.tiers import TIERS, RateLimiter, Tier
from lasersell_sync.sandbox.router.program import Router
from lasersell_sync.sandbox.router.routed_orders import RoutedOrders
from lasersell_sync.sandbox.router.shapes import seeded_shape

_log = logging.getLogger("lasersell_sync.sandbox.exchange")

MARKET_TICK_S = 0.1
LIQUIDITY_S = 1.0
#: A machine that falls behind real time further than this loses the time, not what was to happen in it.
_MAX_LAG_S = 1.0
#: After playing for so long, let others have the lock.
_MAX_BATCH_S = 0.1
_LEAST_WAIT_S = 0.001
_FAUCET_LAMPORTS = 10**7 * 10**9

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """The settings of a sandbox; ``Sandbox`` explains them."""

    seed: int = 1
    api_keys: tuple[str, ...] = ("sandbox-key",)
    pnl_flush_ms: int = 100
    landing_delay_ms: int = 400
    loss_probability: float = 0.0
    speed: float = 1.0
    flowing: bool = True
    #: the Unix time at which virtual time begins; None: now
    start_ms: int | None = None
    scenario: Scenario = field(default_factory=lambda: load_scenario(DEFAULT_SCENARIO))
    #: the tier of each API key, in the order of the keys; the last one is every further key's
    tiers: tuple[int, ...] = (2,)
    policies: Policies = field(default_factory=Policies)
    #: trades go through the Router, or else to the markets directly and without routing fee
    router: bool = False
    #: which of the Router's shapes; None: the seed chooses
    router_shape: int | None = None
    #: trades are written in today's forms, or else in the classic ones
    today: bool = False
    #: the format of direct trades; None: the seed chooses for each token
    direct_version: Version | None = 0
    slot_ms: int = 200
    rent_lamports_per_byte: int = RENT_LAMPORTS_PER_BYTE
    requests_per_min: int | None = None
    initial_lamports: int = 10 * 10**9
    initial_usd1_units: int = 10_000 * 10**6


class Exchange:
    """Everything the sandbox knows: its parts, and what takes more than one of them.

    Parts are ``ledger``, ``market``, ``chain``, ``slots``, ``orders``, ``router``, ``stream``, ``sessions``,
    ``positions`` and ``player``. Use them inside ``lock`` to look, ``request()`` to answer, ``change()`` to act.

    Threads: every public method may be called from any thread; the parts by whoever holds the lock.
    """

    def __init__(
        self,
        settings: ExchangeSettings,
        *,
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._wall_s = wall_s
        # A scenario plays the same every time: its time has a beginning of its own, and starts with the first session.
        scripted = settings.scenario.name != DEFAULT_SCENARIO
        start_ms = SCENARIO_START_MS if scripted and settings.start_ms is None else settings.start_ms
        self.clock = VirtualClock(
            now_s,
            speed=settings.speed,
            start_ms=int(wall_s() * 1000) if start_ms is None else start_ms,
            flowing=settings.flowing,
            waiting=scripted and settings.flowing,
            grain_s=MARKET_TICK_S if scripted else 0.0,
        )
        # One lock for all state; two conditions on it. Reentrant, so that a `wait_for` predicate may ask questions.
        self.lock = threading.RLock()
        #: anything happened
        self._changed = threading.Condition(self.lock)
        #: something became due earlier than the scheduler waits for
        self._work = threading.Condition(self.lock)

        self.keys = KeyRing(settings.api_keys)
        #: observe what sessions are sent; added to before the first session connects
        self.observers: list[Observer] = []
        self.ledger = Ledger(rent_lamports_per_byte=settings.rent_lamports_per_byte)
        self.market = Market(self.ledger, seed=settings.seed, scenario=settings.scenario, today=settings.today)
        self._faucet = seeded_keypair(settings.seed, "faucet")
        self.ledger.credit(self._faucet.pubkey(), _FAUCET_LAMPORTS)
        self._airdrops = 0
        shape = seeded_shape(settings.seed, settings.router_shape)
        self.router = Router(shape, self.market.listings)
        self.router.open(self.ledger, self._faucet.pubkey())
        # A scenario's blockhashes depend on the seed alone; otherwise no other run's transaction lands in this one.
        salt = f"lasersell-sandbox:{settings.seed}:{settings.scenario.name}".encode()
        self.slots = SlotClock(self.clock.now_s, salt=salt if scripted else None, slot_s=settings.slot_ms / 1000)
        self.chain = Chain(
            self.ledger,
            Programs({**self.market.programs, LASERSELL_ROUTER_PROGRAM: self.router.execute}),
            self.slots,
            now_s=self.clock.now_s,
            now_ms=self.clock.now_ms,
            describe=summaries,
            landing_delay_s=settings.landing_delay_ms / 1000,
            loss_probability=settings.loss_probability,
            seed=settings.seed,
        )
        routed = RoutedOrders(self.ledger, self.router) if settings.router else None
        self.orders = OrderBuilder(self.market, self.slots, routed, settings.direct_version)
        self.policies = settings.policies
        self.tiers = self._tiers_by_key()
        self.rest_limiter = RateLimiter(settings.requests_per_min)
        self.stream = StreamService(
            keys=self.keys,
            tiers=self.tiers,
            market=self.market,
            orders=self.orders,
            slots=self.slots,
            clock=self.clock,
            pnl_flush_ms=settings.pnl_flush_ms,
            policies=settings.policies,
            rate_limiter=RateLimiter(settings.requests_per_min),
        )
        self.sessions, self.positions = self.stream.registry, self.stream.positions
        self._kept_messages = KeptMessages()
        self._paid_wallets: set[Pubkey] = set()
        #: when the next of each is due, on the virtual clock; None while there is nothing to do
        self._next_tick_s: float | None = None
        self._next_pnl_s: float | None = None
        self._next_liquidity_s: float | None = None
        self.player = ScenarioPlayer(
            settings.scenario,
            seed=settings.seed,
            ledger=self.ledger,
            market=self.market,
            orders=self.orders,
            chain=self.chain,
            positions=self.positions,
        )
        self.player.invite_wallets(self.keys, self.tiers)
        self._paid_wallets.update(keypair.pubkey() for keypair in self.player.wallets.values())

    def _tiers_by_key(self) -> dict[str, Tier]:
        tiers, tier = {}, self._settings.tiers[-1]
        for number, api_key in enumerate(self._settings.api_keys):
            key_id = self.keys.match(api_key)
            assert key_id is not None
            tier = self._settings.tiers[number] if number < len(self._settings.tiers) else tier
            known = TIERS[tier]
            tiers[key_id] = known if self._settings.router else replace(known, routing_fee=NO_ROUTING_FEE)
        return tiers

    # -- time

    def run_due(self) -> float | None:
        """Play everything that is due; real seconds until the next thing is, or None if waiting brings nothing."""
        if not self._settings.flowing:
            return None  # `advance` alone plays, up to its end
        with self.lock:
            started_s, played = time.monotonic(), False
            while self._play_next():
                played = True
                if time.monotonic() - started_s > _MAX_BATCH_S:
                    break
            if played:
                self._changed.notify_all()
            if self.clock.flowing and self.clock.target_s() - self.clock.now_s() > _MAX_LAG_S * self.clock.speed:
                due_s = self._next_due_s()
                if due_s is not None and due_s <= self.clock.target_s():
                    self.clock.stay()
            due_s = self._next_due_s()
            return None if due_s is None else self.clock.real_wait_s(due_s)

    def advance(self, seconds: float, until: Callable[[], object]) -> bool:
        """Where time stands still: let it go on; whether ``until`` was true, which ends it at once."""
        with self.lock:
            self.clock.advance(seconds)
        while True:
            with self.lock:
                if until():
                    self.clock.stay()
                    return True
                if not self._play_next():
                    self.clock.move_to(self.clock.target_s())
                    self._happened()
                    return bool(until())
                self._changed.notify_all()

    def _next_due_s(self) -> float | None:
        planned = (
            self.chain.next_landing_s(),
            self.player.next_action_s(),
            self._next_tick_s,
            self._next_pnl_s,
            self._next_liquidity_s,
            self.stream.next_expiry_s(),
        )
        return min((moment for moment in planned if moment is not None), default=None)

    def _play_next(self) -> bool:
        """Play the next moment if it is due; whether it was."""
        moment_s = self._next_due_s()
        if moment_s is None or moment_s > self.clock.target_s():
            return False
        self.clock.move_to(moment_s)
        for landing in self.chain.land_due():
            self.positions.settle(landing)
            self.player.look_for_graduates(landing.execution.swaps)
        self.player.act_if_due(self.clock.now_s())
        self._tick_if_due()
        self._flush_if_due()
        self.stream.expire()
        self._plan()
        return True

    def run_and_wait(self, stopping: Callable[[], bool]) -> None:
        """Do what is due, then wait until the next thing is or somebody brings work; for the scheduler alone."""
        # The lock is held from looking to waiting, so that work brought in between cannot be missed.
        with self.lock:
            wait_s = self.run_due()
            if not stopping():
                # At high speed many moments are played in one go; and whoever wants the lock gets it in between.
                self._work.wait(None if wait_s is None else max(wait_s, _LEAST_WAIT_S))

    def wake(self) -> None:
        """End the scheduler's wait now."""
        with self.lock:
            self._happened()

    def _happened(self) -> None:
        """Somebody changed something: plan again, wake the scheduler and all who wait."""
        self._plan()
        self._work.notify_all()
        self._changed.notify_all()

    def _plan(self) -> None:
        now_s = self.clock.now_s()
        sessions = self.sessions.live
        tracking = any(session.positions for session in sessions)
        ticking = self.market.needs_ticks(watched=bool(sessions))
        self._next_tick_s = _planned(self._next_tick_s, now_s, MARKET_TICK_S, wanted=ticking)
        self._next_pnl_s = _planned(self._next_pnl_s, now_s, self._pnl_s, wanted=tracking)
        self._next_liquidity_s = _planned(self._next_liquidity_s, now_s, LIQUIDITY_S, wanted=tracking)

    @property
    def _pnl_s(self) -> float:
        return self._settings.pnl_flush_ms / 1000

    def _tick_if_due(self) -> None:
        if self._next_tick_s is None or self._next_tick_s > self.clock.now_s():
            return
        self._next_tick_s += MARKET_TICK_S
        moves = self.market.tick(watched=bool(self.sessions.live))
        for mint in moves.repriced:
            self.positions.repriced(mint)
        for swap in moves.swaps:
            self.positions.traded(swap)
        self.player.look_for_graduates(moves.swaps)

    def _flush_if_due(self) -> None:
        now_s, sessions = self.clock.now_s(), self.sessions.live
        if self._next_pnl_s is not None and self._next_pnl_s <= now_s:
            self._next_pnl_s += self._pnl_s
            self.positions.feed.flush_pnl(sessions)
        if self._next_liquidity_s is not None and self._next_liquidity_s <= now_s:
            self._next_liquidity_s += LIQUIDITY_S
            self.positions.feed.flush_liquidity([session for session in sessions if session.tier.liquidity_snapshots])

    # -- one thing at a time

    @contextmanager
    def request(self) -> Iterator[None]:
        """Lock, and date what comes from outside; inside, ask the parts anything."""
        with self.lock:
            self.clock.date_outside_event(self._next_due_s())
            yield

    @contextmanager
    def change(self) -> Iterator[None]:
        """As ``request``, to change something; whoever waits looks again afterwards."""
        with self.request():
            yield
            self._happened()

    def act(self, action: Action) -> None:
        """Do now what a scenario can do at a moment. Raises ValueError with what is wrong."""
        with self.change():
            self.player.act(action)

    def put_lookup_table(self, addresses: Sequence[Pubkey]) -> Pubkey:
        """Create an address look-up table; its address depends on what it lists."""
        with self.change():
            listed = b"".join(map(bytes, addresses))
            address = seeded_keypair(self._settings.seed, f"table:{hashlib.sha256(listed).hexdigest()}").pubkey()
            table = LookupTable(tuple(addresses), self._faucet.pubkey(), self.slots.slot())
            self.ledger.create_lookup_table(address, table)
            return address

    # -- waiting

    def wait_for(self, predicate: Callable[[], T], timeout_s: float) -> T:
        """Wait until a predicate is true; its last value, which is false after a timeout.

        The predicate runs under the exchange's lock, on the calling thread, whenever something has happened.
        """
        with self.lock:
            return self._changed.wait_for(predicate, timeout_s)

    # -- stream

    def connect(self, key_id: str, outbox: Outbox) -> Session:
        """A stream connection passed the upgrade."""
        with self.change():
            return self.stream.connect(key_id, ObservedOutbox(outbox, self.observers))

    def receive(self, session: Session, data: str | bytes) -> None:
        """A frame of a client."""
        with self.change():
            known = len(session.received)
            self.stream.receive(session, data)
            if len(session.received) > known:
                self._kept_messages.add(session, len(data))
            if self.sessions.live and self.player.begin(self.clock.now_s()):
                self.clock.begin()

    def disconnect(self, session: Session) -> None:
        """A stream connection is gone."""
        with self.change():
            self.stream.disconnect(session)

    def forget_sessions(self) -> None:
        """What a restart without memory loses: sessions, ids, and what strategies have seen of positions."""
        with self.change():
            for session in self.sessions.live:
                self.stream.disconnect(session)
            for position in self.positions.book.open_positions():
                position.watches.clear()
                position.announced.clear()
                position.exit_reason = None
                self.positions.book.renumber(position)

    # -- REST

    def register_wallet(
        self, key_id: str, *, wallet_pubkey: str, signature: str, message: str, label: str | None
    ) -> None:
        """Register a wallet under a key; the first time ever it gets its play money. Raises ``ProofRejected``."""
        wallet = check_proof(wallet_pubkey=wallet_pubkey, signature=signature, message=message, now_s=self._wall_s())
        with self.lock:
            self.keys.register(key_id, wallet, label)
            if wallet not in self._paid_wallets:
                self._paid_wallets.add(wallet)
                self.ledger.credit(wallet, self._settings.initial_lamports)
                self.market.give_usd1(wallet, self._settings.initial_usd1_units)
            self._happened()

    # -- JSON-RPC

    def send_transaction(
        self,
        transaction: AnyTransaction,
        *,
        skip_preflight: bool,
        max_retries: int | None = None,
        certain: bool = False,
    ) -> Signature:
        """Take a signed transaction in; see ``Chain.admit``. Raises ``TransactionRefused``."""
        with self.lock:
            # Time that waits for the first session waits for no transaction: it could never land.
            self.clock.begin()
            with self.change():
                return self.chain.admit(
                    transaction, skip_preflight=skip_preflight, max_retries=max_retries, certain=certain
                )

    def airdrop(self, wallet: Pubkey, amount_lamports: int) -> Signature:
        """A transfer from the faucet; lands like any other transaction. Raises ``TransactionRefused``."""
        with self.request():
            transaction = self._airdrop_transaction(self._faucet, wallet, amount_lamports)
            return self.send_transaction(transaction, skip_preflight=False, certain=True)

    def _airdrop_transaction(self, faucet: Keypair, wallet: Pubkey, amount_lamports: int) -> VersionedTransaction:
        # Two equal airdrops in one slot must not have one signature: they differ in their unit limit.
        self._airdrops += 1
        instructions = [
            set_compute_unit_limit(1_000 + self._airdrops % 1_000_000),
            transfer(faucet.pubkey(), wallet, amount_lamports),
        ]
        blockhash, _ = self.slots.latest_blockhash()
        return VersionedTransaction(MessageV0.try_compile(faucet.pubkey(), instructions, [], blockhash), [faucet])


def _planned(moment_s: float | None, now_s: float, interval_s: float, *, wanted: bool) -> float | None:
    """Keep a running schedule, start one, or stop it."""
    if not wanted:
        return None
    return now_s + interval_s if moment_s is None else moment_s


_log = logging.getLogger("lasersell_sync.sandbox.scheduler")


class Scheduler:
    """Owns the thread ``lasersell-sandbox-scheduler``. With nothing planned it waits without waking up."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lasersell-sandbox-scheduler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End and join the thread; fine if it never started."""
        self._stopping.set()
        self._exchange.wake()
        if self._thread.ident is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._exchange.run_and_wait(self._stopping.is_set)
            except Exception:  # noqa: BLE001
                # A bug of ours must not freeze the market silently; the state was left as far as it got.
                _log.exception("the exchange failed while running what was due")
                self._stopping.wait(0.1)
