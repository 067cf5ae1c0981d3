"""A wallet's key that signs and never shows itself.

solders' own ``str(Keypair)`` is the secret key, and so is what it pickles to. A ``Signer`` keeps no keypair in any
attribute or local variable: only solders' bound method that signs, whose text form names a type. Functions that are
handed a secret let go of it before they raise, so that tools which print the values of a traceback's frames find none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from lasersell_sync.exceptions import ConfigurationError, TxSubmitError, UnsafeTransactionError
from lasersell_sync.pubkeys import is_signature
from lasersell_sync.runtime.log import logger
from lasersell_sync.trading.guard import NO_BLOCKHASH, CheckedTransaction, SigningGuard, TradeContext, read_unsigned
from lasersell_sync.trading.keys.keystore import read_private_file
from lasersell_sync.trading.solana.signing import SignedTx, WalletProof, prove_ownership, signed_tx

if TYPE_CHECKING:
    from solders.keypair import Keypair
    from solders.signature import Signature

    from lasersell_sync.messages import ExitSignalWithTx, MirrorBuySignal
    from lasersell_sync.trading.rest.tx_requests import BuildBuyTxRequest, BuildSellTxRequest, BuildTxResponse

__all__ = ["DEFAULT_GUARD", "KEYPAIR_ENVIRONMENT", "Signer"]

#: Without caps for purchases; loads its lists at the first check.
DEFAULT_GUARD: Final = SigningGuard()
#: Where ``Signer.from_env`` looks.
KEYPAIR_ENVIRONMENT: Final = "LASERSELL_KEYPAIR"

_SECRET_BYTES = 64
_NO_BLOCKHASH = bytes(32)
_MAX_KEY_FILE_BYTES = 4_096
#: 64 bytes are 88 base58 characters at the most.
_MAX_BASE58_CHARACTERS = 88
_NOT_A_KEY_FILE = "not a JSON list of 64 numbers from 0 to 255, as solana-keygen writes it"
_FORMS = "expected the base58 form of 64 bytes, or a JSON list of 64 numbers (the value is not shown)"

_log = logger("trading.signer")


class Signer:
    """Signs for one wallet. Made by one of the ``from_…`` methods.

    ``str``, ``repr`` and ``format`` show the public key; pickling is refused; copies are the object itself.

    Threads: immutable, any.
    """

    __slots__ = ("_public_key", "_sign_message", "_wallet")

    def __init__(self, keypair: Keypair) -> None:
        self._wallet = "no key"  # for tools that show a traceback's values, this object's among them
        try:
            problem = _keypair_problem(keypair)
            if problem is not None:
                raise ConfigurationError("keypair", problem)
            public_key = keypair.pubkey()
            self._sign_message: Callable[[bytes], Signature] = keypair.sign_message
        finally:
            del keypair
        self._public_key = bytes(public_key)
        self._wallet = str(public_key)

    @classmethod
    def from_keypair(cls, keypair: Keypair) -> Signer:
        """Of a ``solders.keypair.Keypair``.

        Raises:
            ConfigurationError: it is none.
        """
        try:
            return cls(keypair)
        finally:
            del keypair

    @classmethod
    def from_base58(cls, secret: str) -> Signer:
        """Of a wallet's exported secret key: base58 of 64 bytes, or a JSON list of 64 numbers.

        Raises:
            ConfigurationError: it is neither, or its halves do not belong together. The text is not repeated.
        """
        try:
            made = _from_text(secret)
        finally:
            del secret
        return _made("secret", made)

    @classmethod
    def from_env(cls, name: str = KEYPAIR_ENVIRONMENT) -> Signer:
        """Creates a signer from an environment variable: the path of a key file, or the secret key itself.

        A value that starts with ``[`` or is base58 of 64 bytes is the secret, as ``from_base58`` takes it. Any other
        value is the path of a file, as ``from_json_file`` takes it; ``~`` is the home folder.

        Raises:
            ConfigurationError: the variable is not set, is neither of the two, or names a file that others can read.
                The value is not repeated unless it is the path of a file that exists.
        """
        if not os.environ.get(name):
            raise ConfigurationError(name, "not set. Put the path of a key file there, or the secret key itself")
        path = _path_in(os.environ[name])
        if path is None:
            made = _from_text(os.environ[name])
            return _made(name, f"{made}. Nor is it the path of a file that exists" if isinstance(made, str) else made)
        return _made(name, _from_file(path, name), f"{path}: ")

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> Signer:
        """Of a Solana key file, as ``solana-keygen`` writes it: a JSON list of 64 numbers, for its owner's eyes alone.

        Raises:
            ConfigurationError: not readable, readable by others (with the chmod line that helps), or not a key file.
        """
        return _made("path", _from_file(path, "path"), f"{os.fspath(path)}: ")

    @classmethod
    def from_keystore(cls, path: str | os.PathLike[str], passphrase: str) -> Signer:
        """Of an encrypted keystore that ``save_keystore`` wrote. Takes a fraction of a second, on purpose.

        Raises:
            ConfigurationError: not a keystore, readable by others, or the passphrase does not open it.
            ImportError: the extra ``keystore`` is missing.
        """
        try:
            made = _from_keystore(path, passphrase)
        finally:
            del passphrase
        return _made("keystore", made)

    def save_keystore(self, path: str | os.PathLike[str], passphrase: str) -> None:
        """Write the key into a new encrypted keystore: Argon2id and AES-256-GCM, mode 0600.

        Args:
            path: must not exist.
            passphrase: 10 characters or more; there is no way back without it.

        Raises:
            ConfigurationError: a short passphrase, or a path that exists or cannot be written.
            ImportError: the extra ``keystore`` is missing.
        """
        from lasersell_sync.trading.keys.keystore import write_keystore

        try:
            write_keystore(path, bytes(self._keypair()), self._wallet, passphrase)
        finally:
            del passphrase

    @property
    def wallet(self) -> str:
        """The public key, base58."""
        return self._wallet

    def sign(
        self,
        transaction: ExitSignalWithTx | MirrorBuySignal | BuildTxResponse | str,
        *,
        request: BuildSellTxRequest | BuildBuyTxRequest | None = None,
        guard: SigningGuard | None = DEFAULT_GUARD,
        context: TradeContext | None = None,
    ) -> str:
        """``sign_tx``, in standard base64."""
        return self.sign_tx(transaction, request=request, guard=guard, context=context).tx_b64

    def sign_tx(
        self,
        transaction: ExitSignalWithTx | MirrorBuySignal | BuildTxResponse | str,
        *,
        request: BuildSellTxRequest | BuildBuyTxRequest | None = None,
        guard: SigningGuard | None = DEFAULT_GUARD,
        context: TradeContext | None = None,
    ) -> SignedTx:
        """The transaction, signed, if the guard lets it pass; ``TxSender`` sends it without reading it again.

        The bytes that the guard judged are the bytes that are signed; no byte but the signature's changes.

        Args:
            transaction: a signal, what ``ExitApiClient`` built, or base64.
            request: what it was asked for with; lets the guard compare (see ``SigningGuard.check``).
            guard: who decides. None: nobody, which is logged as a warning each time; the transaction must then still be
                one that this wallet pays for and signs alone.
            context: what the session knows about the position (see ``SigningGuard.check``).

        Raises:
            UnsafeTransactionError: the guard refuses; nothing was signed.
            TxSubmitError: without a guard: ``decode_unsigned_tx``, ``deserialize_unsigned_tx``, ``sign_tx``.
            ConfigurationError: arguments that are not what they should be.
        """
        if guard is None:
            _log.warning("%s signs without a guard: what the transaction does was not checked", self._wallet)
            checked = read_unsigned(transaction, request)
            raw, layout = checked
            if layout.required_signatures != 1 or layout.signer(raw, 0) != self._public_key:
                raise TxSubmitError(
                    "sign_tx", f"it is not a transaction that {self._wallet} pays for and signs alone: "
                    "sign with the wallet that it was built for",
                )  # fmt: skip
        else:
            return self.sign_checked(guard.check(transaction, wallet=self._wallet, request=request, context=context))
        return self._signed(checked)

    def sign_checked(self, checked: CheckedTransaction) -> SignedTx:
        """What ``SigningGuard.check`` returned for this wallet, signed.

        Raises:
            UnsafeTransactionError: it names no block.
        """
        raw, layout = checked
        if layout.blockhash(raw) == _NO_BLOCKHASH:  # of text alone, the guard leaves that to whoever signs
            raise UnsafeTransactionError(*NO_BLOCKHASH)
        return self._signed(checked)

    def rehearse(self, checked: CheckedTransaction) -> None:
        """Sign a transaction and forget it: the first signature of a process takes longer than later ones."""
        raw, layout = checked
        signed_tx(raw, layout, self._sign_message(layout.message(raw)))

    def _signed(self, checked: CheckedTransaction) -> SignedTx:
        raw, layout = checked
        return signed_tx(raw, layout, self._sign_message(layout.message(raw)))

    def prove_ownership(self) -> WalletProof:
        """The proof that ``ExitApiClient.register_wallet`` wants; good for five minutes, by this machine's clock."""
        return prove_ownership(self._keypair())

    def _keypair(self) -> Keypair:
        """For as long as an expression: no variable may hold it."""
        return self._sign_message.__self__  # type: ignore[attr-defined, no-any-return]

    def __repr__(self) -> str:
        return f"Signer({self._wallet})"

    def __copy__(self) -> Signer:
        return self

    def __deepcopy__(self, memo: object) -> Signer:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Signer does not pickle, for its key would leave this process: load it there")

    def __getstate__(self) -> NoReturn:
        self.__reduce_ex__(None)


# ── loading ──────────────────────────────────────────────────────────────────────────────────────────────────────
# These return what is wrong as a text, for their callers to raise when the secret is gone from all frames.


def _made(field: str, made: Signer | str, where: str = "") -> Signer:
    if isinstance(made, Signer):
        return made
    raise ConfigurationError(field, where + made)


def _keypair_problem(value: object) -> str | None:
    from solders.keypair import Keypair

    if isinstance(value, Keypair):
        return None
    return f"a {type(value).__name__} is not a solders.keypair.Keypair (the value is not shown: it may be a secret)"


def _path_in(value: str) -> str | None:
    """The path of the file that an environment variable names; None: it is no file, so it may be a secret."""
    text = value.strip()
    if text.startswith("[") or is_signature(text):
        return None
    path = os.path.expanduser(text)  # noqa: PTH111 - Path would change what an error shows
    try:
        return path if Path(path).exists() else None
    except (OSError, ValueError):  # a name that is too long, or holds a zero
        return None
    finally:
        del value, text


def _from_file(path: str | os.PathLike[str], field: str) -> Signer | str:
    content = b""
    try:
        content = read_private_file(path, field, _MAX_KEY_FILE_BYTES)
        if content.lstrip().startswith(b"["):
            return _from_json(content)
        if b"lasersell-keystore" in content:
            return "an encrypted keystore. Use Signer.from_keystore(path, passphrase)"
        return _NOT_A_KEY_FILE
    finally:
        del content


def _from_text(text: object) -> Signer | str:
    secret = b""
    try:
        if not isinstance(text, str):
            return f"a {type(text).__name__}: {_FORMS}"
        text = text.strip()
        if text.startswith("["):
            return _from_json(text)
        if not 0 < len(text) <= _MAX_BASE58_CHARACTERS:
            return f"{len(text)} characters: {_FORMS}"
        from solders.signature import Signature

        try:
            # A signature is 64 bytes as well; its parser raises, where that of older keypairs panics.
            secret = bytes(Signature.from_string(text))
        except ValueError:
            return f"{len(text)} characters that are not base58 of 64 bytes: {_FORMS}"
        return _from_bytes(secret)
    finally:
        del text, secret


def _from_json(text: str | bytes) -> Signer | str:
    numbers, secret = None, b""
    try:
        try:
            numbers = json.loads(text)
            secret = bytes(numbers) if isinstance(numbers, list) else b""
        except (TypeError, ValueError, RecursionError):
            return _NOT_A_KEY_FILE
        return _from_bytes(secret) if len(secret) == _SECRET_BYTES else _NOT_A_KEY_FILE
    finally:
        del text, numbers, secret


def _from_bytes(secret: bytes) -> Signer | str:
    from solders.keypair import Keypair

    try:
        return Signer(Keypair.from_bytes(secret))
    except ValueError:
        return "64 bytes whose halves do not belong together: not a secret key, or a damaged one"
    finally:
        del secret


def _from_keystore(path: str | os.PathLike[str], passphrase: str) -> Signer | str:
    from lasersell_sync.trading.keys.keystore import open_keystore

    secret = b""
    try:
        secret, wallet = open_keystore(path, passphrase)
        made = _from_bytes(secret)
    finally:
        del passphrase, secret
    if isinstance(made, Signer) and made.wallet != wallet:
        return f"{os.fspath(path)} says that it holds {wallet}, and holds {made.wallet}"
    return made
