"""Whether any node still takes a blockhash: the first yes counts, silence does not delay it."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import pytest

from lasersell_sync.trading.sending.tx_sender import TxSender
from lasersell_sync.trading.solana.send_targets import SendTargetRpc
from tests.support.solana_node import RpcFailure, SignedTransfer, SolanaNode

BLOCKHASH = SignedTransfer().blockhash


@pytest.fixture
def nodes() -> Iterator[list[SolanaNode]]:
    with SolanaNode() as first, SolanaNode() as second:
        yield [first, second]


@pytest.fixture
def sender(nodes: list[SolanaNode]) -> Iterator[TxSender]:
    with TxSender([SendTargetRpc(node.url) for node in nodes]) as made:
        yield made


def ask(sender: TxSender) -> bool | None:
    answers: queue.Queue[bool | None] = queue.Queue()
    sender.ask_blockhash(BLOCKHASH, answers.put)
    answer = answers.get(timeout=10)
    assert answers.empty()
    return answer


def fail(_: list[Any]) -> Any:
    raise RpcFailure(-32000)


def test_blockhash_valid_by_one_node_is_valid(nodes: list[SolanaNode], sender: TxSender) -> None:
    nodes[1].valid.add(BLOCKHASH)
    assert ask(sender) is True


def test_blockhash_valid_by_one_node_waits_for_no_other(nodes: list[SolanaNode], sender: TxSender) -> None:
    nodes[0].say["isBlockhashValid"] = nodes[0].hang
    nodes[1].valid.add(BLOCKHASH)
    assert ask(sender) is True


def test_blockhash_unknown_to_those_that_answer_is_not_valid(nodes: list[SolanaNode], sender: TxSender) -> None:
    assert ask(sender) is False
    nodes[0].say["isBlockhashValid"] = fail
    assert ask(sender) is False


def test_blockhash_without_any_answer_is_undecided(nodes: list[SolanaNode], sender: TxSender) -> None:
    nodes[0].say["isBlockhashValid"] = fail
    nodes[1].say["isBlockhashValid"] = nodes[1].hang
    assert ask(sender) is None


def test_blockhash_of_a_closed_sender_is_undecided(sender: TxSender) -> None:
    sender.close()
    assert ask(sender) is None
