"""A guard's exchanges with its nodes: written down, and answered again without a node."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.recording import Exchange, Recorder, Recording, RecordingError, answering, taping
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.trading.guard import SigningGuard
from lasersell_sync.trading.solana.json_rpc import client_for
from lasersell_sync.trading.solana.rpc_node import RpcNode
from lasersell_sync.trading.solana.send_targets import SendTargetRpc
from lasersell_sync.trading.solana.solana_rpc import close_rpc_connections


def ask(guard: SigningGuard, size: int, node: int = 0) -> int:
    return RpcNode(client_for(guard.rpc[node])).rent_lamports(size, budget=TimeBudget(5.0))


def exchange(size: int, lamports: int, node: int = 0) -> Exchange:
    return {"node": node, "method": "getMinimumBalanceForRentExemption", "params": [size], "result": lamports}


def test_recorded_answers_come_in_order_and_the_last_one_again():
    guard = answering(SigningGuard(), [exchange(1, 10), exchange(1, 11), exchange(2, 20), exchange(1, 99, node=1)])
    assert [ask(guard, 1) for _ in range(3)] == [10, 11, 11]
    assert (ask(guard, 2), ask(guard, 1, node=1)) == (20, 99)


def test_question_that_was_not_recorded_has_no_answer():
    guard = answering(SigningGuard(max_tip_lamports=7), [exchange(1, 10)])
    with pytest.raises(TxSubmitError, match="the recording has no answer") as caught:
        ask(guard, 3)
    assert caught.value.kind == "response_read"
    assert len(guard.rpc) == 1


def test_recording_without_exchanges_leaves_the_guard_as_it_is():
    guard = SigningGuard()
    assert answering(guard, []) is guard
    assert taping(guard, print) is guard


def test_exchanges_are_written_down_with_their_errors(tmp_path: Path):
    """Of a node that answers, and of one that does not; frames and exchanges do not get into each other's way."""
    path = tmp_path / "day.jsonl.gz"
    dead = SendTargetRpc("http://127.0.0.1:9")
    with Recorder(path) as recorder:
        guard = recorder.wrap_guard(SigningGuard(rpc=[dead]))
        with pytest.raises(TxSubmitError) as live:
            ask(guard, 5)
    close_rpc_connections()
    recording = Recording(path)
    assert recorder.frames_written == 0
    assert list(recording.frames()) == []
    (written,) = recording.exchanges()
    assert (written["method"], written["params"], written["node"]) == ("getMinimumBalanceForRentExemption", [5], 0)
    with pytest.raises(TxSubmitError) as again:
        ask(recording.guard(SigningGuard()), 5)
    assert (again.value.kind, again.value.detail) == (live.value.kind, live.value.detail)


def test_exchange_that_is_damaged_names_its_line(tmp_path: Path):
    path = tmp_path / "day.jsonl.gz"
    header = {"format": "lasersell-recording", "version": 1, "library": "0", "started_at_ms": 1}
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in (header, {"at_us": 1, "method": "x", "params": 3}))
    with pytest.raises(RecordingError, match="line 2: it needs node"):
        Recording(path).guard(SigningGuard())
