# The handle of each position, found by one look. The fallback is _pure/tables.py.

cdef extern from "id_table.h" nogil:
    ctypedef struct ls_id_table:
        size_t count
    void *ls_id_find(const ls_id_table *table, uint64_t id)
    bint ls_id_reserve(ls_id_table *table)
    void *ls_id_put(ls_id_table *table, uint64_t id, void *value)
    void *ls_id_remove(ls_id_table *table, uint64_t id)
    void *ls_id_next(const ls_id_table *table, size_t *at, uint64_t *id)
    void ls_id_free(ls_id_table *table)

cdef extern from "py_glue.h":
    bint ls_id_of(PyObject *key, uint64_t *id)


cdef uint64_t checked_id(object key) except? 0:
    """An id from Python code."""
    cdef uint64_t id
    if not ls_id_of(<PyObject *>key, &id):
        raise TypeError(f"{key!r} is not an id: an int from 0 to 2**64 - 1")
    return id


cdef class HandleTable:
    # What stands before the text is for inspect.signature(); Cython writes it for functions only.
    """HandleTable()\n--\n\nThe handle of each position, by its id (u64).

    The garbage collector does not see them: a handle refers to nothing mutable.

    Threads: any may look; one writes.
    """

    cdef ls_id_table table

    @classmethod
    def __class_getitem__(cls, _):
        # Generic for type checkers only.
        return cls

    def __dealloc__(self):
        self.clear()

    def __setitem__(self, key, handle):
        cdef uint64_t id = checked_id(key)
        if not ls_id_reserve(&self.table):
            raise MemoryError
        Py_INCREF(<PyObject *>handle)
        # What is let go of is let go of last: its end is anyone's code.
        Py_XDECREF(<PyObject *>ls_id_put(&self.table, id, <void *>handle))

    def __getitem__(self, key):
        handle = self.get(key)
        if handle is None:
            raise KeyError(key)
        return handle

    def __len__(self):
        return self.table.count

    def get(self, key, /):
        """The handle, or None."""
        cdef uint64_t id
        cdef void *found = ls_id_find(&self.table, id) if ls_id_of(<PyObject *>key, &id) else NULL
        return <object>found if found != NULL else None

    def forget(self, key, /):
        """Keep none of this id any more."""
        cdef uint64_t id
        if ls_id_of(<PyObject *>key, &id):
            Py_XDECREF(<PyObject *>ls_id_remove(&self.table, id))

    def clear(self):
        """Keep none at all any more."""
        cdef ls_id_table gone = self.table
        cdef ls_id_table empty
        cdef size_t at = 0
        cdef uint64_t id
        cdef void *handle
        memset(&empty, 0, sizeof(empty))
        self.table = empty
        handle = ls_id_next(&gone, &at, &id)
        while handle != NULL:
            Py_DECREF(<PyObject *>handle)
            handle = ls_id_next(&gone, &at, &id)
        ls_id_free(&gone)
