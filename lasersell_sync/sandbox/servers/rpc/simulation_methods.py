"""``simulateTransaction``: what a transaction would do, with the calls inside it and the accounts that it leaves."""

from __future__ import annotations

import struct
from collections.abc import Callable

import base58
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import ASSOCIATED_TOKEN_PROGRAM, SYSTEM_PROGRAM, TOKEN_PROGRAM
from lasersell_sync.sandbox.chain.blockchain import Chain
from lasersell_sync.sandbox.chain.execution import Balances, InnerCall, Simulation
from lasersell_sync.sandbox.chain.instructions import (
    SYSTEM_CREATE_ACCOUNT,
    SYSTEM_TRANSFER,
    TOKEN_APPROVE,
    TOKEN_CLOSE_ACCOUNT,
    TOKEN_GET_ACCOUNT_DATA_SIZE,
    TOKEN_INITIALIZE_ACCOUNT_3,
    TOKEN_INITIALIZE_IMMUTABLE_OWNER,
    TOKEN_REVOKE,
    TOKEN_SET_AUTHORITY,
    TOKEN_SYNC_NATIVE,
    TOKEN_TRANSFER,
    TOKEN_TRANSFER_CHECKED,
)
from lasersell_sync.sandbox.chain.transactions import Transaction
from lasersell_sync.sandbox.servers.rpc.account_methods import AccountViews
from lasersell_sync.sandbox.servers.rpc.node import RpcNode
from lasersell_sync.sandbox.servers.rpc.params import Params, config_of, flag, invalid_params, pubkey_of, transaction_of


class SimulationMethods:
    """Answers ``simulateTransaction``.

    Threads: any; all state is the exchange's.
    """

    def __init__(self, node: RpcNode) -> None:
        self._node = node
        self._views = AccountViews(node.exchange)

    def methods(self) -> dict[str, Callable[[Params], object]]:
        """The handlers by method name."""
        return {"simulateTransaction": self._simulate_transaction}

    def _simulate_transaction(self, params: Params) -> object:
        config = config_of(params, 1)
        transaction = transaction_of(params, config, default_encoding="base58")
        verify, replaces = flag(config, "sigVerify"), flag(config, "replaceRecentBlockhash")
        if verify and replaces:
            raise invalid_params("sigVerify may not be used with replaceRecentBlockhash")
        self._node.commitment(config)
        watched, encoding = watched_accounts(config)
        lie = self._node.lies().simulation

        def simulated(chain: Chain) -> Simulation:
            true = chain.simulate(transaction, verify=verify, any_blockhash=replaces, watched=watched)
            if lie == "fails":
                return true.failing(len(transaction.instructions) - 1)
            return true if lie is None else true.harmless([chain.account(address) for address in watched or ()])

        simulation = self._node.ask_chain(simulated)
        answer = self._answer(transaction, simulation, inner=flag(config, "innerInstructions"))
        if watched is not None:
            most = len(simulation.loaded.metas) if simulation.loaded is not None else len(transaction.keys)
            if len(watched) > most:
                raise invalid_params(f"Too many accounts provided; max {most}")
            shown = [self._views.value(account, {"encoding": encoding}) for account in simulation.accounts]
            answer["accounts"] = shown if simulation.err is None else [None] * len(watched)
        if replaces:
            answer["replacementBlockhash"] = self._node.latest_blockhash("processed")
        return self._node.in_context(answer)

    def _answer(self, transaction: Transaction, simulation: Simulation, *, inner: bool) -> dict[str, object]:
        loaded, run = simulation.loaded, simulation.run
        addresses = list(transaction.keys) if loaded is None else [meta.pubkey for meta in loaded.metas]
        return {
            "accounts": None,
            "err": simulation.err,
            "fee": simulation.fee_lamports or None,
            "innerInstructions": self._inner(addresses, run.inner) if inner else None,
            "loadedAccountsDataSize": simulation.loaded_bytes,
            "loadedAddresses": None if loaded is None else _loaded_addresses(loaded.writable, loaded.readonly),
            "logs": list(run.logs),
            "postBalances": _lamports(simulation.after),
            "postTokenBalances": self._tokens(simulation.after),
            "preBalances": _lamports(simulation.before),
            "preTokenBalances": self._tokens(simulation.before),
            "returnData": None,
            "unitsConsumed": run.units_used,
        }

    def _inner(self, addresses: list[Pubkey], inner: dict[int, list[InnerCall]]) -> list[dict[str, object]]:
        if self._node.exchange.policies.parsed_inner_instructions:
            shown = parsed_call
        else:
            places = {address: place for place, address in enumerate(addresses)}

            def shown(call: InnerCall) -> dict[str, object]:
                return _compiled(call, places)

        return [{"index": index, "instructions": [shown(call) for call in calls]} for index, calls in inner.items()]

    def _tokens(self, balances: Balances | None) -> list[dict[str, object]] | None:
        if balances is None:
            return None
        return [
            {
                "accountIndex": index,
                "mint": str(account.mint),
                "owner": str(account.owner),
                "programId": str(TOKEN_PROGRAM),
                "uiTokenAmount": self._views.token_amount(account),
            }
            for index, account in balances.tokens.items()
        ]


def watched_accounts(config: dict[str, object]) -> tuple[list[Pubkey] | None, object]:
    """The accounts whose state after the simulation is wanted, and their encoding. Raises ``RpcError``."""
    wanted = config.get("accounts")
    if wanted is None:
        return None, None
    addresses = wanted.get("addresses") if isinstance(wanted, dict) else None
    if not isinstance(wanted, dict) or not isinstance(addresses, list):
        raise invalid_params("accounts must be an object with addresses")
    encoding = wanted.get("encoding", "base64")
    if encoding not in ("base64", "jsonParsed"):
        raise invalid_params("accounts.encoding must be base64 or jsonParsed")
    return [pubkey_of(addresses, index) for index in range(len(addresses))], encoding


def _compiled(call: InnerCall, places: dict[Pubkey, int]) -> dict[str, object]:
    """A call with the places of its accounts in the transaction."""
    return {
        "programIdIndex": places[call.program],
        "accounts": [places[account] for account in call.accounts],
        "data": base58.b58encode(call.data).decode(),
        "stackHeight": call.stack_height,
    }


def _loaded_addresses(writable: tuple[Pubkey, ...], readonly: tuple[Pubkey, ...]) -> dict[str, object]:
    return {"writable": [str(address) for address in writable], "readonly": [str(address) for address in readonly]}


def _lamports(balances: Balances | None) -> list[int] | None:
    return None if balances is None else list(balances.lamports)


_Parsed = tuple[str, dict[str, object]]
_AUTHORITY_KINDS = ("mintTokens", "freezeAccount", "accountOwner", "closeAccount")
_NAMES = {
    SYSTEM_PROGRAM: "system",
    TOKEN_PROGRAM: "spl-token",
    ASSOCIATED_TOKEN_PROGRAM: "spl-associated-token-account",
}


def parsed_call(call: InnerCall) -> dict[str, object]:
    """A call in words, or partially decoded: its program, accounts and data."""
    parsed = _parsed(call)
    if parsed is None:
        return {
            "programId": str(call.program),
            "accounts": [str(account) for account in call.accounts],
            "data": base58.b58encode(call.data).decode(),
            "stackHeight": call.stack_height,
        }
    kind, info = parsed
    return {
        "program": _NAMES[call.program],
        "programId": str(call.program),
        "parsed": {"type": kind, "info": info},
        "stackHeight": call.stack_height,
    }


def _parsed(call: InnerCall) -> _Parsed | None:
    readers = {SYSTEM_PROGRAM: _system, TOKEN_PROGRAM: _token, ASSOCIATED_TOKEN_PROGRAM: _associated}
    reader = readers.get(call.program)
    try:
        return None if reader is None else reader([str(account) for account in call.accounts], call.data)
    except (IndexError, struct.error):
        return None  # what a node cannot read, it shows partially decoded


def _system(accounts: list[str], data: bytes) -> _Parsed | None:
    (tag,) = struct.unpack_from("<I", data)
    if tag == SYSTEM_TRANSFER:
        (lamports,) = struct.unpack_from("<Q", data, 4)
        return "transfer", {"source": accounts[0], "destination": accounts[1], "lamports": lamports}
    if tag == SYSTEM_CREATE_ACCOUNT:
        lamports, space, owner = struct.unpack_from("<QQ32s", data, 4)
        info: dict[str, object] = {"source": accounts[0], "newAccount": accounts[1], "lamports": lamports}
        return "createAccount", {**info, "space": space, "owner": str(Pubkey.from_bytes(owner))}
    return None


def _associated(accounts: list[str], data: bytes) -> _Parsed:
    names = ("source", "account", "wallet", "mint", "systemProgram", "tokenProgram")
    info: dict[str, object] = dict(zip(names, accounts[:6], strict=True)) if len(accounts) >= 6 else {}
    if not info:
        raise IndexError(len(accounts))
    return ("createIdempotent" if data == b"\x01" else "create"), info


def _token(accounts: list[str], data: bytes) -> _Parsed | None:
    tag = data[0]
    if tag == TOKEN_TRANSFER:
        (amount,) = struct.unpack_from("<Q", data, 1)
        ends: dict[str, object] = {"source": accounts[0], "destination": accounts[1]}
        return "transfer", {**ends, "amount": str(amount), "authority": accounts[2]}
    if tag == TOKEN_TRANSFER_CHECKED:
        amount, decimals = struct.unpack_from("<QB", data, 1)
        whole: dict[str, object] = {"amount": str(amount), "decimals": decimals}
        ends = {"source": accounts[0], "mint": accounts[1], "destination": accounts[2]}
        return "transferChecked", {**ends, "tokenAmount": whole, "authority": accounts[3]}
    if tag == TOKEN_APPROVE:
        (amount,) = struct.unpack_from("<Q", data, 1)
        ends = {"source": accounts[0], "delegate": accounts[1], "owner": accounts[2]}
        return "approve", {**ends, "amount": str(amount)}
    if tag == TOKEN_SET_AUTHORITY:
        new = str(Pubkey.from_bytes(data[3:35])) if data[2] else None
        ends = {"account": accounts[0], "authority": accounts[1]}
        return "setAuthority", {**ends, "authorityType": _AUTHORITY_KINDS[data[1]], "newAuthority": new}
    return _token_account(accounts, data)


def _token_account(accounts: list[str], data: bytes) -> _Parsed | None:
    tag = data[0]
    if tag == TOKEN_CLOSE_ACCOUNT:
        return "closeAccount", {"account": accounts[0], "destination": accounts[1], "owner": accounts[2]}
    if tag == TOKEN_REVOKE:
        return "revoke", {"source": accounts[0], "owner": accounts[1]}
    if tag == TOKEN_SYNC_NATIVE:
        return "syncNative", {"account": accounts[0]}
    if tag == TOKEN_INITIALIZE_IMMUTABLE_OWNER:
        return "initializeImmutableOwner", {"account": accounts[0]}
    if tag == TOKEN_GET_ACCOUNT_DATA_SIZE:
        return "getAccountDataSize", {"mint": accounts[0], "extensionTypes": ["immutableOwner"]}
    if tag == TOKEN_INITIALIZE_ACCOUNT_3:
        owner = str(Pubkey.from_bytes(data[1:33]))
        return "initializeAccount3", {"account": accounts[0], "mint": accounts[1], "owner": owner}
    return None
