"""A seller's day, recorded with its simulations: replayed in report mode it gives the verdicts of that day."""

from __future__ import annotations

from pathlib import Path

import pytest

import lasersell_sync as ls
from lasersell_sync.recording import Recorder, Recording, replay
from lasersell_sync.sandbox import Sandbox
from lasersell_sync.trading.solana.solana_rpc import close_rpc_connections
from tests.support.sellers import Trader
from tests.support.waiting import PATIENCE_S, until

MARKETS = ("pump_fun", "pump_swap", "raydium_cpmm", "raydium_launchpad", "meteora_dbc", "meteora_damm_v2")
#: By exit: the names of the broken rules; none: it may be signed.
Verdicts = dict[tuple[str, str], tuple[str, ...]]


def scenario(folder: Path, market: str) -> Path:
    path = folder / f"{market}.toml"
    path.write_text(
        f'about = "One token."\n[[token]]\nsymbol = "COIN"\nmarket = "{market}"\nquote = "SOL"\nrest_noise_pct = 0\n'
    )
    return path


def rules_of(report: ls.SellReport) -> tuple[str, ...]:
    return (
        tuple(each.rule for each in report.error.offences)
        if isinstance(report.error, ls.UnsafeTransactionError)
        else ()
    )


def record(sandbox: Sandbox, trader: Trader, path: Path, theft: str | None) -> Verdicts:
    """Buys, and sells once, enforcing; the Router steals from the sale on."""
    trader.register()
    client = ls.StreamClient(sandbox.api_key).with_endpoint(sandbox.stream_url)
    with Recorder(path) as recorder:
        guard = recorder.wrap_guard(ls.SigningGuard(rpc=trader.rpc, simulation_timeout_s=PATIENCE_S))
        with (
            ls.StreamSession.connect(recorder.wrap(client), trader.configure()) as session,
            trader.seller(session, guard=guard),
        ):
            trader.buy()
            session.wait_for("position_opened", PATIENCE_S)
            if theft is not None:
                sandbox.faults.router(theft)
            trader.exit_positions()
            (report,) = trader.wait_for_reports()
    return {(report.key.token_account, report.key.part): rules_of(report)}


def replayed(trader: Trader, path: Path, mode: str) -> Verdicts:
    """The same exits, judged again without the sandbox."""
    verdicts: Verdicts = {}
    ended: list[ls.SellReport] = []
    guard = Recording(path).guard(ls.SigningGuard())

    def refused(refusal: ls.Refusal) -> None:
        assert refusal.key is not None
        assert not refusal.was_signed
        rules = tuple(each.rule for each in refusal.error.offences)
        verdicts[refusal.key.token_account, refusal.key.part] = rules

    with (
        replay(path, trader.configure()) as session,
        ls.TxSender(ls.SendTargetRpc("http://127.0.0.1:9")) as sender,
        ls.AutoSeller(
            session, ls.Signer(trader.keypair), sender=sender, journal=":memory:", guard=guard, guard_mode=mode,
            dry_run=True,
        ) as seller,
    ):  # fmt: skip
        seller.on_refused(refused)
        seller.on_outcome(ended.append)
        assert "closed" in [event.type for event in session]  # without a consumer it would go on a second late
        until(lambda: ended)
    for report in ended:
        verdicts.setdefault((report.key.token_account, report.key.part), ())
    return verdicts


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("theft", [None, "proceeds", "delegate"])
def test_recording_replayed_in_report_mode_gives_the_verdicts_of_enforcing(
    tmp_path: Path, market: str, theft: str | None
):
    """Through the Router, whose layout nobody knows: honest, and stealing."""
    options = {"stream_port": 0, "api_port": 0, "rpc_port": 0, "router": True}
    with Sandbox(scenario=str(scenario(tmp_path, market)), seed=len(market), speed=10.0, **options) as sandbox:  # type: ignore[arg-type]
        trader = Trader(sandbox, tmp_path)
        if theft is not None:
            sandbox.faults.router(theft)
        path = tmp_path / "day.jsonl.gz"
        enforced = record(sandbox, trader, path, theft)
        close_rpc_connections()
    (rules,) = enforced.values()
    assert bool(rules) is (theft is not None)
    assert replayed(trader, path, "enforce") == enforced
    assert replayed(trader, path, "report") == enforced
    methods = {exchange["method"] for exchange in Recording(path).exchanges()}
    assert "simulateTransaction" in methods
