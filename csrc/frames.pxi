# WebSocket frames: the glue between ws_frame.c and Python. The fallback is _pure/frames.py.

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer

cdef extern from "ws_frame.h" nogil:
    enum:
        LS_WS_MORE
        LS_WS_COMPLETE
        LS_WS_DONE
        LS_WS_NO_MEMORY
        LS_WS_NO_PROBLEM
        LS_WS_MAX_HEADER
        LS_WS_MAX_CONTROL
    ctypedef int ls_ws_result
    ctypedef struct ls_ws_message:
        uint8_t opcode
        const uint8_t *payload
        size_t size
    ctypedef struct ls_ws_parser:
        int problem
    void ls_ws_init(ls_ws_parser *parser, uint64_t max_message)
    void ls_ws_free(ls_ws_parser *parser)
    ls_ws_result ls_ws_next(ls_ws_parser *parser, const uint8_t **at, const uint8_t *end, ls_ws_message *out)
    size_t ls_ws_buffered(const ls_ws_parser *parser)
    int ls_ws_close_code(const ls_ws_parser *parser)
    void ls_ws_describe(const ls_ws_parser *parser, char *out, size_t size)
    size_t ls_ws_write_header(uint8_t *out, uint8_t opcode, uint64_t size, const uint8_t *mask)
    void ls_ws_mask(uint8_t *out, const uint8_t *payload, size_t size, const uint8_t *mask)

cdef enum:
    PROBLEM_BYTES = 128
    TEXT_OPCODE = 1


cdef class FrameParser:
    # What stands before the text is for inspect.signature(); Cython writes it for functions only.
    """FrameParser(max_message_bytes=16777216)\n--\n\nTurns the link's bytes into messages and control frames.

    Args:
        max_message_bytes: the largest message taken, over all its fragments. It is held against what a header
            claims, before anything is kept.

    Threads: one at a time.
    """

    cdef ls_ws_parser parser

    def __cinit__(self, max_message_bytes=16 * 2**20):
        if max_message_bytes < 1:
            raise ValueError(f"max_message_bytes is {max_message_bytes}; it must be at least 1")
        # No frame can claim more than 63 bits, so a larger bound is no bound.
        ls_ws_init(&self.parser, min(max_message_bytes, 2**63))

    def __dealloc__(self):
        ls_ws_free(&self.parser)

    @property
    def failure(self):
        """What the peer did wrong, as (close code to answer with, problem); None as long as it behaved."""
        cdef char problem[PROBLEM_BYTES]
        if self.parser.problem == LS_WS_NO_PROBLEM:
            return None
        ls_ws_describe(&self.parser, problem, PROBLEM_BYTES)
        return ls_ws_close_code(&self.parser), problem.decode("ascii")

    @property
    def buffered_bytes(self):
        """Bytes that wait for the rest of their header, frame or message."""
        return ls_ws_buffered(&self.parser)

    def feed(self, data, /):
        """Take the link's next bytes.

        Returns:
            What became complete, in order, as (opcode, payload): 1 text and 2 binary with all fragments joined,
            8 close, 9 ping, 10 pong. After a violation (see ``failure``) and after a close frame: nothing more.

        Raises:
            TypeError: ``data`` is not bytes-like.
            BufferError: its bytes are not contiguous.

        Threads: one at a time.
        """
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self.feed_bytes(<const uint8_t *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef list feed_bytes(self, const uint8_t *at, Py_ssize_t size):
        cdef const uint8_t *end = at + size
        cdef ls_ws_message message
        cdef ls_ws_result result = LS_WS_COMPLETE
        out = []
        while result == LS_WS_COMPLETE:
            result = ls_ws_next(&self.parser, &at, end, &message)
            if result == LS_WS_COMPLETE:
                out.append((message.opcode, PyBytes_FromStringAndSize(<const char *>message.payload, message.size)))
        if result == LS_WS_NO_MEMORY:
            raise MemoryError
        return out


def encode_frame(opcode, payload, mask, /):
    """One final frame, masked, as a client must send it.

    Args:
        opcode: 0 to 15.
        payload: the frame's content, unmasked.
        mask: 4 unpredictable bytes (RFC 6455 5.3), from ``secrets``.

    Raises:
        ValueError: the opcode, the mask's length or a control frame's size cannot be.

    Threads: any.
    """
    cdef uint8_t header[LS_WS_MAX_HEADER]
    if not 0 <= opcode <= 0x0F:
        raise ValueError(f"opcode is {opcode}; it must be 0 to 15")
    cdef bytes key = bytes(memoryview(mask))
    if len(key) != 4:
        raise ValueError(f"mask is {len(key)} bytes; it must be 4")
    cdef bytes content = bytes(memoryview(payload))
    cdef const uint8_t *key_bytes = <const uint8_t *>PyBytes_AS_STRING(key)
    cdef size_t size = PyBytes_GET_SIZE(content)
    if opcode >= 8 and size > LS_WS_MAX_CONTROL:
        raise ValueError(f"a control frame carries at most {LS_WS_MAX_CONTROL} bytes, not {size}")
    cdef size_t header_size = ls_ws_write_header(header, opcode, size, key_bytes)
    frame = PyBytes_FromStringAndSize(NULL, header_size + size)
    cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(frame)
    memcpy(out, header, header_size)
    ls_ws_mask(out + header_size, <const uint8_t *>PyBytes_AS_STRING(content), size, key_bytes)
    return frame
