"""The house's plan, checked: who imports whom, and who may touch which dependency (docs/architecture.md)."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lasersell_sync"

#: Lowest first. A module imports only from lines above its own; names on one line do not import each other.
LAYERS = [
    ["_backend", "_version", "exceptions"],
    ["pubkeys", "runtime"],
    ["_pure", "messages", "retry", "_core"],
    ["codec", "network", "quotes", "strategy"],
    ["positions", "trading"],
    ["integrations", "official", "stream"],
    ["session"],
    ["autosell", "recording"],
    ["cli"],
]
#: The same, inside a package.
INNER_LAYERS = {
    "autosell": [
        ["exit_key", "journal_file", "keyed_executor"],
        ["journal", "reports"],
        ["legs", "signing_gate"],
        ["questions"],
        ["services"],
        ["mirror_buys", "position_state", "sale"],
        ["position_seller", "seller_health"],
        ["auto_seller"],
    ],
    "network": [
        ["endpoints", "http_body", "tcp", "tls", "tls_socket"],
        ["http_framing", "proxy"],
        ["http_endpoint"],
        ["http_pool"],
    ],
    "runtime": [
        ["fork_guard", "locks", "log", "optional_deps", "timeouts", "user_code"],
        ["callback_executor"],
    ],
    "session": [
        ["deadlines", "events", "exit_dedup", "position_table"],
        ["dispatch", "event_history", "health", "position_tracker", "typed_events"],
        ["message_applier"],
        ["stream_session"],
    ],
    "stream": [
        ["connection_events", "lifecycle", "options", "waiter"],
        ["desired_state", "event_queue", "keepalive"],
        ["sink", "stats", "transport"],
        ["writer"],
        ["connected_loop"],
        ["reader"],
        ["connection"],
        ["client"],
    ],
    "trading": [
        [
            "guard.addresses",
            "keys",
            "keys.keystore",
            "rest",
            "rest.account",
            "rest.request_shares",
            "rest.tx_requests",
            "sending",
            "sending.outcome",
            "sending.send_connection",
            "solana",
            "solana.expiry",
            "solana.send_targets",
            "solana.tx_codec",
        ],
        [
            "guard.expected",
            "guard.programs",
            "sending.answer_reader",
            "sending.tracked_tx",
            "solana.json_rpc",
            "solana.signing",
        ],
        [
            "guard.decoded",
            "guard.inner_instructions",
            "rest.exit_api",
            "sending.send_connections",
            "sending.tips",
            "solana.rpc_node",
        ],
        [
            "guard.instruction_sketch",
            "guard.rules.rule",
            "sending.tx_tracker",
            "solana.blockhash_question",
            "solana.solana_rpc",
            "solana.token_accounts",
        ],
        [
            "guard.rules.fees",
            "guard.rules.identity",
            "guard.rules.programs",
            "guard.rules.trade",
            "guard.simulation",
            "sending.status_poller",
            "sending.target_sender",
            "solana.account_history",
        ],
        ["guard.rules.accounts", "sending.tx_sender"],
        ["guard.rules.lamports", "guard.rules.opaque", "guard.rules.tokens"],
        ["guard.money", "guard.rules"],
        ["guard.report", "guard.simulation_rules"],
        ["guard.simulators"],
        ["guard.node_facts"],
        ["guard.simulating"],
        ["guard.signing_guard"],
        ["guard"],
        ["keys.signer"],
    ],
}
#: The same, of the sandbox's packages and of the modules beside them.
SANDBOX_LAYERS = [
    ["chain"],
    ["markets"],
    ["protocol", "router"],
    ["exchange"],
    ["servers"],
    ["servers.rpc", "script"],
    ["sandbox"],
    ["assertions", "web"],
]
#: Two packages that import each other, and should not.
CIRCLES_LEFT = {("trading.guard", "trading.guard.rules")}
#: A dependency and the modules that may import it.
OWNERS = {
    "websocket": {"stream.transport"},
    "tenacity": {"retry"},
    "python_socks": {"network.proxy"},
    "cryptography": {"network.tls", "trading.keys.keystore"},
    "certifi": {"network.tls"},
    "urllib3": {"network.http_pool"},
    # The command line is a user of the library: its demo makes a throwaway wallet. So does the pytest plugin.
    "solders": {
        "trading.solana.signing",
        "trading.solana.tx_codec",
        "trading.guard.addresses",
        "trading.keys.signer",
        "cli",
        "integrations",
    },
    "pytest": {"integrations"},
    "click": {"cli"},
    "rich": {"cli"},
    "websockets": {"sandbox"},
    "werkzeug": {"sandbox"},
    "h11": {"sandbox"},
    "base58": {"sandbox"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name.removesuffix(".__init__") if name != "__init__" else "", path


@cache
def imports(path: Path) -> list[str]:
    """The dotted name of every run-time import; an import under TYPE_CHECKING costs nothing and ties nothing."""
    return list(_imports(path, ast.parse(path.read_text())))


def _imports(path: Path, tree: ast.Module) -> Iterator[str]:
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for child in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it out, so that it can be found"
            # "from lasersell_sync import _backend" names a module, not the front door's re-export.
            inside = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (
                name if _is_module(name) or node.module == "lasersell_sync" else node.module or "" for name in inside
            )


def _is_module(name: str) -> bool:
    return ROOT.joinpath(*name.split(".")).with_suffix(".py").is_file()


MODULES = dict(modules())


def level(layers: list[list[str]], name: str) -> int | None:
    return next((n for n, line in enumerate(layers) if name in line), None)


def test_every_module_has_its_place() -> None:
    """A new file must be put into the plan."""
    beside = {"", "sandbox", "__main__"}
    for name in MODULES:
        top, _, rest = name.partition(".")
        if top in beside:
            continue
        assert level(LAYERS, top) is not None, f"{name} has no layer"
        if top in INNER_LAYERS and rest:
            assert level(INNER_LAYERS[top], rest) is not None, f"{name} has no layer inside {top}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_downwards(name: str) -> None:
    """Inside the package, a module imports only from lines above its own."""
    top, _, rest = name.partition(".")
    for imported in imports(MODULES[name]):
        if not imported.startswith("lasersell_sync"):
            continue
        target = imported.removeprefix("lasersell_sync").lstrip(".")
        target_top, _, target_rest = target.partition(".")
        if top == "sandbox":
            assert target_top == "sandbox", f"the sandbox imports {imported}: it must not agree with our bugs"
        elif target_top == "sandbox":
            # recording.replay: the sandbox's server plays.
            edge = (name, target) == ("recording", "sandbox.servers.replay_server")
            assert edge or top in ("cli", "integrations"), f"{name} imports the sandbox"
        elif top in ("", "__main__"):
            continue
        elif (name, target_top) == ("stream.client", "trading"):
            continue  # connect_with_wallets: the one edge across the siblings
        elif top == target_top:
            # A package's __init__ gathers what lies in it.
            if top in INNER_LAYERS and rest:
                own, other = level(INNER_LAYERS[top], rest), level(INNER_LAYERS[top], target_rest)
                assert own is not None
                assert other is not None
                assert other < own, f"{name} imports {imported}, which is not below it"
        else:
            own, other = level(LAYERS, top), level(LAYERS, target_top)
            assert own is not None, name
            # Names of the front door are for users, and for the command line, which is one of them.
            assert other is not None or top == "cli", f"{name} imports the front door"
            assert other is None or other < own, f"{name} imports {imported}, which is not below it"


def sandbox_room(name: str) -> str:
    """The package of a sandbox module, without ``sandbox``; a module beside the packages is a room of its own."""
    room = name.removeprefix("sandbox.")
    return room if name == "sandbox" or MODULES[name].name == "__init__.py" else room.rpartition(".")[0] or room


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("sandbox.")])
def test_sandbox_packages_import_downwards(name: str) -> None:
    """Inside the sandbox, a package imports only from lines above its own."""
    own = level(SANDBOX_LAYERS, sandbox_room(name))
    assert own is not None, f"{name} has no layer inside the sandbox"
    for imported in imports(MODULES[name]):
        target = imported.removeprefix("lasersell_sync.")
        if target in MODULES and sandbox_room(target) != sandbox_room(name) and target.startswith("sandbox"):
            other = level(SANDBOX_LAYERS, sandbox_room(target))
            assert other is not None, f"{name} imports {imported}, which has no layer"
            assert other < own, f"{name} imports {imported}, which is not below it"


def package_of(name: str) -> str:
    """The package that a module lies in; a module beside the packages stands for itself."""
    return name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0] or name


def test_packages_import_each_other_in_one_direction() -> None:
    """No way along imports leads from a package back to it, over however many others."""
    edges: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        if not name:
            continue  # the front door imports everything, when it is asked
        for imported in imports(path):
            target = imported.removeprefix("lasersell_sync.")
            if imported.startswith("lasersell_sync.") and target in MODULES:
                edges.setdefault(package_of(name), set()).add(package_of(target))
    for package, direct in edges.items():
        direct.discard(package)
        for other in direct:
            if (package, other) in CIRCLES_LEFT or (other, package) in CIRCLES_LEFT:
                continue
            reached, left = {other}, [other]
            while left:
                new = edges.get(left.pop(), set()) - reached
                reached |= new
                left += new
            assert package not in reached, f"{package} imports {other}, which imports {package}"


def test_sandbox_reaches_through_no_object() -> None:
    """``a.b._c`` uses what another class keeps to itself."""
    for name, path in MODULES.items():
        if not name.startswith("sandbox"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                private = node.attr.startswith("_") and not node.attr.startswith("__")
                assert not private, f"{name}:{node.lineno} reaches through: {ast.unparse(node)}"


def test_sandbox_packages_have_at_most_15_modules() -> None:
    """Who opens a folder sees what is in it."""
    packages = Counter(package_of(name) for name, path in MODULES.items() if path.name != "__init__.py")
    assert {name: count for name, count in packages.items() if name.startswith("sandbox") and count > 15} == {}


@pytest.mark.parametrize("dependency", sorted(OWNERS))
def test_each_dependency_has_its_owners(dependency: str) -> None:
    """Foreign packages are spoken to, and their errors translated, in one place each."""
    for name, path in MODULES.items():
        for imported in imports(path):
            if imported.partition(".")[0] != dependency:
                continue
            allowed = OWNERS[dependency] | ({"sandbox"} if dependency == "solders" else set())
            assert name in allowed or name.partition(".")[0] in allowed, f"{name} imports {imported}"


def test_solders_is_imported_inside_functions_only() -> None:
    """It costs more than the rest of the library; who only reads the stream does not pay for it."""
    for name, path in MODULES.items():
        if name.startswith(("sandbox", "cli")):
            continue
        top_level = ast.parse(path.read_text()).body
        for node in top_level:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                assert "solders" not in ast.unparse(node), name


def test_no_junk_drawers() -> None:
    """A file's name is what a user would search for."""
    banned = {"utils", "util", "common", "helpers", "misc"}
    assert not [name for name in MODULES if banned & set(name.split("."))]


def test_the_core_knows_no_field_by_name() -> None:
    """One schema: no C or Cython file names a field of the wire."""
    from lasersell_sync.messages import CLIENT_MESSAGES, SERVER_MESSAGES

    fields = {field.name for cls in (*SERVER_MESSAGES.values(), *CLIENT_MESSAGES.values()) for field in cls.wire_fields}
    generic = {
        "message",
        "code",
        "reason",
        "mint",
        "input",
        "slot",
        "side",
        "limits",
        "bands",
        "success",
        "tokens",
        "strategy",
    }
    for path in sorted((ROOT / "csrc").glob("*")):
        if path.suffix in {".pyx", ".pxi", ".c", ".h"} and path.name != "_core.c":
            text = path.read_text()
            assert not [field for field in fields - generic if f'"{field}"' in text or f'b"{field}' in text], path.name
