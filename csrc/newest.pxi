# The newest message of each position, kept as the text that it came in, and read when somebody asks. Most are never
# asked for, and an object that is kept costs more than its making: when the next one replaces it, it has left the
# caches, and so have the eight objects that it refers to. The twin is _pure/newest.py.

cdef class _Kept:
    """The newest of one key: its text, or the message itself."""

    cdef uint8_t *text
    cdef size_t size
    cdef size_t capacity
    cdef size_t puts        # how often it was replaced
    cdef object message     # what the text says, once somebody has asked; or what was put

    def __dealloc__(self):
        PyMem_Free(self.text)


cdef class Newest:
    # What stands before the text is for inspect.signature(); Cython writes it for functions only.
    """Newest(decoder)\n--\n\nThe newest message of each key.

    Args:
        decoder: reads them.

    Threads: any may ask; the reader writes.
    """

    cdef Decoder decoder
    cdef dict kept

    def __cinit__(self, Decoder decoder not None):
        self.decoder = decoder
        self.kept = {}

    cdef _Kept place_of(self, object key):
        cdef PyObject *found = PyDict_GetItemWithError(self.kept, <PyObject *>key)
        if found != NULL:
            return <_Kept>found
        place = _Kept()
        self.kept[key] = place
        return place

    cdef int put_text(self, object key, const uint8_t *text, size_t size) except -1:
        cdef _Kept place = self.place_of(key)
        cdef uint8_t *grown
        if size > place.capacity:
            grown = <uint8_t *>PyMem_Realloc(place.text, size)
            if grown == NULL:
                raise MemoryError
            place.text = grown
            place.capacity = size
        memcpy(place.text, text, size)
        place.size = size
        place.puts += 1
        place.message = None
        return 0

    def put(self, key, message, /):
        """Keep this one."""
        place = self.place_of(key)
        place.puts += 1
        place.message = message

    def get(self, key, /):
        """The newest of this key, or None."""
        cdef const Plan *plan
        cdef size_t puts
        cdef PyObject *found = PyDict_GetItemWithError(self.kept, <PyObject *>key)
        if found == NULL:
            return None
        cdef _Kept place = <_Kept>found
        message = place.message
        if message is not None:
            return message
        # Of a copy: making objects may start a collection, that runs anyone's code, and the reader may bring a newer one.
        puts = place.puts
        text = PyBytes_FromStringAndSize(<const char *>place.text, place.size)
        message = self.decoder.read(text, <const uint8_t *>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), &plan)
        if puts == place.puts:
            place.message = message
        return message

    def forget(self, key, /):
        """Keep none of this key any more."""
        self.kept.pop(key, None)

    def items(self):
        """All as (key, message), for tests."""
        return [(key, self.get(key)) for key in list(self.kept)]
