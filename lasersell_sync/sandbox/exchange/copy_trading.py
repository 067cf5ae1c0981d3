"""Copy trading: what watched wallets buy and sell is offered to those who copy them (docs/protocol.md 3, 4, 5).

The rules of ``mirror_config`` are this module's, one method each. What the protocol leaves open is decided so: rules
that count SOL look at SOL markets only; ``max_positions_per_wallet`` counts open copies of one watched wallet; a copy
is lost if its sales brought less than its purchases cost; and ``update_watch_wallets`` resets the losses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.clock import VirtualClock
from lasersell_sync.sandbox.chain.runtime import Swap
from lasersell_sync.sandbox.exchange.exit_service import ExitService
from lasersell_sync.sandbox.exchange.orders import OrderBuilder, OrderRejected, OrderTerms
from lasersell_sync.sandbox.exchange.position_book import Position, PositionBook
from lasersell_sync.sandbox.exchange.sessions import Session
from lasersell_sync.sandbox.markets.currencies import SOL
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.market import Market
from lasersell_sync.sandbox.markets.pools import tokens_for_budget
from lasersell_sync.sandbox.protocol import server_messages as wire
from lasersell_sync.sandbox.protocol.client_messages import AutoBuy, MirrorBuyResult, WatchWallet
from lasersell_sync.sandbox.protocol.exit_conditions import Exit, exact_pct
from lasersell_sync.sandbox.protocol.policies import Policies

_log = logging.getLogger("lasersell_sync.sandbox.stream")

DEFAULT_MIRROR_SLIPPAGE_BPS = 1_000
MIRROR_SELL = "mirror_sell"
#: What ends the copying of a wallet, as the documentation and as the protocol crate spell it.
LOSS_LIMIT_REACHED, CONSECUTIVE_LOSSES = "consecutive_loss_limit_reached", "consecutive_losses"
#: A blockhash's life and some: a copy that has not landed by then never will.
PENDING_S = 90.0


@dataclass(slots=True)
class _Record:
    """How one key's copying of one watched wallet goes."""

    last_signal_s: float | None = None
    losses: int = 0
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class _Pending:
    """A copy that was signalled and has not landed."""

    key_id: str
    watched: Pubkey
    mint: Pubkey
    wallet: Pubkey
    lamports: int
    until_s: float


@dataclass(frozen=True, slots=True)
class _Plan:
    """A purchase that may be copied."""

    session: Session
    auto_buy: AutoBuy
    swap: Swap
    listing: Listing
    #: None: the client named no amount in this market's currency
    amount: int | None

    @property
    def lamports(self) -> int:
        """The SOL it takes."""
        return self.amount or 0 if self.listing.quote == SOL else 0


class CopyTrading:
    """Signals copies, and keeps count of them.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(
        self,
        market: Market,
        orders: OrderBuilder,
        book: PositionBook,
        clock: VirtualClock,
        exits: ExitService,
        policies: Policies,
    ) -> None:
        self._loss_reason = CONSECUTIVE_LOSSES if policies.crate_loss_reason else LOSS_LIMIT_REACHED
        #: the same share of every copy is sold, or else nothing
        self._mirrors_sales = policies.mirror_sell_sells
        self._market = market
        self._orders = orders
        self._book = book
        self._clock = clock
        self._exits = exits
        self._records: dict[tuple[str, Pubkey], _Record] = {}
        self._pending: list[_Pending] = []

    def enable(self, session: Session) -> None:
        """A session has named its watch wallets: whatever was held against them is forgiven."""
        for watch in session.watch_wallets:
            record = self._record(session, watch.pubkey)
            record.losses, record.disabled = 0, False

    def _record(self, session: Session, watched: Pubkey) -> _Record:
        return self._records.setdefault((session.key_id, watched), _Record())

    # -- purchases

    def copy(self, swap: Swap, spectators: Iterable[Session]) -> None:
        """A trade has landed: offer it to the sessions that watch its trader."""
        for session in spectators:
            watch = next(item for item in session.watch_wallets if item.pubkey == swap.trader)
            if swap.side == "sell":
                self._copy_sale(session, watch, swap)
            elif watch.auto_buy is not None:
                self._copy_purchase(session, watch.auto_buy, swap)

    def _copy_purchase(self, session: Session, auto_buy: AutoBuy, swap: Swap) -> None:
        record = self._record(session, swap.trader)
        if record.disabled:
            return
        self._pending = [pending for pending in self._pending if pending.until_s > self._clock.now_s()]
        listing = self._market.listings[swap.mint]
        amount = auto_buy.amount_quote_units if listing.quote == SOL else auto_buy.amount_usd1_units
        plan = _Plan(session, auto_buy, swap, listing, amount)
        reason = self._obstacle(plan) or self._signal(plan)
        if reason is not None:
            _log.info("session %d: a purchase of %s is not copied: %s", session.session_id, swap.trader, reason)
            failed = wire.message("mirror_buy_failed", watched_wallet=swap.trader, mint=swap.mint, reason=reason)
            session.outbox.post([failed])

    def _signal(self, plan: _Plan) -> str | None:
        """Offer the copy; or why it cannot be built."""
        session, swap, listing, buyer = plan.session, plan.swap, plan.listing, plan.auto_buy.wallet
        slippage_bps = session.mirror_config.buy_slippage_bps or DEFAULT_MIRROR_SLIPPAGE_BPS
        amount = plan.amount or 0
        try:
            order = self._orders.buy(
                listing, buyer, amount, OrderTerms(slippage_bps, session.delivery, None, session.tier.routing_fee)
            )
        except OrderRejected:
            return "amount_too_small"
        delivery = session.delivery
        signal = wire.message(
            "mirror_buy_signal",
            session_id=session.session_id,
            watched_wallet=swap.trader,
            mint=swap.mint,
            user_wallet=buyer,
            amount_quote_units=amount,
            input=listing.quote.name,
            unsigned_tx_b64=order.tx_b64,
            slippage_bps=slippage_bps,
            send_mode=delivery.send_mode,
            tip_lamports=delivery.tip_lamports,
            market_context=self._market.venue(listing).market_context(listing, buyer),
        )
        now_s = self._clock.now_s()
        self._record(session, swap.trader).last_signal_s = now_s
        self._pending.append(_Pending(session.key_id, swap.trader, swap.mint, buyer, plan.lamports, now_s + PENDING_S))
        session.outbox.post([signal])
        return None

    def arrived(self, position: Position) -> None:
        """A purchase has landed; if it is a copy, its position learns of whom."""
        for pending in self._pending:
            if (pending.wallet, pending.mint) == (position.holding.wallet, position.holding.mint):
                position.mirror_source = position.mirror_source or pending.watched
                self._pending.remove(pending)
                return

    def result(self, session: Session, command: MirrorBuyResult) -> None:
        """What the client made of a signal: one it gave up on does not count any more."""
        _log.debug("session %d: mirror buy of %s, success %s", session.session_id, command.mint, command.success)
        if not command.success:
            self._pending = [
                pending
                for pending in self._pending
                if (pending.key_id, str(pending.mint)) != (session.key_id, command.mint)
            ]

    # -- rules

    def _obstacle(self, plan: _Plan) -> str | None:
        """The first rule that forbids a copy, by name."""
        rules = {
            "usd1_amount_missing": plan.amount is None,
            "capacity_exceeded": self._is_full(plan),
            "max_positions_reached": self._has_enough_copies(plan),
            "cooldown_active": self._is_cooling_down(plan),
            "skip_creator_tokens": self._is_own_creation(plan),
            "max_active_sol": self._risks_too_much(plan),
            "below_min_liquidity": self._is_too_thin(plan),
            "max_entry_drift_pct": self._has_drifted(plan),
            "insufficient_balance": plan.amount is not None
            and self._market.funds(plan.auto_buy.wallet, plan.listing.quote) < plan.amount,
        }
        return next((name for name, broken in rules.items() if broken), None)

    def _is_full(self, plan: _Plan) -> bool:
        held = any(position.holding.mint == plan.swap.mint for position in plan.session.own_positions())
        return not held and plan.session.full(plan.auto_buy.wallet) is not None

    def _has_enough_copies(self, plan: _Plan) -> bool:
        most, watched = plan.session.mirror_config.max_positions_per_wallet, plan.swap.trader
        mints = {position.holding.mint for position in self._copies(plan.session) if position.mirror_source == watched}
        mints |= {pending.mint for pending in self._signalled(plan.session) if pending.watched == watched}
        # More of what it holds already is no new position.
        return 0 < most <= len(mints) and plan.swap.mint not in mints

    def _is_cooling_down(self, plan: _Plan) -> bool:
        last_s = self._record(plan.session, plan.swap.trader).last_signal_s
        return last_s is not None and self._clock.now_s() - last_s < plan.session.mirror_config.cooldown_sec

    def _is_own_creation(self, plan: _Plan) -> bool:
        return plan.session.mirror_config.skip_creator_tokens and plan.listing.creator == plan.swap.trader

    def _risks_too_much(self, plan: _Plan) -> bool:
        most_sol = plan.session.mirror_config.max_active_sol
        active = sum(
            position.entry_lamports
            for position in self._copies(plan.session)
            if self._market.listings[position.holding.mint].quote == SOL
        )
        active += sum(pending.lamports for pending in self._signalled(plan.session))
        return most_sol > 0 and active + plan.lamports > exact_pct(most_sol) * 10**SOL.decimals

    def _is_too_thin(self, plan: _Plan) -> bool:
        least_sol = plan.session.mirror_config.min_liquidity_sol
        if least_sol is None or plan.listing.quote != SOL:
            return False
        return bool(self._market.reserves(plan.listing).lamports < exact_pct(least_sol) * 10**SOL.decimals)

    def _has_drifted(self, plan: _Plan) -> bool:
        """Whether a token would cost too much more than the watched wallet has just paid."""
        most_pct, swap = plan.session.mirror_config.max_entry_drift_pct, plan.swap
        if most_pct is None or not plan.amount:
            return False
        reserves, fees = self._market.reserves(plan.listing), self._market.venue(plan.listing).fees
        tokens = tokens_for_budget(reserves, fees, plan.amount)
        if tokens == 0:
            return False
        drift = Fraction(plan.amount * swap.tokens, tokens * swap.lamports) - 1
        return drift * 100 > exact_pct(most_pct)

    def _copies(self, session: Session) -> list[Position]:
        return [position for position in session.own_positions() if position.mirror_source is not None]

    def _signalled(self, session: Session) -> list[_Pending]:
        return [pending for pending in self._pending if pending.key_id == session.key_id]

    # -- sales

    def _copy_sale(self, session: Session, watch: WatchWallet, swap: Swap) -> None:
        """Sell the same share of every copy; all of it if the watched wallet has sold out."""
        if not watch.mirror_sell or not self._mirrors_sales:
            return
        holding = self._book.holding(swap.token_account)
        left = holding.tokens if holding is not None else 0
        for position in self._copies(session):
            if (position.mirror_source, position.holding.mint) != (swap.trader, swap.mint):
                continue
            if left == 0:
                position.exit_reason = MIRROR_SELL
                watch_state = position.watches[session.key_id]
                position.watches[session.key_id] = replace(watch_state, fired=watch_state.fired or MIRROR_SELL)
                self._exits.signal(session, position, Exit(MIRROR_SELL))
            else:
                sell_tokens = position.holding.tokens * swap.tokens // (left + swap.tokens)
                if sell_tokens:
                    self._exits.signal(session, position, Exit(MIRROR_SELL, sell_tokens))

    def closed(self, position: Position, sessions: Iterable[Session]) -> None:
        """A position was closed: copies that lost count against whom they copied."""
        watched = position.mirror_source
        if watched is None or position.holding.tokens:
            return  # not a copy, or not sold
        lost = position.returned_units < position.paid_units
        for key_id in position.watches:
            record = self._records.setdefault((key_id, watched), _Record())
            record.losses = record.losses + 1 if lost else 0
        for session in sessions:
            self._disable_if_due(session, watched)

    def _disable_if_due(self, session: Session, watched: Pubkey) -> None:
        most = session.mirror_config.max_consecutive_losses
        record = self._record(session, watched)
        watches = any(watch.pubkey == watched and watch.auto_buy is not None for watch in session.watch_wallets)
        if not most or not watches or record.disabled or record.losses < most:
            return
        record.disabled = True
        disabled = wire.message(
            "mirror_wallet_auto_disabled", watched_wallet=watched, reason=self._loss_reason, loss_count=record.losses
        )
        session.outbox.post([disabled])
