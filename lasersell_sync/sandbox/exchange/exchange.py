"""The exchange: ledger, market, chain and stream service under one lock, and the moments at which they act.

Synchronous and without I/O. The three servers and the test hooks call in from their threads; ``run_due`` is called by
the scheduler's thread whenever something is due. Every public method takes the lock itself.

What is planned is played moment by moment on a virtual clock, in one order: transactions land, wallets of the scenario
act, the market ticks, profits and liquidity are told, silent sessions end. What comes from outside is dated between two
such moments. So one seed, one scenario and the same messages from clients give the same messages to them.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TypeVar

from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
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
    Mint,
    TokenAccount,
    token_address,
)
from lasersell_sync.sandbox.chain.programs import Programs
from lasersell_sync.sandbox.chain.slots import SlotClock
from lasersell_sync.sandbox.chain.transaction_history import TransactionRecord
from lasersell_sync.sandbox.chain.transactions import Version
from lasersell_sync.sandbox.exchange.api_keys import KeyRing, check_proof
from lasersell_sync.sandbox.exchange.orders import (
    Delivery,
    OrderBuilder,
    OrderRejected,
    PartnerFee,
    UnsignedTransaction,
)
from lasersell_sync.sandbox.exchange.positions import PositionRecord
from lasersell_sync.sandbox.exchange.scenario_player import ScenarioPlayer
from lasersell_sync.sandbox.exchange.sessions import (
    Frame,
    KeptMessages,
    ObservedOutbox,
    Observer,
    Outbox,
    Session,
    SessionRecord,
    session_record,
)
from lasersell_sync.sandbox.exchange.stream_service import StreamService
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.market import Market, seeded_keypair
from lasersell_sync.sandbox.markets.pools import NO_ROUTING_FEE, Reserves, RoutingFee
from lasersell_sync.sandbox.markets.scenario import DEFAULT_SCENARIO, Action, Scenario, load_scenario
from lasersell_sync.sandbox.markets.venues import Venue, summaries
from lasersell_sync.sandbox.protocol.policies import Policies
from lasersell_sync.sandbox.protocol.tiers import TIERS, RateLimiter, Tier
from lasersell_sync.sandbox.router.orders import RoutedOrders
from lasersell_sync.sandbox.router.program import Router
from lasersell_sync.sandbox.router.shapes import seeded_shape
from lasersell_sync.sandbox.router.thefts import RouterTheft

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
    """What a sandbox can be told; see ``Sandbox`` for the meaning."""

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
    """Everything the sandbox knows.

    Threads: every public method may be called from any thread.
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
        self._clock = VirtualClock(
            now_s,
            speed=settings.speed,
            start_ms=int(wall_s() * 1000) if start_ms is None else start_ms,
            flowing=settings.flowing,
            waiting=scripted and settings.flowing,
            grain_s=MARKET_TICK_S if scripted else 0.0,
        )
        # One lock for all state; two conditions on it. Reentrant, so that a `wait_for` predicate may ask questions.
        self._lock = threading.RLock()
        #: anything happened
        self._changed = threading.Condition(self._lock)
        #: something became due earlier than the scheduler waits for
        self._work = threading.Condition(self._lock)

        self.keys = KeyRing(settings.api_keys)
        #: observe what sessions are sent; added to before the first session connects
        self.observers: list[Observer] = []
        self._ledger = Ledger(rent_lamports_per_byte=settings.rent_lamports_per_byte)
        self._market = Market(self._ledger, seed=settings.seed, scenario=settings.scenario, today=settings.today)
        self._faucet = seeded_keypair(settings.seed, "faucet")
        self._ledger.credit(self._faucet.pubkey(), _FAUCET_LAMPORTS)
        self._airdrops = 0
        shape = seeded_shape(settings.seed, settings.router_shape)
        self._router = Router(shape, self._market.listings)
        self._router.open(self._ledger, self._faucet.pubkey())
        # A scenario's blockhashes depend on the seed alone; otherwise no other run's transaction lands in this one.
        salt = f"lasersell-sandbox:{settings.seed}:{settings.scenario.name}".encode()
        self._slots = SlotClock(self._clock.now_s, salt=salt if scripted else None, slot_s=settings.slot_ms / 1000)
        self._chain = Chain(
            self._ledger,
            Programs({**self._market.programs, LASERSELL_ROUTER_PROGRAM: self._router.execute}),
            self._slots,
            now_s=self._clock.now_s,
            now_ms=self._clock.now_ms,
            describe=summaries,
            landing_delay_s=settings.landing_delay_ms / 1000,
            loss_probability=settings.loss_probability,
            seed=settings.seed,
        )
        routed = RoutedOrders(self._ledger, self._router) if settings.router else None
        self._orders = OrderBuilder(self._market, self._slots, routed, settings.direct_version)
        self._tiers = self._tiers_by_key()
        self._rest_limiter = RateLimiter(settings.requests_per_min)
        self._stream = StreamService(
            keys=self.keys,
            tiers=self._tiers,
            market=self._market,
            orders=self._orders,
            slots=self._slots,
            clock=self._clock,
            pnl_flush_ms=settings.pnl_flush_ms,
            policies=settings.policies,
            rate_limiter=RateLimiter(settings.requests_per_min),
        )
        self._kept_messages = KeptMessages()
        self._paid_wallets: set[Pubkey] = set()
        #: when the next of each is due, on the virtual clock; None while there is nothing to do
        self._next_tick_s: float | None = None
        self._next_pnl_s: float | None = None
        self._next_liquidity_s: float | None = None
        self._player = ScenarioPlayer(
            settings.scenario,
            seed=settings.seed,
            ledger=self._ledger,
            market=self._market,
            orders=self._orders,
            chain=self._chain,
            positions=self._stream.positions,
        )
        self._player.invite_wallets(self.keys, self._tiers)
        self._paid_wallets.update(keypair.pubkey() for keypair in self._player.wallets.values())

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
            return None  # `advance` plays, and stops where it was told to: nobody else may play beyond that
        with self._lock:
            started_s, played = time.monotonic(), False
            while self._play_next():
                played = True
                if time.monotonic() - started_s > _MAX_BATCH_S:
                    break
            if played:
                self._changed.notify_all()
            if self._clock.flowing and self._clock.target_s() - self._clock.now_s() > _MAX_LAG_S * self._clock.speed:
                due_s = self._next_due_s()
                if due_s is not None and due_s <= self._clock.target_s():
                    self._clock.stay()
            due_s = self._next_due_s()
            return None if due_s is None else self._clock.real_wait_s(due_s)

    def advance(self, seconds: float, until: Callable[[], object]) -> bool:
        """Where time stands still: let it go on; whether ``until`` was true, which ends it at once."""
        with self._lock:
            self._clock.advance(seconds)
        while True:
            with self._lock:
                if until():
                    self._clock.stay()
                    return True
                if not self._play_next():
                    self._clock.move_to(self._clock.target_s())
                    self._happened()
                    return bool(until())
                self._changed.notify_all()

    def _next_due_s(self) -> float | None:
        planned = (
            self._chain.next_landing_s(),
            self._player.next_action_s(),
            self._next_tick_s,
            self._next_pnl_s,
            self._next_liquidity_s,
            self._stream.next_expiry_s(),
        )
        return min((moment for moment in planned if moment is not None), default=None)

    def _play_next(self) -> bool:
        """Play the next moment if it is due; whether it was."""
        moment_s = self._next_due_s()
        if moment_s is None or moment_s > self._clock.target_s():
            return False
        self._clock.move_to(moment_s)
        for landing in self._chain.land_due():
            self._stream.positions.settle(landing)
            self._player.look_for_graduates(landing.execution.swaps)
        self._player.act_if_due(self._clock.now_s())
        self._tick_if_due()
        self._flush_if_due()
        self._stream.expire()
        self._plan()
        return True

    def _date(self) -> None:
        """Something comes from outside; called before it is looked at."""
        self._clock.date_outside_event(self._next_due_s())

    def run_and_wait(self, stopping: Callable[[], bool]) -> None:
        """Do what is due, then wait until the next thing is or somebody brings work; for the scheduler alone."""
        # The lock is held from looking to waiting, so that work brought in between cannot be missed.
        with self._lock:
            wait_s = self.run_due()
            if not stopping():
                # At high speed many moments are played in one go; and whoever wants the lock gets it in between.
                self._work.wait(None if wait_s is None else max(wait_s, _LEAST_WAIT_S))

    def wake(self) -> None:
        """End the scheduler's wait now."""
        with self._lock:
            self._happened()

    def _happened(self) -> None:
        """Somebody changed something: plan again, wake the scheduler and all who wait."""
        self._plan()
        self._work.notify_all()
        self._changed.notify_all()

    def _plan(self) -> None:
        now_s = self._clock.now_s()
        sessions = self._stream.registry.live
        tracking = any(session.positions for session in sessions)
        ticking = self._market.needs_ticks(watched=bool(sessions))
        self._next_tick_s = _planned(self._next_tick_s, now_s, MARKET_TICK_S, wanted=ticking)
        self._next_pnl_s = _planned(self._next_pnl_s, now_s, self._pnl_s, wanted=tracking)
        self._next_liquidity_s = _planned(self._next_liquidity_s, now_s, LIQUIDITY_S, wanted=tracking)

    @property
    def _pnl_s(self) -> float:
        return self._settings.pnl_flush_ms / 1000

    def _tick_if_due(self) -> None:
        if self._next_tick_s is None or self._next_tick_s > self._clock.now_s():
            return
        self._next_tick_s += MARKET_TICK_S
        moves = self._market.tick(watched=bool(self._stream.registry.live))
        for mint in moves.repriced:
            self._stream.positions.repriced(mint)
        for swap in moves.swaps:
            self._stream.positions.traded(swap)
        self._player.look_for_graduates(moves.swaps)

    def _flush_if_due(self) -> None:
        now_s, sessions = self._clock.now_s(), self._stream.registry.live
        if self._next_pnl_s is not None and self._next_pnl_s <= now_s:
            self._next_pnl_s += self._pnl_s
            self._stream.positions.feed.flush_pnl(sessions)
        if self._next_liquidity_s is not None and self._next_liquidity_s <= now_s:
            self._next_liquidity_s += LIQUIDITY_S
            self._stream.positions.feed.flush_liquidity(
                [session for session in sessions if session.tier.liquidity_snapshots]
            )

    # -- the script

    def _begin(self) -> None:
        """Start the scenario if the first session has just been configured."""
        if self._stream.registry.live and self._player.begin(self._clock.now_s()):
            self._clock.begin()

    def act(self, action: Action) -> None:
        """Do now what a scenario can do at a moment. Raises ValueError with what is wrong."""
        with self._lock:
            self._date()
            self._player.act(action)
            self._happened()

    def multiply_price(self, mint: Pubkey, ratio: Fraction) -> None:
        """Move a price by one trade of the crowd. Raises ValueError for an unknown mint."""
        with self._lock:
            self._date()
            self._player.multiply_price(self._player.listing(str(mint)), ratio)
            self._happened()

    def find_listing(self, token: str) -> Listing:
        """A listing by symbol or mint. Raises ValueError."""
        with self._lock:
            return self._player.listing(token)

    def grant(self, wallet: Pubkey, mint: Pubkey, quote_units: int) -> None:
        """Give a wallet tokens as if it had bought them for so much, without moving the price. Raises ValueError."""
        with self._lock:
            self._date()
            self._player.grant(wallet, str(mint), quote_units)
            self._happened()

    def fund(self, wallet: Pubkey, *, lamports: int, usd1_units: int) -> None:
        """Play money out of nothing."""
        with self._lock:
            self._player.fund(wallet, lamports=lamports, usd1_units=usd1_units)
            self._happened()

    def put_lookup_table(self, addresses: Sequence[Pubkey]) -> Pubkey:
        """Create an address look-up table; its address depends on what it lists."""
        with self._lock:
            self._date()
            listed = b"".join(map(bytes, addresses))
            address = seeded_keypair(self._settings.seed, f"table:{hashlib.sha256(listed).hexdigest()}").pubkey()
            table = LookupTable(tuple(addresses), self._faucet.pubkey(), self._slots.slot())
            missing = self._ledger.rent_lamports(len(table.data)) - self._ledger.lamports(address)
            self._ledger.credit(address, max(0, missing))
            self._ledger.put_lookup_table(address, table)
            self._happened()
            return address

    @property
    def wallets(self) -> Mapping[str, Keypair]:
        """The scenario's own wallets by name, in its order."""
        return dict(self._player.wallets)

    @property
    def now_s(self) -> float:
        """Virtual seconds since the beginning."""
        with self._lock:
            return self._clock.now_s()

    # -- waiting

    def wait_for(self, predicate: Callable[[], T], timeout_s: float) -> T:
        """Wait until a predicate is true; its last value, which is false after a timeout.

        The predicate runs under the exchange's lock, on the calling thread, whenever something has happened.
        """
        with self._lock:
            return self._changed.wait_for(predicate, timeout_s)

    # -- stream

    def connect(self, key_id: str, outbox: Outbox) -> Session:
        """A stream connection passed the upgrade."""
        with self._lock:
            self._date()
            session = self._stream.connect(key_id, ObservedOutbox(outbox, self.observers))
            self._happened()
            return session

    def receive(self, session: Session, data: str | bytes) -> None:
        """A frame of a client."""
        with self._lock:
            self._date()
            known = len(session.received)
            self._stream.receive(session, data)
            if len(session.received) > known:
                self._kept_messages.add(session, len(data))
            self._begin()
            self._happened()

    def disconnect(self, session: Session) -> None:
        """A stream connection is gone."""
        with self._lock:
            self._date()
            self._stream.disconnect(session)
            self._happened()

    def forget_sessions(self) -> None:
        """What a restart without memory loses: sessions, ids, and what strategies have seen of positions."""
        with self._lock:
            self._date()
            for session in self._stream.registry.live:
                self._stream.disconnect(session)
            for position in self._stream.positions.book.open_positions():
                position.watches.clear()
                position.announced.clear()
                position.exit_reason = None
                self._stream.positions.book.renumber(position)
            self._happened()

    # -- REST

    def register_wallet(
        self, key_id: str, *, wallet_pubkey: str, signature: str, message: str, label: str | None
    ) -> None:
        """Register a wallet under a key; the first time ever it gets its play money. Raises ``ProofRejected``."""
        wallet = check_proof(wallet_pubkey=wallet_pubkey, signature=signature, message=message, now_s=self._wall_s())
        with self._lock:
            self.keys.register(key_id, wallet, label)
            if wallet not in self._paid_wallets:
                self._paid_wallets.add(wallet)
                self._ledger.credit(wallet, self._settings.initial_lamports)
                self._market.give_usd1(wallet, self._settings.initial_usd1_units)
            self._happened()

    def tier(self, key_id: str) -> Tier:
        """The tier of a key."""
        return self._tiers[key_id]

    @property
    def policies(self) -> Policies:
        """How the service behaves where its documentation is silent."""
        return self._settings.policies

    def rate_wait_s(self, key_id: str) -> float:
        """0 if a key may send a REST request now, which counts it; else the seconds until it may."""
        with self._lock:
            return self._rest_limiter.wait_s(key_id, self._clock.target_s())

    def history(
        self, key_id: str, *, limit: int, offset: int, mint: Pubkey | None, wallet: Pubkey | None
    ) -> dict[str, object]:
        """A page of a key's trades, newest first; see ``TradeHistory``."""
        with self._lock:
            return self._stream.positions.history.page(key_id, limit=limit, offset=offset, mint=mint, wallet=wallet)

    def remove_wallet(self, key_id: str, wallet: Pubkey) -> None:
        """Take a wallet from under a key; running sessions keep it."""
        with self._lock:
            self.keys.remove(key_id, wallet)
            self._happened()

    def listing(self, mint: Pubkey) -> Listing | None:
        """The listing of a mint, if it trades here."""
        return self._market.listings.get(mint)

    def venue(self, listing: Listing) -> Venue:
        """The market of a listing."""
        return self._market.venue(listing)

    def build_buy(
        self,
        listing: Listing,
        user: Pubkey,
        *,
        budget_lamports: int,
        slippage_bps: int,
        delivery: Delivery,
        partner_fee: PartnerFee | None,
        key_id: str | None = None,
    ) -> UnsignedTransaction:
        """An unsigned buy. Raises ``OrderRejected``."""
        with self._lock:
            return self._orders.buy(
                listing,
                user,
                budget_lamports=budget_lamports,
                slippage_bps=slippage_bps,
                delivery=delivery,
                partner_fee=partner_fee,
                routing_fee=self._routing_fee(key_id),
            )

    def build_sell(
        self,
        listing: Listing,
        user: Pubkey,
        *,
        tokens: int,
        slippage_bps: int,
        delivery: Delivery,
        partner_fee: PartnerFee | None,
        key_id: str | None = None,
    ) -> UnsignedTransaction:
        """An unsigned sale; 0 tokens means all there are. Raises ``OrderRejected``."""
        with self._lock:
            tokens = tokens or self.token_balance(user, listing.mint)
            if tokens == 0:
                raise OrderRejected("the wallet holds none of this token")
            return self._orders.sell(
                listing,
                user,
                tokens=tokens,
                slippage_bps=slippage_bps,
                delivery=delivery,
                partner_fee=partner_fee,
                routing_fee=self._routing_fee(key_id),
            )

    def _routing_fee(self, key_id: str | None) -> RoutingFee:
        """What the tier of a key pays; without a key, that of the first."""
        tier = next(iter(self._tiers.values())) if key_id is None else self._tiers[key_id]
        return tier.routing_fee

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
        with self._lock:
            # Time that waits for the first session waits for no transaction: it could never land.
            self._clock.begin()
            self._date()
            signature = self._chain.admit(
                transaction, skip_preflight=skip_preflight, max_retries=max_retries, certain=certain
            )
            self._happened()
            return signature

    def ask_chain(self, question: Callable[[Chain], T]) -> T:
        """Ask the chain something, with everything standing still. It must not change anything."""
        with self._lock:
            self._date()
            return question(self._chain)

    def instruct_chain(self, order: Callable[[Chain], None]) -> None:
        """Change how the chain treats what comes: its delay, its losses, what becomes of the next transactions."""
        with self._lock:
            self._date()
            order(self._chain)
            self._happened()

    def compromise_router(self, theft: str | None) -> None:
        """Let the Router steal in one way from now on; None: no more."""
        with self._lock:
            self._router.theft = None if theft is None else RouterTheft(theft)

    @property
    def router_theft(self) -> str | None:
        """How the Router steals; None: it is honest."""
        return None if self._router.theft is None else self._router.theft.kind

    def airdrop(self, wallet: Pubkey, amount_lamports: int) -> Signature:
        """A transfer from the faucet; lands like any other transaction. Raises ``TransactionRefused``."""
        with self._lock:
            self._date()
            transaction = self._airdrop_transaction(self._faucet, wallet, amount_lamports)
            return self.send_transaction(transaction, skip_preflight=False, certain=True)

    def _airdrop_transaction(self, faucet: Keypair, wallet: Pubkey, amount_lamports: int) -> VersionedTransaction:
        # Two equal airdrops in one slot must not have one signature: they differ in their unit limit.
        self._airdrops += 1
        instructions = [
            set_compute_unit_limit(1_000 + self._airdrops % 1_000_000),
            transfer(faucet.pubkey(), wallet, amount_lamports),
        ]
        blockhash, _ = self._slots.latest_blockhash()
        return VersionedTransaction(MessageV0.try_compile(faucet.pubkey(), instructions, [], blockhash), [faucet])

    def latest_blockhash(self) -> tuple[Hash, int]:
        """The newest blockhash and its last valid block height."""
        with self._lock:
            self._date()
            return self._slots.latest_blockhash()

    def accepts_blockhash(self, blockhash: Hash) -> bool:
        """Whether a blockhash is still good."""
        with self._lock:
            self._date()
            return self._slots.accepts(blockhash)

    def slot(self) -> int:
        """The current slot."""
        with self._lock:
            self._date()
            return self._slots.slot()

    def block_height(self) -> int:
        """The current block height."""
        with self._lock:
            self._date()
            return self._slots.block_height()

    def skip_slots(self, slots: int, *, empty: bool = False) -> None:
        """Let the chain's time jump ahead (transactions become final); unless they are empty, blockhashes age."""
        with self._lock:
            self._date()
            if empty:
                self._slots.skip_empty(slots)
            else:
                self._slots.skip(slots)
            self._happened()

    def signature_status(self, signature: Signature) -> dict[str, object] | None:
        """The status entry of a landed transaction."""
        with self._lock:
            self._date()
            return self._chain.status(signature)

    def balance_lamports(self, address: Pubkey) -> int:
        """Lamports of an account."""
        with self._lock:
            return self._ledger.lamports(address)

    def total_lamports(self) -> int:
        """All lamports on the ledger; only network fees lower it, only play money raises it."""
        with self._lock:
            return self._ledger.total_lamports()

    def token_balance(self, owner: Pubkey, mint: Pubkey) -> int:
        """Tokens in the owner's associated account."""
        with self._lock:
            account = self._ledger.token_account(token_address(owner, mint))
            return account.amount if account is not None else 0

    def token_account(self, address: Pubkey) -> TokenAccount | None:
        """A token account."""
        with self._lock:
            return self._ledger.token_account(address)

    def token_accounts_of(self, owner: Pubkey) -> list[tuple[Pubkey, TokenAccount]]:
        """All token accounts of an owner."""
        with self._lock:
            return self._ledger.token_accounts_of(owner)

    def mint(self, address: Pubkey) -> Mint | None:
        """A mint."""
        with self._lock:
            return self._ledger.mint(address)

    # -- test hooks

    @property
    def listings(self) -> Sequence[Listing]:
        """What trades here, in catalogue order."""
        return list(self._market.listings.values())

    def newest_positions(self, count: int) -> tuple[int, list[PositionRecord]]:
        """How many positions are open, and the newest ``count`` of all, open ones first."""
        with self._lock:
            return self._stream.positions.book.newest(count)

    def sale_proceeds(self, listing: Listing, tokens: int) -> int:
        """What a sale would return now, net of all fees, the routing fee of the first key included."""
        with self._lock:
            return self._stream.positions.exits.proceeds(listing, tokens, self._routing_fee(None))

    def depth(self, listing: Listing) -> tuple[Reserves, int]:
        """A listing's reserves, and its token's supply in smallest units."""
        with self._lock:
            return self._market.reserves(listing), self._market.supply(listing)

    def transactions(self) -> list[TransactionRecord]:
        """Landed transactions, oldest first."""
        with self._lock:
            return self._chain.records()

    def positions(self) -> list[PositionRecord]:
        """Positions, oldest first, closed ones included."""
        with self._lock:
            return self._stream.positions.book.records()

    def sessions(self, *, include_closed: bool) -> list[SessionRecord]:
        """Sessions, oldest first."""
        with self._lock:
            every = self._stream.registry.sessions.values()
            return [session_record(session) for session in every if include_closed or session.live]

    def received(self) -> dict[int, list[dict[str, object]]]:
        """What each session's client has sent so far."""
        with self._lock:
            return {session.session_id: list(session.received) for session in self._stream.registry.sessions.values()}

    def post_to_all(self, frames: Sequence[Frame]) -> int:
        """Put frames on every open connection; how many there were."""
        with self._lock:
            connected = [session for session in self._stream.registry.sessions.values() if session.closed_at_ms is None]
            for session in connected:
                session.outbox.post(frames)
            return len(connected)

    def force_exit(self, position_id: int, reason: str) -> None:
        """Signal an exit. Raises ValueError for a position that is not open."""
        with self._lock:
            position = self._stream.positions.book.position(position_id)
            if position is None or not position.open:
                raise ValueError(f"position_id {position_id} is not an open position")
            self._date()
            self._stream.positions.force_exit(position, reason)
            self._happened()


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
