"""WebSocket frames for a client (RFC 6455): bytes of the link to messages, and payloads to masked frames.

The parser is a state machine that may stop at every byte: the header's bytes, then the payload's. A rule is checked
as soon as the byte that breaks it is there, so that the result does not depend on how the link cut the bytes.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["FrameParser", "encode_frame"]

_CONTINUATION: Final = 0
_TEXT: Final = 1
_BINARY: Final = 2
_CLOSE: Final = 8
_OPCODES: Final = frozenset({_CONTINUATION, _TEXT, _BINARY, _CLOSE, 9, 10})
_FIRST_CONTROL: Final = 8
_MAX_CONTROL_BYTES: Final = 125
_MASK_BYTES: Final = 4

PROTOCOL_ERROR: Final = 1002
INVALID_TEXT: Final = 1007
MESSAGE_TOO_BIG: Final = 1009

#: What an endpoint may send (RFC 6455 7.4 and the IANA registry); the rest of 1000-2999 is reserved or local only.
_CLOSE_CODES: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
_OWN_CLOSE_CODES: Final = range(3000, 5000)


class _ViolationError(Exception):
    """The peer broke a rule; becomes the parser's ``failure``."""

    def __init__(self, close_code: int, problem: str) -> None:
        self.close_code = close_code
        self.problem = problem


class FrameParser:
    """Turns the link's bytes into messages and control frames.

    Args:
        max_message_bytes: the largest message taken, over all its fragments. It is held against what a header
            claims, before anything is kept.

    Threads: one at a time.
    """

    __slots__ = (
        "_claimed",
        "_closed",
        "_failure",
        "_final",
        "_header",
        "_max_message_bytes",
        "_message",
        "_message_opcode",
        "_opcode",
        "_payload",
    )

    def __init__(self, max_message_bytes: int = 16 * 2**20) -> None:
        if max_message_bytes < 1:
            raise ValueError(f"max_message_bytes is {max_message_bytes}; it must be at least 1")
        self._max_message_bytes = max_message_bytes
        self._failure: tuple[int, str] | None = None
        self._closed = False
        # The frame being read: header bytes until they are complete, then the payload.
        self._header = bytearray()
        self._final = False
        self._opcode = 0
        self._claimed: int | None = None
        self._payload = bytearray()
        # The message being assembled from fragments; opcode 0 when there is none.
        self._message_opcode = 0
        self._message = bytearray()

    @property
    def failure(self) -> tuple[int, str] | None:
        """What the peer did wrong, as (close code to answer with, problem); None as long as it behaved."""
        return self._failure

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait for the rest of their header, frame or message."""
        return len(self._header) + len(self._payload) + len(self._message)

    def feed(self, data: bytes | bytearray | memoryview, /) -> list[tuple[int, bytes]]:
        """Take the link's next bytes.

        Returns:
            What became complete, in order, as (opcode, payload): 1 text and 2 binary with all fragments joined,
            8 close, 9 ping, 10 pong. After a violation (see ``failure``) and after a close frame: nothing more.

        Raises:
            TypeError: ``data`` is not bytes-like.
            BufferError: its bytes are not contiguous.

        Threads: one at a time.
        """
        out: list[tuple[int, bytes]] = []
        with memoryview(data) as view:
            if not view.c_contiguous:
                raise BufferError("memoryview: underlying buffer is not C-contiguous")
            octets = view.cast("B")
            at = 0
            try:
                while at < len(octets) and not self._closed and self._failure is None:
                    at = self._read_header(octets, at) if self._claimed is None else self._read_payload(octets, at)
                    self._finish_frame(out)
            except _ViolationError as error:
                self._failure = (error.close_code, error.problem)
        if self._closed or self._failure is not None:
            self._drop()
        return out

    def _read_header(self, octets: memoryview, at: int) -> int:
        """One more header byte; sets ``_claimed`` when the header is complete."""
        self._header.append(octets[at])
        header = self._header
        if len(header) == 1:
            self._check_first_byte(header[0])
        elif len(header) == 2:
            self._check_second_byte(header[1])
        short_length = header[1] & 0x7F if len(header) > 1 else 0
        if len(header) == 2 and short_length < 126:
            self._start_payload(short_length)
        elif len(header) == 4 and short_length == 126:
            (length,) = struct.unpack_from(">H", header, 2)
            self._check_minimal(length, 126)
            self._start_payload(length)
        elif len(header) == 10:
            (length,) = struct.unpack_from(">Q", header, 2)
            if length >> 63:
                raise _ViolationError(PROTOCOL_ERROR, "frame length has its top bit set")
            self._check_minimal(length, 0x10000)
            self._start_payload(length)
        return at + 1

    def _check_first_byte(self, byte: int) -> None:
        self._final = bool(byte & 0x80)
        self._opcode = byte & 0x0F
        if byte & 0x70:
            raise _ViolationError(PROTOCOL_ERROR, "reserved bits are set in a frame and no extension was agreed")
        if self._opcode not in _OPCODES:
            raise _ViolationError(PROTOCOL_ERROR, f"reserved opcode {self._opcode}")
        if self._opcode >= _FIRST_CONTROL:
            if not self._final:
                raise _ViolationError(PROTOCOL_ERROR, "fragmented control frame")
        elif self._opcode == _CONTINUATION and self._message_opcode == 0:
            raise _ViolationError(PROTOCOL_ERROR, "continuation frame without a message to continue")
        elif self._opcode != _CONTINUATION and self._message_opcode != 0:
            raise _ViolationError(PROTOCOL_ERROR, "new message inside a fragmented one")

    def _check_second_byte(self, byte: int) -> None:
        if byte & 0x80:
            raise _ViolationError(PROTOCOL_ERROR, "masked frame from a server")
        if self._opcode >= _FIRST_CONTROL and byte > _MAX_CONTROL_BYTES:
            raise _ViolationError(PROTOCOL_ERROR, "control frame of more than 125 bytes")

    @staticmethod
    def _check_minimal(length: int, least: int) -> None:
        if length < least:
            raise _ViolationError(PROTOCOL_ERROR, "frame length is not written in its shortest form")

    def _start_payload(self, length: int) -> None:
        if self._opcode < _FIRST_CONTROL and len(self._message) + length > self._max_message_bytes:
            raise _ViolationError(MESSAGE_TOO_BIG, f"message of more than {self._max_message_bytes} bytes")
        self._claimed = length
        self._header.clear()

    def _read_payload(self, octets: memoryview, at: int) -> int:
        assert self._claimed is not None  # asked by feed()
        taken = octets[at : at + self._claimed - len(self._payload)]
        self._payload += taken
        return at + len(taken)

    def _finish_frame(self, out: list[tuple[int, bytes]]) -> None:
        """Hand over the frame, or add it to its message, once its payload is complete."""
        if self._claimed is None or len(self._payload) < self._claimed:
            return
        self._claimed = None
        if self._opcode >= _FIRST_CONTROL:
            payload = bytes(self._payload)
            self._payload.clear()
            if self._opcode == _CLOSE:
                _check_close(payload)
                self._closed = True
            out.append((self._opcode, payload))
            return
        self._message_opcode = self._message_opcode or self._opcode
        if self._message:
            self._message += self._payload
        else:
            self._message, self._payload = self._payload, self._message
        self._payload.clear()
        if self._final:
            if self._message_opcode == _TEXT and not _is_utf8(self._message):
                raise _ViolationError(INVALID_TEXT, "text message is not UTF-8")
            out.append((self._message_opcode, bytes(self._message)))
            self._message_opcode = 0
            self._message.clear()

    def _drop(self) -> None:
        """Nothing more will be delivered: give the memory back."""
        self._header.clear()
        self._payload = bytearray()
        self._message = bytearray()


def _check_close(payload: bytes) -> None:
    if not payload:
        return
    if len(payload) == 1:
        raise _ViolationError(PROTOCOL_ERROR, "close frame of one byte")
    (code,) = struct.unpack_from(">H", payload)
    if code not in _CLOSE_CODES and code not in _OWN_CLOSE_CODES:
        raise _ViolationError(PROTOCOL_ERROR, f"close code {code} may not be sent")
    if not _is_utf8(payload[2:]):
        raise _ViolationError(INVALID_TEXT, "close reason is not UTF-8")


def _is_utf8(payload: bytes | bytearray) -> bool:
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def encode_frame(opcode: int, payload: bytes | bytearray | memoryview, mask: bytes, /) -> bytes:
    """One final frame, masked, as a client must send it.

    Args:
        opcode: 0 to 15.
        payload: the frame's content, unmasked.
        mask: 4 unpredictable bytes (RFC 6455 5.3), from ``secrets``.

    Raises:
        ValueError: the opcode, the mask's length or a control frame's size cannot be.

    Threads: any.
    """
    if not 0 <= opcode <= 0x0F:
        raise ValueError(f"opcode is {opcode}; it must be 0 to 15")
    key = bytes(memoryview(mask))
    if len(key) != _MASK_BYTES:
        raise ValueError(f"mask is {len(key)} bytes; it must be {_MASK_BYTES}")
    content = bytes(memoryview(payload))
    size = len(content)
    if opcode >= _FIRST_CONTROL and size > _MAX_CONTROL_BYTES:
        raise ValueError(f"a control frame carries at most {_MAX_CONTROL_BYTES} bytes, not {size}")
    if size <= _MAX_CONTROL_BYTES:
        header = struct.pack(">BB", 0x80 | opcode, 0x80 | size)
    elif size < 0x10000:
        header = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        header = struct.pack(">BBQ", 0x80 | opcode, 0x80 | 127, size)
    # Masking as one long XOR: a loop over bytes would be the slowest thing a send does.
    repeated = (key * (size // _MASK_BYTES + 1))[:size]
    masked = int.from_bytes(content, "little") ^ int.from_bytes(repeated, "little")
    return header + key + masked.to_bytes(size, "little")
