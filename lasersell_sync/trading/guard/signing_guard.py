"""The guard: decides whether a transaction may be signed, and explains itself. Works offline unless it has nodes."""

from __future__ import annotations

import copy
import functools
import os
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import attrs

from lasersell_sync.exceptions import BrokenRule, ConfigurationError, TxSubmitError, UnsafeTransactionError
from lasersell_sync.messages import ExitSignalWithTx, MirrorBuySignal
from lasersell_sync.runtime.fork_guard import refuse_late_patching
from lasersell_sync.trading.guard.addresses import require_address, to_text
from lasersell_sync.trading.guard.decoded import Decoded, decode, lookup_counts
from lasersell_sync.trading.guard.expected import (
    Expected,
    GuardOptions,
    OpaqueMode,
    Request,
    Signal,
    TradeContext,
    expected_trade,
    opaque_mode,
)
from lasersell_sync.trading.guard.money import Costs, costs_of
from lasersell_sync.trading.guard.node_facts import OLD_TOKEN_ACCOUNT_RENT_LAMPORTS, GuardNodes, LookupTables
from lasersell_sync.trading.guard.programs import (
    LAYOUTS_ENVIRONMENT,
    KnownPrograms,
    known_programs,
    with_layout_file,
    with_services,
)
from lasersell_sync.trading.guard.programs import allow as with_allowed
from lasersell_sync.trading.guard.report import (
    GuardReport,
    Verdict,
    Verdicts,
    describe,
    describe_simulation,
    simulation_verdict,
)
from lasersell_sync.trading.guard.rules import ENCODING, RULES, Limits, Offence, Rule, rules_for
from lasersell_sync.trading.guard.simulating import Simulating, without_nodes
from lasersell_sync.trading.rest.tx_requests import BuildTxResponse
from lasersell_sync.trading.solana.send_targets import SendTargetRpc, rpc_targets
from lasersell_sync.trading.solana.tx_codec import (
    SIGNATURE_BYTES,
    UNSIGNED,
    Layout,
    decode_base64,
    encode_base64,
    max_transaction_bytes,
    parse,
    signed_bytes,
)

__all__ = ["CheckedTransaction", "Judgement", "SigningGuard", "broken_rule", "read_unsigned"]

_NEW_ONE = "ask for a new transaction, or pass the server's text unchanged"


class CheckedTransaction(NamedTuple):
    """A transaction that passed: exactly these bytes may be signed.

    Attributes:
        raw: its bytes.
        layout: where its parts lie.
    """

    raw: bytes
    layout: Layout


class Judgement(NamedTuple):
    """What the rules say of a transaction.

    Attributes:
        checked: its bytes; they may be signed when there is no offence.
        decoded: what it does.
        trade: what it was compared with.
        offences: every offence, with the rule that it breaks.
        simulation: what nodes made of it; None: it was not simulated.
    """

    checked: CheckedTransaction
    decoded: Decoded
    trade: Expected
    offences: list[tuple[Rule, Offence]]
    simulation: Verdicts | None = None


class SigningGuard:
    """Refuses to let anything be signed that is not plainly the trade it should be (docs/safety.md has the rules).

    ``Signer.sign`` uses one with the defaults below unless it is given another.

    Args:
        max_buy_lamports: the most that a purchase may cost, slippage and the market's fees included. None: purchases
            with SOL are signed only when they come with the user's own ``BuildBuyTxRequest``, which then caps them.
        max_buy_usd1_units: the same for purchases with USD1, in its base units (6 decimals).
        max_buy_usdc_units: the same for purchases with USDC, in its base units (6 decimals).
        max_tip_lamports: the most for tips to senders, together.
        max_partner_fee_lamports: the most for the partner; the service's own limit is 50 000 000 (docs/protocol.md 7).
        max_priority_fee_lamports: price times limit of compute units.
        max_rent_lamports: the most that own accounts get beyond what the market spends; 2 039 280 open an account.
        partner: who may get a partner fee, base58; the recipient in a ``BuildSellTxRequest`` or ``BuildBuyTxRequest``
            that is passed along may, too.
        own_accounts: token accounts of the wallet that are not its associated ones, base58.
        tip_accounts: in addition to those of Helius, Jito and Astralane.
        max_slippage_bps: what a sale may bring less than its known price (see ``TradeContext``), in basis points from 0
            to 10 000, unless it was asked for with a slippage.
        never_sell: mints that are never sold, base58.
        usdc_quotes: True: tokens may be traded against USDC, too. A sale then pays USDC, and a purchase that is paid
            with USDC needs ``max_buy_usdc_units``.
        min_usd1_per_sol: the least USD1 for one SOL: a sale may then sell for SOL, and change it into USD1 in a second
            hop. None: no second hop. The guard knows no rate of its own.
        layouts: a file of instruction layouts (docs/guard-layouts.md), which adds to the packaged list. None: the file
            that the environment variable ``LASERSELL_GUARD_LAYOUTS`` names, if any.
        allow: programs and instructions that are trusted beyond the list, what they do notwithstanding: by program
            address, names of Anchor instructions, first bytes (``0x04``), or ``*``. A rejection says what to write.
            Solana's own programs take no addition: no sale needs what their lists refuse.
        rpc: Solana nodes, ``SendTargetRpc`` or URLs: one or several, which are asked at once. The guard reads look-up
            tables from them, and has transactions of unknown layout simulated. None: it asks nobody; tables need
            ``add_lookup_table``. ``AutoSeller`` fills in the nodes of its sender.
        service_programs: programs, beside the LaserSell Router, whose instructions nobody knows the layout of, and
            that trades may go through, base58.
        opaque: what becomes of them. ``"simulate"``: the rule ``opaque``, and a node's simulation. ``"static"``: the
            rule alone. ``"refuse"``: they are refused.
        simulation_timeout_s: seconds after which a transaction is decided on by what nodes have answered, up to 60.
        max_unsimulated_lamports: where no node can simulate, a sale is signed only while its wallet is known to hold
            no more SOL and wrapped SOL than this. Purchases are refused.
        co_signers: wallets that may sign beside ours, base58.

    Raises:
        ConcurrencyError: gevent or eventlet came too late.
        ConfigurationError: an amount or address that is none.

    Threads: any, at the same time.
    """

    #: SOL, USDC, USDT and USD1: what a trader holds to buy with is no position.
    NEVER_SELL: ClassVar[tuple[str, ...]] = (
        "So11111111111111111111111111111111111111112",
        "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
        "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB",
        "USD1ttGY1N17NEEHLmELoaybftRBUSErhqYiQzvEmuB",
    )

    def __init__(
        self,
        *,
        max_buy_lamports: int | None = None,
        max_buy_usd1_units: int | None = None,
        max_buy_usdc_units: int | None = None,
        max_tip_lamports: int = 10_000_000,
        max_partner_fee_lamports: int = 50_000_000,
        max_priority_fee_lamports: int = 5_000_000,
        max_rent_lamports: int = 10_000_000,
        partner: str | None = None,
        own_accounts: Iterable[str] = (),
        tip_accounts: Iterable[str] = (),
        max_slippage_bps: int = 5_000,
        never_sell: Iterable[str] = NEVER_SELL,
        usdc_quotes: bool = False,
        min_usd1_per_sol: float | None = None,
        layouts: str | os.PathLike[str] | None = None,
        allow: Mapping[str, Collection[str]] = types.MappingProxyType({}),
        rpc: SendTargetRpc | str | Sequence[SendTargetRpc | str] | None = None,
        service_programs: Iterable[str] = (),
        opaque: Literal["simulate", "static", "refuse"] = "simulate",
        simulation_timeout_s: float = 0.8,
        max_unsimulated_lamports: int = 2_000_000_000,
        co_signers: Iterable[str] = (),
    ) -> None:
        refuse_late_patching()
        self._options = GuardOptions(
            max_buy_lamports=max_buy_lamports,
            max_buy_usd1_units=max_buy_usd1_units,
            max_buy_usdc_units=max_buy_usdc_units,
            max_tip_lamports=max_tip_lamports,
            max_partner_fee_lamports=max_partner_fee_lamports,
            max_priority_fee_lamports=max_priority_fee_lamports,
            max_rent_lamports=max_rent_lamports,
            partner=partner,
            own_accounts=_texts("own_accounts", own_accounts),
            tip_accounts=_texts("tip_accounts", tip_accounts),
            max_slippage_bps=max_slippage_bps,
            never_sell=_texts("never_sell", never_sell),
            usdc_quotes=usdc_quotes,
            min_usd1_per_sol=min_usd1_per_sol,
            layouts=None if layouts is None else os.fspath(layouts),
            allow=dict(allow),
            rpc=() if rpc is None else rpc_targets("rpc", rpc),
            service_programs=_texts("service_programs", service_programs),
            opaque=opaque_mode(opaque),
            simulation_timeout_s=simulation_timeout_s,
            max_unsimulated_lamports=max_unsimulated_lamports,
            co_signers=_texts("co_signers", co_signers),
        )
        self._tables = LookupTables()
        self._ask_nodes_of(self._options)
        options = self._options
        addresses = (
            partner, *options.own_accounts, *options.tip_accounts, *options.service_programs, *options.co_signers
        )  # fmt: skip
        if any(addresses) or allow or layouts is not None or never_sell is not self.NEVER_SELL:
            self.load()  # wrong addresses are told here; without any, nothing is loaded before the first check

    @functools.cached_property
    def _limits(self) -> Limits:
        options = self._options
        known = _known(options)
        tips = (require_address("tip_accounts", text) for text in options.tip_accounts)
        return Limits(
            known=known,
            programs=with_services(with_allowed(known.programs, options.allow), options.service_programs),
            tip_accounts=known.tip_accounts.union(tips),
            own_accounts=frozenset(require_address("own_accounts", text) for text in options.own_accounts),
            partner=None if options.partner is None else require_address("partner", options.partner),
            max_buy={
                "SOL": options.max_buy_lamports,
                "USD1": options.max_buy_usd1_units,
                "USDC": options.max_buy_usdc_units,
            },
            max_lamports={
                "tip": options.max_tip_lamports,
                "partner": options.max_partner_fee_lamports,
                "own": options.max_rent_lamports,
            },
            max_priority_fee_lamports=options.max_priority_fee_lamports,
            min_usd1_per_sol=options.min_usd1_per_sol,
            max_slippage_bps=options.max_slippage_bps,
            never_sell=frozenset(require_address("never_sell", text) for text in options.never_sell),
            co_signers=frozenset(require_address("co_signers", text) for text in options.co_signers),
            opaque=options.opaque,
            token_account_rent=self._token_account_rent,
        )

    @property
    def _token_account_rent(self) -> Callable[[], int]:
        return _old_rent if self._simulating is None else self._simulating.token_account_rent

    def load(self) -> None:
        """Reads the lists of programs now, and not at the first check: a wrong layout file is reported at once.

        Raises:
            ConfigurationError: the file of ``layouts`` or ``LASERSELL_GUARD_LAYOUTS``.
        """
        _ = self._limits

    @property
    def rpc(self) -> tuple[SendTargetRpc, ...]:
        """The nodes that it asks; empty: none."""
        return self._options.rpc

    def with_rpc(self, rpc: SendTargetRpc | str | Sequence[SendTargetRpc | str]) -> SigningGuard:
        """A guard with the same options and look-up tables that asks these nodes.

        Raises:
            ConfigurationError: not a node, nor a list of at least one.
        """
        other = copy.copy(self)
        other._options = attrs.evolve(self._options, rpc=rpc_targets("rpc", rpc))
        other._ask_nodes_of(other._options)
        return other

    def _ask_nodes_of(self, options: GuardOptions) -> None:
        self._nodes = GuardNodes(options.rpc) if options.rpc else None
        self._simulating = (
            Simulating(options.rpc, options.simulation_timeout_s, options.max_unsimulated_lamports)
            if options.rpc
            else None
        )
        if "_limits" in self.__dict__:  # a copy of another guard's, with other nodes
            self.__dict__["_limits"] = attrs.evolve(self._limits, token_account_rent=self._token_account_rent)

    def add_lookup_table(self, address: str, addresses: Iterable[str]) -> None:
        """Make a look-up table known, as you fetched it. Without this and without ``rpc``, what uses it is refused.

        Args:
            address: the table's, base58.
            addresses: what is in it, in order. A table only ever grows: give it again when it has.

        Raises:
            ConfigurationError: something that is not an address.
        """
        entries = tuple(require_address("addresses", text) for text in addresses)
        self._tables.give(require_address("address", address), entries)

    def check(
        self,
        transaction: Signal | BuildTxResponse | str,
        *,
        wallet: str,
        request: Request | None = None,
        context: TradeContext | None = None,
    ) -> CheckedTransaction:
        """Apply every rule, and have a node simulate what no rule can read.

        Args:
            transaction: the signal, or the transaction in standard base64.
            wallet: the wallet that is to sign, base58.
            request: what the transaction was asked for with; of a signal that is known already. Without either, there
                is nothing to compare with: the token is not checked, and purchases need the guard's own cap.
            context: what the session knows about the position; without it, neither price nor pool is compared.

        Raises:
            UnsafeTransactionError: with every broken rule.
            ConfigurationError: arguments that are not what they should be.

        Threads: any; blocks for a simulation, ``simulation_timeout_s`` at the most.
        """
        judgement = self.judge(transaction, wallet=wallet, request=request, context=context)
        if self.needs_simulation(judgement):
            judgement = self.simulated(judgement)
        if judgement.offences:
            raise UnsafeTransactionError.of([broken_rule(*offence) for offence in judgement.offences])
        return judgement.checked

    def judge(
        self,
        transaction: Signal | BuildTxResponse | str,
        *,
        wallet: str,
        request: Request | None = None,
        context: TradeContext | None = None,
        reads_tables: bool = True,
    ) -> Judgement:
        """As ``check``, but without a simulation, and it returns the offences instead of raising them.

        Args:
            transaction: as for ``check``.
            wallet: as for ``check``.
            request: as for ``check``.
            context: as for ``check``.
            reads_tables: False: nodes are not asked for look-up tables (see ``lacks_tables``).

        Raises:
            UnsafeTransactionError: ``encoding``, or a signal that cannot be read: there is nothing to judge.
            ConfigurationError: as ``check``.
        """
        text, source = _parts(transaction, request)
        raw, layout, decoded = self._decode(text, reads_tables=reads_tables)
        trade = _expected(require_address("wallet", wallet), source, context)
        limits = self._limits
        offences: list[tuple[Rule, Offence]] = []
        for rule in rules_for(tuple(decoded.by_kind)):
            found = rule.offences(decoded, trade, limits)
            if found:  # or not known yet: a generator
                offences += [(rule, offence) for offence in found]
        if decoded.opaque and not offences and self._simulating is None and _is_to_simulate(decoded, limits):
            offences = without_nodes()
        return Judgement(CheckedTransaction(raw, layout), decoded, trade, offences)

    def lacks_tables(self, judgement: Judgement) -> bool:
        """Whether the nodes may know look-up tables that the judgement went without."""
        decoded = judgement.decoded
        return self._nodes is not None and (bool(decoded.unknown_tables) or decoded.has_gaps)

    def run_aside(self, work: Callable[[], None]) -> None:
        """Runs what blocks on a node, such as ``judge``, on a thread of the guard's; one with nodes only."""
        assert self._simulating is not None
        self._simulating.run_aside(work)

    # ── simulation ──

    def needs_simulation(self, judgement: Judgement) -> bool:
        """Whether a transaction that broke no rule is signed only after ``simulate``."""
        decoded = judgement.decoded
        return bool(decoded.opaque) and not judgement.offences and _is_to_simulate(decoded, self._limits)

    def simulate(self, judgement: Judgement, then: Callable[[Judgement], None]) -> None:
        """Has a transaction simulated by every node; returns at once.

        Args:
            judgement: one that ``needs_simulation``.
            then: called once with the judgement and what the simulation adds to it, within ``simulation_timeout_s``, on
                a thread of the guard's; it must be quick.
        """
        simulating, tx_b64 = self._to_simulate(judgement)
        decoded, trade = judgement.decoded, judgement.trade
        simulating.start(
            tx_b64, decoded, trade, self._limits, lambda verdicts: then(self._simulated(judgement, verdicts))
        )

    def simulated(self, judgement: Judgement, *, hears_all: bool = False) -> Judgement:
        """As ``simulate``, but waits for it; with ``hears_all`` for every node, though the verdict is known."""
        simulating, tx_b64 = self._to_simulate(judgement)
        verdicts = simulating.run(tx_b64, judgement.decoded, judgement.trade, self._limits, hears_all=hears_all)
        return self._simulated(judgement, verdicts)

    def _to_simulate(self, judgement: Judgement) -> tuple[Simulating, str]:
        assert self._simulating is not None  # the judgement says so
        raw, layout = judgement.checked
        # The node wants a place for every signature, and looks at none.
        return self._simulating, encode_base64(layout.signed(raw, bytes(SIGNATURE_BYTES)))

    def _simulated(self, judgement: Judgement, verdicts: Verdicts) -> Judgement:
        assert self._simulating is not None
        offences = self._simulating.offences(verdicts, judgement.trade)
        return judgement._replace(offences=[*judgement.offences, *offences], simulation=verdicts)

    def learn_funds(self, wallet: str, then: Callable[[], None] | None = None) -> None:
        """Asks the nodes for a wallet's SOL and wrapped SOL, which decide on sales that none can simulate.

        Args:
            wallet: base58.
            then: called after each node's answer, on a thread of the guard's.

        Raises:
            ConfigurationError: not an address.

        Threads: any; returns at once.
        """
        address = require_address("wallet", wallet)
        if self._simulating is not None:
            self._simulating.token_account_rent()  # asked now, it is known before the first sale
            self._simulating.learn_funds(address, self._limits, then)

    def close(self) -> None:
        """Ends the guard's idle threads; without this they end 2 s after the last simulation. It may be used again."""
        if self._simulating is not None:
            self._simulating.close()

    def known_lamports(self, wallet: str) -> int | None:
        """What the nodes said last of a wallet's SOL and wrapped SOL; None: nothing."""
        return None if self._simulating is None else self._simulating.known_lamports(require_address("wallet", wallet))

    @property
    def max_unsimulated_lamports(self) -> int:
        """What a wallet may hold for a sale that no node has simulated."""
        return self._options.max_unsimulated_lamports

    @property
    def wants_nodes(self) -> bool:
        """Whether it has to have transactions simulated, and knows no node."""
        return self._options.opaque is OpaqueMode.SIMULATE and self._simulating is None

    @property
    def caps_purchases(self) -> bool:
        """Whether it was told what a purchase that the server asks for may cost."""
        options = self._options
        caps = options.max_buy_lamports, options.max_buy_usd1_units, options.max_buy_usdc_units
        return any(cap is not None for cap in caps)

    def costs(self, judgement: Judgement) -> Costs:
        """What a transaction that was judged costs at most."""
        return costs_of(judgement.decoded, judgement.trade, self._limits)

    def explain(
        self,
        transaction: Signal | BuildTxResponse | str,
        *,
        wallet: str | None = None,
        request: Request | None = None,
        context: TradeContext | None = None,
    ) -> GuardReport:
        """What the transaction does, and what each rule and node says; ``print`` it. Raises nothing about it.

        Args:
            transaction: as for ``check``.
            wallet: who is to sign; default: the signal's or the request's wallet, else the fee payer.
            request: as for ``check``.
            context: as for ``check``.

        Raises:
            ConfigurationError: arguments that are not what they should be.

        Threads: as ``check``.
        """
        text, source = _parts(transaction, request)
        try:
            raw, layout, decoded = self._decode(text)
        except UnsafeTransactionError as error:
            return GuardReport((), (Verdict(*ENCODING, error),))
        try:
            trade = _expected(decoded.fee_payer or b"", source, context)
        except UnsafeTransactionError as error:
            return GuardReport((), (Verdict(*ENCODING, None), Verdict(error.rule, "the signal can be read", error)))
        signer = require_address("wallet", wallet) if wallet is not None else trade.wallet
        trade = trade if signer is None else attrs.evolve(trade, signer=signer)
        verdicts = [Verdict(*ENCODING, None)]
        for rule in RULES:
            broken = [broken_rule(rule, offence) for offence in rule.offences(decoded, trade, self._limits)]
            verdicts.append(Verdict(rule.name, rule.demand, UnsafeTransactionError.of(broken) if broken else None))
        lines = list(describe(decoded, trade, self._limits))
        if _is_to_simulate(decoded, self._limits):
            judgement = Judgement(CheckedTransaction(raw, layout), decoded, trade, [])
            simulated = None if any(verdict.error for verdict in verdicts) else self._explained(judgement)
            lines += describe_simulation(None if simulated is None else simulated.simulation)
            if simulated is not None:
                verdicts.append(simulation_verdict([broken_rule(*offence) for offence in simulated.offences]))
        return GuardReport(tuple(lines), tuple(verdicts))

    def _explained(self, judgement: Judgement) -> Judgement:
        if self._simulating is None:
            return judgement._replace(offences=without_nodes())
        return self.simulated(judgement, hears_all=True)

    def _decode(self, text: str, *, reads_tables: bool = True) -> tuple[bytes, Layout, Decoded]:
        """Raises UnsafeTransactionError: not exactly one transaction."""
        try:
            raw = decode_base64(text, UNSIGNED)
            parsed, layout = parse(raw, UNSIGNED)
        except TxSubmitError as error:
            raise UnsafeTransactionError(ENCODING[0], error.detail, remedy=_NEW_ONE) from error
        size, most = signed_bytes(raw, layout), max_transaction_bytes(layout)
        if size > most:
            problem = f"{size} bytes, where a transaction of its version has {most} at most"
            raise UnsafeTransactionError(ENCODING[0], problem, remedy=_NEW_ONE)
        limits = self._limits
        decoded = decode(raw, layout, parsed, limits.programs, limits.known, self._tables.known)
        if reads_tables and self._nodes is not None and (decoded.unknown_tables or decoded.has_gaps):
            problems = self._tables.read(self._nodes, lookup_counts(parsed))
            decoded = decode(raw, layout, parsed, limits.programs, limits.known, self._tables.known)
            decoded.table_problems = problems
        return raw, layout, decoded


def _old_rent() -> int:
    """Nobody can be asked."""
    return OLD_TOKEN_ACCOUNT_RENT_LAMPORTS


def _is_to_simulate(decoded: Decoded, limits: Limits) -> bool:
    return bool(decoded.opaque) and limits.opaque is OpaqueMode.SIMULATE


def _known(options: GuardOptions) -> KnownPrograms:
    """What is packaged, what a file adds, and USDC where it may be traded against."""
    known = known_programs()
    path = options.layouts if options.layouts is not None else os.environ.get(LAYOUTS_ENVIRONMENT)
    if path:
        known = with_layout_file(known, path)
    return known.with_usdc() if options.usdc_quotes else known


def read_unsigned(transaction: Signal | BuildTxResponse | str, request: Request | None = None) -> CheckedTransaction:
    """A transaction's bytes, well-formed and unjudged: for signing without a guard.

    Raises:
        TxSubmitError: ``decode_unsigned_tx`` or ``deserialize_unsigned_tx``.
        ConfigurationError: arguments that are not what they should be.
    """
    raw = decode_base64(_parts(transaction, request)[0], UNSIGNED)
    return CheckedTransaction(raw, parse(raw, UNSIGNED)[1])


def _parts(transaction: object, request: Request | None) -> tuple[str, Signal | Request | None]:
    """The base64, and what is known of it."""
    if isinstance(transaction, (ExitSignalWithTx, MirrorBuySignal)):
        if request is not None:
            raise ConfigurationError("request", "a signal says itself what it is about: pass one of the two")
        return transaction.unsigned_tx_b64, transaction
    if isinstance(transaction, BuildTxResponse):
        return transaction.tx, request
    if isinstance(transaction, str):
        return transaction, request
    raise ConfigurationError(
        "transaction", f"a {type(transaction).__name__} is neither a signal, a BuildTxResponse, nor base64 text"
    )


def _expected(signer: bytes, source: Signal | Request | None, context: TradeContext | None) -> Expected:
    try:
        return expected_trade(signer, source, context)
    except ConfigurationError:
        raise
    except (TypeError, ValueError) as error:
        raise UnsafeTransactionError("wallet", "the signal names something that is not an address") from error


def broken_rule(rule: Rule, offence: Offence) -> BrokenRule:
    """What the user is shown of an offence."""
    accounts = tuple("?" if account is None else to_text(account) for account in offence.accounts)
    return BrokenRule(
        rule.name, offence.problem, None if offence.account is None else to_text(offence.account), offence.remedy,
        offence.amount, offence.instruction, accounts, offence.is_final,
    )  # fmt: skip


def _texts(field: str, values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ConfigurationError(field, "a list of addresses is needed, not one text")
    return tuple(values)
