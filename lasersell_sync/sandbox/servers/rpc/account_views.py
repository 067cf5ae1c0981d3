"""Accounts as JSON: in base58, base64, or parsed into words."""

from __future__ import annotations

import base64

from lasersell_sync.sandbox.chain.account_data import AccountInfo
from lasersell_sync.sandbox.chain.addresses import WRAPPED_SOL_MINT
from lasersell_sync.sandbox.chain.ledger import TokenAccount
from lasersell_sync.sandbox.exchange.exchange import Exchange
from lasersell_sync.sandbox.protocol.json_fields import U64_MAX
from lasersell_sync.sandbox.servers.rpc import base58
from lasersell_sync.sandbox.servers.rpc.params import RpcError, invalid_params, sliced

_MAX_BASE58_BYTES = 128


class AccountViews:
    """Writes accounts the way a node does.

    Threads: any.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def value(self, account: AccountInfo | None, config: dict[str, object]) -> dict[str, object] | None:
        """One account; null where there is nothing. ``config`` has ``encoding`` and ``dataSlice``."""
        if account is None:
            return None
        return {
            "data": self._data(account, config),
            "executable": account.executable,
            "lamports": account.lamports,
            "owner": str(account.owner),
            "rentEpoch": U64_MAX,
            "space": len(account.data),
        }

    def _data(self, account: AccountInfo, config: dict[str, object]) -> object:
        encoding = config.get("encoding", "base64" if account.data else "base58")
        parsed = self._parsed(account) if encoding == "jsonParsed" else None
        if parsed is not None:
            return {"parsed": parsed, "program": "spl-token", "space": len(account.data)}
        data = sliced(account.data, config.get("dataSlice"))
        if encoding == "base58":
            if len(data) > _MAX_BASE58_BYTES:
                raise RpcError(-32600, "Encoded binary (base 58) data should be less than 128 bytes, use base64.")
            return [base58.encode(data), "base58"]
        if encoding not in ("base64", "jsonParsed"):
            raise invalid_params("unsupported encoding; supported: base58, base64, jsonParsed")
        return [base64.b64encode(data).decode("ascii"), "base64"]

    def _parsed(self, account: AccountInfo) -> dict[str, object] | None:
        """A token program's account in words; None for any other, which is then shown as bytes."""
        info: dict[str, object]
        if account.token is not None:
            info = {
                "isNative": account.token.mint == WRAPPED_SOL_MINT,
                "mint": str(account.token.mint),
                "owner": str(account.token.owner),
                "state": "initialized",
                "tokenAmount": self.token_amount(account.token),
            }
            return {"info": info, "type": "account"}
        if account.mint is None:
            return None
        supply, decimals = str(account.mint.supply), account.mint.decimals
        info = {
            "decimals": decimals,
            "freezeAuthority": None,
            "isInitialized": True,
            "mintAuthority": None,
            "supply": supply,
        }
        return {"info": info, "type": "mint"}

    def token_amount(self, account: TokenAccount) -> dict[str, object]:
        """An amount as the token methods show it."""
        mint = self._exchange.mint(account.mint)
        decimals = mint.decimals if mint is not None else 0
        whole, rest = divmod(account.amount, 10**decimals)
        digits = f"{whole}.{rest:0{decimals}d}".rstrip("0").rstrip(".")
        amount = account.amount / 10**decimals
        return {"amount": str(account.amount), "decimals": decimals, "uiAmount": amount, "uiAmountString": digits}
