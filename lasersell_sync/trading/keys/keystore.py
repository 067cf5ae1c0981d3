"""Secrets in files: key files that nobody else can read, and encrypted keystores."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import stat
import unicodedata
from pathlib import Path
from typing import Any

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.runtime.optional_deps import install_hint, require_extra

__all__ = ["LEAST_PASSPHRASE_CHARACTERS", "open_keystore", "read_private_file", "write_keystore"]


# ── Files with secrets: read only if nobody else can ────────────────────────────────────────────────────────────────


_OTHERS = 0o077


def read_private_file(path: str | os.PathLike[str], field: str, max_bytes: int) -> bytes:
    """The file's content. Where there are no file modes (Windows), nothing about them is checked.

    Args:
        path: where.
        field: what errors call it.
        max_bytes: more than this is not what was meant.

    Raises:
        ConfigurationError: not a file, not readable, too long, or readable or writable by others than its owner.
    """
    shown = os.fspath(path)
    try:
        # The descriptor is asked and read, so that nobody can put another file in its place in between. Not blocking:
        # a pipe would wait for a writer.
        descriptor = os.open(shown, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise ConfigurationError(field, f"{shown} cannot be read: {error.strerror}") from error
    content = b""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(field, f"{shown} is not a file")
        if os.name == "posix":
            _require_private(shown, field, status)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise ConfigurationError(field, f"{shown} is longer than {max_bytes} bytes: not a key")
        return content
    finally:
        # Ctrl-C may come at any line, and shows no secret in the traceback's frames.
        del content
        os.close(descriptor)


def _require_private(shown: str, field: str, status: os.stat_result) -> None:
    if status.st_mode & _OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigurationError(
            field, f"{shown} is open to others than its owner (mode {mode:04o}): chmod 600 {shown}"
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise ConfigurationError(field, f"{shown} belongs to another user (uid {status.st_uid}): chown it to yourself")


# ── The encrypted keystore: one secret key in a file that is worth nothing without its passphrase ───────────────────
# Argon2id makes a key of the passphrase, AES-256-GCM encrypts with it, both from ``cryptography`` (extra
# ``keystore``). The file is JSON; everything in it beside the ciphertext is authenticated, so a changed file does not
# open.
#
# Every function here that holds a secret lets go of it on every way out: Ctrl-C may come while Argon2 works, and a
# tool that shows the values of a traceback's frames must find none.


LEAST_PASSPHRASE_CHARACTERS = 10

_FORMAT = "lasersell-keystore"
_VERSION = 1
_PURPOSE = "an encrypted keystore"
#: RFC 9106's second recommendation: 64 MiB, 3 passes, 4 lanes; a tenth of a second or two.
_MEMORY_KIB, _ITERATIONS, _LANES = 65_536, 3, 4
#: A file that asks for more is not ours; obeying it would only stop the machine.
_MOST = {"memory_kib": 1_048_576, "iterations": 64, "lanes": 64}
#: The work that may be asked for in all: 20 times that of our own files, a few seconds.
_MOST_KIB_PASSES = 4_194_304
_SALT_BYTES, _NONCE_BYTES, _KEY_BYTES, _SECRET_BYTES = 16, 12, 32, 64
_TAG_BYTES = 16
_MAX_FILE_BYTES = 4_096
_NO_MEMORY = "there is not enough memory to make a key of it"
_BINARY_FIELDS = {"salt": _SALT_BYTES, "nonce": _NONCE_BYTES, "ciphertext": _SECRET_BYTES + _TAG_BYTES}


def write_keystore(path: str | os.PathLike[str], secret: bytes, wallet: str, passphrase: str) -> None:
    """Write a new keystore, readable for its owner alone.

    Args:
        path: must not exist: a keystore is never overwritten.
        secret: the 64 bytes.
        wallet: their public half, base58; stands in the file readably.
        passphrase: 10 characters or more.

    Raises:
        ConfigurationError: a short passphrase, or a path that exists or cannot be written.
        ImportError: the extra is missing.
    """
    try:
        _require_cryptography()
        _require_passphrase(passphrase, LEAST_PASSPHRASE_CHARACTERS)
        header = {
            "format": _FORMAT, "version": _VERSION, "wallet": wallet,
            "kdf": "argon2id", "memory_kib": _MEMORY_KIB, "iterations": _ITERATIONS, "lanes": _LANES,
            "salt": _encode(os.urandom(_SALT_BYTES)),
            "cipher": "aes-256-gcm", "nonce": _encode(os.urandom(_NONCE_BYTES)),
        }  # fmt: skip
        sealed = _sealed(header, secret, passphrase)
        if sealed is None:
            raise ConfigurationError("passphrase", _NO_MEMORY)
        _write_new(Path(path), json.dumps({**header, "ciphertext": _encode(sealed)}, indent=1) + "\n")
    finally:
        del secret, passphrase


def open_keystore(path: str | os.PathLike[str], passphrase: str) -> tuple[bytes, str]:
    """The 64 secret bytes of a keystore, and the wallet that it says they are.

    Raises:
        ConfigurationError: not a keystore, readable by others, or the passphrase does not open it.
        ImportError: the extra is missing.
    """
    secret: bytes | str = b""
    try:
        _require_cryptography()
        _require_passphrase(passphrase, 0)
        content = _parsed(read_private_file(path, "keystore", _MAX_FILE_BYTES))
        if isinstance(content, str):
            raise ConfigurationError("keystore", f"{path} is not a keystore of this library: {content}")
        secret = _unsealed(content, passphrase)
        if isinstance(secret, str):
            raise ConfigurationError("passphrase", f"{path}: {secret}")
        return secret, content["wallet"]
    finally:
        del passphrase, secret


def _require_cryptography() -> None:
    require_extra("cryptography", extra="keystore", purpose=_PURPOSE)
    if not _has_argon2id():
        raise ImportError(
            f"{_PURPOSE} needs cryptography 44 or newer, with Argon2id: {install_hint('keystore')}",
            name="cryptography",
        )


def _has_argon2id() -> bool:
    """It came with version 44, and not every OpenSSL below has it; another extra may have brought such a one."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    except ImportError:
        return False
    try:
        Argon2id(salt=bytes(_SALT_BYTES), length=_KEY_BYTES, iterations=1, lanes=1, memory_cost=8)
    except UnsupportedAlgorithm:
        return False
    return True


def _require_passphrase(passphrase: object, least_characters: int) -> None:
    try:
        if not isinstance(passphrase, str):
            raise ConfigurationError("passphrase", f"a {type(passphrase).__name__}, where a passphrase is a str")
        characters = len(_normalized(passphrase))
        if characters < least_characters:
            raise ConfigurationError(
                "passphrase",
                f"{characters} characters: {least_characters} or more are needed, best are several words",
            )
    finally:
        del passphrase


def _parsed(raw: bytes) -> dict[str, Any] | str:
    """The file's fields, of the right kinds and within bounds, or what is wrong. It may be a plain key file."""
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        return f"no format {_FORMAT!r}"
    return _problem(content) or content


def _problem(content: dict[str, Any]) -> str | None:
    if content.get("version") != _VERSION:
        return f"its version is not {_VERSION}; a newer lasersell_sync may read it"
    if content.get("kdf") != "argon2id" or content.get("cipher") != "aes-256-gcm":
        return "encrypted in another way"
    for name, most in _MOST.items():
        value = content.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            return f"{name} is not a whole number from 1 to {most}"
    if content["memory_kib"] * content["iterations"] > _MOST_KIB_PASSES:
        return f"memory_kib times iterations is above {_MOST_KIB_PASSES}: opening it would take too long"
    if content["memory_kib"] < 8 * content["lanes"]:
        return "memory_kib is below 8 for each of the lanes"
    for name, length in _BINARY_FIELDS.items():
        if len(_decode(content.get(name))) != length:
            return f"{name} is not base64 of {length} bytes"
    return None if isinstance(content.get("wallet"), str) else "no wallet"


def _sealed(header: dict[str, Any], secret: bytes, passphrase: str) -> bytes | None:
    """The ciphertext and its tag; None: not enough memory."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key = None
    try:
        key = _key(header, passphrase)
        return None if key is None else AESGCM(key).encrypt(_decode(header["nonce"]), secret, _authenticated(header))
    finally:
        del secret, passphrase, key


def _unsealed(content: dict[str, Any], passphrase: str) -> bytes | str:
    """The secret, or why not."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    header = {name: value for name, value in content.items() if name != "ciphertext"}
    key = None
    try:
        key = _key(header, passphrase)
        if key is None:
            return _NO_MEMORY
        return AESGCM(key).decrypt(_decode(content["nonce"]), _decode(content["ciphertext"]), _authenticated(header))
    except InvalidTag:
        return "it does not open with this passphrase, or the file was changed"
    finally:
        del passphrase, key


def _key(header: dict[str, Any], passphrase: str) -> bytes | None:
    """None: not enough memory."""
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    try:
        kdf = Argon2id(
            salt=_decode(header["salt"]), length=_KEY_BYTES, iterations=header["iterations"], lanes=header["lanes"],
            memory_cost=header["memory_kib"],
        )  # fmt: skip
        # A lone surrogate has no UTF-8 form, and must not raise: the error would quote the passphrase.
        return kdf.derive(_normalized(passphrase).encode("utf-8", "surrogatepass"))
    except MemoryError:
        return None
    finally:
        del passphrase


def _normalized(passphrase: str) -> str:
    """The same text in the same form, however a keyboard or system composes its accents."""
    try:
        return unicodedata.normalize("NFC", passphrase)
    finally:
        del passphrase


def _authenticated(header: dict[str, Any]) -> bytes:
    """The header as it is authenticated: sorted, without spaces."""
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _decode(text: object) -> bytes:
    """Of base64; nothing for anything else."""
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        return b""


def _write_new(path: Path, text: str) -> None:
    """The whole file under its name, or nothing: half a keystore would be a lost key."""
    partial = path.with_name(f".{path.name}.{os.urandom(6).hex()}.partial")
    try:
        _write_synced(partial, text)
        _give_name(partial, path)
    except FileExistsError:
        raise ConfigurationError(
            "path", f"{path} exists: a keystore is never overwritten, choose another name"
        ) from None
    except OSError as error:
        raise ConfigurationError("path", f"{path} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _give_name(partial: Path, path: Path) -> None:
    try:
        # A second name for the same file: unlike a rename, it never replaces what is there.
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: take the name first, then put the file there
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        partial.replace(path)


def _write_synced(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """The new name is on the disk, too; some systems cannot do that, and need not."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
