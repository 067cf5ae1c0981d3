"""The layout of a token account, of SPL Token and of Token-2022 (spl-token ``state.rs``)."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["TokenAccount", "read_token_account"]

_TOKEN_PROGRAMS: Final = {
    "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
    "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb",
}
# Token-2022 puts extensions behind the account, and says in the first byte of them what it is. A multisig has a size of
# its own.
_ACCOUNT_BYTES: Final = 165
_MULTISIG_BYTES: Final = 355
_KIND_AT: Final = 165
_IS_ACCOUNT: Final = 2
_MINT: Final = slice(0, 32)
_OWNER: Final = slice(32, 64)
_AMOUNT: Final = slice(64, 72)
_DELEGATE: Final = slice(72, 108)
_STATE_AT: Final = 108
_INITIALIZED: Final = 1
_FROZEN: Final = 2
_CLOSE_AUTHORITY: Final = slice(129, 165)
_NOBODY: Final = bytes(4)


class TokenAccount(NamedTuple):
    """A token account in use.

    Attributes:
        mint, owner: 32 bytes each.
        amount: in the token's smallest units.
        delegate: who may move tokens beside the owner, or None.
        close_authority: who may close the account in the owner's place, or None.
        is_frozen: whether nothing can be moved.
    """

    mint: bytes
    owner: bytes
    amount: int
    delegate: bytes | None
    close_authority: bytes | None
    is_frozen: bool


def read_token_account(program: str, data: bytes) -> TokenAccount | None:
    """The token account in an account's data; None when it is not a token account in use.

    Args:
        program: base58 of the program that owns the account.
        data: all of the account's bytes.
    """
    if program not in _TOKEN_PROGRAMS or len(data) < _ACCOUNT_BYTES or len(data) == _MULTISIG_BYTES:
        return None
    if len(data) > _ACCOUNT_BYTES and data[_KIND_AT] != _IS_ACCOUNT:
        return None
    if data[_STATE_AT] not in (_INITIALIZED, _FROZEN):
        return None
    amount = int.from_bytes(data[_AMOUNT], "little")
    return TokenAccount(
        data[_MINT], data[_OWNER], amount, _option(data[_DELEGATE]), _option(data[_CLOSE_AUTHORITY]),
        data[_STATE_AT] == _FROZEN,
    )  # fmt: skip


def _option(data: bytes) -> bytes | None:
    """A ``COption<Pubkey>``: four bytes that say whether there is one, then 32."""
    return None if data[:4] == _NOBODY else data[4:]
