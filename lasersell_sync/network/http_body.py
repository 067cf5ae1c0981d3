"""The body of an HTTP answer as text, whatever a server or a box on the way made of it."""

from __future__ import annotations

import zlib

__all__ = ["BodyError", "decoded_body", "text_of"]

#: zlib reads both of its headers, gzip's and its own.
_ANY_HEADER = zlib.MAX_WBITS | 32
_GZIP = frozenset({"gzip", "x-gzip"})
#: A body that is compressed more often than this was made to hurt.
_MAX_LAYERS = 2


class BodyError(Exception):
    """The body cannot be decoded. Internal; its text is ours and ready to be shown."""


def decoded_body(body: bytes, content_encoding: str, max_bytes: int) -> bytes:
    """The body without its ``Content-Encoding``. We ask for ``identity``; some servers and CDNs compress anyway.

    Args:
        body: as it came.
        content_encoding: the header's value; empty for none.
        max_bytes: the most that may come out.

    Raises:
        BodyError: an unknown encoding, damaged data, or more than ``max_bytes``.
    """
    layers = [word for word in content_encoding.lower().replace(" ", "").split(",") if word not in ("", "identity")]
    if len(layers) > _MAX_LAYERS:
        raise BodyError("the answer's content encoding cannot be read: too many layers")
    for layer in reversed(layers):
        if layer not in _GZIP and layer != "deflate":
            raise BodyError("the answer's content encoding cannot be read: not gzip or deflate")
        try:
            body = _decompressed(body, max_bytes)
        except zlib.error:
            raise BodyError(f"the answer's {layer} data is damaged") from None
    return body


def _decompressed(data: bytes, max_bytes: int) -> bytes:
    out = bytearray()
    # A deflate body without zlib's header is against RFC 9110 and common.
    wbits = _ANY_HEADER if data[:2] == b"\x1f\x8b" or _has_zlib_header(data) else -zlib.MAX_WBITS
    while data:
        reader = zlib.decompressobj(wbits)
        out += reader.decompress(data, max_bytes + 1 - len(out))
        if len(out) > max_bytes:
            raise BodyError(f"an answer of more than {max_bytes} bytes")
        if not reader.eof:
            raise BodyError("the answer's compressed data ended early")
        # gzip allows several members one after the other.
        data = reader.unused_data
    return bytes(out)


def _has_zlib_header(data: bytes) -> bool:
    return len(data) >= 2 and data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0


def text_of(body: bytes) -> str:
    """The body as UTF-8, without a byte order mark; what is not UTF-8 shows as U+FFFD."""
    return body.decode("utf-8-sig", errors="replace")
