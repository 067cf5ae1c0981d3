"""What an automatic seller does at its start, so that its first sale takes no longer than later ones."""

from __future__ import annotations

import base64
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from solders.keypair import Keypair
from solders.transaction import VersionedTransaction

from lasersell_sync.autosell import Journal
from lasersell_sync.autosell.exit_key import Departure, ExitKey
from lasersell_sync.autosell.journal import ExitRecord
from lasersell_sync.autosell.seller_health import warm_up
from lasersell_sync.exceptions import JournalError
from lasersell_sync.trading import SendTargetRpc, Signer, SigningGuard, TxSender, close_rpc_connections
from lasersell_sync.trading.keys import signer as signer_module
from tests.support.solana_node import SolanaNode
from tests.support.waiting import PATIENCE_S, until


@pytest.fixture
def node() -> Iterator[SolanaNode]:
    with ExitStack() as stack:
        stack.callback(close_rpc_connections)
        yield stack.enter_context(SolanaNode())


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal") as journal:
        yield journal


def test_warm_up_opens_connections_judges_and_signs_and_sends_nothing(
    node: SolanaNode, journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    signer, guard, judged, signed = Signer.from_keypair(Keypair()), SigningGuard(), [], []
    judge, sign = SigningGuard.judge, signer_module.signed_tx
    monkeypatch.setattr(SigningGuard, "judge", lambda *args, **kwargs: judged.append(judge(*args, **kwargs)))
    monkeypatch.setattr(signer_module, "signed_tx", lambda *args: signed.append(sign(*args)))
    with TxSender(SendTargetRpc(node.url), connections=4, keep_warm_s=None) as sender:
        thread = warm_up(sender, [signer], guard, journal)
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


def test_warm_up_sale_of_known_layout_is_judged_and_never_signed(
    node: SolanaNode, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer, guard, judgements, signed = Signer.from_keypair(Keypair()), SigningGuard(), [], []
    judge, sign = SigningGuard.judge, signer_module.signed_tx
    monkeypatch.setattr(SigningGuard, "judge", lambda *args, **kwargs: judgements.append(judge(*args, **kwargs)))
    monkeypatch.setattr(signer_module, "signed_tx", lambda *args: signed.append(sign(*args)))
    with TxSender(SendTargetRpc(node.url), keep_warm_s=None) as sender:
        thread = warm_up(sender, [signer], guard, journal)
        assert thread is not None
        thread.join(PATIENCE_S)
    (judgement,) = judgements
    assert "sale" in judgement.decoded.by_kind
    assert not judgement.decoded.opaque
    assert {rule.name for rule, _ in judgement.offences} == {"own_account"}
    (only,) = signed
    assert VersionedTransaction.from_bytes(base64.b64decode(only.tx_b64)).message.instructions == []


def test_rehearse_new_journal_records_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.rehearse()
        assert journal.exits() == []
        assert journal.steps(1) == []
        assert b"rehearsal" not in b"".join(each.read_bytes() for each in tmp_path.iterdir())
        journal.begun(an_exit(), Departure("signature"), blockhash="blockhash", then=lambda *_: None)
        (record,) = journal.exits()
    assert record.id == 1
    assert b"rehearsal" not in path.read_bytes()


def test_rehearse_runs_every_statement_of_a_first_exit(journal: Journal) -> None:
    ran: list[str] = []
    connection = journal._connection
    assert connection is not None
    connection.set_trace_callback(ran.append)
    journal.rehearse()
    rehearsed = {without_values(statement) for statement in ran}
    ran.clear()
    journal.begun(an_exit(), Departure("signature"), blockhash="blockhash", then=lambda *_: None)
    connection.set_trace_callback(None)
    begun = {without_values(statement) for statement in ran}
    assert any("INSERT INTO exits" in statement for statement in begun)
    assert begun <= rehearsed


def test_rehearse_closed_journal_raises_journal_error(journal: Journal) -> None:
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.rehearse()


def test_warm_up_target_that_hangs_does_not_delay_the_caller(node: SolanaNode, journal: Journal) -> None:
    node.say["getHealth"] = node.hang
    with TxSender(SendTargetRpc(node.url), keep_warm_s=None) as sender:
        thread = warm_up(sender, [Signer.from_keypair(Keypair())], None, journal)
        assert thread is not None
        assert thread.is_alive()
        node.let_go.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("where", ["thread", "guard", "journal"])
def test_warm_up_that_fails_is_logged_and_nothing_else(
    where: str,
    node: SolanaNode,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        if where == "journal":
            raise JournalError("full", "path", "no room on the disk")
        raise RuntimeError("can't start new thread")

    with TxSender(SendTargetRpc(node.url), connections=2, keep_warm_s=None) as sender:
        with monkeypatch.context() as patch:
            if where == "thread":
                patch.setattr(threading.Thread, "start", fail)
            elif where == "guard":
                patch.setattr(SigningGuard, "judge", fail)
            else:
                patch.setattr(Journal, "rehearse", fail)
            thread = warm_up(sender, [Signer.from_keypair(Keypair())], SigningGuard(), journal)
            if thread is not None:
                thread.join(PATIENCE_S)
                until(lambda: node.connections == 2 + 1)
        assert (thread is None) == (where == "thread")
    assert "the first sale will take longer" in caplog.text


def test_warm_up_of_a_closed_sender_and_journal_ends_quietly(
    node: SolanaNode, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    sender = TxSender(SendTargetRpc(node.url))
    sender.close()
    journal.close()
    thread = warm_up(sender, [], None, journal)
    assert thread is not None
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert caplog.text == ""


def without_values(statement: str) -> str:
    return re.sub(r"'[^']*'|NULL|\d+", "?", statement)


def an_exit() -> ExitRecord:
    return ExitRecord(
        id=0, key=ExitKey("wallet", "account", "mint", "whole", 1), position_id=1, reason="stop_loss", tokens=1,
        state="received", outcome=None, detail="", is_reported=False, began_ms=1, changed_ms=1,
    )  # fmt: skip
