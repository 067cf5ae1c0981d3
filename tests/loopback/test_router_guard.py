"""The guard on the sandbox's Router: every honest trade of every layout is signed, and no theft."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from solders.keypair import Keypair

import lasersell_sync as ls
from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.markets.scenario import Scenario, parse_scenario
from lasersell_sync.sandbox.router.thefts import ROUTER_THEFTS
from lasersell_sync.trading import close_rpc_connections
from tests.support.market_transactions import MARKETS, SEND_MODES

SHAPES = range(8)
BUDGETS = {"SOL": 10**9, "USD1": 150 * 10**6}
#: A sale in the sandbox pays the sender so much.
TIPS = {"rpc": None, "helius_sender": 1_000_000, "astralane": 1_000_000}


def all_markets() -> Scenario:
    tokens = "".join(
        f'[[token]]\nsymbol = "C{number}"\nmarket = "{market}"\nquote = "{quote}"\nrest_noise_pct = 0\n'
        for number, (market, quote) in enumerate(MARKETS)
    )
    return parse_scenario(f'about = "Every market."\n{tokens}', "markets")


class Shop(NamedTuple):
    """A sandbox with one Router, a wallet, and a guard that asks the sandbox's node."""

    sandbox: Sandbox
    api: ls.ExitApiClient
    signer: ls.Signer
    guard: ls.SigningGuard

    def buys(self, mint: str, mode: str = "rpc") -> tuple[ls.BuildTxResponse, ls.BuildBuyTxRequest]:
        quote = self.sandbox.mint_info[mint].quote
        request = ls.BuildBuyTxRequest(
            mint, self.signer.wallet, amount_in_total=BUDGETS[quote], slippage_bps=500, input=quote, send_mode=mode,
            tip_lamports=TIPS[mode],
        )  # fmt: skip
        return self.api.build_buy_tx(request), request

    def sells(self, mint: str, mode: str = "rpc", tokens: int = 0) -> tuple[ls.BuildTxResponse, ls.BuildSellTxRequest]:
        output = ls.SellOutput(self.sandbox.mint_info[mint].quote)
        request = ls.BuildSellTxRequest(
            mint, self.signer.wallet, tokens, output, 500, send_mode=mode, tip_lamports=TIPS[mode]
        )
        return self.api.build_sell_tx(request), request

    def sign(self, built: ls.BuildTxResponse, request: Any) -> str:
        return self.signer.sign(built, request=request, guard=self.guard)

    def holds(self, mint: str) -> None:
        """Buy, and wait until it has landed."""
        target = ls.SendTargetRpc(self.sandbox.rpc_url)
        ls.confirm_signature(target, ls.send_transaction_b64_to(target, self.sign(*self.buys(mint))))


@contextlib.contextmanager
def shop(shape: int, **settings: Any) -> Iterator[Shop]:
    ports = {"stream_port": 0, "api_port": 0, "rpc_port": 0}
    with Sandbox(
        scenario=all_markets(), router=True, router_shape=shape, landing_delay_ms=1, **ports, **settings
    ) as running:
        signer = ls.Signer.from_keypair(Keypair())
        api = ls.ExitApiClient(running.api_key).with_base_url(running.api_url)
        api.register_wallet(signer.prove_ownership())
        with contextlib.closing(ls.SigningGuard(rpc=running.rpc_url, simulation_timeout_s=20.0)) as guard:
            yield Shop(running, api, signer, guard)
        close_rpc_connections()


@pytest.mark.parametrize("shape", SHAPES)
def test_router_sandbox_honest_trades_are_signed(shape: int):
    """One market and currency of each layout, tier by tier; all of them in the slow test below."""
    chance = random.Random(shape)
    with shop(shape, tier=shape % 4) as made:
        mint = chance.choice(made.sandbox.mints)
        made.holds(mint)
        for mode in SEND_MODES:
            assert made.sign(*made.buys(mint, mode))
            assert made.sign(*made.sells(mint, mode))
            assert made.sign(*made.sells(mint, mode, tokens=1_000_000))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", SHAPES)
def test_router_sandbox_every_honest_trade_is_signed(shape: int):
    with shop(shape, tier=0) as made:
        for mint in made.sandbox.mints:
            made.holds(mint)
            for mode in SEND_MODES:
                assert made.sign(*made.buys(mint, mode))
                assert made.sign(*made.sells(mint, mode))
                assert made.sign(*made.sells(mint, mode, tokens=1_000_000))


@pytest.mark.parametrize("shape", SHAPES)
def test_router_sandbox_thefts_are_refused(shape: int):
    """A compromised Router steals from whoever signs: in every layout, in a sale and in a purchase."""
    chance = random.Random(1_000 + shape)
    with shop(shape, tier=0) as made:
        mint = chance.choice([mint for mint, info in made.sandbox.mint_info.items() if info.quote == "SOL"])
        made.holds(mint)
        half = made.sandbox.token_balance(made.signer.wallet, mint) // 2
        for theft in ROUTER_THEFTS:
            made.sandbox.faults.router(theft)
            trades: list[tuple[ls.BuildTxResponse, Any]] = [made.sells(mint, tokens=half)]
            if theft not in ("more_tokens", "proceeds"):  # a purchase has neither
                trades.append(made.buys(mint))
            for built, request in trades:
                with pytest.raises(ls.UnsafeTransactionError) as refusal:
                    made.sign(built, request)
                rule = refusal.value.rule
                assert (rule == "simulation_fails") == (theft == "fails"), f"{theft}: {refusal.value}"
                assert rule not in ("simulation", "opaque"), f"{theft}: {refusal.value}"
        made.sandbox.faults.router(None)
        assert made.sign(*made.sells(mint, tokens=half))
