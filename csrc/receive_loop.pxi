# Waiting for the link, and taking in what comes: poll, recv and the pipeline in one loop, so that between the bytes' arrival
# and their message's delivery no Python runs but what the message itself asks for. What runs once in 5 ms finds its
# caches cold, and then a few lines of bookkeeping take longer than the message. The fallback is _pure/receive_loop.py.

from libc.errno cimport EBADF

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    enum:
        POLLIN
        POLLOUT
    int poll(pollfd *fds, unsigned long count, int timeout_ms)

cdef extern from "clocks.h" nogil:
    int64_t ls_monotonic_ns()
    int64_t ls_boot_ns()

cdef enum:
    NS_IN_MS = 1000000
    MAX_CONTROL_FRAME = 127     # header and payload (RFC 6455 5.5); what is longer is part of a message
    # What ``serve`` returns.
    READABLE_BIT = 0x1
    WRITABLE_BIT = 0x4
    WOKEN_BIT = 0x100
    DUE_BIT = 0x200
    BROKEN_BIT = 0x400
    STRANGE_BIT = 0x800


cdef class ReceiveLoop:
    # What stands before the text is for inspect.signature(); Cython writes it for functions only.
    """ReceiveLoop(pipeline, parser, taps, buffer, link, wake_up, *, reads, strange_after_s, due_within_s, patience_s)\n--\n\nWaits for a link, and takes in what comes.

    Args:
        pipeline: is fed with what is read.
        parser: the pipeline's.
        taps: its ``hearer`` is the pipeline's tap.
        buffer: is read into; of 1 byte at least.
        link: has a ``fileno()``, which is negative once it is closed.
        wake_up: has a ``fileno()`` too; readable when another thread has something.
        reads: read here, for the link is a plain socket; else only tell that there is something to read.
        strange_after_s: a wait that took longer than planned by so much is told.
        due_within_s: ``serve`` returns so soon after a message at the latest.
        patience_s: how long one message that is on its way counts as a sign of life.

    Attributes:
        reads: as above; may be changed.
        received_bytes: so far.
        received_ns, message_ns: when the latest bytes, and the latest (part of a) message, were read; by the monotonic
            clock, 0 before the first.
        waited: the latest wait: (monotonic and boot-time clock before it, the same after it, seconds planned or None).
        cause: what broke the link, as errno; 0 for the peer's end.

    Threads: one, the reader; the attributes may be read by any.
    """

    cdef MessagePipeline pipeline
    cdef FrameParser parser
    cdef object taps
    cdef object link
    cdef object wake_up
    cdef object buffer
    cdef public bint reads
    cdef int64_t strange_after_ns
    cdef int64_t due_within_ns
    cdef int64_t patience_ns
    cdef int64_t begun_ns           # when the message that is on its way was first seen; 0: none is
    cdef int64_t left_ns[2]         # monotonic, boot time
    cdef int64_t back_ns[2]
    cdef int64_t planned_ns         # negative: for ever
    cdef readonly unsigned long long received_bytes
    cdef readonly int64_t received_ns
    cdef readonly int64_t message_ns
    cdef readonly int cause

    def __cinit__(self, MessagePipeline pipeline not None, FrameParser parser not None, taps, buffer, link, wake_up, *, bint reads, double strange_after_s,
                  double due_within_s, double patience_s):
        self.pipeline = pipeline
        self.parser = parser
        self.taps = taps
        self.buffer = buffer
        self.link = link
        self.wake_up = wake_up
        self.reads = reads
        self.strange_after_ns = <int64_t>(strange_after_s * 1e9)
        self.due_within_ns = <int64_t>(due_within_s * 1e9)
        self.patience_ns = <int64_t>(patience_s * 1e9)
        self.planned_ns = -1

    @property
    def waited(self):
        return (
            (self.left_ns[0] / 1e9, self.left_ns[1] / 1e9),
            (self.back_ns[0] / 1e9, self.back_ns[1] / 1e9),
            None if self.planned_ns < 0 else self.planned_ns / 1e9,
        )

    def serve(self, EventRouter router, lanes, *, bint reading, bint writing, bint once, timeout_s):
        """Wait, and take in what comes, until there is something that the caller must see to.

        Args:
            router: takes the frequent messages; None: the pipeline's ``on_message`` gets all.
            lanes: are woken after each read; when they are full, nothing more is read.
            reading: wait for bytes of the link.
            writing: wait until it takes some.
            once: return after the first read.
            timeout_s: seconds until something is due; None: nothing is.

        Returns:
            A sum of: 0x1 the link is to be read (never if ``reads``), 0x4 it takes bytes, 0x100 ``wake_up`` is set,
            0x200 something is due, 0x400 the link has ended or is broken (see ``cause``), 0x800 the latest wait was
            strange (see ``waited``); 0 when the lanes are full, the peer broke the protocol, or after ``once``.

        Raises:
            Exception: what the pipeline raised.
        """
        cdef int64_t until_ns = -1 if timeout_s is None else ls_monotonic_ns() + <int64_t>(<double>timeout_s * 1e9)
        cdef int64_t message_ns
        cdef int ready
        cdef bint enough = False
        while True:
            ready = self.wait(reading, writing, until_ns)
            if ready & READABLE_BIT and self.reads:
                message_ns = self.message_ns
                ready = (ready & ~READABLE_BIT) | self.read(router, lanes)
                if self.message_ns != message_ns and (until_ns < 0 or self.message_ns + self.due_within_ns < until_ns):
                    # What a message may have made due is looked for soon, not at once.
                    until_ns = self.message_ns + self.due_within_ns
                enough = once or self.parser.parser.problem != LS_WS_NO_PROBLEM or lanes.full()
            if until_ns >= 0 and self.back_ns[0] >= until_ns:
                ready |= DUE_BIT
            if ready or enough:
                return ready

    cdef int wait(self, bint reading, bint writing, int64_t until_ns) except -1:
        """Until one of the descriptors has something, or the time is over."""
        cdef pollfd fds[2]
        cdef int count, cause, timeout_ms = -1
        cdef int64_t left_ns
        cdef int ready = 0
        fds[0].events = (POLLIN if reading else 0) | (POLLOUT if writing else 0)
        # Not even a hang-up is asked for where nothing is wanted; else it would mean a busy loop.
        fds[0].fd = self.link.fileno() if reading or writing else -1
        fds[1].fd = self.wake_up.fileno()
        fds[1].events = POLLIN
        fds[0].revents = fds[1].revents = 0
        self.left_ns[0], self.left_ns[1] = ls_monotonic_ns(), ls_boot_ns()
        self.planned_ns = -1
        if until_ns >= 0:
            self.planned_ns = max(0, until_ns - self.left_ns[0])
            # Rounded up, or the last millisecond would be spent in a busy loop.
            timeout_ms = <int>min(self.planned_ns / NS_IN_MS + (self.planned_ns % NS_IN_MS > 0), 0x7FFFFFFF)
        if fds[0].fd < 0 and (reading or writing):
            # Closed by another thread: whoever reads or writes learns it.
            self.back_ns[0], self.back_ns[1] = self.left_ns[0], self.left_ns[1]
            return (READABLE_BIT if reading else 0) | (WRITABLE_BIT if writing else 0)
        with nogil:
            count = poll(fds, 2, timeout_ms)
            cause = errno
        self.back_ns[0], self.back_ns[1] = ls_monotonic_ns(), ls_boot_ns()
        if count < 0 and cause != EINTR:
            raise OSError(cause, os.strerror(cause))
        if count > 0:
            if fds[1].revents:
                ready |= WOKEN_BIT
            if fds[0].revents == POLLIN:
                ready |= READABLE_BIT
            elif fds[0].revents:
                # An error or a hang-up too: whoever reads or writes learns which it is.
                ready |= (READABLE_BIT if reading else 0) | (WRITABLE_BIT if writing else 0)
        left_ns = self.planned_ns if self.planned_ns >= 0 else self.back_ns[0] - self.left_ns[0]
        if self.back_ns[1] - self.left_ns[1] - left_ns > self.strange_after_ns:
            ready |= STRANGE_BIT
        return ready

    cdef int read(self, EventRouter router, object lanes) except -1:
        """One read of the socket, and what it brought on its way; BROKEN_BIT at its end."""
        cdef ssize_t count
        cdef Py_buffer view
        # Asked now, with the interpreter lock held until the read is over: who closes the link does not get in between,
        # and the number cannot be somebody else's.
        cdef int fd = self.link.fileno()
        PyObject_GetBuffer(self.buffer, &view, PyBUF_WRITABLE)
        try:
            count = recv(fd, view.buf, view.len, MSG_DONTWAIT) if fd >= 0 else -1
            self.cause = 0 if count >= 0 else errno if fd >= 0 else EBADF
            if count > 0:
                self.take_bytes(<const uint8_t *>view.buf, count, router, lanes)
        finally:
            PyBuffer_Release(&view)
        return 0 if count > 0 or self.cause == EAGAIN or self.cause == EINTR else BROKEN_BIT

    def take(self, data, EventRouter router, lanes, /):
        """Take in bytes that were read elsewhere."""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.take_bytes(<const uint8_t *>view.buf, view.len, router, lanes)
        finally:
            PyBuffer_Release(&view)

    cdef int take_bytes(self, const uint8_t *at, Py_ssize_t size, EventRouter router, object lanes) except -1:
        cdef unsigned long long messages = self.pipeline.messages
        self.received_ns = ls_monotonic_ns()
        self.received_bytes += size
        self.pipeline.tap = self.taps.hearer
        try:
            self.pipeline.feed_bytes(at, size, self.received_ns, router)
        finally:
            lanes.wake()
            self.note_life(self.pipeline.messages != messages)
        return 0

    cdef void note_life(self, bint came) noexcept:
        """A long message on its way over a narrow link is a sign of life too; one that never ends is not."""
        cdef bint partial = ls_ws_buffered(&self.parser.parser) > MAX_CONTROL_FRAME
        if came or not partial:
            self.begun_ns = 0
        if partial and self.begun_ns == 0:
            self.begun_ns = self.received_ns
        if came or (partial and self.received_ns - self.begun_ns < self.patience_ns):
            self.message_ns = self.received_ns
