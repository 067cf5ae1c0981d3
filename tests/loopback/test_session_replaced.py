"""Another session takes the API key over: the client names it, and waits instead of taking the key back at once."""

from __future__ import annotations

import logging
import time

import pytest
from solders.keypair import Keypair

from lasersell_sync import (
    ConnectionState,
    Disconnected,
    ErrorMessage,
    ExitApiClient,
    Reconnecting,
    Signer,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamOptions,
    StreamSession,
)
from lasersell_sync.sandbox import Sandbox
from tests.support.stream_server import PATIENCE_S, WALLET, Peer, ScriptedServer, hello
from tests.support.waiting import until

STRATEGY = StrategyConfig(target_profit_pct=5.0, stop_loss_pct=10.0)
#: The least wait after a first ``session_replaced``: half of one second.
LEAST_WAIT_S = 0.5


def connect(url: str, key: str = "key", wallet: str = WALLET, **options: float) -> StreamSession:
    client = StreamClient(key, options=StreamOptions(**options)).with_endpoint(url)
    return StreamSession.connect(client, StreamConfigure([wallet], STRATEGY))


def by_message(peer: Peer) -> None:
    peer.send({"type": "error", "code": "session_replaced", "message": "another session of this API key took over"})
    peer.abort()


def by_close_reason(peer: Peer) -> None:
    peer.connection.close(4000, "session_replaced")


def by_message_and_close(peer: Peer) -> None:
    peer.send({"type": "error", "code": "session_replaced", "message": "another session of this API key took over"})
    peer.connection.close(4001, "replaced")


@pytest.mark.parametrize("end", [by_message, by_close_reason, by_message_and_close])
def test_session_replaced_is_named_and_waited_for(end: object, caplog: pytest.LogCaptureFixture) -> None:
    """``disconnected`` has the code, the log names it, and the next attempt waits half a second at the least."""
    caplog.set_level(logging.WARNING, "lasersell_sync")
    times: list[float] = []

    def script(peer: Peer) -> None:
        times.append(time.monotonic())
        peer.greet()
        if peer.number == 1:
            end(peer)  # type: ignore[operator]
            times.append(time.monotonic())
        peer.serve()

    with ScriptedServer(script) as server, connect(server.url, initial_backoff_s=0.001, max_backoff_s=0.001) as session:
        lost = session.wait_for(Disconnected, PATIENCE_S).message
        assert lost.code == "session_replaced"
        assert "session_replaced" in lost.reason
        assert lost.close_code == {by_message: None, by_close_reason: 4000, by_message_and_close: 4001}[end]
        waiting = session.wait_for(Reconnecting, PATIENCE_S).message
        assert waiting.wait_seconds >= LEAST_WAIT_S
        assert "session_replaced" in waiting.last_error
        until(lambda: len(times) == 3)
        assert times[2] - times[1] >= LEAST_WAIT_S
        assert any("session_replaced" in record.getMessage() for record in caplog.records)
        until(lambda: session.status is ConnectionState.LIVE)


def test_an_error_of_another_code_before_the_end_changes_no_wait() -> None:
    """Only a server that names the replacement is waited for."""

    def script(peer: Peer) -> None:
        peer.greet()
        if peer.number == 1:
            peer.send({"type": "error", "code": "unknown_position", "message": "no such position"})
            peer.abort()
        peer.serve()

    with ScriptedServer(script) as server, connect(server.url, initial_backoff_s=0.001, max_backoff_s=0.001) as session:
        lost = session.wait_for(Disconnected, PATIENCE_S).message
        assert lost.code is None
        assert session.wait_for(Reconnecting, PATIENCE_S).message.wait_seconds <= 0.001


def test_session_replaced_in_place_of_hello_ok_waits_as_well() -> None:
    """On a reconnect the server may refuse before it greets."""

    def script(peer: Peer) -> None:
        peer.recv()
        if peer.number == 2:
            peer.send({"type": "error", "code": "session_replaced", "message": "taken over"})
            return
        peer.send(hello(peer.number))
        if peer.number == 1:
            peer.abort()
        peer.serve()

    with ScriptedServer(script) as server, connect(server.url, initial_backoff_s=0.001, max_backoff_s=0.001) as session:
        first = session.wait_for(Reconnecting, PATIENCE_S).message
        second = session.wait_for(Reconnecting, PATIENCE_S).message
        assert first.wait_seconds <= 0.001
        assert second.wait_seconds >= LEAST_WAIT_S


def test_two_sessions_with_one_key_do_not_fight_for_it() -> None:
    """Against the sandbox that replaces: after three seconds a handful of sessions were opened, not hundreds."""
    signer = Signer.from_keypair(Keypair())
    with Sandbox(stream_port=0, api_port=0, rpc_port=0, session_policy="replace") as sandbox:
        with ExitApiClient(sandbox.api_key).with_base_url(sandbox.api_url) as api:
            api.register_wallet(signer.prove_ownership())
        # Two processes, as far as this process's table of open connections knows: another spelling of the address.
        other = sandbox.stream_url.replace("127.0.0.1", "localhost")
        options = {"initial_backoff_s": 0.001, "max_backoff_s": 0.001}
        with connect(sandbox.stream_url, sandbox.api_key, signer.wallet, **options) as first:
            first.wait_for("hello_ok", PATIENCE_S)
            with connect(other, sandbox.api_key, signer.wallet, **options) as second:
                error = first.wait_for(ErrorMessage, PATIENCE_S).message
                assert error.code == "session_replaced"
                assert first.wait_for(Disconnected, PATIENCE_S).message.code == "session_replaced"
                second.wait_for(Disconnected, PATIENCE_S)  # the first one came back after its wait
                first.wait_for(Disconnected, PATIENCE_S)
                second.wait_for(Disconnected, PATIENCE_S)
                sessions = first.stats().sessions + second.stats().sessions
        assert sessions <= 6
