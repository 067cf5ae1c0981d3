"""``lasersell-sync explain-tx``: what the signing guard makes of a transaction. Signs nothing, sends nothing."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from lasersell_sync import (
    MAINNET_BETA_RPC_URL,
    BuildBuyTxRequest,
    BuildSellTxRequest,
    BuildTxResponse,
    ExitApiClient,
    LaserSellError,
    Signer,
    SigningGuard,
    TxSender,
)
from lasersell_sync.trading.guard.addresses import from_text, require_address, to_text, token_account
from lasersell_sync.trading.guard.instruction_sketch import (
    PURCHASE,
    SALE,
    InstructionSketch,
    Sample,
    sketch_unknown_instructions,
)
from lasersell_sync.trading.guard.programs import known_programs

__all__ = ["explain_tx"]

Request = BuildSellTxRequest | BuildBuyTxRequest

_MAX_SLIPPAGE_BPS = 9_000
#: No sale waits here.
_SIMULATION_S = 10.0
_ASSETS = click.Choice(["SOL", "USD1"])


@click.command("explain-tx")
@click.argument("transaction", metavar="[BASE64]", required=False)
@click.option("--sell", metavar="MINT", help="Build a sale of this token by REST, and explain it.")
@click.option("--buy", metavar="MINT", help="Build a purchase of this token by REST, and explain it.")
@click.option("--wallet", metavar="PUBKEY", help="Who trades. Default: the public key of LASERSELL_KEYPAIR.")
@click.option(
    "--tokens", type=click.IntRange(min=2), help="What to sell, atomic units. Default: all that the wallet holds."
)
@click.option("--amount", type=float, default=0.01, show_default=True, help="What to spend, in whole SOL or USD1.")
@click.option("--currency", type=_ASSETS, default="SOL", show_default=True, help="What the other side is.")
@click.option("--slippage-bps", type=click.IntRange(1, _MAX_SLIPPAGE_BPS), default=2_000, show_default=True)
@click.option("--send-mode", type=click.Choice(["rpc", "helius_sender", "astralane"]), help="As for StreamConfigure.")
@click.option("--tip-lamports", type=click.IntRange(min=0), help="As for StreamConfigure.")
@click.option("--rpc", "rpc_urls", multiple=True, help="A node that simulates; repeatable. Default: LASERSELL_RPC_URL.")
@click.option("--layouts", type=click.Path(exists=True, dir_okay=False), help="A layout file that the guard adds.")
@click.option("--draft", type=click.Path(dir_okay=False, path_type=Path), help="Write a draft of a layout file here.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def explain_tx(
    transaction: str | None,
    sell: str | None,
    buy: str | None,
    draft: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Show what the signing guard says about a transaction, and sketch instructions that nobody knows.

    The transaction is BASE64 (- reads it from standard input), or is built by REST with LASERSELL_API_KEY. Nothing is
    signed, and nothing is sent. The sketch names no wallet, account or amount, so that you may publish it; --draft
    writes it as a draft of a layout file.

    The exit status is 0 if the guard would let the transaction be signed, and 1 if not.
    """
    if sum(one is not None for one in (transaction, sell, buy)) != 1:
        raise click.UsageError("give one of BASE64, --sell MINT and --buy MINT")
    try:
        for name, key in (("--sell", sell), ("--buy", buy), ("--wallet", options["wallet"])):
            if key is not None:
                require_address(name, key)
        with _guard(options["rpc_urls"], options["layouts"]) as guard:
            case = _given(transaction, options) if transaction is not None else _built(sell, buy, guard, options)
            report = guard.explain(case.transactions[0][0], wallet=case.wallet, request=case.transactions[0][1])
            sketches = _sketches(case, guard)
    except LaserSellError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        broken = [{"rule": one.rule, "problem": str(one.error)} for one in report.verdicts if one.error is not None]
        shown = {
            "accepted": report.accepted,
            "lines": report.lines,
            "broken": broken,
            "layouts": [s.layout for s in sketches],
        }
        click.echo(json.dumps(shown))
    else:
        click.echo(str(report))
        _show(sketches, draft)
    if draft is not None and sketches:
        draft.write_text(sketches[0].layout_text())
    sys.exit(0 if report.accepted else 1)


class _Case(NamedTuple):
    """What is to be explained first, and the same trade with other numbers; who signs; and the pool if it was named."""

    transactions: list[tuple[BuildTxResponse | str, Request | None]]
    wallet: str | None
    pool: str | None = None


@contextlib.contextmanager
def _guard(urls: tuple[str, ...], layouts: str | None) -> Iterator[SigningGuard]:
    nodes = list(urls) or [os.environ.get("LASERSELL_RPC_URL") or MAINNET_BETA_RPC_URL]
    guard = SigningGuard(rpc=nodes, layouts=layouts, simulation_timeout_s=_SIMULATION_S)
    try:
        yield guard
    finally:
        guard.close()


def _given(transaction: str, options: dict[str, Any]) -> _Case:
    text = sys.stdin.read() if transaction == "-" else transaction
    return _Case([(text.strip(), None)], options["wallet"])


def _built(sell: str | None, buy: str | None, guard: SigningGuard, options: dict[str, Any]) -> _Case:
    """Three transactions: as asked for, of half the amount, and with more slippage."""
    wallet = options["wallet"] or Signer.from_env().wallet
    bps: int = options["slippage_bps"]
    amount = _spent(options) if sell is None else options["tokens"] or _balance(guard, wallet, sell)
    numbers = [(amount, bps), (amount // 2, bps), (amount, min(2 * bps, (bps + 10_000) // 2))]
    transactions: list[tuple[BuildTxResponse | str, Request | None]] = []
    with ExitApiClient.from_env() as api:
        for units, slippage_bps in numbers:
            transactions.append(_build(api, sell, buy, wallet, units, slippage_bps, options))
    first = transactions[0][0]
    route: Any = first.route if isinstance(first, BuildTxResponse) else None
    pool = route.get("pool_id") if isinstance(route, dict) else None
    return _Case(transactions, wallet, pool if isinstance(pool, str) else None)


def _build(
    api: ExitApiClient,
    sell: str | None,
    buy: str | None,
    wallet: str,
    units: int,
    slippage_bps: int,
    options: dict[str, Any],
) -> tuple[BuildTxResponse, Request]:
    sender = {name: options[name] for name in ("send_mode", "tip_lamports")}
    if sell is not None:
        sale = BuildSellTxRequest(sell, wallet, units, options["currency"], slippage_bps, **sender)
        return api.build_sell_tx(sale), sale
    assert buy is not None  # one of the two is given
    purchase = BuildBuyTxRequest(buy, wallet, slippage_bps, amount_in_total=units, input=options["currency"], **sender)
    return api.build_buy_tx(purchase), purchase


def _spent(options: dict[str, Any]) -> int:
    amount: float = options["amount"]
    return round(amount * 10 ** (9 if options["currency"] == "SOL" else 6))


def _balance(guard: SigningGuard, wallet: str, mint: str) -> int:
    """All that the wallet's own accounts of the token hold, in atomic units."""
    owner, token = from_text(wallet), from_text(mint)
    accounts = [to_text(token_account(owner, token, program)) for program in known_programs().token_programs]
    with TxSender(list(guard.rpc)) as sender:
        amount = max(sender.token_amounts(accounts).values())
    if amount < 2:
        raise click.ClickException(f"the wallet holds none of this token. Give --tokens, or --buy {mint}")
    return amount


def _sketches(case: _Case, guard: SigningGuard) -> list[InstructionSketch]:
    samples = []
    request = case.transactions[0][1]
    wallet = case.wallet
    for transaction, one in case.transactions:
        decoded = guard.judge(transaction, wallet=wallet or _ANYBODY, request=one).decoded
        wallet = wallet or to_text(decoded.fee_payer or b"")
        samples.append(Sample(decoded, _amount(one), None if one is None else one.slippage_bps))
    side = None if request is None else SALE if isinstance(request, BuildSellTxRequest) else PURCHASE
    return sketch_unknown_instructions(
        samples,
        known_programs(),
        wallet=from_text(wallet or _ANYBODY),
        mint=None if request is None else from_text(request.mint),
        side=side,
        pool=None if case.pool is None else from_text(case.pool),
    )


#: The guard wants a wallet; who it is does not change what is read.
_ANYBODY = "11111111111111111111111111111111"


def _amount(request: Request | None) -> int | None:
    if request is None:
        return None
    return request.amount_tokens if isinstance(request, BuildSellTxRequest) else request.amount_in_total


def _show(sketches: list[InstructionSketch], draft: Path | None) -> None:
    if not sketches:
        click.echo("\nEvery instruction has a known layout.")
        return
    click.echo("\nInstructions without a known layout. What follows names no wallet, account or amount:\n")
    for sketch in sketches:
        click.echo(str(sketch))
    if draft is None:
        click.echo("\nA draft of a layout file (docs/guard-layouts.md); --draft FILE writes it:\n")
        click.echo(sketches[0].layout_text())
    else:
        click.echo(f"\nThe draft of a layout file is in {draft}. Check every field before you use it.")
