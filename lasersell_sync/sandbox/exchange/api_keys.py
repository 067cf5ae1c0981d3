"""API keys and the wallets registered under them."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence

from solders.pubkey import Pubkey
from solders.signature import Signature

PROOF_LIFE_S = 300
_PROOF = re.compile(r"lasersell-register:([1-9A-HJ-NP-Za-km-z]{32,44}):([0-9]{1,15})")


class ProofRejected(ValueError):
    """A wallet proof does not hold; ``forged``: its signature is bad; otherwise its message is malformed or expired."""

    def __init__(self, message: str, *, forged: bool = False) -> None:
        super().__init__(message)
        self.forged = forged


class KeyRing:
    """API keys and the wallets of each. Keys never leave it: everything else knows a key by its id.

    Threads: the keys are fixed after construction, so ``match`` may be called from any thread; the rest is guarded by
    the exchange's lock.
    """

    def __init__(self, api_keys: Sequence[str]) -> None:
        self._keys = {f"key-{number}": key.encode() for number, key in enumerate(api_keys, 1)}
        self._wallets: dict[str, dict[Pubkey, str | None]] = {key_id: {} for key_id in self._keys}

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._keys)} keys>"

    def match(self, api_key: str | None) -> str | None:
        """The id of a key, or None for a wrong or missing one."""
        if api_key is None:
            return None
        given = api_key.encode("utf-8", "surrogateescape")
        for key_id, key in self._keys.items():
            if hmac.compare_digest(given, key):
                return key_id
        return None

    def register(self, key_id: str, wallet: Pubkey, label: str | None) -> None:
        """Put a wallet under a key; again is fine."""
        self._wallets[key_id][wallet] = label

    def remove(self, key_id: str, wallet: Pubkey) -> None:
        """Take a wallet from under a key; fine if it was not there."""
        self._wallets[key_id].pop(wallet, None)

    def is_registered(self, key_id: str, wallet: Pubkey) -> bool:
        """Whether a wallet may be configured under a key."""
        return wallet in self._wallets[key_id]


def check_proof(*, wallet_pubkey: str, signature: str, message: str, now_s: float) -> Pubkey:
    """Verify that a wallet's owner signed the registration message in the last five minutes.

    Raises ``ProofRejected``.
    """
    match = _PROOF.fullmatch(message)
    if match is None:
        raise ProofRejected("message must be lasersell-register:<pubkey>:<unix seconds>")
    if match.group(1) != wallet_pubkey:
        raise ProofRejected("message names another wallet")
    try:
        wallet = Pubkey.from_string(wallet_pubkey)
    except ValueError as error:
        raise ProofRejected("wallet_pubkey is not a public key") from error
    if abs(now_s - int(match.group(2))) > PROOF_LIFE_S:
        raise ProofRejected("proof expired")
    try:
        proof = Signature.from_string(signature)
    except ValueError as error:
        raise ProofRejected("signature is not base58 of 64 bytes") from error
    if not proof.verify(wallet, message.encode()):
        raise ProofRejected("signature verification failed", forged=True)
    return wallet
