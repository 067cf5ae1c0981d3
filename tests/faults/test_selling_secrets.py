"""A key, a secret and a signed transaction stay where they belong, whatever becomes of a sale.

Looked at: every log record of every level and library with its traceback and that traceback's variables, reports,
errors, reprs, pickles, and the bytes of every file, the journal's write-ahead log among them.
"""

from __future__ import annotations

import base64
import json
import logging
import pickle
import random
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from solders.keypair import Keypair

import lasersell_sync as ls
from lasersell_sync.sandbox import Policies
from lasersell_sync.sandbox.chain.transactions import Transaction, read_transaction
from lasersell_sync.trading.solana.signing import SignedTx
from tests.crash.rounds import Round
from tests.crash.template import Template
from tests.crash.world import World
from tests.support.http_server import HttpServer, Seen, json_answer
from tests.support.stages import Stage

API_KEY = "canary-key-5b1f0c7e9a"
#: They speak for the other side, which may say what it got.
OTHER_SIDE = ("lasersell_sync.sandbox", "websockets.server", "werkzeug")


class Ear(logging.Handler):
    """Keeps all that a log could show."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.texts: list[str] = []
        self.names: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(OTHER_SIDE):
            return
        self.names.add(record.name.split(".")[0])
        self.texts += [record.getMessage(), repr(record.args), str(record.__dict__.get("extra"))]
        if record.exc_info and record.exc_info[1] is not None:
            self.texts.append(whole_text(record.exc_info[1]))


def whole_text(error: BaseException) -> str:
    """With the variables of every frame of ours, and all its ancestry."""
    texts, link = [], error
    while link is not None:
        told = traceback.TracebackException.from_exception(link, capture_locals=True)
        ours = [str(frame.locals) for frame in told.stack if "/tests/" not in frame.filename]
        texts += [str(link), repr(link), repr(vars(link)), *ours]
        link = link.__cause__ or link.__context__  # type: ignore[assignment]
    return "\n".join(texts)


@pytest.fixture
def ear() -> Iterator[Ear]:
    made, root = Ear(), logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", "urllib3", "asyncio", "lasersell_sync", "websocket")}
    for name in levels:
        logging.getLogger(name).setLevel(1)
    root.addHandler(made)
    yield made
    root.removeHandler(made)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything that is signed, sent or not."""
    made: list[str] = []
    real = ls.Signer._signed

    def sign(*args: Any, **kwargs: Any) -> SignedTx:
        one = real(*args, **kwargs)
        made.append(one.tx_b64)
        return one

    monkeypatch.setattr(ls.Signer, "_signed", sign)
    return made


def secrets_of(keys: list[Keypair], signed: list[str]) -> dict[str, list[bytes]]:
    """Every form in which they could appear, by what they are."""
    found: dict[str, list[bytes]] = {"API key": [API_KEY.encode()], "secret": [], "signed transaction": []}
    for key in keys:
        raw = bytes(key)
        for part in (raw, raw[:32]):
            found["secret"] += [part, part.hex().encode(), base64.b64encode(part), json.dumps(list(part)).encode()]
        found["secret"] += [str(key).encode(), json.dumps(list(raw), separators=(",", ":"))[:100].encode()]
    for tx_b64 in signed:
        raw = base64.b64decode(tx_b64)
        found["signed transaction"] += [raw, raw.hex().encode(), base64.b64encode(raw)]
    return found


def assert_nothing_of(secrets: dict[str, list[bytes]], shown: dict[str, bytes]) -> None:
    leaks = [
        f"{what} in {where}"
        for where, data in shown.items()
        for what, forms in secrets.items()
        for form in forms
        if form in data
    ]
    assert leaks == []


def shown_by(ear: Ear, stage: Stage, *more: object) -> dict[str, bytes]:
    shown = {"logs": "\n".join(ear.texts).encode()}
    for number, report in enumerate(stage.reports):
        shown[f"report {number}"] = f"{report!r} {report}".encode()
        shown[f"pickle {number}"] = pickle.dumps(report)
        if report.error is not None:
            shown[f"error {number}"] = whole_text(report.error).encode()
    shown |= {f"problem {number}": whole_text(one).encode() for number, one in enumerate(stage.problems)}
    shown |= {f"repr {number}": f"{one!r} {one}".encode() for number, one in enumerate(more)}
    return shown | files_in(stage.journal_path.parent)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def echo(request: Seen) -> Any:
    """A node that refuses and quotes all it got, as some do."""
    words = f"cannot read {request.body.decode()}, headers {request.headers}"
    call = request.json
    return json_answer({"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32602, "message": words, "data": words}})


@pytest.mark.parametrize("course", ["sold", "failed", "lost", "refused", "quoted", "unwritten", "raised", "closed"])
def test_no_secret_is_told(tmp_path: Path, ear: Ear, signed: list[str], course: str, monkeypatch: pytest.MonkeyPatch):
    with HttpServer(respond=echo) as quoting, Stage(tmp_path, wallets=2, api_key=API_KEY) as stage:
        targets = [stage.rpc, ls.SendTargetAstralane(API_KEY, url=quoting.url)] if course == "quoted" else []
        with stage.selling(targets) as session, stage.slots_pass():
            if course == "refused":
                stage.sandbox.faults.router("delegate")
            elif course == "failed":
                stage.sandbox.faults.transactions("late", landing_delay_ms=4_000, times=2)
            elif course in ("lost", "closed"):
                stage.sandbox.faults.transactions("never", times=2)
            elif course == "unwritten":
                refuse_once(monkeypatch, "signed", ls.JournalError("full", str(stage.journal_path), "no room"))
            elif course == "raised":
                refuse_once(monkeypatch, "signed", RuntimeError("a bug"))
            stage.want_exits()
            if course == "raised":
                stage.wait_for_arrivals(1)
                stage.want_exits()
            if course == "failed":
                stage.wait_for_arrivals(2)
                stage.sandbox.set_price_multiplier(stage.mint, 0.3)
            if course == "closed":
                stage.wait_for_arrivals(2)
            else:
                stage.wait_for_reports(2)
            shown = shown_by(
                ear, stage, session, *session.positions(), *stage.problems
            )  # its write-ahead log is there now
            assert any(name.endswith("-wal") for name in shown)
        outcomes = {report.outcome for report in stage.reports}
        assert outcomes == {
            "refused": {ls.SellOutcome.REJECTED}, "closed": {ls.SellOutcome.UNKNOWN}
        }.get(course, {ls.SellOutcome.CONFIRMED})  # fmt: skip
        secrets = secrets_of(stage.keys, signed)
        assert (secrets["signed transaction"] == []) == (course == "refused")
        assert "lasersell_sync" in ear.names
        assert_nothing_of(secrets, shown)
        assert_nothing_of(secrets, shown_by(ear, stage))
        assert bool(quoting.requests) == (course == "quoted")


def refuse_once(monkeypatch: pytest.MonkeyPatch, method: str, error: Exception) -> None:
    """The journal's method raises once, in the middle of a sale."""
    real, left = getattr(ls.Journal, method), [error]

    def refusing(*args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(ls.Journal, method, refusing)


def bytes_of(transaction: Transaction) -> bytes:
    """As it travelled: one signature, which stands behind the message from version 1 on."""
    signature, message = bytes(transaction.signature), transaction.message_bytes
    raw = message + signature if transaction.version == 1 else b"\x01" + signature + message
    assert read_transaction(raw) == transaction
    return raw


def test_no_secret_is_on_the_disk_of_a_seller_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its journal as the kill left it, its log at the finest level, and what it told."""
    monkeypatch.setenv("LASERSELL_TEST_DEBUG", "1")
    template, world = Template(), World(random.Random(1), api_key=API_KEY, policies=Policies(resend_exits=True))
    try:
        for number, point in enumerate(("after write", "signature journalled", "during a poll")):
            folder = tmp_path / str(number)
            folder.mkdir()
            played = Round(world, template, folder, random.Random(number), point)
            played.play()
            sent = [base64.b64encode(bytes_of(one.transaction)).decode() for one in world.overseer.arrivals.values()]
            secrets, files = secrets_of(played.keys, sent), files_in(folder)
            assert played.killed
            assert secrets["signed transaction"]
            assert {"journal", "journal-wal", "log", "diary"} <= set(files)
            assert b"sendTransaction" in files["log"] or b"POST" in files["log"]
            assert_nothing_of(secrets, files)
    finally:
        world.close()
        template.close()
