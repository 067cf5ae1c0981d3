"""Programs that configure no logging: what goes wrong is on their stderr, and health() counts it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

import lasersell_sync as ls
from tests.support.stream_server import Peer, ScriptedServer, opened
from tests.support.waiting import PATIENCE_S, until

STRATEGY = ls.StrategyConfig(target_profit_pct=15, stop_loss_pct=10)
WALLET = "11111111111111111111111111111112"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened(7))
        peer.serve()

    with ScriptedServer(script) as one:
        yield one


def stderr_of(program: str, *arguments: str) -> str:
    text = textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", text, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_warnings_reach_stderr_of_a_program_that_configured_nothing() -> None:
    out = stderr_of(
        """
        import logging, lasersell_sync
        log = logging.getLogger("lasersell_sync.any")
        log.info("not this")
        log.warning("but this")
        """
    )
    assert out == "but this\n"


def test_application_that_configured_logging_gets_each_record_once() -> None:
    out = stderr_of(
        """
        import logging, lasersell_sync
        logging.basicConfig(format="app: %(message)s")
        logging.getLogger("lasersell_sync.any").warning("once")
        """
    )
    assert out == "app: once\n"


def test_handler_that_raises_is_on_stderr_with_its_traceback(server: ScriptedServer) -> None:
    out = stderr_of(
        """
        import sys, lasersell_sync as ls
        configure = ls.StreamConfigure([sys.argv[2]], ls.StrategyConfig(target_profit_pct=15, stop_loss_pct=10))
        session = ls.StreamSession.connect(ls.StreamClient("key").with_endpoint(sys.argv[1]), configure)

        @session.on("position_opened")
        def on_opened(event):
            session.close(timeout=0)
            event.message.no_such_field

        session.run()
        """,
        server.url,
        WALLET,
    )
    assert "handler on_opened raised for position_opened" in out
    assert "no_such_field" in out


def test_health_counts_handler_errors_and_names_the_last(server: ScriptedServer) -> None:
    configure = ls.StreamConfigure([WALLET], STRATEGY)
    with ls.StreamSession.connect(ls.StreamClient("key").with_endpoint(server.url), configure) as session:
        health = session.health()
        assert (health.handler_errors, health.last_handler_error) == (0, "")

        def fail(_: object) -> None:
            raise KeyError("a secret of the user")

        def refuse(_: object) -> None:
            raise RuntimeError

        session.on("position_opened", fail)
        session.on("position_opened", refuse)
        session.start()
        until(lambda: session.health().handler_errors == 2)
        health = session.health()
        assert health.ok
        assert health.last_handler_error.endswith("refuse raised RuntimeError for position_opened")
        assert health.to_dict()["handler_errors"] == 2
        assert "secret" not in str(health)
