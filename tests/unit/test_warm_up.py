"""What an automatic seller does at its start, so that its first sale takes no longer than later ones."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from solders.keypair import Keypair

from lasersell_sync.autosell import warm_up as warm_up_module
from lasersell_sync.autosell.warm_up import warm_up
from lasersell_sync.trading import SendTargetRpc, Signer, SigningGuard, TxSender, close_rpc_connections
from lasersell_sync.trading import signer as signer_module
from tests.support.solana_node import SolanaNode
from tests.support.waiting import PATIENCE_S, until


@pytest.fixture
def node() -> Iterator[SolanaNode]:
    with ExitStack() as stack:
        stack.callback(close_rpc_connections)
        yield stack.enter_context(SolanaNode())


def test_warm_up_opens_connections_judges_and_signs_and_sends_nothing(
    node: SolanaNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    signer, guard, judged, signed = Signer.from_keypair(Keypair()), SigningGuard(), [], []
    judge, sign = SigningGuard.judge, signer_module.signed_tx
    monkeypatch.setattr(SigningGuard, "judge", lambda *args, **kwargs: judged.append(judge(*args, **kwargs)))
    monkeypatch.setattr(signer_module, "signed_tx", lambda *args: signed.append(sign(*args)))
    with TxSender(SendTargetRpc(node.url), connections=4, keep_warm_s=None) as sender:
        thread = warm_up(sender, [signer], guard)
        assert thread is not None
        assert thread.name == "lasersell-autosell-warm"
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        until(lambda: node.connections == 4 + 1)
    assert (len(judged), len(signed)) == (1, 1)
    assert node.sent == []
    assert set(node.asked) == {"getHealth"}
    assert signed[0].tx_b64 not in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_warm_up_target_that_hangs_does_not_delay_the_caller(node: SolanaNode) -> None:
    node.say["getHealth"] = node.hang
    with TxSender(SendTargetRpc(node.url), keep_warm_s=None) as sender:
        thread = warm_up(sender, [Signer.from_keypair(Keypair())], None)
        assert thread is not None
        assert thread.is_alive()
        node.let_go.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("where", ["thread", "guard"])
def test_warm_up_that_fails_is_logged_and_nothing_else(
    where: str, node: SolanaNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    with TxSender(SendTargetRpc(node.url), keep_warm_s=None) as sender:
        with monkeypatch.context() as patch:
            if where == "thread":
                patch.setattr(threading.Thread, "start", fail)
            else:
                patch.setattr(warm_up_module, "_rehearse", fail)
            thread = warm_up(sender, [Signer.from_keypair(Keypair())], None)
            if thread is not None:
                thread.join(PATIENCE_S)
        assert (thread is None) == (where == "thread")
    assert "the first sale will take longer" in caplog.text


def test_warm_up_of_a_closed_sender_ends_quietly(node: SolanaNode, caplog: pytest.LogCaptureFixture) -> None:
    sender = TxSender(SendTargetRpc(node.url))
    sender.close()
    thread = warm_up(sender, [], None)
    assert thread is not None
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert caplog.text == ""
