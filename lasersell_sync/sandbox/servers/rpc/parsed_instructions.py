"""Calls inside a transaction in words, where the program is one that a node knows (Agave's ``jsonParsed``)."""

from __future__ import annotations

import struct

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import ASSOCIATED_TOKEN_PROGRAM, SYSTEM_PROGRAM, TOKEN_PROGRAM
from lasersell_sync.sandbox.chain.execution import InnerCall
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
from lasersell_sync.sandbox.servers.rpc import base58

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
            "data": base58.encode(call.data),
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
