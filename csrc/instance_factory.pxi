# Instances of slotted classes without their constructors, for those that are made thousands of times a second. The
# fallback is _pure/decoder.py.

cdef enum:
    MAX_SLOTS = 32


cdef class InstanceFactory:
    # What stands before the text is for inspect.signature(); Cython writes it for functions only.
    """InstanceFactory(cls, names)\n--\n\nMakes instances of ``cls`` from the values of the slots ``names``, in that order.

    No default, converter or validator is asked. The instances stay outside the garbage collector: nothing in them may
    ever refer to something mutable.

    Raises:
        TypeError: ``cls`` is not a slotted class with exactly these slots.

    Threads: any.
    """

    cdef object cls
    cdef PyTypeObject *type
    cdef Py_ssize_t count
    cdef uint32_t slots[MAX_SLOTS]

    def __cinit__(self, cls, names):
        cdef Py_ssize_t offset
        if not isinstance(cls, type):
            raise TypeError(f"{cls!r} is not a class")
        self.cls = cls
        self.count = len(names)
        self.type = <PyTypeObject *>cls
        if self.count > MAX_SLOTS or not ls_is_plain_layout(self.type, self.count) or len(set(names)) != self.count:
            raise TypeError(f"{cls.__name__} is not a slotted class with exactly the slots {', '.join(names)}")
        for index, name in enumerate(names):
            descriptor = cls.__dict__.get(name)
            offset = ls_slot_offset(<PyObject *>descriptor, self.type)
            if offset < <Py_ssize_t>sizeof(PyObject):
                raise TypeError(f"{cls.__name__}.{name} is not a slot of its class")
            self.slots[index] = offset
        ls_take_over_release(self.type)

    def __call__(self, *values):
        cdef Py_ssize_t index
        if len(values) != self.count:
            raise TypeError(f"{self.cls.__name__} has {self.count} slots, and {len(values)} values were given")
        made = self.allocate()
        for index in range(self.count):
            self.fill(made, index, <PyObject *>values[index])
        return made

    cdef object allocate(self):
        """An instance whose slots are all to be filled before anyone sees it."""
        cdef PyObject *instance = ls_new_instance(self.type)
        if instance == NULL:
            raise MemoryError
        made = <object>instance
        Py_DECREF(instance)  # the line above counted one more
        return made

    cdef inline void fill(self, object instance, Py_ssize_t index, PyObject *value) noexcept:
        (<PyObject **>(<char *><PyObject *>instance + self.slots[index]))[0] = value
        Py_INCREF(value)

    cdef inline void replace(self, object instance, Py_ssize_t index, PyObject *value) noexcept:
        cdef PyObject *old = (<PyObject **>(<char *><PyObject *>instance + self.slots[index]))[0]
        self.fill(instance, index, value)
        Py_DECREF(old)
