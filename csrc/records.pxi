# TLS, record by record. Each record is a call into OpenSSL through Python's ssl module; what is done here is what lies
# between two calls: a server that writes each message as a record of its own makes that a cost of every message. The
# fallback is _pure/receive_loop.py.

def read_records(read, record, buffer, Py_ssize_t filled, /):
    """Fill a buffer with the plaintext of as many records as there are and fit.

    Args:
        read: called with (size, buffer), as ``ssl.SSLObject.read``: the bytes of one record at the most.
        record: a buffer that one record fits in. Each is read into it: a slice of ``buffer`` costs more than a copy.
        buffer: to be filled.
        filled: how many bytes of it are already.

    Returns:
        (how many bytes of ``buffer`` are filled now, the OSError that ``read`` raised); None in its place when the
        buffer is full or ``read`` returned 0.
    """
    cdef Py_buffer one, all
    cdef Py_ssize_t count, room
    PyObject_GetBuffer(record, &one, PyBUF_WRITABLE)
    try:
        PyObject_GetBuffer(buffer, &all, PyBUF_WRITABLE)
        try:
            while filled < all.len:
                room = min(one.len, all.len - filled)
                try:
                    count = min(<Py_ssize_t>read(room, record), room)
                except OSError as problem:
                    return filled, problem
                if count <= 0:
                    break
                memcpy(<uint8_t *>all.buf + filled, one.buf, count)
                filled += count
            return filled, None
        finally:
            PyBuffer_Release(&all)
    finally:
        PyBuffer_Release(&one)
