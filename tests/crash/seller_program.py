"""A program that sells, made to be killed: a template that has everything imported, and forks one seller at a time.

The template has one thread and none of our objects; a fork of it is as fresh a process as one that was started anew,
without half a second of imports. It reads one JSON line for each seller, and says ``begun PID`` and ``ended STATUS``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from solders.keypair import Keypair

import lasersell_sync as ls
from lasersell_sync.autosell.journal import Journal
from tests.crash.points import Killer, arm

_PATIENT = ls.ExitApiClientOptions(connect_timeout_s=5.0, attempt_timeout_s=20.0)
_CONNECTS_WITHIN_S = 20.0
#: The server may refuse the next seller for as long: the child holds the connection of the one that was killed.
_CHILD_LIVES_S = 2.0


class Diary:
    """What a seller tells the outside: whole lines, written at once, so that no death tears one.

    Threads: any.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, what: str, **more: object) -> None:
        os.write(self._file, json.dumps({"what": what, **more}).encode() + b"\n")


def main() -> None:
    """The template."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _sell(json.loads(line))
            finally:
                os._exit(status)
        _say(f"begun {child}")
        _, status = os.waitpid(child, 0)
        _say(f"ended {status}")


def _say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def _sell(plan: dict[str, Any]) -> None:
    logging.basicConfig(filename=plan["log"], level=plan["log_level"], format="%(asctime)s %(threadName)s %(message)s")
    diary = Diary(plan["diary"])
    _tell_what_is_journalled(diary)
    if plan["kill"] is not None:
        point, place, arrivals = plan["kill"]
        arm(Killer(point, place, arrivals, lambda point: diary.write("killed", point=point)))
    signers = [ls.Signer.from_base58(secret) for secret in plan["secrets"]]
    targets = [ls.SendTargetRpc(url) for url in plan["rpc_urls"]]
    sender = ls.TxSender(targets, rpcs=plan["node_urls"], poll_s=0.03, rebroadcast_s=0.25, keep_warm_s=None)
    api = ls.ExitApiClient(plan["api_key"], _PATIENT).with_base_url(plan["api_url"])
    levels = tuple(ls.TakeProfitLevel(profit_pct=profit, sell_pct=sell) for profit, sell in plan["levels"])
    strategy = ls.StrategyConfig(target_profit_pct=0.0, stop_loss_pct=0.0, take_profit_levels=levels)
    configure = ls.StreamConfigure(
        [str(Keypair.from_base58_string(secret).pubkey()) for secret in plan["secrets"]],
        strategy,
        deadline_timeout_sec=86_400,
    )
    session = _connect(plan, configure)
    # The server sends what it has; nothing else ends an exit here but the chain.
    policy = ls.SellPolicy(max_refreshes=1_000, max_unanswered=10_000, refresh_wait_s=0.3, max_signal_age_s=60.0)
    seller = ls.AutoSeller(session, signers, sender=sender, journal=plan["journal"], policy=policy, exit_api=api)

    @seller.on_outcome
    def tell(report: ls.SellReport) -> None:
        diary.write(
            "told",
            wallet=report.key.wallet,
            mint=report.key.mint,
            part=report.key.part,
            generation=report.key.generation,
            outcome=report.outcome.value,
            signature=report.signature,
            tokens=report.tokens,
            detail=report.detail,
        )

    @seller.on_problem
    def note(problem: Exception) -> None:
        if isinstance(problem, ls.TxSubmitError) and problem.kind == "late_landing":
            diary.write("late landing", signature=problem.signature)

    seller.start()
    diary.write("ready")
    if plan["forks"]:
        _fork_a_child()
        diary.write("forked")
    template = os.getppid()
    while os.getppid() == template:
        threading.Event().wait(1.0)


def _fork_a_child() -> None:
    """One that does nothing, has all descriptors, and outlives its parent."""
    if os.fork() == 0:
        time.sleep(_CHILD_LIVES_S)
        os._exit(0)


def _tell_what_is_journalled(diary: Diary) -> None:
    real = Journal.received

    def received(journal: Journal, key: Any, **details: Any) -> Any:
        record = real(journal, key, **details)
        diary.write("journalled", wallet=key.wallet, mint=key.mint, part=key.part, generation=key.generation)
        return record

    Journal.received = received  # type: ignore[method-assign]
    really_opened = Journal.opened

    def opened(journal: Journal, wallet: str, token_account: str, mint: str, *more: Any) -> int:
        generation = really_opened(journal, wallet, token_account, mint, *more)
        diary.write("opened", wallet=wallet, mint=mint)
        return generation

    Journal.opened = opened  # type: ignore[method-assign]


def _connect(plan: dict[str, Any], configure: ls.StreamConfigure) -> ls.StreamSession:
    """The server may still believe in the session of the process that was killed."""
    options = ls.StreamOptions(initial_backoff_s=0.02, max_backoff_s=0.2)
    client = ls.StreamClient(plan["api_key"], options=options).with_endpoint(plan["stream_url"])
    ends_at = time.monotonic() + _CONNECTS_WITHIN_S
    while True:
        with contextlib.suppress(ls.SessionLimitError, OSError):
            return ls.StreamSession.connect(client, configure)
        if time.monotonic() > ends_at:
            raise TimeoutError("no session could be had")
        time.sleep(0.01)


def files(folder: Path) -> dict[str, str]:
    """Where one round's journal, diary and log are."""
    return {name: str(folder / name) for name in ("journal", "diary", "log")}


if __name__ == "__main__":
    main()
