# Transactions out of their text, for whoever judges them while a sale waits: the glue between tx_wire.c and Python.
# The reference is _pure/transactions.py.

cdef extern from "tx_wire.h" nogil:
    ctypedef struct ls_tx_instruction:
        uint8_t program
        const uint8_t *accounts
        size_t account_count
        const uint8_t *data
        size_t data_size
    Py_ssize_t ls_base64_decode(const uint8_t *at, const uint8_t *end, uint8_t *out)
    const uint8_t *ls_tx_length(const uint8_t *at, const uint8_t *end, size_t *length)
    const uint8_t *ls_tx_instruction_at(const uint8_t *at, const uint8_t *end, ls_tx_instruction *out)


def decode_base64(text, /):
    """The bytes of standard base64 with padding, in the one spelling that encoding gives back.

    Args:
        text: a str.

    Returns:
        The bytes, or None: the text is not that.

    Raises:
        TypeError: ``text`` is not a str.

    Threads: any.
    """
    cdef Py_ssize_t size
    cdef const uint8_t *at
    if not isinstance(text, str):
        raise TypeError(f"text is a {type(text).__name__}; it must be a str")
    if not PyUnicode_IS_COMPACT_ASCII(text):
        if not text.isascii():
            return None
        text = "".join(text)  # of a subclass
    at = <const uint8_t *>PyUnicode_1BYTE_DATA(text)
    size = len(text)
    raw = PyBytes_FromStringAndSize(NULL, size // 4 * 3)
    size = ls_base64_decode(at, at + size, <uint8_t *>PyBytes_AS_STRING(raw))
    if size < 0:
        return None
    return raw if size == PyBytes_GET_SIZE(raw) else PyBytes_FromStringAndSize(PyBytes_AS_STRING(raw), size)


def read_instructions(raw, Py_ssize_t at, /):
    """The instructions of a legacy or version 0 transaction.

    Args:
        raw: the transaction, bytes.
        at: where their number stands, behind the blockhash.

    Returns:
        (program's index, accounts' indices, data) each, and where what follows them begins.

    Raises:
        IndexError: the bytes end before, or a length takes more than three bytes.
        TypeError: ``raw`` is not bytes.

    Threads: any.
    """
    cdef const uint8_t *begin
    cdef const uint8_t *end
    cdef const uint8_t *next
    cdef size_t count
    cdef ls_tx_instruction item
    if type(raw) is not bytes:
        raise TypeError(f"raw is a {type(raw).__name__}; it must be bytes")
    begin = <const uint8_t *>PyBytes_AS_STRING(raw)
    end = begin + PyBytes_GET_SIZE(raw)
    if at < 0 or at > PyBytes_GET_SIZE(raw):
        raise IndexError("no instructions begin there")
    next = ls_tx_length(begin + at, end, &count)
    found = []
    while next != NULL and count > 0:
        next = ls_tx_instruction_at(next, end, &item)
        count -= 1
        if next != NULL:
            found.append((
                item.program,
                PyBytes_FromStringAndSize(<const char *>item.accounts, item.account_count),
                PyBytes_FromStringAndSize(<const char *>item.data, item.data_size),
            ))
    if next == NULL:
        raise IndexError("the transaction ends before its instructions")
    return found, next - begin
