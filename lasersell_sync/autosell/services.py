"""What the rules of selling work with, and the numbers that a user may set (``SellPolicy``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple, Protocol

import attrs

from lasersell_sync.autosell.exit_key import ExitKey, ExitsUnderWay
from lasersell_sync.autosell.journal import Journal
from lasersell_sync.autosell.keyed_executor import KeyedExecutor
from lasersell_sync.autosell.questions import BuildAnswer, TradesAnswer
from lasersell_sync.autosell.reports import BuyReport, Refusal, SellReport
from lasersell_sync.autosell.signing_gate import Case, PauseBarrier, SigningGate
from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.messages import ExitSignalWithTx, MirrorBuySignal, PositionOpened
from lasersell_sync.runtime.timeouts import bounded_s
from lasersell_sync.trading.guard import TradeContext
from lasersell_sync.trading.keys.signer import Signer
from lasersell_sync.trading.rest.tx_requests import BuildSellTxRequest, BuildTxResponse
from lasersell_sync.trading.sending.tracked_tx import Listener
from lasersell_sync.trading.solana.account_history import AccountHistory, Verdict
from lasersell_sync.trading.solana.signing import SignedTx
from lasersell_sync.trading.solana.token_accounts import AmountProof

__all__ = ["PositionFacts", "SellPolicy", "Sender", "Services", "StreamPort", "TokenWitness"]


# ── How an exit is pursued ──────────────────────────────────────────────────────────────────────────────────────────


_BPS_MAX = 10_000


def _whole(low: int, high: int) -> Any:
    def check(_: object, attribute: attrs.Attribute[int], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigurationError(attribute.name, f"a whole number from {low} to {high} is needed")

    return check


def _seconds(_: object, attribute: attrs.Attribute[float], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ConfigurationError(attribute.name, "a positive, finite number of seconds is needed")


def _flag(_: object, attribute: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(attribute.name, "True or False is needed")


@attrs.frozen(kw_only=True)
class SellPolicy:
    """How an ``AutoSeller`` pursues an exit (docs/protocol.md 9, the reference daemon's retry policy).

    Args:
        base_slippage_bps: basis points that the first fresh transaction starts from. Signals carry no slippage of their
            own; the server chose it for the transaction that came with them.
        first_bump_bps: added for the first fresh transaction that follows a dead one.
        next_bump_bps: added for each one after that.
        max_slippage_bps: never asked for more.
        max_refreshes: fresh transactions asked for in place of dead ones, then the exit is given up and told. The
            reference daemon stops after 2 or 3; an unsold position costs more than a few fees.
        max_signal_age_s: seconds; an older signal's price is not today's, so a fresh transaction is asked for instead
            (which counts as no failure and adds no slippage).
        refresh_wait_s: seconds to wait for the transaction that was asked for, then it is asked for again.
        max_unanswered: questions without an answer, then the exit is given up and told; while there is no link to the
            server, none is counted.
        overlap_full_exit: ask for a fresh transaction of a whole-position exit ``overlap_after_s`` after sending,
            though the old one may still land. Both can land only if the tokens come back in between; for parts of a
            position it is never done. False: only when the old one is proven dead.
        overlap_after_s: seconds.

    Raises:
        ConfigurationError: a value out of range, named.

    Threads: immutable, any.
    """

    base_slippage_bps: int = attrs.field(default=2_000, validator=_whole(0, _BPS_MAX))
    first_bump_bps: int = attrs.field(default=20, validator=_whole(0, _BPS_MAX))
    next_bump_bps: int = attrs.field(default=40, validator=_whole(0, _BPS_MAX))
    max_slippage_bps: int = attrs.field(default=2_500, validator=_whole(0, _BPS_MAX))
    max_refreshes: int = attrs.field(default=10, validator=_whole(0, 1_000))
    max_signal_age_s: float = attrs.field(default=10.0, converter=bounded_s, validator=_seconds)
    refresh_wait_s: float = attrs.field(default=1.5, converter=bounded_s, validator=_seconds)
    max_unanswered: int = attrs.field(default=20, validator=_whole(1, 10_000))
    overlap_full_exit: bool = attrs.field(default=False, validator=_flag)
    overlap_after_s: float = attrs.field(default=10.0, converter=bounded_s, validator=_seconds)

    def __attrs_post_init__(self) -> None:
        if self.base_slippage_bps > self.max_slippage_bps:
            raise ConfigurationError(
                "base_slippage_bps", f"{self.base_slippage_bps} is above max_slippage_bps={self.max_slippage_bps}"
            )

    def slippage_bps(self, dead_transactions: int) -> int:
        """What the next fresh transaction may give away, after so many that are proven dead."""
        bumps = 0 if dead_transactions == 0 else self.first_bump_bps + (dead_transactions - 1) * self.next_bump_bps
        return min(self.max_slippage_bps, self.base_slippage_bps + bumps)


# ── What the rules of selling work with; made once by the ``AutoSeller`` ────────────────────────────────────────────


class Sender(Protocol):
    """What is needed of a ``TxSender``."""

    def submit_for(self, signed: SignedTx, listener: Listener, /) -> object:
        """Send, and report what became of it."""

    def track_for(self, signature: str, blockhash: str, listener: Listener, /) -> object:
        """Report what became of one that was sent before."""


class TokenWitness(Protocol):
    """What the stream says about a position's tokens since a moment."""

    def still_held(self) -> bool:
        """Whether the tokens of that moment are proven to be there."""

    def have_fallen_by(self, tokens: int) -> bool:
        """Whether the balance is lower by so many."""


class PositionFacts(NamedTuple):
    """What the stream knows of a position now; None: nothing.

    Attributes:
        tokens: the balance, in atomic units.
        proceeds_units: the newest, when they are at most 10 s old.
    """

    tokens: int | None
    proceeds_units: int | None


class StreamPort(Protocol):
    """What is needed of a session."""

    def announcement(self, wallet: str, token_account: str) -> PositionOpened | None:
        """A position that the session knows, as an announcement; None: it is not open."""

    def position_facts(self, wallet: str, token_account: str) -> PositionFacts:
        """The balance of a position and its newest proceeds."""

    def seen_slot(self, wallet: str, token_account: str) -> int | None:
        """The newest slot at which the server has seen a token account, in this session; None: it named none."""

    def holds(self, wallet: str, token_account: str, amounts: Container[int]) -> bool:
        """Whether the newest balance of a position that was announced on this link is one of these."""

    def watch_tokens(self, wallet: str, token_account: str) -> TokenWitness:
        """A witness of the position's balance from now on."""

    def ask_for_exit(self, token_account: str, slippage_bps: int) -> None:
        """Ask the server for a fresh transaction that sells the whole position."""

    def tell_bought(self, mint: str, *, success: bool) -> None:
        """Tell the server what became of a copied purchase."""

    def server_time_ms(self) -> float | None:
        """The server's clock."""

    @property
    def is_linked(self) -> bool:
        """Whether a question would reach the server now."""

    @property
    def send_mode(self) -> str | None:
        """What transactions are built for."""

    @property
    def tip_lamports(self) -> int | None:
        """What they pay to the sender."""


class QuestionPort(Protocol):
    """What is needed of ``Questions``."""

    def balance(self, token_account: str, proof: AmountProof, then: Callable[[int | None], None]) -> None:
        """Ask what a token account holds; None while that is not proven."""

    def history(self, token_account: str, history: AccountHistory, then: Callable[[Verdict | None], None]) -> None:
        """Ask whether a token account is as it was recorded; None while that is not proven."""

    @property
    def lists_trades(self) -> bool:
        """Whether past trades can be asked for."""

    def trades(self, wallet: str, mint: str, then: TradesAnswer) -> None:
        """Ask the REST API for past trades of a wallet and token; None when it cannot say."""

    def blockhash(self, blockhash: str, then: Callable[[bool | None], None]) -> None:
        """Ask whether any node calls a blockhash valid."""

    def build(self, request: BuildSellTxRequest, then: BuildAnswer) -> None:
        """Have a sale built."""


@attrs.frozen(kw_only=True)
class SellTerms:
    """What an automatic seller sells at all.

    Attributes:
        sell_unannounced: positions, too, that no link announced and the journal does not have.
        never_sell: mints, 32 bytes each, in place of the guard's list; None: the guard's.
        minimum_tip_lamports: the largest minimum of the sender's targets.
        announcement_grace_s: seconds that the signal of an unannounced position waits for the announcement.
    """

    sell_unannounced: bool = False
    never_sell: frozenset[bytes] | None = None
    announcement_grace_s: float = 3.0
    minimum_tip_lamports: int = 0


@attrs.frozen(kw_only=True)
class Services:
    """Everything that the rules of selling work with.

    Attributes:
        stream: the session.
        sender: sends, and learns what became of it.
        journal: of a dry run, one in memory.
        signers: by wallet.
        gate: decides what is signed.
        policy: how an exit is pursued.
        can_build: sales of a part are built anew; False: they are given up when their transaction is dead.
        questions: asks for balances, and has sales built.
        executor: where tasks run.
        barrier: what a pause waits for.
        is_dry_run: nothing is signed or sent.
        report_sale: tell the user, and the journal by the exit's number in it.
        report_buy: tell the user.
        report_problem: tell the user what keeps an exit waiting, or went wrong.
        report_refusal: tell the user that an exit waits for a decision.
        terms: what is sold at all.
        token_accounts: those that are known to be ours, base58.
        under_way: exits that may land, for purchases of the same token.
    """

    stream: StreamPort
    sender: Sender
    journal: Journal
    signers: Mapping[str, Signer]
    gate: SigningGate
    policy: SellPolicy
    can_build: bool
    questions: QuestionPort
    executor: KeyedExecutor
    barrier: PauseBarrier
    is_dry_run: bool
    report_sale: Callable[[SellReport, int], None]
    report_buy: Callable[[BuyReport], None]
    report_problem: Callable[[Exception], None]
    report_refusal: Callable[[Refusal], None]
    terms: SellTerms
    token_accounts: Container[str] = ()
    under_way: ExitsUnderWay = attrs.Factory(ExitsUnderWay)

    def judge(
        self,
        wallet: str,
        transaction: ExitSignalWithTx | MirrorBuySignal | BuildTxResponse,
        request: BuildSellTxRequest | None = None,
        *,
        mint: str,
        key: ExitKey | None = None,
        context: TradeContext | None = None,
        may_be_allowed: bool = False,
    ) -> Case:
        """Have a transaction judged; returns at once. ``sign`` takes the case once it is ready.

        Args:
            wallet: who signs, base58.
            transaction: the signal, or what the REST API built.
            request: what that was asked for with.
            mint: the token, base58.
            key: the exit; None for a purchase.
            context: what is known of the position.
            may_be_allowed: whether a permission of the user for this exit may be used now.

        Raises:
            ConfigurationError: no signer is this wallet.
            UnsafeTransactionError: it is no transaction.
        """
        if wallet not in self.signers:
            raise ConfigurationError("signers", f"none is the wallet {wallet}")
        return self.gate.open(
            transaction, wallet=wallet, mint=mint, key=key, request=request, context=context,
            may_be_allowed=may_be_allowed,
        )  # fmt: skip

    def sign(
        self,
        case: Case,
        transaction: ExitSignalWithTx | MirrorBuySignal | BuildTxResponse,
        request: BuildSellTxRequest | None = None,
    ) -> SignedTx | None:
        """The transaction, signed if the guard lets it pass; None in a dry run.

        Args:
            case: one that is ready.
            transaction: what it is about.
            request: what that was asked for with.

        Raises:
            UnsafeTransactionError, TxSubmitError, ConfigurationError: as ``Signer.sign``; nothing was signed.
        """
        signer = self.signers[case.wallet]
        checked = self.gate.decide(case, is_dry_run=self.is_dry_run)
        if self.is_dry_run:
            return None
        if checked is None:
            return signer.sign_tx(transaction, request=request, guard=None)
        return signer.sign_checked(checked)
