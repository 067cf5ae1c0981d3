"""The seller of ``bench_burst``, a process of its own: an ``AutoSeller`` as a program would set it up.

It imports nothing of this repository but the public API, so that any version of the package can be measured. Its
argument is one JSON object (``main``'s). It prints ``ready``, and for each line on stdin one JSON object: when the
bytes of each exit signal were read, by token account.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import queue
import sys
import time
from typing import Any

import lasersell_sync as ls

Task = dict[str, Any]


def main(task: Task) -> None:
    """Sell until stdin ends.

    Args:
        task: ``stream``, ``targets``, ``rpcs`` and ``rest`` (URLs), ``keypair`` (64 bytes), ``wallet``, ``journal``;
            ``sender`` (arguments of ``TxSender``), ``ca_file``, ``warms``; ``unfinished`` (token accounts, with their
            mints, of exits that an earlier process left), ``callback_s`` (seconds that ``on_outcome`` takes).
    """
    logging.disable(logging.CRITICAL)
    _leave_unfinished(task)
    targets = [ls.SendTargetRpc(url, ca_file=task["ca_file"]) for url in task["targets"]]
    # Earlier versions lack some of the arguments.
    known = inspect.signature(ls.TxSender).parameters
    sender_options = {name: value for name, value in task["sender"].items() if name in known}
    sender = ls.TxSender(targets, rpcs=task["rpcs"], **sender_options)
    if task["warms"]:
        sender.warm()
    client = ls.StreamClient("benchmark-key").with_endpoint(task["stream"])
    strategy = ls.StrategyConfig(target_profit_pct=15, stop_loss_pct=10)
    session = ls.StreamSession.connect(client, ls.StreamConfigure([task["wallet"]], strategy))
    seller = ls.AutoSeller(
        session,
        ls.Signer.from_base58(json.dumps(task["keypair"])),
        sender=sender,
        journal=task["journal"],
        exit_api=ls.ExitApiClient("benchmark-key").with_base_url(task["rest"]) if task["rest"] else None,
    )
    seller.on_outcome(lambda _report: time.sleep(task["callback_s"]))
    seller.start()
    print(json.dumps("ready"), flush=True)
    read_ns: dict[str, int] = {}
    for _ in sys.stdin:
        with contextlib.suppress(queue.Empty):
            while True:
                for event in session.events.get_batch(timeout=0.1):
                    if isinstance(event.message, ls.ExitSignalWithTx):
                        read_ns[event.message.token_account] = event.received_ns
        print(json.dumps(read_ns), flush=True)


def _leave_unfinished(task: Task) -> None:
    """What an earlier process would have left in the journal."""
    if not task["unfinished"]:
        return
    with ls.Journal(task["journal"]) as journal:
        for number, (account, mint) in enumerate(task["unfinished"]):
            key = ls.ExitKey(task["wallet"], account, mint, "whole", 1)
            journal.received(key, position_id=number, reason="stop_loss", tokens=1)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
