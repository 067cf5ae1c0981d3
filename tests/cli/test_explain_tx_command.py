"""``lasersell-sync explain-tx`` beside a sandbox whose Router has a layout that nobody knows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from solders.keypair import Keypair

import lasersell_sync as ls
from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.router.shapes import SHAPES
from tests.support.market_transactions import desk
from tests.support.processes import in_this_process

PATIENCE_S = 90.0
KEYPAIR = Keypair.from_seed(bytes([7]) * 32)
WALLET = str(KEYPAIR.pubkey())


class World:
    """A sandbox with a wallet that holds a token."""

    def __init__(self, **options: Any) -> None:
        self.sandbox = Sandbox(seed=1, stream_port=0, api_port=0, rpc_port=0, **options)

    def __enter__(self) -> World:
        sandbox = self.sandbox.__enter__()
        self.mint = sandbox.mints[0]
        sandbox.script.fund(WALLET, sol=10)
        sandbox.script.grant(WALLET, self.mint, 0.5)
        self.environment = {
            **os.environ,
            "LASERSELL_API_KEY": sandbox.api_key,
            "LASERSELL_API_URL": sandbox.api_url,
            "LASERSELL_RPC_URL": sandbox.rpc_url,
        }
        self.environment.pop("LASERSELL_KEYPAIR", None)
        return self

    def __exit__(self, *error: object) -> None:
        self.sandbox.__exit__(*error)  # type: ignore[arg-type]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return in_this_process("explain-tx", *arguments, env={**self.environment, **environment})

    def run_alone(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """In a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "lasersell_sync", "explain-tx", *arguments],
            env=self.environment, input=given, capture_output=True, text=True, timeout=PATIENCE_S,
            check=False,
        )  # fmt: skip

    def personal(self) -> set[str]:
        """What a sketch may not name: the wallet, its accounts, and the amounts that stand in its transactions."""
        balance = self.sandbox.token_balance(WALLET, self.mint)
        holdings = {str(position.token_account) for position in self.sandbox.positions()}
        amounts = {balance, balance // 2, 10_000_000, 5_000_000}
        in_bytes = {amount.to_bytes(8, "little").rstrip(b"\0").hex() for amount in amounts}
        return {WALLET, bytes(KEYPAIR.pubkey()).hex(), self.mint, *holdings, *map(str, amounts), *in_bytes} - {""}


def swaps(layout: dict[str, Any]) -> list[dict[str, Any]]:
    return [swap for program in layout["programs"].values() for swap in program["swaps"].values()]


@pytest.fixture
def world() -> Iterator[World]:
    with World(router=True, router_shape=0) as one:
        yield one


@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("side", ["--sell", "--buy"])
def test_explain_tx_of_every_router_shape_drafts_a_layout_that_the_guard_reads(
    shape: int, side: str, tmp_path: Path
) -> None:
    """The draft, checked by nobody, turns the unknown instruction into a trade that the rules can compare."""
    with World(router=True, router_shape=shape) as world:
        draft = tmp_path / "layouts.json"
        done = world.run(side, world.mint, "--wallet", WALLET, "--json", "--draft", str(draft))
        assert done.returncode == 0, done.stdout + done.stderr
        shown = json.loads(done.stdout)
        assert shown["accepted"]
        layout = json.loads(draft.read_text())
        assert shown["layouts"] == [layout]
        (swap,) = swaps(layout)
        assert "?" not in json.dumps(swap)
        found = [word for word in world.personal() if word in draft.read_text()]
        assert found == []

        again = world.run(side, world.mint, "--wallet", WALLET, "--layouts", str(draft))
        assert again.returncode == 0, again.stdout + again.stderr
        assert "Every instruction has a known layout" in again.stdout
        assert "pays at most" in again.stdout
        spent = world.sandbox.token_balance(WALLET, world.mint) if side == "--sell" else 10_000_000
        paid = int(again.stdout.partition("pays at most ")[2].split()[0])
        assert spent <= paid <= spent * 1.2


def test_explain_tx_shows_the_report_and_the_sketch(world: World) -> None:
    done = world.run_alone("--sell", world.mint, "--wallet", WALLET)
    assert done.returncode == 0, done.stderr
    report, _, sketch = done.stdout.partition("\nInstructions without a known layout.")
    assert report.startswith("may be signed\n")
    assert WALLET in report  # for the user's own eyes
    assert "a layout that is not known" in report
    for words in ("the wallet, writable", "the wallet's token account, writable", "the mint", "the most that is paid"):
        assert words in sketch
    assert [word for word in world.personal() if word in sketch] == []


def test_explain_tx_signs_and_sends_nothing(world: World, tmp_path: Path) -> None:
    """Also with the key at hand; it is read for its public half."""
    path = tmp_path / "id.json"
    path.write_text(KEYPAIR.to_json())
    path.chmod(0o600)
    before = (world.sandbox.token_balance(WALLET, world.mint), len(world.sandbox.transactions()))
    done = world.run("--sell", world.mint, LASERSELL_KEYPAIR=str(path))
    assert done.returncode == 0, done.stderr
    assert (world.sandbox.token_balance(WALLET, world.mint), len(world.sandbox.transactions())) == before
    assert str(KEYPAIR) not in done.stdout + done.stderr


def test_explain_tx_of_a_given_transaction_sketches_what_it_can(world: World) -> None:
    """One sample shows no numbers: they are asked for, and not guessed."""
    with ls.ExitApiClient(world.sandbox.api_key).with_base_url(world.sandbox.api_url) as api:
        sale = ls.BuildSellTxRequest(world.mint, WALLET, 1_000_000, "SOL", 500)
        tx = api.build_sell_tx(sale).tx
    done = world.run_alone("-", "--json", given=f" {tx}\n")
    assert done.returncode == 1  # nobody said what it trades, so an unknown layout is refused
    shown = json.loads(done.stdout)
    assert "opaque" in [broken["rule"] for broken in shown["broken"]]
    (swap,) = swaps(shown["layouts"][0])
    assert (swap["in"], swap["out"], swap["from"], swap["mints"]) == ("?", "?", "?", ["?", "?"])
    assert isinstance(swap["user"], int)
    assert "the mint" in json.dumps(shown["layouts"])
    assert [word for word in world.personal() if word in json.dumps(shown["layouts"])] == []


def test_explain_tx_of_a_known_market_has_nothing_to_sketch(tmp_path: Path) -> None:
    trader = desk("pump_swap")
    draft = tmp_path / "draft.json"
    with World() as world:
        done = world.run(trader.sell(), "--draft", str(draft))
    assert done.returncode == 0, done.stdout
    assert "Every instruction has a known layout." in done.stdout
    assert not draft.exists()


def test_explain_tx_of_theft_exits_with_1(tmp_path: Path) -> None:
    trader = desk("pump_swap")
    with World() as world:
        done = world.run(trader.sell(), "--wallet", WALLET)  # another wallet's trade
    assert done.returncode == 1
    assert done.stdout.startswith("must not be signed")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give one of BASE64, --sell MINT and --buy MINT"),
        (("AAAA", "--sell", "x"), "give one of"),
        (("--sell", "MINT", "--wallet", WALLET), "--sell: a text of 4 characters is not a Solana public key"),
        (("--buy", WALLET, "--wallet", str(KEYPAIR)), "--wallet"),
        (("--sell", "So11111111111111111111111111111111111111112", "--wallet", WALLET), "holds none"),
        (("--sell", "So11111111111111111111111111111111111111112"), "LASERSELL_KEYPAIR"),
    ],
)
def test_explain_tx_that_cannot_work_says_why(world: World, arguments: tuple[str, ...], words: str) -> None:
    done = world.run(*arguments)
    assert done.returncode in {1, 2}
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert str(KEYPAIR) not in done.stderr
