"""The pytest plugin, as a bot author's test suite sees it: small suites, run in a pytest of their own."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.support.processes import IMPORT_ROOT, PATIENCE_S, surroundings

pytest_plugins = ["pytester"]

BOT = '''
import lasersell_sync as ls

def buy_and_wait(wallet, mint):
    """A bot: buy, wait for the exit signal, sell, wait for the close."""
    strategy = ls.StrategyConfig(target_profit_pct=10, stop_loss_pct=0)
    rpc = ls.SendTargetRpc(__import__("os").environ["LASERSELL_RPC_URL"])
    configure = ls.StreamConfigure([str(wallet.pubkey())], strategy)
    patient = ls.ExitApiClientOptions(connect_timeout_s=10, attempt_timeout_s=10)
    with ls.StreamSession.connect(ls.StreamClient.from_env(), configure) as session, ls.ExitApiClient.from_env(patient) as api:
        order = ls.BuildBuyTxRequest(mint, str(wallet.pubkey()), 1000, amount_in_total=10**8)
        ls.send_transaction_b64_to(rpc, ls.sign_unsigned_tx_b64(api.build_buy_tx(order).tx, wallet))
        signal = session.wait_for("exit_signal_with_tx", timeout=60).message
        ls.send_transaction_b64_to(rpc, ls.sign_unsigned_tx_b64(signal.unsigned_tx_b64, wallet))
        session.wait_for("position_closed", timeout=60)
    ls.close_rpc_connections()
'''


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory for a suite; only our plugin is loaded there, whatever is installed."""
    for name in set(os.environ) - set(surroundings()):
        monkeypatch.delenv(name)
    for name, value in surroundings().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(IMPORT_ROOT))
    return pytester


def run(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    plugin = ("-p", "lasersell_sync.integrations.pytest_plugin", "--strict-markers")
    return suite.runpytest_subprocess(*plugin, *arguments, timeout=PATIENCE_S)


def test_a_bot_is_tested_in_a_few_lines(suite: pytest.Pytester) -> None:
    """The first example of docs/testing.md, word for word, with a bot that reads the environment."""
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    example = page.split("```python\n")[1].split("```")[0]
    assert "assert_sold_exactly_once" in example
    suite.makepyfile(bot=BOT, test_bot=example)
    run(suite).assert_outcomes(passed=1)


def test_each_test_has_its_own_sandbox_and_nothing_is_left(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import threading

        seen = []

        def test_one(lasersell_sandbox, sandbox_wallet):
            seen.append(lasersell_sandbox)
            assert lasersell_sandbox.balance_lamports(sandbox_wallet.pubkey()) == 10 * 10**9

        def test_two(lasersell_sandbox):
            assert lasersell_sandbox not in seen

        def test_no_thread_is_left():
            assert not [thread for thread in threading.enumerate() if "sandbox" in thread.name]
        """
    )
    run(suite).assert_outcomes(passed=3)


def test_the_seed_comes_from_marker_option_or_default(suite: pytest.Pytester) -> None:
    """The nearest marker wins; the same seed is the same exchange and the same wallet."""
    suite.makepyfile(
        """
        import pytest
        from lasersell_sync.sandbox import Sandbox

        def mints(seed):
            return Sandbox(seed=seed).mints

        wallets = {}

        def test_told(lasersell_sandbox, sandbox_wallet, request):
            told = request.config.getoption("--lasersell-seed")
            assert lasersell_sandbox.mints == mints(int(told or 1))
            wallets["told"] = sandbox_wallet

        @pytest.mark.lasersell_seed(7)
        class TestMarked:
            def test_by_the_class(self, lasersell_sandbox, sandbox_wallet):
                assert lasersell_sandbox.mints == mints(7)
                wallets["seven"] = sandbox_wallet

            @pytest.mark.lasersell_seed(8)
            def test_by_itself(self, lasersell_sandbox):
                assert lasersell_sandbox.mints == mints(8)

        @pytest.mark.lasersell_options(seed=7)
        def test_wallets(sandbox_wallet):
            assert sandbox_wallet == wallets["seven"] != wallets["told"]
        """
    )
    run(suite).assert_outcomes(passed=4)
    run(suite, "--lasersell-seed", "5").assert_outcomes(passed=4)


def test_a_random_seed_differs_and_is_told(suite: pytest.Pytester) -> None:
    """What failed can be run again: the report has the seed."""
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.lasersell_options(api_key="a-key-of-mine", api_keys=["another-key"])
        def test_it(lasersell_sandbox): assert False
        """
    )
    seeds = set()
    for _ in range(2):
        result = run(suite, "--lasersell-seed", "random")
        result.assert_outcomes(failed=1)
        (line,) = [line for line in result.outlines if line.startswith("Sandbox(seed=")]
        seeds.add(line.split("seed=")[1].split(",")[0])
        assert "key" not in line
    assert len(seeds) == 2
    suite.makepyfile(
        f"""
        from lasersell_sync.sandbox import Sandbox
        def test_it(lasersell_sandbox): assert lasersell_sandbox.mints == Sandbox(seed={min(seeds)}).mints
        """
    )
    run(suite, "--lasersell-seed", min(seeds)).assert_outcomes(passed=1)


def test_options_reach_the_sandbox(suite: pytest.Pytester) -> None:
    """A function's marker adds to its class's."""
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.lasersell_options(api_key="mine", initial_lamports=5)
        class TestIt:
            @pytest.mark.lasersell_options(initial_lamports=10**9)
            def test_options(self, lasersell_sandbox, sandbox_wallet):
                assert lasersell_sandbox.api_key == "mine"
                assert lasersell_sandbox.balance_lamports(sandbox_wallet.pubkey()) == 10**9
        """
    )
    run(suite).assert_outcomes(passed=1)


def test_a_scenario_is_chosen_by_its_name(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest
        from lasersell_sync.sandbox import Sandbox

        @pytest.mark.lasersell_scenario("rug")
        def test_it(lasersell_sandbox):
            told = lasersell_sandbox.mint_info.values()
            wanted = Sandbox(seed=1, scenario="rug").mint_info.values()
            assert [info.name for info in told] == [info.name for info in wanted]
            assert [info.name for info in told] != [info.name for info in Sandbox(seed=1).mint_info.values()]
        """
    )
    run(suite).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("marker", "problem"),
    [
        ("lasersell_seed('x')", "seed must be an integer"),
        ("lasersell_seed()", "lasersell_seed of * takes one argument"),
        ("lasersell_options(sped=2)", "unexpected keyword argument 'sped'"),
        ("lasersell_options(speed=0)", "speed must be"),
    ],
)
def test_a_marker_that_makes_no_sense_is_told(suite: pytest.Pytester, marker: str, problem: str) -> None:
    suite.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test_it(lasersell_sandbox): pass")
    result = run(suite)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*UsageError: *{problem}*"])


def test_a_seed_option_that_makes_no_sense_is_told(suite: pytest.Pytester) -> None:
    suite.makepyfile("def test_it(lasersell_sandbox): pass")
    result = run(suite, "--lasersell-seed", "seven")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*--lasersell-seed must be an integer or 'random', not 'seven'*"])


def test_loading_it_costs_little(suite: pytest.Pytester) -> None:
    """Every pytest run in an environment that has the library loads it; suites that do not use it pay little."""
    suite.makepyfile(
        """
        import sys

        def test_it():
            assert "lasersell_sync.integrations.pytest_plugin" in sys.modules
            assert not {"lasersell_sync.sandbox", "solders", "websockets", "werkzeug", "urllib3"} & set(sys.modules)
        """
    )
    run(suite, "-W", "error").assert_outcomes(passed=1)


def test_pytest_finds_it_by_itself() -> None:
    """The installed package names it as a pytest plugin."""
    (found,) = [point for point in entry_points(group="pytest11") if point.name == "lasersell_sync"]
    assert found.value == "lasersell_sync.integrations.pytest_plugin"
    assert hasattr(found.load(), "lasersell_sandbox")


def test_nodes_lie_as_their_markers_say(suite: pytest.Pytester) -> None:
    """As many nodes as the markers need; of two markers of one node the nearest counts, and a wrong one is an error."""
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.lasersell_node(1, heights_ahead=500)
        class TestMarked:
            def test_by_the_class(self, lasersell_sandbox):
                assert len(lasersell_sandbox.rpc_urls) == 2
                assert lasersell_sandbox.faults.pending["nodes"] == {"1": {"heights_ahead": 500}}

            @pytest.mark.lasersell_node(1, hangs=True)
            @pytest.mark.lasersell_node(2, stale_index_slots=600, odd_item="missing")
            def test_by_itself(self, lasersell_sandbox):
                assert len(lasersell_sandbox.rpc_urls) == 3
                assert lasersell_sandbox.faults.pending["nodes"] == {
                    "1": {"hangs": True},
                    "2": {"stale_index_slots": 600, "odd_item": "missing"},
                }

        @pytest.mark.lasersell_options(rpc_nodes=4)
        @pytest.mark.lasersell_node(0, lag_slots=2)
        def test_more_nodes_than_lies(lasersell_sandbox):
            assert len(lasersell_sandbox.rpc_urls) == 4

        @pytest.mark.lasersell_node(1, heights_behind=500)
        def test_wrong_lie(lasersell_sandbox):
            pass

        @pytest.mark.lasersell_node(1)
        def test_no_lie(lasersell_sandbox):
            pass
        """
    )
    result = run(suite)
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(["*lasersell_node of *heights_behind*"])
