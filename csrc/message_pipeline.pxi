# From the link's bytes to whoever takes messages, in one loop: frames, decoding, and for the frequent messages the way
# into their lane or handlers. Python runs for the rare ones and for handlers. The fallback is _pure/message_pipeline.py.

from libc.errno cimport EAGAIN, EINTR, errno

cdef extern from "py_glue.h":
    PyObject *PyObject_CallOneArg(PyObject *callable, PyObject *argument)
    Py_ssize_t Py_REFCNT(PyObject *value)

cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT
    ssize_t recv(int fd, void *buffer, size_t size, int flags)

cdef enum:
    MAX_MESSAGE_CLASSES = 32


def receive(int fd, buffer, /):
    """Read what a non-blocking socket has, without letting go of the interpreter lock.

    A read that lets go of it waits, whenever another thread computes, for a whole switch interval to get it back; one
    that keeps it costs microseconds.

    Returns:
        How many bytes; 0 when the peer has ended the connection; None when there is nothing now.

    Raises:
        OSError: the link is broken.

    Threads: one at a time for one socket.
    """
    cdef Py_buffer view
    cdef ssize_t count
    cdef int cause
    PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    # Should the socket be a blocking one after all: waiting here would stop every thread.
    count = recv(fd, view.buf, view.len, MSG_DONTWAIT)
    cause = errno
    PyBuffer_Release(&view)
    if count >= 0:
        return count
    if cause == EAGAIN or cause == EINTR:
        return None
    raise OSError(cause, os.strerror(cause))


# ── frequent messages ────────────────────────────────────────────────────────────────────────────────────────────

cdef struct Route:
    const Plan *plan            # of the class that goes this way; NULL: none does
    PyObject *kind
    PyObject *newest            # a LatestByKey, or NULL
    uint32_t key_slot


cdef class EventRouter:
    # What stands before the text is for inspect.signature(); Cython writes it for functions only.
    """EventRouter(decoder, routes, key, lanes, *, event=None, handles=None, watchers=(), rules=(), memory=None, on_error=None)\n--\n\nTakes frequent messages straight to their consumer, and leaves to others what needs a thought.

    Args:
        decoder: whose messages these are.
        routes: message class to (event type, LatestByKey that keeps the latest message of each key, or None).
        key: the field of those classes that tells what a message is about: a position's id.
        lanes: where events wait.
        event: makes an event from its type, message, handle and received_ns; None: (message, received_ns) tuples.
        handles: the handle that an event carries, by key. A message whose key is not in here is not taken. None: keys
            are not looked up.
        watchers: as long as this list has something in it, no frequent message is taken.
        rules: message class to who is called with (message, received_ns): rare messages that need a thought, past
            whoever takes the others.
        memory: keeps the events that ``deliver`` makes; while there are watchers, its ``add`` is called with them.
        on_error: called with (handler, event, error) when a handler raised; may raise.

    Attributes:
        handlers: event type to a tuple of handlers, called here and now; None: events go to the lanes.
        frequent: how many frequent messages it took so far.

    Threads: one at a time.
    """

    cdef readonly unsigned long long frequent
    cdef Route routes[MAX_MESSAGE_CLASSES]
    cdef PyObject *rules[MAX_MESSAGE_CLASSES]
    cdef EventRing memory
    cdef Lanes lanes
    cdef Decoder decoder
    cdef HandleTable handles
    cdef list watchers
    cdef object on_error
    cdef list owned                 # what the routes and rules point at
    cdef InstanceFactory event
    cdef object spare               # the event of the latest inline call, to be used again if nobody kept it
    cdef dict handlers_of

    def __cinit__(self, Decoder decoder not None, dict routes not None, str key not None, Lanes lanes not None, *,
                  InstanceFactory event=None, HandleTable handles=None, list watchers=None, dict rules=None, EventRing memory=None,
                  on_error=None):
        cdef const Plan *plan
        cdef uint32_t index
        self.lanes = lanes
        self.decoder = decoder
        self.handles = handles
        self.watchers = watchers if watchers is not None else []
        self.on_error = on_error
        self.event = event
        self.memory = memory
        if event is not None and event.count != 4:
            raise TypeError(f"an event has a type, a message, a handle and received_ns; {event.cls.__name__} has not")
        self.owned = []
        for cls, (kind, newest) in routes.items():
            if newest is not None and not isinstance(newest, LatestByKey):
                raise TypeError(f"{cls.__name__}: a LatestByKey keeps the latest messages, not a {type(newest).__name__}")
            plan = self.plan_of(cls)
            names = [spec.name for spec in cls.wire_fields]
            if key not in names:
                raise TypeError(f"{cls.__name__} has no {key} to route it by")
            self.owned.append((kind, newest))
            self.routes[plan.number].plan = plan
            self.routes[plan.number].kind = <PyObject *>kind
            self.routes[plan.number].newest = <PyObject *>newest if newest is not None else NULL
            self.routes[plan.number].key_slot = plan.fields[<size_t>names.index(key)].slot
        for cls, rule in (rules or {}).items():
            plan = self.plan_of(cls)
            if self.routes[plan.number].plan != NULL:
                raise TypeError(f"{cls.__name__} has both a route and a rule")
            self.owned.append(rule)
            self.rules[plan.number] = <PyObject *>rule

    cdef const Plan *plan_of(self, object cls) except NULL:
        cdef const Plan *plan = self.decoder.known_plan(cls)
        if plan == NULL or plan.number >= <int>MAX_MESSAGE_CLASSES:
            raise TypeError(f"{cls.__name__} is none of the decoder's first {MAX_MESSAGE_CLASSES} message classes")
        return plan

    @property
    def handlers(self):
        return self.handlers_of

    @handlers.setter
    def handlers(self, handlers):
        self.handlers_of = handlers

    def high(self, kind, item, /):
        """To the handlers of this event type, or into the high lane; nobody is woken."""
        if self.handlers_of is None:
            self.lanes.add_high(item)
        else:
            self.call(self.handlers_of.get(kind, ()), item)

    def deliver(self, kind, message, handle, received_ns, /):
        """Make an event of a rare message, remember it, and take it to its handlers or into the high lane."""
        event = self.event_of(<PyObject *>kind, message, handle, received_ns)
        # Remembered before it is delivered: an inline handler may never return.
        if self.memory is not None and len(self.watchers) > 0:
            self.memory.add(event)
        elif self.memory is not None:
            self.memory.keep_item(event)
        self.high(kind, event)

    def low(self, kind, item, key, /):
        """To the handlers of this event type, or into the low lane; nobody is woken."""
        if self.handlers_of is None:
            self.lanes.add_low(item, kind, key)
        else:
            self.call(self.handlers_of.get(kind, ()), item)

    def take(self, message, received_ns, /):
        """True when the message went its way; False when it is for others."""
        cdef const Plan *plan = self.decoder.known_plan(type(message))
        return plan != NULL and self.takes(plan, message, received_ns, NULL, 0)

    cdef bint takes(self, const Plan *plan, object message, object received_ns, const uint8_t *text, size_t size) except -1:
        """`text` is what the message was read from, or NULL."""
        # Handle and handlers are owned: making an event may start a collection, and that runs anyone's code.
        cdef object handle = None
        cdef tuple handlers
        cdef PyObject *found
        cdef uint64_t id
        if plan.number < 0 or plan.number >= <int>MAX_MESSAGE_CLASSES:
            return False
        if self.rules[plan.number] != NULL:
            (<object>self.rules[plan.number])(message, received_ns)
            return True
        cdef const Route *route = &self.routes[plan.number]
        if route.plan != plan or len(self.watchers) > 0:
            return False
        cdef PyObject *key = (<PyObject **>(<char *><PyObject *>message + route.key_slot))[0]
        if key == NULL:
            raise AttributeError(f"a {type(message).__name__} without the field to route it by")
        if self.handles is not None:
            found = <PyObject *>ls_id_find(&self.handles.table, id) if ls_id_of(key, &id) else NULL
            if found == NULL:
                return False
            handle = <object>found
            if route.newest != NULL and text != NULL:
                (<LatestByKey>route.newest).put_text(id, text, size)
            elif route.newest != NULL:
                (<LatestByKey>route.newest).put_message(id, message)
        self.frequent += 1
        if self.handlers_of is None:
            self.lanes.add_low(self.event_of(route.kind, message, handle, received_ns), <object>route.kind, <object>key)
            return True
        found = PyDict_GetItemWithError(self.handlers_of, route.kind)
        if found != NULL:
            handlers = <object>found
            if len(handlers) > 0:
                self.call(handlers, self.passing_event(route, message, handle, received_ns))
        return True

    cdef object event_of(self, PyObject *kind, object message, object handle, object received_ns):
        """To be kept."""
        if self.event is None:
            return (message, received_ns)
        event = self.event.allocate()
        self.event.fill(event, 0, kind)
        self.event.fill(event, 1, <PyObject *>message)
        self.event.fill(event, 2, <PyObject *>handle)
        self.event.fill(event, 3, <PyObject *>received_ns)
        return event

    cdef object passing_event(self, const Route *route, object message, object handle, object received_ns):
        """For handlers, which seldom keep it: then the next message gets the same object."""
        if self.event is None or self.spare is None or Py_REFCNT(<PyObject *>self.spare) > 1:
            self.spare = self.event_of(route.kind, message, handle, received_ns)
        else:
            self.event.replace(self.spare, 0, route.kind)
            self.event.replace(self.spare, 1, <PyObject *>message)
            self.event.replace(self.spare, 2, <PyObject *>handle)
            self.event.replace(self.spare, 3, <PyObject *>received_ns)
        return self.spare

    cdef int call(self, tuple handlers, object event) except -1:
        cdef PyObject *result
        for handler in handlers:
            result = PyObject_CallOneArg(<PyObject *>handler, <PyObject *>event)
            if result != NULL:
                Py_DECREF(result)
                continue
            try:
                ls_propagate()
            except BaseException as error:
                if self.on_error is None:
                    raise
                self.on_error(handler, event, error)
        return 0


# ── the pipeline ─────────────────────────────────────────────────────────────────────────────────────────────────────

cdef class MessagePipeline:
    # What stands before the text is for inspect.signature(); Cython writes it for functions only.
    """MessagePipeline(parser, decoder, *, on_message, on_frame, on_unreadable)\n--\n\nBytes of one link in; messages and control frames out, in order.

    Args:
        parser: cuts the bytes into frames; its ``failure`` tells what the peer did wrong.
        decoder: reads text messages.
        on_message: called with (message, received_ns) for what no router took.
        on_frame: called with (opcode, payload) for every frame that is no text message.
        on_unreadable: called with (error, payload) for a text that is no message.

    Attributes:
        frames, messages: how many there were; a message counts once it is where it belongs.
        tap: called with (payload, received_ns) of each text message before it is read; None for nobody.

    Threads: one at a time. What a callback raises ends ``feed``; the pipeline is not used after that.
    """

    cdef FrameParser parser
    cdef Decoder decoder
    cdef object on_message
    cdef object on_frame
    cdef object on_unreadable
    cdef public object tap
    cdef readonly unsigned long long frames
    cdef readonly unsigned long long messages

    def __cinit__(self, FrameParser parser not None, Decoder decoder not None, *, on_message, on_frame, on_unreadable):
        self.parser = parser
        self.decoder = decoder
        self.on_message = on_message
        self.on_frame = on_frame
        self.on_unreadable = on_unreadable

    def feed(self, data, received_ns, EventRouter router=None, /):
        """Take the link's next bytes, and bring what became complete where it belongs.

        Args:
            data: bytes-like; must not change while this runs.
            received_ns: when they were read.
            router: takes the frequent messages; None: all go to ``on_message``.
        """
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.feed_bytes(<const uint8_t *>view.buf, view.len, received_ns, router)
        finally:
            PyBuffer_Release(&view)

    cdef int feed_bytes(self, const uint8_t *at, Py_ssize_t size, object received_ns, EventRouter router) except -1:
        cdef const uint8_t *end = at + size
        cdef ls_ws_message frame
        cdef ls_ws_result result
        while True:
            result = ls_ws_next(&self.parser.parser, &at, end, &frame)
            if result == LS_WS_NO_MEMORY:
                raise MemoryError
            if result != LS_WS_COMPLETE:
                return 0
            self.frames += 1
            if frame.opcode == TEXT_OPCODE:
                # Behind a text that lies in the input there is more of it.
                self.text(&frame, end if frame.payload + frame.size == at else NULL, received_ns, router)
            else:
                self.on_frame(frame.opcode, payload_of(&frame))

    cdef int text(
        self, const ls_ws_message *frame, const uint8_t *limit, object received_ns, EventRouter router
    ) except -1:
        """Bytes behind the text may be read up to `limit`, if that is not NULL."""
        cdef State state
        cdef ls_string type_name
        cdef const Plan *plan
        cdef PyObject *read
        cdef const uint8_t *end = frame.payload + frame.size
        if self.tap is not None:
            self.tap(payload_of(frame), received_ns)
        if not self.decoder.scan(
            &state, frame.payload, end, limit if limit != NULL else end, &type_name, &plan, &read
        ) or read == NULL:
            return self.unusual_text(frame, received_ns, router)
        message = <object>read
        Py_DECREF(read)  # the line above counted one more
        if router is None or not router.takes(plan, message, received_ns, frame.payload, frame.size):
            self.on_message(message, received_ns)
        # Not before: whoever sees the count finds what came of the message.
        self.messages += 1
        return 0

    cdef int unusual_text(self, const ls_ws_message *frame, object received_ns, EventRouter router) except -1:
        """A text that cannot be read, or of a type that is not known: once more, for what Python makes of it."""
        cdef const Plan *plan
        try:
            message = self.decoder.read(None, frame.payload, frame.size, &plan)
        except Exception as error:
            if not isinstance(error, self.decoder.error):
                raise
            self.on_unreadable(error, payload_of(frame))
            return 0
        if router is None or not router.takes(plan, message, received_ns, frame.payload, frame.size):
            self.on_message(message, received_ns)
        # Not before: whoever sees the count finds what came of the message.
        self.messages += 1
        return 0


cdef inline bytes payload_of(const ls_ws_message *message):
    return PyBytes_FromStringAndSize(<const char *>message.payload, message.size)
