"""The exchange: ledger, market, chain and stream desk under one lock, and the moments at which they act.

Synchronous and without I/O. The three servers and the test hooks call in from their threads; ``run_due`` is called by
the pacemaker thread whenever something is due. Every public method takes the lock itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox.accounts import KeyRing, check_proof
from lasersell_sync.sandbox.chain import Chain, Execution, TransactionError, TransactionRecord
from lasersell_sync.sandbox.instructions import transfer
from lasersell_sync.sandbox.ledger import Ledger, Mint, TokenAccount, token_address
from lasersell_sync.sandbox.listings import Listing, Venue
from lasersell_sync.sandbox.market import Market, seeded_keypair
from lasersell_sync.sandbox.orders import Delivery, OrderDesk, OrderRejected, PartnerFee, UnsignedTransaction
from lasersell_sync.sandbox.positions import PositionRecord
from lasersell_sync.sandbox.programs import Programs
from lasersell_sync.sandbox.sessions import Frame, Outbox, Session, SessionRecord, session_record
from lasersell_sync.sandbox.slots import SlotClock
from lasersell_sync.sandbox.stream_desk import StreamDesk

_log = logging.getLogger("lasersell_sync.sandbox.exchange")

MARKET_TICK_S = 0.1
LIQUIDITY_S = 1.0
#: A pacemaker that fell behind further than this skips the time it lost, not the ticks.
_MAX_LAG_S = 1.0
_FAUCET_LAMPORTS = 10**7 * 10**9

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExchangeSettings:
    """What a sandbox can be told; see ``Sandbox`` for the meaning."""

    seed: int = 1
    api_keys: tuple[str, ...] = ("sandbox-key",)
    pnl_flush_ms: int = 100
    landing_delay_ms: int = 400
    speed: float = 1.0
    replace_sessions: bool = False
    initial_lamports: int = 10 * 10**9


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
        self._now_s = now_s
        self._wall_s = wall_s
        # One lock for all state; two conditions on it. Reentrant, so that a `wait_for` predicate may ask questions.
        self._lock = threading.RLock()
        #: anything happened
        self._changed = threading.Condition(self._lock)
        #: something became due earlier than the pacemaker thinks
        self._work = threading.Condition(self._lock)

        self.keys = KeyRing(settings.api_keys)
        self._ledger = Ledger()
        self._market = Market(self._ledger, seed=settings.seed)
        self._faucet = seeded_keypair(settings.seed, "faucet")
        self._ledger.credit(self._faucet.pubkey(), _FAUCET_LAMPORTS)
        self._airdrops = 0
        self._slots = SlotClock(now_s)
        self._chain = Chain(
            self._ledger,
            Programs(self._market.venues, self._market.listings),
            self._slots,
            now_s=now_s,
            landing_delay_s=settings.landing_delay_ms / 1000,
        )
        self._orders = OrderDesk(self._market, self._slots)
        self._desk = StreamDesk(
            keys=self.keys,
            market=self._market,
            orders=self._orders,
            slots=self._slots,
            now_ms=self._now_ms,
            pnl_flush_ms=settings.pnl_flush_ms,
            replace_sessions=settings.replace_sessions,
        )
        self._paid_wallets: set[Pubkey] = set()
        #: when the next of each is due, on the monotonic clock; None while there is nothing to do
        self._next_tick_s: float | None = None
        self._next_pnl_s: float | None = None
        self._next_liquidity_s: float | None = None

    def _now_ms(self) -> int:
        return int(self._wall_s() * 1000)

    # -- time

    def run_due(self) -> float | None:
        """Do everything that is due; seconds until the next thing is, or None if nothing is planned."""
        with self._lock:
            landings = self._chain.land_due()
            for landing in landings:
                self._desk.settle(landing)
            acted = self._tick_if_due() + self._flush_if_due()
            self._plan()
            if landings or acted:
                self._changed.notify_all()
            planned = (self._chain.next_landing_s(), self._next_tick_s, self._next_pnl_s, self._next_liquidity_s)
            due = [moment for moment in planned if moment is not None]
            return max(0.0, min(due) - self._now_s()) if due else None

    def run_and_wait(self, stopping: Callable[[], bool]) -> None:
        """Do what is due, then wait until the next thing is or somebody brings work; for the pacemaker alone."""
        # The lock is held from looking to waiting, so that work brought in between cannot be missed.
        with self._lock:
            wait_s = self.run_due()
            if not stopping():
                self._work.wait(wait_s)

    def wake(self) -> None:
        """End the pacemaker's wait now."""
        with self._lock:
            self._happened()

    def _happened(self) -> None:
        """Somebody changed something: plan again, wake the pacemaker and all who wait."""
        self._plan()
        self._work.notify_all()
        self._changed.notify_all()

    def _plan(self) -> None:
        now_s = self._now_s()
        sessions = self._desk.live_sessions()
        tracking = any(session.positions for session in sessions)
        ticking = self._market.needs_ticks(watched=bool(sessions))
        self._next_tick_s = _planned(self._next_tick_s, now_s, self._tick_interval_s(), wanted=ticking)
        self._next_pnl_s = _planned(self._next_pnl_s, now_s, self._settings.pnl_flush_ms / 1000, wanted=tracking)
        self._next_liquidity_s = _planned(self._next_liquidity_s, now_s, LIQUIDITY_S, wanted=tracking)

    def _tick_interval_s(self) -> float:
        return MARKET_TICK_S / self._settings.speed

    def _tick_if_due(self) -> int:
        ticks = 0
        interval_s = self._tick_interval_s()
        while self._next_tick_s is not None and self._next_tick_s <= self._now_s():
            watched = bool(self._desk.live_sessions())
            for swap in self._market.tick(watched=watched):
                self._desk.traded(swap)
            ticks += 1
            self._next_tick_s = _following(self._next_tick_s, interval_s, self._now_s())
            if not self._market.needs_ticks(watched=watched):
                break
        return ticks

    def _flush_if_due(self) -> int:
        now_s, sessions = self._now_s(), self._desk.live_sessions()
        flushes = 0
        if self._next_pnl_s is not None and self._next_pnl_s <= now_s:
            self._desk.feed.flush_pnl(sessions)
            # One flush however late: newer numbers replace older ones.
            self._next_pnl_s = max(self._next_pnl_s + self._settings.pnl_flush_ms / 1000, now_s)
            flushes += 1
        if self._next_liquidity_s is not None and self._next_liquidity_s <= now_s:
            self._desk.feed.flush_liquidity(sessions)
            self._next_liquidity_s = max(self._next_liquidity_s + LIQUIDITY_S, now_s)
            flushes += 1
        return flushes

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
            session = self._desk.connect(key_id, outbox)
            self._happened()
            return session

    def receive(self, session: Session, data: str | bytes) -> None:
        """A frame of a client."""
        with self._lock:
            self._desk.receive(session, data)
            self._happened()

    def disconnect(self, session: Session) -> None:
        """A stream connection is gone."""
        with self._lock:
            self._desk.disconnect(session)
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
            self._happened()

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
            )

    # -- JSON-RPC

    def send_transaction(self, transaction: VersionedTransaction, *, skip_preflight: bool) -> Signature:
        """Take a signed transaction in. Raises ``TransactionRefused``."""
        with self._lock:
            signature = self._chain.admit(transaction, skip_preflight=skip_preflight)
            self._happened()
            return signature

    def simulate(self, transaction: VersionedTransaction) -> tuple[TransactionError | None, Execution | None]:
        """What a transaction would do now."""
        with self._lock:
            return self._chain.simulate(transaction)

    def airdrop(self, wallet: Pubkey, amount_lamports: int) -> Signature:
        """A transfer from the faucet; lands like any other transaction. Raises ``TransactionRefused``."""
        with self._lock:
            transaction = self._airdrop_transaction(self._faucet, wallet, amount_lamports)
            return self.send_transaction(transaction, skip_preflight=False)

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
            return self._slots.latest_blockhash()

    def accepts_blockhash(self, blockhash: Hash) -> bool:
        """Whether a blockhash is still good."""
        with self._lock:
            return self._slots.accepts(blockhash)

    def slot(self) -> int:
        """The current slot."""
        with self._lock:
            return self._slots.slot()

    def block_height(self) -> int:
        """The current block height."""
        with self._lock:
            return self._slots.block_height()

    def skip_slots(self, slots: int) -> None:
        """Let the chain's time jump ahead (blockhashes age, transactions become final)."""
        with self._lock:
            self._slots.skip(slots)
            self._happened()

    def signature_status(self, signature: Signature) -> dict[str, object] | None:
        """The status entry of a landed transaction."""
        with self._lock:
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

    def transactions(self) -> list[TransactionRecord]:
        """Landed transactions, oldest first."""
        with self._lock:
            return self._chain.records()

    def positions(self) -> list[PositionRecord]:
        """Positions, oldest first, closed ones included."""
        with self._lock:
            return self._desk.book.records()

    def sessions(self, *, include_closed: bool) -> list[SessionRecord]:
        """Sessions, oldest first."""
        with self._lock:
            every = self._desk.sessions.values()
            return [session_record(session) for session in every if include_closed or session.live]

    def received(self) -> dict[int, list[dict[str, object]]]:
        """What each session's client has sent so far."""
        with self._lock:
            return {session.session_id: list(session.received) for session in self._desk.sessions.values()}

    def post_to_all(self, frames: Sequence[Frame]) -> int:
        """Put frames on every open connection; how many there were."""
        with self._lock:
            connected = [session for session in self._desk.sessions.values() if session.closed_at_ms is None]
            for session in connected:
                session.outbox.post(frames)
            return len(connected)

    def force_exit(self, position_id: int, reason: str) -> None:
        """Signal an exit. Raises ValueError for a position that is not open."""
        with self._lock:
            position = self._desk.book.position(position_id)
            if position is None or not position.open:
                raise ValueError(f"position_id {position_id} is not an open position")
            self._desk.force_exit(position, reason)
            self._happened()

    def multiply_price(self, mint: Pubkey, ratio: Fraction) -> None:
        """Move a price by one trade of the crowd. Raises ValueError for an unknown mint."""
        with self._lock:
            if mint not in self._market.listings:
                raise ValueError(f"mint {mint} is not listed here")
            swap = self._market.multiply_price(mint, ratio.numerator, ratio.denominator)
            if swap is not None:
                self._desk.traded(swap)
            self._happened()


def _planned(moment_s: float | None, now_s: float, interval_s: float, *, wanted: bool) -> float | None:
    """Keep a running schedule, start one, or stop it."""
    if not wanted:
        return None
    return now_s + interval_s if moment_s is None else moment_s


def _following(moment_s: float, interval_s: float, now_s: float) -> float:
    """The tick after one; on the old grid unless too much time was lost."""
    following_s = moment_s + interval_s
    return following_s if now_s - following_s < _MAX_LAG_S else now_s + interval_s
