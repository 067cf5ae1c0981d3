# The newest message of each position, kept as the text that it came in, and read when somebody asks. Most are never
# asked for, and an object that is kept costs more than its making: when the next one replaces it, it has left the
# caches, and so have the eight objects that it refers to. The fallback is _pure/tables.py.

# The newest of one id; its text, if that is what is kept, lies right behind this.
cdef struct Kept:
    PyObject *message       # what the text says, once somebody has asked; or what was put
    uint64_t stamp          # which put it was
    size_t size
    size_t capacity

cdef enum:
    KEPT_STEP = 64          # capacities are multiples of this, for texts of one kind are about equally long


cdef inline uint8_t *text_of(Kept *kept) noexcept:
    return <uint8_t *>(kept + 1)


cdef class LatestByKey:
    # What stands before the text is for inspect.signature(); Cython writes it for functions only.
    """LatestByKey(decoder)\n--\n\nThe newest message of each id (u64).

    The garbage collector does not see them: a message refers to nothing mutable.

    Args:
        decoder: reads them.

    Threads: any may ask; the reader writes.
    """

    cdef Decoder decoder
    cdef ls_id_table table      # of Kept
    cdef uint64_t stamp

    def __cinit__(self, Decoder decoder not None):
        self.decoder = decoder

    def __dealloc__(self):
        cdef size_t at = 0
        cdef uint64_t id
        cdef Kept *kept = <Kept *>ls_id_next(&self.table, &at, &id)
        while kept != NULL:
            Py_XDECREF(kept.message)
            PyMem_Free(kept)
            kept = <Kept *>ls_id_next(&self.table, &at, &id)
        ls_id_free(&self.table)

    cdef Kept *place_of(self, uint64_t id, size_t size) except NULL:
        """The id's place, with room for a text of that size."""
        cdef Kept *kept = <Kept *>ls_id_find(&self.table, id)
        if kept != NULL and size <= kept.capacity:
            return kept
        return self.new_place(id, kept, (size + KEPT_STEP - 1) // KEPT_STEP * KEPT_STEP)

    cdef Kept *new_place(self, uint64_t id, Kept *old, size_t capacity) except NULL:
        cdef Kept *kept
        if not ls_id_reserve(&self.table):
            raise MemoryError
        kept = <Kept *>PyMem_Realloc(old, sizeof(Kept) + capacity)
        if kept == NULL:
            raise MemoryError
        if old == NULL:
            kept.message = NULL
            kept.size = 0
        kept.capacity = capacity
        ls_id_put(&self.table, id, kept)
        return kept

    cdef int put_text(self, uint64_t id, const uint8_t *text, size_t size) except -1:
        cdef Kept *kept = self.place_of(id, size)
        cdef PyObject *old = kept.message
        memcpy(text_of(kept), text, size)
        self.stamp += 1
        kept.stamp = self.stamp
        kept.size = size
        kept.message = NULL
        Py_XDECREF(old)
        return 0

    cdef int put_message(self, uint64_t id, object message) except -1:
        cdef Kept *kept = self.place_of(id, 0)
        cdef PyObject *old = kept.message
        self.stamp += 1
        kept.stamp = self.stamp
        kept.message = <PyObject *>message
        Py_INCREF(kept.message)
        Py_XDECREF(old)
        return 0

    def put(self, key, message, /):
        """Keep this one."""
        self.put_message(checked_id(key), message)

    def get(self, key, /):
        """The newest of this id, or None."""
        cdef const Plan *plan
        cdef uint64_t id, stamp
        cdef Kept *kept = <Kept *>ls_id_find(&self.table, id) if ls_id_of(<PyObject *>key, &id) else NULL
        if kept == NULL:
            return None
        if kept.message != NULL:
            return <object>kept.message
        # Of a copy: making objects may start a collection, that runs anyone's code, and the reader may bring a newer one.
        stamp = kept.stamp
        text = PyBytes_FromStringAndSize(<const char *>text_of(kept), kept.size)
        message = self.decoder.read(text, <const uint8_t *>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), &plan)
        kept = <Kept *>ls_id_find(&self.table, id)
        if kept != NULL and kept.stamp == stamp and kept.message == NULL:
            kept.message = <PyObject *>message
            Py_INCREF(kept.message)
        return message

    def forget(self, key, /):
        """Keep none of this id any more."""
        cdef uint64_t id
        cdef PyObject *message
        cdef Kept *kept = <Kept *>ls_id_remove(&self.table, id) if ls_id_of(<PyObject *>key, &id) else NULL
        if kept != NULL:
            message = kept.message
            PyMem_Free(kept)
            Py_XDECREF(message)

    def items(self):
        """All as (id, message), for tests."""
        cdef size_t at = 0
        cdef uint64_t id
        ids = []
        while ls_id_next(&self.table, &at, &id) != NULL:
            ids.append(id)
        return [(id_, self.get(id_)) for id_ in ids]
