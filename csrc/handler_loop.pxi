# Calling handlers for what waits in a lane: a dispatcher thread's loop. The fallback is _pure/handler_loop.py.

cdef class HandlerLoop:
    # What stands before the text is for inspect.signature(); Cython writes it for functions only.
    """HandlerLoop(lanes, lane, handlers, on_error)\n--\n\nCalls handlers for the events of a lane, one after the other.

    Args:
        lanes: where events wait.
        lane: ``"any"``, ``"high"`` or ``"low"``.
        handlers: event type to a tuple of handlers, which may change at any time.
        on_error: called with (handler, event, error) when a handler raised; what it raises ends ``run``.

    Threads: ``run`` on one; ``running`` and ``stop`` from any.
    """

    cdef PriorityQueue lanes
    cdef object lane
    cdef dict handlers
    cdef object on_error
    cdef bint stopped
    cdef object handler         # what is being called, and with what; None between two calls
    cdef object event
    cdef int64_t since_ns

    def __cinit__(self, PriorityQueue lanes not None, lane, dict handlers not None, on_error):
        self.lanes = lanes
        self.lane = lane
        self.handlers = handlers
        self.on_error = on_error

    @property
    def running(self):
        """(handler, event, since when in seconds by the monotonic clock) of the present call; None between two."""
        handler = self.handler
        return None if handler is None else (handler, self.event, self.since_ns / 1e9)

    def stop(self):
        """``run`` ends after the present event, if it is not waiting for one; what waits stays where it is."""
        self.stopped = True

    def run(self):
        """Until ``stop``.

        Raises:
            Exception: the end of the lanes, once everything was taken; or what ``on_error`` raised.
        """
        while not self.stopped:
            self.call_all(self.lanes.next_item(self.lane, True, None))

    cdef int call_all(self, object event) except -1:
        kind = event.type
        cdef PyObject *found = PyDict_GetItemWithError(self.handlers, <PyObject *>kind)
        if found == NULL:
            # Without a handler no Python code runs in here, and Ctrl-C would wait for one.
            PyErr_CheckSignals()
            return 0
        # The event under way sees the list it began with.
        handlers = <tuple>found
        for handler in handlers:
            self.call(handler, event)
        return 0

    cdef int call(self, object handler, object event) except -1:
        cdef PyObject *result
        self.handler, self.event, self.since_ns = handler, event, ls_monotonic_ns()
        result = PyObject_CallOneArg(<PyObject *>handler, <PyObject *>event)
        if result != NULL:
            self.handler = self.event = None
            Py_DECREF(result)
            return 0
        try:
            ls_propagate()
        except BaseException as error:
            self.on_error(handler, event, error)
        finally:
            self.handler = self.event = None
        return 0
