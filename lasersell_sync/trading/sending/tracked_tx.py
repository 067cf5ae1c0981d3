"""One transaction under way: what is known of it, who waits for it, and what its user holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum
from typing import Final, TypeAlias

import attrs

from lasersell_sync.runtime.locks import CallsUnderWay, under_way
from lasersell_sync.runtime.timeouts import wait_s
from lasersell_sync.trading.sending.outcome import TxResult
from lasersell_sync.trading.solana.expiry import ExpiryRule

__all__ = ["UNDECIDED_AFTER_S", "Answer", "Listener", "OnSettled", "PendingTx", "TrackedTx"]

OnSettled: TypeAlias = Callable[[TxResult], None]

#: What is undecided for so long is reported, and again after as long.
UNDECIDED_AFTER_S: Final = 60.0


class Answer(Enum):
    """What a target said to one copy of a transaction."""

    ACCEPTED = "accepted"
    #: It certainly did not take this copy.
    REFUSED = "refused"
    #: It may have taken it.
    UNCERTAIN = "uncertain"


@attrs.frozen(kw_only=True)
class Listener:
    """Who waits for one transaction, and what a wrong verdict would cost.

    Attributes:
        on_settled: called once with its result.
        on_undecided: called with what is missing for a proof, each minute.
        on_late_landing: called when a transaction that was called dead has landed after all.
        still_held: not None: a second transaction in its place would sell more. It is called dead only when every node
            that answers proves it, at least two of them where two are configured. A node that is silent for
            ``SILENT_AFTER_S`` is left out when this returns True: the tokens are still where they were.
    """

    on_settled: OnSettled | None = None
    on_undecided: OnSettled | None = None
    on_late_landing: OnSettled | None = None
    still_held: Callable[[], bool] | None = None


class TrackedTx:
    """One transaction under way.

    Attributes:
        signature: base58.
        blockhash: base58.
        tx_b64: the signed bytes, which go into no text; None: only watched, or settled.
        result: what became of it; None while it is under way.
        settled: set with ``result``, and when its sender is closed.

    Threads: everything but ``settled`` and the first two is guarded by the lock of its ``TxTracker``.
    """

    __slots__ = (
        "accepted_by",
        "added_at",
        "blockhash",
        "dead_since",
        "in_flight",
        "listeners",
        "maybe_taken",
        "problems",
        "refused_by",
        "result",
        "rule",
        "settled",
        "signature",
        "tx_b64",
        "view",
    )
    #: What its user holds, one for all who submit it.
    view: PendingTx

    def __init__(self, signature: str, blockhash: str, rule: ExpiryRule | None, added_at: float) -> None:
        self.signature = signature
        self.blockhash = blockhash
        #: None: it never expires.
        self.rule = rule
        self.tx_b64: str | None = None
        #: Targets whose answer to a copy is awaited.
        self.in_flight: set[int] = set()
        self.refused_by: set[int] = set()
        #: Some target may have a copy, of this sender or of an earlier one.
        self.maybe_taken = False
        self.accepted_by: str | None = None
        #: The newest complaint of each target, by its number.
        self.problems: dict[int, str] = {}
        self.listeners: list[Listener] = []
        self.added_at = added_at
        #: When the first node called it dead; None: none does.
        self.dead_since: float | None = None
        self.result: TxResult | None = None
        self.settled = threading.Event()

    def __repr__(self) -> str:
        return f"<TrackedTx {self.signature}>"

    @property
    def needs_agreement(self) -> bool:
        """Whether one node's word is not enough to call it dead."""
        return any(listener.still_held is not None for listener in self.listeners)

    def still_held(self) -> bool:
        """Whether everyone who would sell again knows that the tokens are still there; calls their code."""
        return all(listener.still_held() for listener in list(self.listeners) if listener.still_held is not None)

    def describe(self) -> str:
        """What is known while nothing is proven."""
        expiry = "it stands on a durable nonce and never expires" if self.rule is None else self.rule.explain()
        return "; ".join(["no status at commitment confirmed yet", expiry, *dict.fromkeys(self.problems.values())])


class PendingTx:
    """A transaction under way, as its user sees it; ``TxSender.submit`` and ``track`` make them.

    Attributes:
        signature: base58.

    Threads: any.
    """

    __slots__ = ("_calls_under_way", "_check", "_result_of", "_tracked", "signature")

    def __init__(
        self,
        tracked: TrackedTx,
        *,
        check: Callable[[], None],
        result_of: Callable[[TrackedTx], TxResult],
        calls_under_way: CallsUnderWay,
    ) -> None:
        self.signature = tracked.signature
        self._tracked = tracked
        self._check = check
        self._result_of = result_of
        self._calls_under_way = calls_under_way

    def __repr__(self) -> str:
        result = self._tracked.result
        return f"<PendingTx {self.signature} {'under way' if result is None else result.outcome.value}>"

    def done(self) -> bool:
        """Whether nothing more will come: its outcome is known, or its sender is closed.

        Raises:
            ForkedProcessError: in a forked child.
        """
        self._check()
        return self._tracked.settled.is_set()

    @under_way
    def result(self, timeout_s: float | None = None) -> TxResult:
        """What became of it, waited for.

        Args:
            timeout_s: seconds; None: until it is settled, which may take as long as no node answers.

        Returns:
            Its result; with outcome ``UNKNOWN``, and in ``detail`` what is missing, when it was not settled in that
            time or its sender was closed. It may still land then.

        Raises:
            ForkedProcessError: in a forked child.
        """
        self._check()
        self._tracked.settled.wait(wait_s(timeout_s))
        return self._result_of(self._tracked)
