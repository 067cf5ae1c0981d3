"""Every error this library raises.

::

    LaserSellError
    ├── ConfigurationError (ValueError)      a pubkey, URL or option that cannot work
    │   └── StrategyError                    a strategy that the client or the server refuses
    ├── DecodeError (ValueError)             a message that cannot be read
    ├── ConcurrencyError (RuntimeError)      two threads, or two ways to consume, where one is possible
    ├── ForkedProcessError (RuntimeError)    a client inherited through fork()
    ├── StreamError  (alias StreamClientError)
    │   ├── TransportError (ConnectionError) name look-up, TCP, TLS or proxy failed: no server was reached
    │   ├── HandshakeError (ConnectionError) the server was reached and did not open a session
    │   │   ├── AuthenticationError (PermissionError)
    │   │   ├── WalletNotRegisteredError
    │   │   └── SessionLimitError
    │   ├── ProtocolError                    the peer broke RFC 6455 or the stream's own rules
    │   ├── ThreadDiedError                  a thread of the library died; the connection cannot be trusted
    │   ├── SendBufferFull                   the link takes no more bytes and 1 MiB waits already
    │   ├── StreamClosed (queue.ShutDown where it exists)
    │   └── WaitTimeoutError (TimeoutError, queue.Empty)  what was waited for did not come in time
    ├── ExitApiError                         the REST API refused, failed, or could not be reached
    │   └── ExitApiAuthenticationError (AuthenticationError)
    ├── TxSubmitError                        a transaction could not be decoded, signed, or submitted
    ├── UnsafeTransactionError               a transaction that must not be signed
    └── JournalError                         the record of sales cannot be read or written

An error carries its facts as attributes and makes its sentence from them; it chains its cause, pickles (attributes,
not the cause), and never holds an API key, a keypair or a signed transaction.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

__all__ = [
    "AuthenticationError",
    "BrokenRule",
    "ConcurrencyError",
    "ConfigurationError",
    "DecodeError",
    "ExitApiAuthenticationError",
    "ExitApiError",
    "ForkedProcessError",
    "HandshakeError",
    "JournalError",
    "LaserSellError",
    "ProtocolError",
    "SendBufferFull",
    "SessionLimitError",
    "StrategyError",
    "StreamClientError",
    "StreamClosed",
    "StreamError",
    "ThreadDiedError",
    "TransportError",
    "TxSubmitError",
    "UnsafeTransactionError",
    "WaitTimeoutError",
    "WalletNotRegisteredError",
]


def _rebuild(cls: type[LaserSellError], state: dict[str, Any]) -> LaserSellError:
    """Unpickle: the attributes as they were, without running the constructor's checks again."""
    error = cls.__new__(cls)
    error.__dict__.update(state)
    return error


class LaserSellError(Exception):
    """Base of every error this library raises on purpose."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Callable[..., LaserSellError], tuple[type[LaserSellError], dict[str, Any]]]:
        return _rebuild, (type(self), dict(self.__dict__))


# ── input ────────────────────────────────────────────────────────────────────────────────────────────────────────


class ConfigurationError(LaserSellError, ValueError):
    """An argument that cannot work, found before anything is sent.

    Attributes:
        field: the argument's name, as the caller wrote it (``wallet_pubkeys[2]``).
        problem: what is wrong and what to do.
    """

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


class StrategyError(ConfigurationError):
    """A strategy that the client's checks, or the server (``invalid_strategy``), refuse.

    Attributes:
        code: the server's code, or None when the client found it.
    """

    def __init__(self, field: str, problem: str, *, code: str | None = None) -> None:
        super().__init__(field, problem)
        self.code = code


class ConcurrencyError(LaserSellError, RuntimeError):
    """Two threads, or two ways to consume one stream, where only one is possible."""

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class ForkedProcessError(LaserSellError, RuntimeError):
    """A client, connection or session of the parent process was used in a forked child.

    Attributes:
        what: the object's kind.
        made_in: process id of its maker.
        used_in: process id of the caller.
    """

    def __init__(self, what: str, made_in: int, used_in: int) -> None:
        self.what = what
        self.made_in = made_in
        self.used_in = used_in

    def __str__(self) -> str:
        return (
            f"this {self.what} was made in process {self.made_in} and cannot be used in its fork {self.used_in}: its "
            "threads stayed there. Connect after the fork (in the worker, on first use)"
        )


class DecodeError(LaserSellError, ValueError):
    """A message that cannot be read.

    Attributes:
        reason: what is wrong, in words.
        path: where in the message (``$.bands[2].max_tokens``).
        offset: bytes into the UTF-8 form; for a missing field, its object's closing brace.
    """

    def __init__(self, reason: str, path: str = "$", offset: int = 0) -> None:
        self.reason = reason
        self.path = path
        self.offset = offset

    def __str__(self) -> str:
        return f"{self.path}: {self.reason} (byte {self.offset})"


# ── stream ───────────────────────────────────────────────────────────────────────────────────────────────────────


class StreamError(LaserSellError):
    """Base of everything that goes wrong with a stream."""


#: The official SDKs' name, for those who come from them.
StreamClientError = StreamError


class TransportError(StreamError, ConnectionError):
    """No server was reached.

    Attributes:
        stage: ``"dns"``, ``"tcp"``, ``"tls"``, ``"proxy"``, ``"upgrade"``, ``"link"`` (lost later), or ``"stop"`` (this
            process or machine was stopped, so the link is given up).
        endpoint: ``host:port``; never the key.
        problem: what happened, in words.
        close_code: the WebSocket close code with which the server ended the link, or None.
    """

    def __init__(self, stage: str, endpoint: str, problem: str, *, close_code: int | None = None) -> None:
        self.stage = stage
        self.endpoint = endpoint
        self.problem = problem
        self.close_code = close_code

    def __str__(self) -> str:
        text = f"{self.endpoint}: {self.stage} failed: {self.problem}"
        return text if self.close_code is None else f"{text} (close code {self.close_code})"


class HandshakeError(StreamError, ConnectionError):
    """The server was reached and did not open a session.

    Attributes:
        code: the server's code (``limit_exceeded``), or None when it sent none.
        message: the server's words, or ours when it sent none.
        status: the HTTP status of the upgrade, or None when the refusal came after it.
        retry_after_s: seconds that the server asks to wait, or None.
    """

    #: What the reader of the traceback should do next.
    remedy: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.code = code
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        facts = [f"HTTP {self.status}" if self.status is not None else "", self.code or "", self.message]
        text = ": ".join(fact for fact in facts if fact)
        return f"{text} ({self.remedy})" if self.remedy else text


class AuthenticationError(HandshakeError, PermissionError):
    """The API key was refused: HTTP 401/403 on the upgrade, ``invalid_api_key`` or ``unauthorized`` after it."""

    remedy = "check the API key and that it belongs to this endpoint"


class WalletNotRegisteredError(HandshakeError):
    """A wallet in ``configure`` has no ownership proof on file."""

    remedy = "register it first: ExitApiClient.register_wallet(prove_ownership(keypair)), or connect_with_wallets"


class SessionLimitError(HandshakeError):
    """Another session holds this API key; every public tier allows one (docs/protocol.md 8)."""

    remedy = "close the other session, or wait until the server notices that it is gone"


class ProtocolError(StreamError):
    """The peer broke RFC 6455 or the stream's own rules; the connection cannot go on.

    Attributes:
        problem: what it did.
        close_code: the WebSocket close code that answers it (1002 protocol, 1007 text, 1009 size).
    """

    def __init__(self, problem: str, close_code: int = 1002) -> None:
        self.problem = problem
        self.close_code = close_code

    def __str__(self) -> str:
        return f"{self.problem} (close code {self.close_code})"


class ThreadDiedError(StreamError):
    """A thread of the library died, so what the connection says can no longer be trusted; it has ended.

    Attributes:
        thread: its name.
        cause_text: what killed it, in words; the exception itself is the cause.
    """

    def __init__(self, thread: str, cause_text: str) -> None:
        self.thread = thread
        self.cause_text = cause_text

    @classmethod
    def caused_by(cls, thread: str, error: BaseException) -> ThreadDiedError:
        """The death of this thread, with what killed it as its cause."""
        died = cls(thread, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        died.__cause__ = error
        return died

    def __str__(self) -> str:
        return f"the thread {self.thread} died ({self.cause_text}); close this connection and open a new one"


class SendBufferFull(StreamError):
    """The link takes no more bytes and the send buffer is full; nothing of this command was written.

    Attributes:
        waiting_bytes: what waits to be written.
        limit_bytes: the buffer's size.
    """

    def __init__(self, waiting_bytes: int, limit_bytes: int) -> None:
        self.waiting_bytes = waiting_bytes
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return (
            f"send buffer full: {self.waiting_bytes} of {self.limit_bytes} bytes wait for a link that takes none; "
            "the command was not sent, try again when the link has recovered"
        )


# queue.ShutDown (Python 3.13) is what queue.Queue raises after shutdown(); loops that know it end by themselves.
_ShutDown: Any = getattr(queue, "ShutDown", Exception)


class StreamClosed(StreamError, _ShutDown):  # type: ignore[misc]
    """The stream was closed by its user and everything that had arrived was read."""

    def __str__(self) -> str:
        return "the stream is closed"


class WaitTimeoutError(StreamError, TimeoutError, queue.Empty):
    """What was waited for did not come in time; ``except queue.Empty`` and ``except TimeoutError`` catch it, too.

    Attributes:
        wanted: what was waited for, in words.
        timeout_s: seconds.
        status: where the connection stood when the time was over.
    """

    def __init__(self, wanted: str, timeout_s: float, status: str) -> None:
        self.wanted = wanted
        self.timeout_s = timeout_s
        self.status = status

    def __str__(self) -> str:
        return f"{self.wanted} did not come within {self.timeout_s:g} s; the connection is {self.status}"


# ── trading ──────────────────────────────────────────────────────────────────────────────────────────────────────


class ExitApiError(LaserSellError):
    """The REST API refused, failed, or could not be reached (docs/protocol.md 7).

    Attributes:
        kind: ``transport``, ``http_status``, ``envelope_status`` or ``parse``.
        status: the HTTP status, when there was an answer.
        body: the answer's first 220 characters.
        detail: the server's own words, when it sent any.
        body_status: the word in the answer's own ``status`` field (``unsupported``, ``not_indexed``), or None.
        retry_after_s: seconds that the server asks to wait, or None.
        clock_offset_s: seconds by which this machine's clock is ahead of the server's (its ``Date``), or None.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        status: int | None = None,
        body: str | None = None,
        body_status: str | None = None,
        retry_after_s: float | None = None,
        clock_offset_s: float | None = None,
    ) -> None:
        self.kind = kind
        self.status = status
        self.body = body
        self.detail = detail
        self.body_status = body_status
        self.retry_after_s = retry_after_s
        self.clock_offset_s = clock_offset_s

    def __str__(self) -> str:
        where = f"{self.kind} {self.status}" if self.status is not None else self.kind
        return f"{where}: {self.detail}"

    def is_retryable(self) -> bool:
        """True when the same request may succeed later: no connection, 5xx, 429, or a mint that is not indexed yet."""
        if self.kind == "transport":
            return True
        busy = self.status is not None and (self.status >= 500 or self.status == 429)
        return self.kind == "http_status" and (busy or self.is_not_indexed())

    def is_not_indexed(self) -> bool:
        """True when the service has not seen the mint yet; it may have in a second or two."""
        return self.kind == "http_status" and self.status == 404 and self.body_status == "not_indexed"


class ExitApiAuthenticationError(ExitApiError, AuthenticationError):
    """The REST API refused the API key (HTTP 401); also an ``AuthenticationError``, as for the stream."""

    def __init__(self, kind: str, detail: str, **more: Any) -> None:
        super().__init__(kind, detail, **more)
        # What an AuthenticationError of the stream carries.
        self.message = detail
        self.code = None

    def __str__(self) -> str:
        return f"{super().__str__()} ({self.remedy})"


class TxSubmitError(LaserSellError):
    """A transaction could not be decoded, signed, submitted, or confirmed (docs/protocol.md 9).

    Attributes:
        kind: ``decode_unsigned_tx deserialize_unsigned_tx sign_tx serialize_tx request_send response_read http_status
            decode_response rpc_error missing_result confirm_timeout tx_failed``; ``late_landing``: it landed after the
            nodes had called it dead; ``late_answer``: it was asked for, and came after its position was closed or
            opened again.
        detail: what happened, in words.
        target: ``rpc``, ``helius sender`` or ``astralane`` when one was involved.
        status: the HTTP status, when there was an answer.
        body: the answer's first 220 characters.
        code: the JSON-RPC error code, for ``rpc_error``.
        signature: base58, when the transaction has one by then.
        retry_after_s: seconds that the target asks to wait (``Retry-After``), or None.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        target: str | None = None,
        status: int | None = None,
        body: str | None = None,
        code: int | None = None,
        signature: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.kind = kind
        self.detail = detail
        self.target = target
        self.status = status
        self.body = body
        self.code = code
        self.signature = signature
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        where = f"{self.target}: " if self.target else ""
        return f"{where}{self.kind}: {self.detail}"


class BrokenRule(NamedTuple):
    """One way in which a transaction breaks a rule of the ``SigningGuard``.

    Attributes:
        rule: the rule's name.
        problem: how it is broken.
        account: base58 of the account or program that breaks it, or None.
        remedy: what to do; where the user may allow it, how.
        amount: how much is at stake, in the smallest units of what the rule counts, or None.
        instruction: the first bytes of an instruction that is on no list, or "".
        accounts: base58 of the accounts that this instruction is given.
        is_final: nothing lifts it, because no sale needs it.
    """

    rule: str
    problem: str
    account: str | None = None
    remedy: str = ""
    amount: int | None = None
    instruction: str = ""
    accounts: tuple[str, ...] = ()
    is_final: bool = False

    def __str__(self) -> str:
        where = f" [{self.account}]" if self.account is not None and self.account not in self.problem else ""
        return f"{self.rule}: {self.problem}{where}" + (f" ({self.remedy})" if self.remedy else "")


class UnsafeTransactionError(LaserSellError):
    """The ``SigningGuard`` refuses a transaction; nothing was signed (docs/safety.md).

    Attributes:
        offences: every broken rule, in the guard's order; the text shows all of them.
        rule: the name of the first broken rule.
        problem: how it is broken.
        account: base58 of the account that breaks it, or None.
        remedy: what to do; where the user may allow it, how.
    """

    def __init__(
        self,
        rule: str,
        problem: str,
        *,
        account: str | None = None,
        remedy: str = "",
        offences: Sequence[BrokenRule] = (),
    ) -> None:
        self.rule = rule
        self.problem = problem
        self.account = account
        self.remedy = remedy
        self.offences = tuple(offences) or (BrokenRule(rule, problem, account, remedy),)

    @classmethod
    def of(cls, offences: Sequence[BrokenRule]) -> UnsafeTransactionError:
        """The error of these broken rules, at least one."""
        first = offences[0]
        return cls(first.rule, first.problem, account=first.account, remedy=first.remedy, offences=offences)

    def __str__(self) -> str:
        return "; ".join(map(str, self.offences))


class JournalError(LaserSellError):
    """The record of sales cannot be read or written; nothing that depends on it is done.

    Attributes:
        kind: ``full`` (no room on the disk), ``read_only``, ``locked`` (by another process), ``torn`` (damaged),
            ``newer`` (written by a newer version), ``older`` (its writer must open it first), ``foreign`` (not a
            journal), ``missing``, ``replaced`` (another file is in its place), ``linked`` (it has several hard links),
            ``closed``, or ``failed``.
        path: the file.
        problem: what happened and what to do, in words.
    """

    def __init__(self, kind: str, path: str, problem: str) -> None:
        self.kind = kind
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"
