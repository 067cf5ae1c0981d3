"""One position's rules without network, threads or clock: a sender, a stream and an API that do what a test says."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Container, Hashable, Iterator, Mapping
from functools import cache
from typing import Any

import attrs
from solders.hash import Hash
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from lasersell_sync.autosell.exit_key import ExitKey
from lasersell_sync.autosell.journal import Journal
from lasersell_sync.autosell.position_seller import PositionSeller
from lasersell_sync.autosell.questions import Questions
from lasersell_sync.autosell.reports import BuyReport, Refusal, Refusals, SellReport
from lasersell_sync.autosell.services import PositionFacts, SellPolicy, SellTerms, Services
from lasersell_sync.autosell.signing_gate import HourlyBudgets, HourlyLimits, PauseBarrier, SigningGate
from lasersell_sync.exceptions import ExitApiError, JournalError, TxSubmitError
from lasersell_sync.messages import ExitSignalWithTx, PositionOpened
from lasersell_sync.trading.guard.programs import known_programs
from lasersell_sync.trading.keys.signer import DEFAULT_GUARD, Signer
from lasersell_sync.trading.rest.account import HistoryPage, HistoryTrade
from lasersell_sync.trading.rest.tx_requests import BuildSellTxRequest, BuildTxResponse
from lasersell_sync.trading.sending.outcome import SellOutcome, TxResult
from lasersell_sync.trading.sending.tracked_tx import Listener
from lasersell_sync.trading.solana.account_history import AccountHistory, Finding, Verdict
from lasersell_sync.trading.solana.expiry import SlotTime
from lasersell_sync.trading.solana.signing import SignedTx
from lasersell_sync.trading.solana.token_accounts import AmountProof
from tests.support.market_transactions import blank, desk, draft, stranger

MARKET = "raydium_cpmm"
_blocks = itertools.count(1)


def on_another_block(tx_b64: str) -> str:
    """The same transaction for another block: another signature, as from a server that builds it anew."""
    taken = draft(tx_b64)
    blockhash = Hash(next(_blocks).to_bytes(32, "big"))
    return blank(MessageV0.try_compile(taken.payer, taken.instructions, [], blockhash))


def that_also_pays_a_stranger(tx_b64: str) -> str:
    """What no guard lets pass."""
    taken = draft(tx_b64)
    theft = transfer(TransferParams(from_pubkey=taken.payer, to_pubkey=stranger(), lamports=10**9))
    return taken.with_more(theft).b64()


@cache
def exit_signal() -> ExitSignalWithTx:
    return desk(MARKET).signals("rpc")[0]


@cache
def _sale_of(tokens: int) -> str:
    """For at least one lamport, of however few tokens: a sale for nothing is refused."""
    taken = draft(desk(MARKET).sell(tokens=tokens))
    program = next(each for each in known_programs().programs.values() if each.name == MARKET)
    swap = taken.index(str(Pubkey.from_bytes(program.address)))
    data = taken.instructions[swap].data
    layout = program.allowed[data[:8]].swap
    assert layout is not None
    (at,) = layout.least_out
    return taken.with_data(swap, data[:at] + (1).to_bytes(8, "little") + data[at + 8 :]).b64()


class FakeExecutor:
    """``KeyedExecutor`` on a clock of the test's own, on the test's own thread."""

    def __init__(self) -> None:
        self.now = 0.0
        self._tasks: deque[Callable[[], None]] = deque()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.refusals: list[JournalError] = []
        self.errors: list[Exception] = []

    def put(self, _key: Hashable, task: Callable[[], None]) -> None:
        self._tasks.append(task)

    def put_later(self, _key: Hashable, delay_s: float, task: Callable[[], None]) -> None:
        heapq.heappush(self._later, (self.now + delay_s, next(self._numbers), task))

    def run(self) -> None:
        """Everything that waits now; one that raises is run again at the next call."""
        while self._tasks:
            try:
                self._tasks[0]()
            except JournalError as error:
                self.refusals.append(error)
                return
            except Exception as error:
                self.errors.append(error)
                return
            self._tasks.popleft()

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        self.run()
        while self._later and self._later[0][0] <= until:
            self.now, _, task = heapq.heappop(self._later)
            self._tasks.append(task)
            self.run()
        self.now = until


class FakeSender:
    """Remembers what was sent; the test says what became of it."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.tracked: list[str] = []
        self.amount = 1
        #: Of the only node's state.
        self.slot = 10
        self.is_reachable = True
        #: What all nodes say about the token account; None: as ``amount`` says.
        self.verdict: Verdict | None = None
        self.histories: list[AccountHistory] = []
        #: Questions about blockhashes, and the answer; none comes while the nodes hang.
        self.blockhashes: list[str] = []
        self.is_blockhash_valid: bool | None = True
        self.is_hanging = False
        #: Errors that nobody thought of: raised by ``submit``, after or before it sent anything.
        self.bugs: list[Exception] = []
        self.early_bugs: list[Exception] = []
        self._open: dict[str, Callable[[TxResult], None]] = {}
        #: What else was given for each signature: the other callbacks.
        self.listening: dict[str, dict[str, Any]] = {}

    def submit_for(self, signed: SignedTx, listener: Listener) -> None:
        if self.early_bugs:
            raise self.early_bugs.pop()
        signature = signed.signature
        # Last: whoever sees it sent may settle it.
        self._listen(signature, listener)
        self.sent.append(signature)
        if self.bugs:
            raise self.bugs.pop()

    def track_for(self, signature: str, blockhash: str, listener: Listener) -> None:
        assert blockhash
        self._listen(signature, listener)
        self.tracked.append(signature)

    def _listen(self, signature: str, listener: Listener) -> None:
        callbacks = {name: each for name, each in attrs.asdict(listener, recurse=False).items() if each is not None}
        self._open[signature] = callbacks.pop("on_settled")
        self.listening[signature] = callbacks

    def account_history(self, token_account: str, history: AccountHistory) -> Verdict | None:
        assert token_account
        self.histories.append(history)
        if not self.is_reachable or self.slot < history.recorded.since:
            return None
        if self.verdict is not None:
            return self.verdict
        return Verdict(Finding.UNTOUCHED if self.amount else Finding.EMPTY, "nothing is left in the token account")

    def ask_blockhash(self, blockhash: str, then: Callable[[bool | None], None]) -> None:
        self.blockhashes.append(blockhash)
        if not self.is_hanging:
            then(self.is_blockhash_valid)

    def proven_amounts(self, proofs: Mapping[str, AmountProof]) -> dict[str, int]:
        if not self.is_reachable:
            raise TxSubmitError("request_send", "nobody answers")
        amounts: dict[str, int] = {}
        for token_account, proof in proofs.items():
            if proof.wants_tips:
                proof.saw_tips(self.slot, SlotTime())
            amount = proof.saw(self.amount, self.slot)
            if amount is not None:
                amounts[token_account] = amount
        return amounts

    @property
    def open(self) -> list[str]:
        """Signatures of transactions that may land."""
        return list(self._open)

    def settle(self, outcome: SellOutcome, signature: str | None = None) -> str:
        signature = signature or self.open[-1]
        slot = 9 if outcome in {SellOutcome.CONFIRMED, SellOutcome.FAILED_ONCHAIN} else None
        result = TxResult(signature=signature, outcome=outcome, slot=slot, detail=f"it {outcome.value}")
        self._open.pop(signature)(result)
        return signature


class FakeWitness:
    """Says of the tokens what its stream's test wants."""

    def __init__(self, stream: FakeStream) -> None:
        self._stream = stream

    def still_held(self) -> bool:
        return self._stream.fell_by == 0

    def have_fallen_by(self, tokens: int) -> bool:
        return self._stream.fell_by >= tokens


class FakeStream:
    """Remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.bought: list[tuple[str, bool]] = []
        self.is_linked = True
        self.facts = PositionFacts(None, None)
        self.known: PositionOpened | None = None
        self.clock_ms: float | None = None
        self.slot: int | None = None
        self.tokens: int | None = None
        #: How much the balance fell since every transaction.
        self.fell_by = 0
        self.send_mode: str | None = None
        self.tip_lamports: int | None = None

    def ask_for_exit(self, token_account: str, slippage_bps: int) -> None:
        self.asked.append((token_account, slippage_bps))

    def announcement(self, wallet: str, token_account: str) -> PositionOpened | None:
        assert wallet
        assert token_account
        return self.known

    def position_facts(self, wallet: str, token_account: str) -> PositionFacts:
        assert wallet
        assert token_account
        return self.facts

    def seen_slot(self, wallet: str, token_account: str) -> int | None:
        assert wallet
        assert token_account
        return self.slot

    def holds(self, wallet: str, token_account: str, amounts: Container[int]) -> bool:
        assert wallet
        assert token_account
        return self.tokens in amounts

    def watch_tokens(self, wallet: str, token_account: str) -> FakeWitness:
        assert wallet
        assert token_account
        return FakeWitness(self)

    def tell_bought(self, mint: str, *, success: bool) -> None:
        self.bought.append((mint, success))

    def server_time_ms(self) -> float | None:
        return self.clock_ms


class FakeQuestions(Questions):
    """Asks at once, on the calling thread."""

    def _begin(self, pool: object, work: Callable[[], None], refuse: object) -> None:
        work()


class FakeApi:
    """Builds sales as the sandbox's market does, each for another block."""

    def __init__(self) -> None:
        self.requests: list[BuildSellTxRequest] = []
        self.failures = 0
        #: What the service lists, for each question; an exception is raised.
        self.past_trades: list[HistoryTrade] | Exception = []
        self.history_questions: list[dict[str, Any]] = []
        #: Called while a sale is built.
        self.on_build: Callable[[], object] | None = None

    def build_sell_tx(self, request: BuildSellTxRequest) -> BuildTxResponse:
        self.requests.append(request)
        if self.on_build is not None:
            self.on_build()
        if self.failures:
            self.failures -= 1
            raise ExitApiError("transport", "nobody answers")
        return BuildTxResponse(on_another_block(_sale_of(request.amount_tokens)))

    def history(self, **question: Any) -> Iterator[HistoryPage]:
        self.history_questions.append(question)
        if isinstance(self.past_trades, Exception):
            raise self.past_trades
        yield HistoryPage(trades=tuple(self.past_trades), offset=0, total=len(self.past_trades))


#: Those of the running test.
_rigs: list[Rig] = []


def close_rigs() -> None:
    """Close the journals and guards of the test's rigs, whose threads would outlive it."""
    while _rigs:
        rig = _rigs.pop()
        rig.journal.close()
        if rig.gate.guard is not None:
            rig.gate.guard.close()


class Rig:
    """One position under its rules.

    ``restart`` is what a killed process's successor does: everything but the journal is new.
    """

    def __init__(self, *, journal: Journal | None = None, with_api: bool = False, **options: Any) -> None:
        self.signal = exit_signal()
        self.journal = journal or Journal(":memory:")
        self.stream = FakeStream()
        self.sender = FakeSender()
        self.api = FakeApi() if with_api else None
        self.reports: list[SellReport] = []
        self.buys: list[BuyReport] = []
        self.problems: list[Exception] = []
        self.refusals: list[Refusal] = []
        self.barrier = PauseBarrier()
        self.options = options
        _rigs.append(self)
        self._begin()

    def _begin(self) -> None:
        self.lines = FakeExecutor()
        limits = HourlyLimits(**self.options.get("limits", {}))
        self.gate = SigningGate(
            self.options.get("guard", DEFAULT_GUARD),
            self.options.get("guard_mode", "enforce"),
            Refusals(),
            HourlyBudgets(limits, self.journal),
            self.refusals.append,
        )
        self.services = Services(
            stream=self.stream,
            sender=self.sender,
            journal=self.journal,
            signers={desk(MARKET).address: Signer(desk(MARKET).wallet)},
            gate=self.gate,
            policy=self.options.get("policy", SellPolicy()),
            can_build=self.api is not None,
            questions=FakeQuestions(self.sender, self.api, self.barrier),
            executor=self.lines,  # type: ignore[arg-type]
            barrier=self.barrier,
            is_dry_run=self.options.get("is_dry_run", False),
            report_sale=self._report,
            report_buy=self.buys.append,
            report_problem=self.problems.append,
            report_refusal=self.refusals.append,
            terms=self.options.get("terms", SellTerms()),
        )
        account = self.signal.token_account
        assert account is not None
        self.position = PositionSeller(self.signal.wallet_pubkey, account, self.services)

    @property
    def is_paused(self) -> bool:
        return self.barrier.is_paused

    @is_paused.setter
    def is_paused(self, wanted: bool) -> None:
        if wanted:
            self.barrier.pause()
        else:
            self.barrier.resume()

    def _report(self, report: SellReport, exit_id: int) -> None:
        self.reports.append(report)
        self.journal.reported(exit_id)

    def restart(self, *, announced: bool = True) -> None:
        """A process dies between two tasks, and the next one takes up; the time for an announcement is over."""
        self.sender._open.clear()
        self._begin()
        if self.journal.unfinished():
            self.position.expect_restore()
            self.lines.put("", self.position.restore)
        self.do(self.position.caught_up)
        if announced:
            self.lines.advance(self.services.terms.announcement_grace_s)

    def do(self, task: Callable[[], None]) -> None:
        """In the position's line, as the automatic seller does it."""
        self.lines.put("", lambda: self.position.do(task))
        self.lines.run()

    # -- what the server says

    def opened(
        self, entry_quote_units: int = 100, opened_at_ms: int | None = None, slot: int | None = 5, **more: Any
    ) -> None:
        self.do(lambda: self.position.opened(self.signal.mint, entry_quote_units, opened_at_ms, slot, **more))

    def closed(self) -> None:
        self.do(self.position.closed)

    def exit(self, signal: ExitSignalWithTx | None = None, *, age_s: float = 0.0) -> ExitSignalWithTx:
        """A signal of the whole position, with a transaction of its own unless one is given."""
        if signal is None:
            signal = attrs.evolve(self.signal, unsigned_tx_b64=on_another_block(self.signal.unsigned_tx_b64))
        came_ns = time.monotonic_ns() - int(age_s * 1e9)
        self.do(lambda: self.position.signalled(signal, came_ns))
        return signal

    def level(self, index: int, *, tokens: int = 1_000) -> ExitSignalWithTx:
        return self.exit(
            attrs.evolve(
                self.signal, sell_tokens=tokens, level_index=index, unsigned_tx_b64=on_another_block(_sale_of(tokens))
            )
        )

    def old_level(self, index: int, *, tokens: int = 1_000) -> ExitSignalWithTx:
        """A level whose transaction is too old to be sent."""
        return attrs.evolve(
            self.signal, sell_tokens=tokens, level_index=index, triggered_at_ms=0,
            unsigned_tx_b64=on_another_block(_sale_of(tokens)),
        )  # fmt: skip

    def settle(self, outcome: SellOutcome, signature: str | None = None) -> None:
        self.sender.settle(outcome, signature)
        self.lines.run()

    # -- what came of it

    @property
    def outcomes(self) -> list[tuple[str, SellOutcome]]:
        return [(report.key.part, report.outcome) for report in self.reports]

    def key(self, part: str = "whole", generation: int = 1) -> ExitKey:
        assert self.signal.token_account is not None
        return ExitKey(self.signal.wallet_pubkey, self.signal.token_account, self.signal.mint, part, generation)
