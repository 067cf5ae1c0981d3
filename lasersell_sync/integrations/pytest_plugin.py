"""pytest plugin of lasersell_sync: an exchange for each test, a wallet with play money, assertions on the ledger.

pytest loads it in every project whose environment has lasersell_sync. So it imports nothing that is heavy before a test
asks for a fixture (docs/testing.md).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from solders.keypair import Keypair

    from lasersell_sync.sandbox import Sandbox
    from lasersell_sync.sandbox.assertions import LedgerAssertions

__all__ = ["lasersell_environment", "lasersell_sandbox", "sandbox_ledger", "sandbox_wallet"]

_MARKERS = (
    "lasersell_scenario(name): the scenario of this test's lasersell_sandbox: a shipped name or a TOML file's path",
    "lasersell_seed(number): the seed of this test's lasersell_sandbox",
    "lasersell_node(number, **lies): a node of this test's lasersell_sandbox lies, as faults.node(number, **lies) says",
    "lasersell_options(**options): further arguments of this test's lasersell_sandbox, as Sandbox takes them",
)
#: Ten times real time, on ports that nobody else has.
_DEFAULTS: dict[str, Any] = {"seed": 1, "speed": 10.0, "stream_port": 0, "api_port": 0, "rpc_port": 0}
#: A test's machine may be busier than a trader's.
_PATIENCE_S = 10.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """One option: the seed of tests that do not name theirs."""
    parser.getgroup("lasersell").addoption(
        "--lasersell-seed",
        metavar="N",
        help="seed of lasersell_sandbox where no marker sets one (default 1); 'random' picks one for each test",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.fixture
def lasersell_sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A running ``Sandbox`` of the test's own, as its markers describe it; the report of a failure names its seed."""
    from lasersell_sync.sandbox import Sandbox

    options = {**_DEFAULTS, "seed": _seed(request)}
    for marker in reversed(list(request.node.iter_markers("lasersell_options"))):
        options |= marker.kwargs
    lies = _node_lies(request)
    options["rpc_nodes"] = max([options.get("rpc_nodes", 1), *(number + 1 for number in lies)])
    scenario = _argument(request, "lasersell_scenario")
    if scenario is not None:
        options["scenario"] = scenario
    told = ", ".join(f"{name}={value!r}" for name, value in options.items() if "key" not in name)
    request.node.add_report_section("setup", "lasersell_sandbox", f"Sandbox({told})")
    try:
        sandbox = Sandbox(**options)
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(f"lasersell_sandbox of {request.node.nodeid}: {error}") from error
    with sandbox:
        for number, order in lies.items():
            try:
                sandbox.faults.node(number, **order)
            except (TypeError, ValueError) as error:
                raise pytest.UsageError(f"lasersell_node of {request.node.nodeid}: {error}") from error
        yield sandbox


@pytest.fixture
def sandbox_wallet(lasersell_sandbox: Sandbox) -> Keypair:
    """A wallet (solders ``Keypair``) that is registered with the sandbox's key and holds its play money.

    The same seed makes the same wallet: never send anything of value to it.
    """
    from solders.keypair import Keypair

    from lasersell_sync.trading import ExitApiClient, ExitApiClientOptions, prove_ownership

    # The seed made the mints, and with them it makes the wallet.
    wallet = Keypair.from_seed(hashlib.sha256(f"sandbox_wallet {lasersell_sandbox.mints[0]}".encode()).digest())
    patient = ExitApiClientOptions(connect_timeout_s=_PATIENCE_S, attempt_timeout_s=_PATIENCE_S)
    with ExitApiClient(lasersell_sandbox.api_key, patient).with_base_url(lasersell_sandbox.api_url) as api:
        api.register_wallet(prove_ownership(wallet))
    return wallet


@pytest.fixture
def sandbox_ledger(lasersell_sandbox: Sandbox) -> LedgerAssertions:
    """Assertions on the sandbox's ledger: ``assert_sold_exactly_once``, ``assert_no_position_open`` and more."""
    from lasersell_sync.sandbox.assertions import LedgerAssertions

    return LedgerAssertions(lasersell_sandbox)


@pytest.fixture
def lasersell_environment(lasersell_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment variables that lead ``from_env()`` and the examples to the sandbox, set for this test."""
    variables = {
        "LASERSELL_API_KEY": lasersell_sandbox.api_key,
        "LASERSELL_STREAM_URL": lasersell_sandbox.stream_url,
        "LASERSELL_API_URL": lasersell_sandbox.api_url,
        "LASERSELL_RPC_URL": lasersell_sandbox.rpc_url,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def _seed(request: pytest.FixtureRequest) -> int:
    """The marker's, else the command line's, else 1."""
    marked = _argument(request, "lasersell_seed")
    if marked is not None:
        return marked  # type: ignore[no-any-return]  # Sandbox checks it
    told = request.config.getoption("--lasersell-seed")
    if told == "random":
        return random.SystemRandom().getrandbits(32)
    try:
        return int(_DEFAULTS["seed"] if told is None else told)
    except ValueError as error:
        raise pytest.UsageError(f"--lasersell-seed must be an integer or 'random', not {told!r}") from error


def _node_lies(request: pytest.FixtureRequest) -> dict[int, dict[str, Any]]:
    """How each node that markers name shall lie; of two markers of one node the nearest counts."""
    lies: dict[int, dict[str, Any]] = {}
    for marker in request.node.iter_markers("lasersell_node"):
        if len(marker.args) != 1 or not isinstance(marker.args[0], int) or not marker.kwargs:
            raise pytest.UsageError(f"lasersell_node of {request.node.nodeid} takes a node's number and its lies")
        lies.setdefault(marker.args[0], marker.kwargs)
    return lies


def _argument(request: pytest.FixtureRequest, name: str) -> Any:
    """The one argument of the nearest marker of a name; None without such a marker."""
    marker = request.node.get_closest_marker(name)
    if marker is None:
        return None
    if len(marker.args) != 1 or marker.kwargs:
        raise pytest.UsageError(f"{name} of {request.node.nodeid} takes one argument")
    return marker.args[0]
