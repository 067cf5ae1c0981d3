"""TLS over a non-blocking socket, read in large pieces.

``ssl.SSLSocket`` makes two system calls for every record, and a server that writes each message as a record of its own
makes that the cost of the stream. Here one system call fetches what has arrived, and OpenSSL decrypts from memory.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Final

from lasersell_sync._backend import read_records, receive

__all__ = ["TlsSocket"]

#: Fetched at once. OpenSSL gets slower with more than a few records in its memory.
FETCH_BYTES: Final = 64 * 1024
#: A TLS record's plaintext (RFC 8446 5.1).
RECORD_BYTES: Final = 16 * 1024


class TlsSocket:
    """The client's side of TLS; raises what ``ssl.SSLSocket`` raises, also when it wants to read or write first.

    Threads: one at a time; the link's I/O lock sees to that.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._sock = sock
        self._arrived = ssl.MemoryBIO()
        self._leaving = ssl.MemoryBIO()
        #: For pins.
        self.tls = context.wrap_bio(self._arrived, self._leaving, server_hostname=host)
        self._fetched = memoryview(bytearray(FETCH_BYTES))
        self._record = memoryview(bytearray(RECORD_BYTES))
        #: The latest ``recv_into`` ended because its buffer was full.
        self.more = False
        #: The latest fetch was a full one: there may be more.
        self._fetched_all_it_could = False
        #: What ended the link, to be raised once everything before it was read.
        self._problem: OSError | None = None
        #: Encrypted, and not taken by the socket yet.
        self._unsent = b""

    def fileno(self) -> int:
        """For selectors; -1 after ``close``."""
        return self._sock.fileno()

    @property
    def below(self) -> socket.socket:
        """The socket that carries the records."""
        return self._sock

    def do_handshake(self) -> None:
        """Go on with it; call again when what it wants has come."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                if not self._fetch():
                    raise
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self.flush()  # the alert that tells the server why
                raise
            else:
                self.flush()
                return

    def recv_into(self, buffer: memoryview) -> int:
        """As many bytes as have arrived and fit, of as many records as that takes; 0 when the peer has ended."""
        if self._problem is not None:
            raise self._problem
        filled, problem = self._read(buffer)
        self.more = filled == len(buffer)
        if self._leaving.pending:
            # An answer of TLS itself: a new key. It can wait if the socket does not take it now.
            with contextlib.suppress(ssl.SSLWantWriteError):
                self.flush()
        if problem is not None and not filled:
            raise problem
        # What was read before it comes first.
        self._problem = None if isinstance(problem, ssl.SSLWantReadError) else problem
        return filled

    def _read(self, buffer: memoryview) -> tuple[int, OSError | None]:
        """(bytes read, why not more: None when the buffer is full or the peer has ended)."""
        filled = 0
        while True:
            filled, problem = read_records(self.tls.read, self._record, buffer, filled)
            if isinstance(problem, (ssl.SSLZeroReturnError, ssl.SSLEOFError)):
                return filled, None
            if not isinstance(problem, ssl.SSLWantReadError) or (filled and not self._fetched_all_it_could):
                return filled, problem
            try:
                if not self._fetch():
                    return filled, problem
            except OSError as broken:
                return filled, broken

    def recv(self, size: int) -> bytes:
        """At most ``size`` bytes; none when the peer has ended."""
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(memoryview(buffer))])

    def send(self, data: memoryview | bytes) -> int:
        """Encrypt one record's worth, and send as much as the socket takes; the rest leaves with ``flush``."""
        self.flush()
        count = self.tls.write(data[:RECORD_BYTES])
        with contextlib.suppress(ssl.SSLWantWriteError):
            self.flush()
        return count

    @property
    def unsent_bytes(self) -> int:
        """Encrypted bytes that wait for the socket."""
        return len(self._unsent) + self._leaving.pending

    def flush(self) -> None:
        """Send what waits.

        Raises:
            ssl.SSLWantWriteError: the socket takes no more now.
        """
        while self.unsent_bytes:
            if not self._unsent:
                self._unsent = self._leaving.read()
            try:
                taken = self._sock.send(self._unsent)
            except BlockingIOError:
                raise ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "the socket takes no more now") from None
            self._unsent = self._unsent[taken:]

    def shutdown(self, how: int) -> None:
        """The socket's."""
        self._sock.shutdown(how)

    def close(self) -> None:
        """The socket's."""
        self._sock.close()

    def _fetch(self) -> bool:
        """Take in what has arrived; False when nothing has."""
        count = receive(self._sock.fileno(), self._fetched)
        self._fetched_all_it_could = count == FETCH_BYTES
        if count is None:
            return False
        if count:
            self._arrived.write(self._fetched[:count])
        else:
            self._arrived.write_eof()
        return True
