"""What the tests of the examples share: a quick sandbox, a wallet's key file, and the environment that names both."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
from solders.keypair import Keypair

from lasersell_sync import (
    BuildBuyTxRequest,
    ExitApiClient,
    ExitApiClientOptions,
    SellOutcome,
    SendTargetRpc,
    Signer,
    SigningGuard,
    TxSender,
    prove_ownership,
)
from lasersell_sync.sandbox import Sandbox
from tests.support.processes import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@attrs.frozen
class Account:
    """A wallet on a sandbox, and how a program is told about both."""

    sandbox: Sandbox
    keypair: Keypair
    environment: dict[str, str]
    folder: Path

    @classmethod
    def on(cls, sandbox: Sandbox, folder: Path) -> Account:
        keypair = Keypair()
        path = folder / "wallet.json"
        path.touch(mode=0o600)  # a key that others can read is refused
        path.write_text(json.dumps(list(bytes(keypair))))
        environment = {
            "LASERSELL_API_KEY": sandbox.api_key,
            "LASERSELL_STREAM_URL": sandbox.stream_url,
            "LASERSELL_API_URL": sandbox.api_url,
            "LASERSELL_RPC_URL": sandbox.rpc_url,
            "LASERSELL_KEYPAIR": str(path),
        }
        return cls(sandbox, keypair, environment, folder)

    @property
    def wallet(self) -> str:
        return str(self.keypair.pubkey())

    def register(self) -> None:
        """As its owner does once."""
        with self._api() as api:
            api.register_wallet(prove_ownership(self.keypair))

    def buy(self, mint: str) -> None:
        """Open a position, as another program with the same wallet would."""
        self.register()
        signer = Signer.from_keypair(self.keypair)
        rpc = SendTargetRpc(self.sandbox.rpc_url)
        guard = SigningGuard(rpc=rpc)
        with self._api() as api, TxSender(rpc) as sender:
            order = BuildBuyTxRequest(mint, self.wallet, slippage_bps=2_000, amount=0.1)
            result = sender.send(signer.sign(api.build_buy_tx(order), request=order, guard=guard))
        guard.close()
        assert result.outcome is SellOutcome.CONFIRMED, result

    def _api(self) -> ExitApiClient:
        options = ExitApiClientOptions(connect_timeout_s=5.0, attempt_timeout_s=20.0)
        return ExitApiClient(self.sandbox.api_key, options).with_base_url(self.sandbox.api_url)

    # ── what the exchange knows; each waits for it ───────────────────────────────────────────────────────────────

    def connected(self) -> bool:
        """A program has a session."""
        return self._is(lambda: len(self.sandbox.sessions()) == 1)

    def disconnected(self) -> bool:
        """No session is left."""
        return self._is(lambda: not self.sandbox.sessions())

    def holds(self, mint: str) -> bool:
        """There is an open position."""
        return self._is(lambda: any(p.close_reason is None and p.mint == mint for p in self.sandbox.positions()))

    def sold(self, mint: str) -> bool:
        """There was a position, and the ledger holds none of its tokens any more."""
        return self._is(lambda: self.sandbox.positions() and not self.sandbox.token_balance(self.wallet, mint))

    def _is(self, predicate: object) -> bool:
        return bool(self.sandbox.wait_for(predicate, PATIENCE_S))  # type: ignore[arg-type]
