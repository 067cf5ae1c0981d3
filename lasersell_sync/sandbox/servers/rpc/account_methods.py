"""The JSON-RPC methods about accounts: balances, data, rent, which transactions named them; and their JSON."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace

import base58
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.account_data import AccountInfo
from lasersell_sync.sandbox.chain.addresses import TOKEN_PROGRAM, WRAPPED_SOL_MINT
from lasersell_sync.sandbox.chain.ledger import U64_MAX, TokenAccount
from lasersell_sync.sandbox.exchange.exchange import Exchange
from lasersell_sync.sandbox.servers.node_lies import NO_HISTORY
from lasersell_sync.sandbox.servers.rpc.node import RpcNode
from lasersell_sync.sandbox.servers.rpc.params import (
    Params,
    RpcError,
    config_of,
    invalid_params,
    optional_integer,
    pubkey_of,
    required,
    signature_of,
    sliced,
)

_MAX_ACCOUNTS = 100
_MAX_ACCOUNT_BYTES = 10 * 2**20
_MAX_SIGNATURES = 1_000


class AccountMethods:
    """Answers about accounts.

    Threads: any; all state is the exchange's.
    """

    def __init__(self, node: RpcNode) -> None:
        self._node = node
        self._views = AccountViews(node.exchange)

    def methods(self) -> dict[str, Callable[[Params], object]]:
        """The handlers by method name."""
        return {
            "getBalance": self._get_balance,
            "getAccountInfo": self._get_account_info,
            "getMultipleAccounts": self._get_multiple_accounts,
            "getMinimumBalanceForRentExemption": self._get_minimum_balance,
            "getTokenAccountBalance": self._get_token_account_balance,
            "getTokenAccountsByOwner": self._get_token_accounts_by_owner,
            "getSignaturesForAddress": self._get_signatures_for_address,
        }

    def _get_balance(self, params: Params) -> object:
        self._node.commitment(config_of(params, 1))
        (account,) = self._accounts([pubkey_of(params, 0)])
        lamports = 0 if account is None else account.lamports
        return self._node.in_context(self._node.lies().lamports(lamports))

    def _get_account_info(self, params: Params) -> object:
        address, config = pubkey_of(params, 0), config_of(params, 1)
        self._node.commitment(config)
        (account,) = self._accounts([address])
        return self._node.in_context(self._value(account, config))

    def _accounts(self, addresses: Sequence[Pubkey]) -> list[AccountInfo | None]:
        """Accounts as old as the node shows them."""
        lag_slots = self._node.lies().accounts_lag_slots
        return self._node.ask_chain(
            lambda chain: [chain.account(address, lag_slots=lag_slots) for address in addresses]
        )

    def _value(self, account: AccountInfo | None, config: dict[str, object]) -> dict[str, object] | None:
        if account is None:
            return None
        shown = replace(account, lamports=self._node.lies().lamports(account.lamports))
        return self._views.value(shown, config)

    def _get_multiple_accounts(self, params: Params) -> object:
        texts, config = required(params, 0), config_of(params, 1)
        if not isinstance(texts, list) or len(texts) > _MAX_ACCOUNTS:
            raise invalid_params(f"Too many inputs provided; max {_MAX_ACCOUNTS}")
        addresses = [pubkey_of(texts, index) for index in range(len(texts))]
        self._node.commitment(config)
        values = [self._value(account, config) for account in self._accounts(addresses)]
        return self._node.in_context(self._node.lies().spoiled(values))

    def _get_token_account_balance(self, params: Params) -> object:
        self._node.commitment(config_of(params, 1))
        (account,) = self._accounts([pubkey_of(params, 0)])
        if account is None or account.token is None:
            raise invalid_params("could not find account")
        return self._node.in_context(self._views.token_amount(account.token))

    def _get_token_accounts_by_owner(self, params: Params) -> object:
        owner, mint = pubkey_of(params, 0), self._mint_filter(params)
        config = config_of(params, 2)
        self._node.commitment(config)
        if config.get("encoding", "base64") not in ("jsonParsed", "base64"):
            raise invalid_params("encoding must be jsonParsed or base64")
        lag_slots = self._node.lies().accounts_lag_slots
        held = self._node.ask_chain(lambda chain: chain.token_accounts_of(owner, lag_slots=lag_slots))
        addresses = [address for address, account in held if mint is None or account.mint == mint]
        found = zip(addresses, self._accounts(addresses), strict=True)
        entries: list[dict[str, object] | None] = [
            {"account": self._value(item, config), "pubkey": str(address)} for address, item in found
        ]
        return self._node.in_context(self._node.lies().spoiled(entries))

    def _mint_filter(self, params: Params) -> Pubkey | None:
        """The mint asked for, or None for every token of the classic program."""
        wanted = config_of(params, 1)
        if "mint" in wanted:
            return pubkey_of([wanted["mint"]], 0)
        if wanted.get("programId") != str(TOKEN_PROGRAM):
            raise invalid_params("expected a filter: mint, or the token program as programId")
        return None

    def _get_minimum_balance(self, params: Params) -> int:
        size = optional_integer({"size": required(params, 0)}, "size")
        if size is None or size > _MAX_ACCOUNT_BYTES:
            raise invalid_params(f"the size must be an integer from 0 to {_MAX_ACCOUNT_BYTES}")
        return self._node.ask_chain(lambda chain: chain.rent_lamports(size))

    def _get_signatures_for_address(self, params: Params) -> object:
        """Newest first; ``before`` and ``until`` are signatures, neither of which is shown."""
        address, config = pubkey_of(params, 0), config_of(params, 1)
        commitment = self._node.commitment(config)
        if commitment == "processed":
            raise invalid_params("Method does not support commitment below `confirmed`")
        limit = optional_integer(config, "limit")
        limit = _MAX_SIGNATURES if limit is None else limit
        if not 0 < limit <= _MAX_SIGNATURES:
            raise invalid_params(f"Invalid limit; max {_MAX_SIGNATURES}")
        before, until = (
            None if config.get(key) is None else str(signature_of(config[key])) for key in ("before", "until")
        )
        lies = self._node.lies()
        if lies.no_history:
            raise RpcError(*NO_HISTORY)
        entries = self._node.ask_chain(
            lambda chain: chain.signatures_of(
                address,
                limit=limit,
                commitment=commitment,
                lag_slots=lies.lag_slots + lies.stale_index_slots,
                before=before,
                until=until,
            )
        )
        return lies.spoiled(entries)


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
            return [base58.b58encode(data).decode(), "base58"]
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
        mint = self._exchange.ledger.mint(account.mint)
        decimals = mint.decimals if mint is not None else 0
        whole, rest = divmod(account.amount, 10**decimals)
        digits = f"{whole}.{rest:0{decimals}d}".rstrip("0").rstrip(".")
        amount = account.amount / 10**decimals
        return {"amount": str(account.amount), "decimals": decimals, "uiAmount": amount, "uiAmountString": digits}
