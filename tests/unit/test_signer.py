"""The signer: what it signs, where it loads keys from, and that the secret is nowhere to be seen."""

from __future__ import annotations

import base64
import copy
import io
import json
import logging
import os
import pickle
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from solders.keypair import Keypair
from solders.signature import Signature
from solders.transaction import VersionedTransaction

import lasersell_sync
from lasersell_sync.exceptions import ConfigurationError, TxSubmitError, UnsafeTransactionError
from lasersell_sync.trading.guard import SigningGuard
from lasersell_sync.trading.keys import keystore
from lasersell_sync.trading.keys.signer import KEYPAIR_ENVIRONMENT, Signer
from lasersell_sync.trading.rest.tx_requests import BuildSellTxRequest, BuildTxResponse
from lasersell_sync.trading.solana.signing import sign_unsigned_tx_b64
from tests.support.market_transactions import Desk, desk, draft, stranger

#: The canary: whoever finds it in a text has found a leak. Also the desks' wallet.
CANARY = Keypair.from_seed(bytes([1]) * 32)
PASSPHRASE = "canary passphrase 4711"
ADDRESS = str(CANARY.pubkey())
BASE58 = str(CANARY)
NUMBERS = json.dumps(list(bytes(CANARY)))
#: Every form in which a text could show it, whole or its first half.
SECRETS = [
    BASE58,
    BASE58[:24],
    NUMBERS,
    NUMBERS[1:60],
    bytes(CANARY).hex(),
    bytes(CANARY)[:32].hex(),
    base64.b64encode(bytes(CANARY)).decode()[:40],
    repr(bytes(CANARY)[:32])[2:-1],
    PASSPHRASE,
]

posix = pytest.mark.skipif(os.name != "posix", reason="there are no file modes here")


def shown(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


def frames(error: BaseException) -> str:
    """The traceback with the values of all variables of the library's frames: those of this file are the user's own."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    texts, pending = [], [report]
    while pending:
        part = pending.pop()
        texts += [str(part), *(str(frame.locals) for frame in part.stack if "/tests/" not in frame.filename)]
        pending += [more for more in (part.__cause__, part.__context__) if more is not None]
    return "\n".join([*texts, str(error), repr(error), str(error.args), str(vars(error))])


def refused(field: str, call: Callable[..., Any], *args: Any) -> ConfigurationError:
    """The error about an argument, which shows no secret anywhere."""
    with pytest.raises(ConfigurationError) as caught:
        call(*args)
    assert caught.value.field == field
    assert not shown(frames(caught.value))
    assert not shown(pickle.dumps(caught.value).decode("latin-1"))
    return caught.value


@pytest.fixture
def signer() -> Signer:
    return Signer.from_keypair(CANARY)


@pytest.fixture
def key_path(tmp_path: Path) -> Path:
    path = tmp_path / "id.json"
    path.write_text(NUMBERS)
    path.chmod(0o600)
    return path


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keystores that cost a test nothing; one test takes the real price."""
    monkeypatch.setattr(keystore, "_MEMORY_KIB", 64)
    monkeypatch.setattr(keystore, "_ITERATIONS", 1)


# ── signing ──


def selling(trader: Desk) -> BuildSellTxRequest:
    return BuildSellTxRequest(trader.mint, trader.address, 10**9, trader.quote, 500)


def test_it_signs_what_the_guard_lets_pass(signer: Signer):
    """The same bytes as sign_unsigned_tx_b64, from text, answer and signal, with a signature that verifies."""
    trader = desk("pump_swap")
    assert signer.wallet == ADDRESS == trader.address
    tx_b64 = trader.sell("helius_sender")
    expected = sign_unsigned_tx_b64(tx_b64, CANARY)
    assert signer.sign(tx_b64) == expected
    assert signer.sign(tx_b64, request=selling(trader)) == expected
    assert signer.sign(BuildTxResponse(tx_b64), request=selling(trader)) == expected
    assert signer.sign(tx_b64, guard=None) == expected
    assert VersionedTransaction.from_bytes(base64.b64decode(expected)).verify_with_results() == [True]
    exit_signal, buy_signal = Desk("raydium_cpmm").signals("astralane")
    assert signer.sign(exit_signal) == sign_unsigned_tx_b64(exit_signal.unsigned_tx_b64, CANARY)
    guard = SigningGuard(max_buy_lamports=2 * 10**9)
    assert signer.sign(buy_signal, guard=guard) == sign_unsigned_tx_b64(buy_signal.unsigned_tx_b64, CANARY)


def test_the_guard_is_on_by_default(signer: Signer):
    """A theft is not signed unless somebody turned the guard off."""
    trader = desk("pump_swap")
    parts = draft(trader.sell())
    swap = parts.index("pAMMBay6oceH9fJKBRHGP5D4bD4sWpmSwMn52FMfXEA")
    theft = parts.with_account(swap, 6, stranger()).b64()
    with pytest.raises(UnsafeTransactionError) as caught:
        signer.sign(theft)
    assert (caught.value.rule, caught.value.account) == ("own_account", str(stranger()))
    with pytest.raises(UnsafeTransactionError, match="max_buy_lamports"):
        signer.sign(trader.buy())
    assert signer.sign(theft, guard=None)


def test_nothing_reaches_the_key_when_the_guard_refuses(signer: Signer):
    """No signature is made and thrown away."""
    made: list[bytes] = []
    signer._sign_message = lambda message: made.append(message) or Signature.default()  # type: ignore[func-returns-value]
    with pytest.raises(UnsafeTransactionError):
        signer.sign(desk("pump_swap").buy())
    assert not made


def test_signing_without_a_guard_is_told(signer: Signer, caplog: pytest.LogCaptureFixture):
    """Each time, with the wallet's name."""
    caplog.set_level(logging.WARNING, "lasersell_sync.trading.keys.signer")
    tx_b64 = desk("pump_swap").sell()
    signer.sign(tx_b64)
    assert not caplog.records
    for _ in range(2):
        signer.sign(tx_b64, guard=None)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert all(ADDRESS in text and "without a guard" in text for text in told)


def test_without_a_guard_it_still_signs_only_for_itself(signer: Signer):
    """Another's transaction, one that two must sign, and no transaction at all."""
    base = draft(desk("pump_swap").sell())
    theirs = base._replace(payer=stranger()).b64()
    with pytest.raises(TxSubmitError) as caught:
        signer.sign(theirs, guard=None)
    assert caught.value.kind == "sign_tx"
    for text, kind in (("!", "decode_unsigned_tx"), ("AAAA", "deserialize_unsigned_tx")):
        with pytest.raises(TxSubmitError) as caught:
            signer.sign(text, guard=None)
        assert caught.value.kind == kind


def test_it_proves_ownership(signer: Signer):
    """For register_wallet."""
    proof = signer.prove_ownership()
    assert proof.wallet_pubkey == ADDRESS
    assert Signature.from_string(proof.signature).verify(CANARY.pubkey(), proof.message.encode())


# ── the secret is nowhere ──


def texts_of(signer: Signer) -> Iterator[str]:
    yield from (
        str(signer),
        repr(signer),
        f"{signer}",
        f"{signer!r:>80}",
        f"{signer}".format(),
        f"{signer} {signer!r}",
    )
    yield from (str([signer]), str({"signer": signer}), ascii(signer), json.dumps(signer, default=str))
    yield str([getattr(signer, name, None) for name in dir(signer)])
    yield str([getattr(signer, name) for name in Signer.__slots__])
    yield traceback.format_exc()


def test_no_text_shows_the_secret(signer: Signer):
    """str, repr, format, of itself, in containers, of every attribute; the public key is there."""
    for text in texts_of(signer):
        assert not shown(text)
    assert str(signer) == f"Signer({ADDRESS})"
    assert not hasattr(signer, "__dict__")
    assert shown(f"{CANARY}"), "the canary is not what str(Keypair) shows: these tests would find nothing"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_does_not_pickle(signer: Signer, protocol: int):
    """Alone or inside something; what was written until then holds no secret."""
    for value in (signer, [signer], {"a": (signer,)}):
        file = io.BytesIO()
        with pytest.raises(TypeError, match="does not pickle"):
            pickle.Pickler(file, protocol).dump(value)
        assert bytes(CANARY)[:32] not in file.getvalue()
    with pytest.raises(TypeError):
        signer.__getstate__()


def test_copies_are_the_same_object(signer: Signer):
    """A copy of a configuration does not multiply keys."""
    assert copy.copy(signer) is signer
    assert copy.deepcopy([signer])[0] is signer


def test_no_traceback_and_no_log_shows_the_secret(signer: Signer, caplog: pytest.LogCaptureFixture):
    """Of refused transactions, with the values of all variables, and with everything logged."""
    caplog.set_level(logging.DEBUG)
    trader = desk("pump_swap")
    attempts: list[tuple[str, dict[str, Any]]] = [
        (trader.buy(), {}),
        ("!", {}),
        ("!", {"guard": None}),
        (draft(trader.sell())._replace(payer=stranger()).b64(), {"guard": None}),
        (trader.sell(), {"request": "nonsense"}),
        (BASE58, {}),
        (NUMBERS, {"guard": None}),
    ]
    for text, options in attempts:
        with pytest.raises((UnsafeTransactionError, TxSubmitError, ConfigurationError)) as caught:
            signer.sign(text, **options)
        error = caught.value
        if text in (BASE58, NUMBERS):
            # The caller's own mistake is in the frames as the argument; what we say and log must not repeat it.
            assert not shown(f"{error} {error!r} {vars(error)} {error.__cause__}")
        else:
            assert not shown(frames(error))
        logging.getLogger("test").error("failed for %s", signer, exc_info=error)
    told = "".join(caplog.handler.format(record) for record in caplog.records)
    assert not shown(told)
    assert not shown("".join(repr(vars(record)) for record in caplog.records))


# ── loading ──


def same(loaded: Signer) -> bool:
    return loaded.wallet == ADDRESS and loaded.sign(desk("pump_swap").sell()) == Signer(CANARY).sign(
        desk("pump_swap").sell()
    )


def test_it_loads_text_of_both_forms(monkeypatch: pytest.MonkeyPatch):
    """Base58 as wallets export it, a JSON list as solana-keygen writes it; from an argument or the environment."""
    for text in (BASE58, f"  {BASE58}\n", NUMBERS, f"{NUMBERS}\n"):
        assert same(Signer.from_base58(text))
        monkeypatch.setenv(KEYPAIR_ENVIRONMENT, text)
        assert same(Signer.from_env())
        monkeypatch.setenv("MY_KEY", text)
        assert same(Signer.from_env("MY_KEY"))


def test_it_loads_a_key_file(key_path: Path):
    """As solana-keygen writes it; 0400 is private, too."""
    assert same(Signer.from_json_file(key_path))
    key_path.chmod(0o400)
    assert same(Signer.from_json_file(str(key_path)))


BROKEN = {
    "cut": BASE58[:-2],
    "too long": BASE58 + "1",
    "a letter that is none": "0" + BASE58[1:],
    "another's half": str(Signature.from_bytes(bytes(CANARY)[:32] + bytes(Keypair().pubkey()))),
    "a public key": ADDRESS,
    "empty": "",
    "long": "1" * 5_000,
    "63 numbers": json.dumps(list(bytes(CANARY))[:63]),
    "a number too large": json.dumps([*bytes(CANARY)[:63], 256]),
    "a text among them": json.dumps([*bytes(CANARY)[:63], "x"]),
    "not closed": NUMBERS[:-1],
    "an object": json.dumps({"key": BASE58}),
    "deep": "[" * 100_000,
    "words": "canary canary canary",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_secrets_are_refused_unseen(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Whatever is wrong, wherever it comes from: an error that names the place and shows no part of it."""
    text = BROKEN[name]
    refused("secret", Signer.from_base58, text)
    monkeypatch.setenv(KEYPAIR_ENVIRONMENT, text)
    refused(KEYPAIR_ENVIRONMENT, Signer.from_env)
    path = tmp_path / "id.json"
    path.write_text(text)
    path.chmod(0o600)
    assert str(path) in str(refused("path", Signer.from_json_file, path))


@pytest.mark.parametrize(
    "value", [None, BASE58, bytes(CANARY), list(bytes(CANARY))], ids=lambda value: type(value).__name__
)
def test_what_is_not_a_keypair_is_refused_unseen(value: object):
    """The wrong argument may be the secret itself."""
    refused("keypair", Signer.from_keypair, value)
    refused("keypair", Signer, value)
    if not isinstance(value, str):
        refused("secret", Signer.from_base58, value)


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(KEYPAIR_ENVIRONMENT, raising=False)
    refused(KEYPAIR_ENVIRONMENT, Signer.from_env)


# ── files ──


@posix
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o777])
def test_a_file_open_to_others_is_refused_with_the_remedy(key_path: Path, mode: int):
    """Any bit for group or others; the error is the command to run."""
    key_path.chmod(mode)
    error = refused("path", Signer.from_json_file, key_path)
    assert f"chmod 600 {key_path}" in str(error)
    assert f"{mode:04o}" in str(error)
    key_path.chmod(0o600)
    assert same(Signer.from_json_file(key_path))


@posix
def test_a_file_of_another_user_is_refused(key_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They could read it; root's is taken."""
    owner = key_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        assert same(Signer.from_json_file(key_path))
        os.chown(key_path, 12345, -1)
    assert "another user" in str(refused("path", Signer.from_json_file, key_path))


def test_what_is_not_a_readable_file_is_refused(tmp_path: Path, key_path: Path):
    """Missing, a directory, a pipe that nobody writes to, and a file too long for a key."""
    assert "cannot be read" in str(refused("path", Signer.from_json_file, tmp_path / "missing"))
    refused("path", Signer.from_json_file, tmp_path)
    key_path.write_text(NUMBERS + " " * 5_000)
    assert "longer" in str(refused("path", Signer.from_json_file, key_path))
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe", 0o600)
        assert "not a file" in str(refused("path", Signer.from_json_file, tmp_path / "pipe"))


# ── keystore ──


def test_a_keystore_at_its_real_price(signer: Signer, tmp_path: Path):
    """Written, private, without the secret, opened again; 64 MiB and three passes."""
    path = tmp_path / "wallet.keystore"
    signer.save_keystore(path, PASSPHRASE)
    assert same(Signer.from_keystore(path, PASSPHRASE))
    content = json.loads(path.read_text())
    assert content["wallet"] == ADDRESS
    assert (content["kdf"], content["cipher"]) == ("argon2id", "aes-256-gcm")
    assert (content["memory_kib"], content["iterations"], content["lanes"]) == (65_536, 3, 4)
    assert not shown(path.read_text())
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.usefixtures("cheap")
def test_a_keystore_opens_with_its_passphrase_alone(signer: Signer, tmp_path: Path):
    """Not with another, nor another kind of thing; nothing of either is shown."""
    path = tmp_path / "wallet.keystore"
    signer.save_keystore(path, PASSPHRASE)
    for wrong in (PASSPHRASE + " ", PASSPHRASE[:-1], "", "\udc80" * 12):
        assert "does not open" in str(refused("passphrase", Signer.from_keystore, path, wrong))
    refused("passphrase", Signer.from_keystore, path, PASSPHRASE.encode())
    assert same(Signer.from_keystore(path, PASSPHRASE))


@pytest.mark.usefixtures("cheap")
def test_two_keystores_of_one_key_differ(signer: Signer, tmp_path: Path):
    """Salt and nonce are new each time."""
    contents = []
    for name in ("a", "b"):
        signer.save_keystore(tmp_path / name, PASSPHRASE)
        contents.append(json.loads((tmp_path / name).read_text()))
    assert all(contents[0][name] != contents[1][name] for name in ("salt", "nonce", "ciphertext"))


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "other"), ("version", 2), ("version", None), ("kdf", "scrypt"), ("cipher", "none"),
        ("memory_kib", 2**30), ("memory_kib", 0), ("memory_kib", "64"), ("memory_kib", True), ("memory_kib", 8),
        ("iterations", 65), ("lanes", 65), ("salt", "AA=="), ("salt", 5), ("nonce", "!"), ("ciphertext", "AAAA"),
        ("wallet", None),
    ],
)  # fmt: skip
def test_a_keystore_out_of_bounds_is_refused(signer: Signer, tmp_path: Path, field: str, value: object):
    """Before anything is computed: a file cannot order gigabytes or hours."""
    path = tmp_path / "wallet.keystore"
    signer.save_keystore(path, PASSPHRASE)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    error = refused("keystore", Signer.from_keystore, path, PASSPHRASE)
    assert str(path) in str(error)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize(
    "field", ["salt", "nonce", "ciphertext", "wallet", "iterations", "lanes", "memory_kib", "extra"]
)
def test_a_changed_keystore_does_not_open(signer: Signer, tmp_path: Path, field: str):
    """Every field is authenticated, what stands in it readably included."""
    path = tmp_path / "wallet.keystore"
    signer.save_keystore(path, PASSPHRASE)
    content = json.loads(path.read_text())
    old = content.get(field)
    if field in ("salt", "nonce", "ciphertext"):
        raw = base64.b64decode(old)
        content[field] = base64.b64encode(bytes([raw[0] ^ 1]) + raw[1:]).decode()
    else:
        content[field] = str(stranger()) if field in ("wallet", "extra") else old + 1
    path.write_text(json.dumps(content))
    assert "does not open" in str(refused("passphrase", Signer.from_keystore, path, PASSPHRASE))


@pytest.mark.usefixtures("cheap")
def test_a_keystore_is_written_once_and_with_a_good_passphrase(signer: Signer, tmp_path: Path):
    """Never over a file that is there, nor where it cannot be, nor with a word."""
    path = tmp_path / "wallet.keystore"
    refused("passphrase", signer.save_keystore, path, "short")
    refused("passphrase", signer.save_keystore, path, None)
    assert not path.exists()
    signer.save_keystore(path, PASSPHRASE)
    before = path.read_bytes()
    assert "never overwritten" in str(refused("path", signer.save_keystore, path, PASSPHRASE))
    assert path.read_bytes() == before
    refused("path", signer.save_keystore, tmp_path / "no" / "such", PASSPHRASE)


@posix
@pytest.mark.usefixtures("cheap")
def test_a_keystore_open_to_others_is_refused(signer: Signer, tmp_path: Path):
    """Encrypted or not: whoever can copy it can guess at leisure."""
    path = tmp_path / "wallet.keystore"
    signer.save_keystore(path, PASSPHRASE)
    path.chmod(0o644)
    assert f"chmod 600 {path}" in str(refused("keystore", Signer.from_keystore, path, PASSPHRASE))


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", NUMBERS.encode()])
def test_what_is_not_a_keystore_is_refused(tmp_path: Path, content: bytes):
    """A plain key file, for one."""
    path = tmp_path / "file"
    path.write_bytes(content)
    path.chmod(0o600)
    refused("keystore", Signer.from_keystore, path, PASSPHRASE)


@pytest.mark.usefixtures("cheap")
def test_too_little_memory_is_an_error_without_the_passphrase(
    signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Argon2id takes much; the error must not carry what it was computing on."""
    from cryptography.hazmat.primitives.kdf import argon2

    class Starved:
        def __init__(self, **_: object) -> None:
            """Takes any options."""

        def derive(self, key_material: bytes) -> bytes:
            raise MemoryError

    path = tmp_path / "wallet.keystore"
    signer.save_keystore(path, PASSPHRASE)
    monkeypatch.setattr(argon2, "Argon2id", Starved)
    assert "memory" in str(refused("passphrase", Signer.from_keystore, path, PASSPHRASE))
    assert "memory" in str(refused("passphrase", signer.save_keystore, tmp_path / "other", PASSPHRASE))
    assert not (tmp_path / "other").exists()


def test_a_missing_extra_names_the_line_that_installs_it(
    signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without cryptography, and with one that is too old for Argon2id; no secret in either traceback."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.kdf.argon2", None)
    for call in (
        lambda: signer.save_keystore(tmp_path / "a", PASSPHRASE),
        lambda: Signer.from_keystore(tmp_path / "a", PASSPHRASE),
    ):
        with pytest.raises(ImportError, match=r"lasersell-sync\[keystore\]") as caught:
            call()
        assert not shown(frames(caught.value))
    monkeypatch.setattr("lasersell_sync.runtime.optional_deps.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'lasersell-sync\[keystore\]'"):
        signer.save_keystore(tmp_path / "a", PASSPHRASE)


# ── the front door ──


def test_they_are_public():
    """From the package itself."""
    assert lasersell_sync.Signer is Signer
    assert lasersell_sync.SigningGuard is SigningGuard
    assert lasersell_sync.UnsafeTransactionError is UnsafeTransactionError
