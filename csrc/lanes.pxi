# The two lanes between the reader and its consumers: storage only. Waiting and waking are priority_queue.pxi's part, because
# they happen once per batch. The fallback is _pure/lanes.py.
#
# No lock: every method runs under the interpreter lock from beginning to end. That holds as long as nothing in a
# method can run Python code before the rows are whole again; so what is let go of is let go of last.

from cpython.long cimport PyLong_AsUnsignedLongLong

import os
from collections import deque

cdef extern from "py_glue.h":
    PyObject *PyDict_GetItemWithError(object mapping, PyObject *key) except? NULL

cdef enum:
    FIRST_CAPACITY = 64     # entries; a power of two, as every later capacity
    MAX_NEWEST = 16384      # newest values that wait: ids that nobody knows must not pile up


# ── one first-in-first-out row ───────────────────────────────────────────────────────────────────────────────────

cdef struct Entry:
    PyObject *item          # NULL: taken out of the middle
    PyObject *position      # the int it is about, or NULL
    PyObject *slots         # borrowed: the dict that tells where its slot is, or NULL
    uint64_t arrival        # orders the entries of both rows

cdef struct Row:
    Entry *entries
    uint64_t mask           # capacity - 1
    uint64_t head           # running numbers: an entry lies at number & mask
    uint64_t tail
    Py_ssize_t count        # entries with an item


cdef inline Entry *entry_at(const Row *row, uint64_t number) noexcept:
    return row.entries + (number & row.mask)


cdef int extend_row(Row *row, uint64_t capacity) except -1:
    """The row is full: close its gaps, or double it where they are less than half of it."""
    if capacity > 0 and 2 * <uint64_t>row.count <= capacity:
        return close_gaps(row)
    cdef uint64_t number
    cdef uint64_t larger = 2 * capacity if capacity > 0 else FIRST_CAPACITY
    cdef Entry *grown = <Entry *>PyMem_Malloc(larger * sizeof(Entry))
    if grown == NULL:
        raise MemoryError
    for number in range(row.head, row.tail):
        grown[number & (larger - 1)] = entry_at(row, number)[0]
    PyMem_Free(row.entries)
    row.entries = grown
    row.mask = larger - 1
    return 0


cdef int close_gaps(Row *row) except -1:
    """Move every entry up to the one before it: behind a head that nobody takes, gaps would pile up for ever."""
    cdef Entry *entry
    cdef uint64_t number
    cdef uint64_t to = row.head
    for number in range(row.head, row.tail):
        entry = entry_at(row, number)
        if entry.item == NULL:
            continue
        if number != to:
            if entry.slots != NULL:
                (<dict>entry.slots)[<object>entry.position] = to
            entry_at(row, to)[0] = entry[0]
            entry.item = NULL
        to += 1
    row.tail = to
    return 0


cdef int append_entry(Row *row, object item, object position, PyObject *slots, uint64_t arrival) except -1:
    cdef uint64_t capacity = row.mask + 1 if row.entries != NULL else 0
    if row.tail - row.head == capacity:
        extend_row(row, capacity)
    cdef Entry *entry = entry_at(row, row.tail)
    entry.item = <PyObject *>item
    entry.position = <PyObject *>position if position is not None else NULL
    entry.slots = slots
    entry.arrival = arrival
    Py_INCREF(entry.item)
    if entry.position != NULL:
        Py_INCREF(entry.position)
    row.tail += 1
    row.count += 1
    return 0


cdef inline void skip_gaps(Row *row) noexcept:
    """The head is an entry with an item again, or the row is empty."""
    while row.head < row.tail and entry_at(row, row.head).item == NULL:
        row.head += 1


cdef Entry take_out(Row *row, uint64_t number) noexcept:
    """The entry, whose references are the caller's from now on."""
    cdef Entry taken = entry_at(row, number)[0]
    entry_at(row, number).item = NULL
    row.count -= 1
    skip_gaps(row)
    return taken


cdef void free_row(Row *row) noexcept:
    cdef Entry entry
    while row.count > 0:
        entry = take_out(row, row.head)
        Py_XDECREF(entry.position)
        Py_DECREF(entry.item)
    PyMem_Free(row.entries)
    row.entries = NULL


# ── the lanes ────────────────────────────────────────────────────────────────────────────────────────────────────

# In a forked child the threads that fill and empty the lanes are gone; comparing a number tells, once the fork was noted.
cdef extern from "process_mark.h":
    bint ls_was_forked() noexcept
    void ls_mark_process() noexcept

cdef unsigned long forks = 0

ls_mark_process()


cdef void note_fork() noexcept:
    """In a child: lanes that were made before belong to the parent."""
    global forks
    if ls_was_forked():
        forks += 1
        ls_mark_process()


cdef class Lanes:
    # What stands before the text is for inspect.signature(); Cython writes it for functions only.
    """Lanes(conflated, low_capacity, high_capacity, *, lossless=False)\n--\n\nWhat waits for a consumer: a high lane, never dropped, and a low lane, bounded.

    Args:
        conflated: low-lane kinds of which only the newest of a position waits, in its first one's place.
        low_capacity: how many other low-lane items wait; the oldest goes when one more comes.
        high_capacity: from how many high-lane items on ``full`` says stop.
        lossless: the low lane drops nothing either; ``full`` says stop instead.

    Attributes:
        dropped, conflated: low-lane items that were lost or replaced.
        high_dropped: high-lane items that were lost after ``keep_newest``.
        unfinished: items that were put, and for which ``done`` was not called.

    Threads: any.
    """

    cdef object high            # a deque: what waits there may refer to anything, so the collector must see it
    cdef Row loose              # low lane: one entry each
    cdef Row slotted            # low lane: the newest of a kind and position
    cdef dict slots_of          # kind to {position: running number in slotted}
    cdef uint64_t arrivals
    cdef Py_ssize_t low_capacity
    cdef Py_ssize_t high_capacity
    cdef bint lossless
    cdef bint producer_waits
    cdef bint newest_only       # nothing waits for room: both lanes drop their oldest
    cdef unsigned long forks_then
    cdef bint quick
    cdef readonly size_t dropped
    cdef readonly size_t conflated
    cdef readonly size_t high_dropped
    cdef readonly Py_ssize_t unfinished

    def __init__(self, conflated, Py_ssize_t low_capacity, Py_ssize_t high_capacity, *, bint lossless=False):
        if self.slots_of is not None:
            raise RuntimeError("these lanes are made already")  # entries point into slots_of
        self.high = deque()
        self.slots_of = {kind: {} for kind in conflated}
        self.low_capacity = low_capacity
        self.high_capacity = high_capacity
        self.lossless = lossless
        note_fork()
        self.forks_then = forks

    cdef inline bint is_of_this_process(self) noexcept:
        return self.forks_then == forks and not ls_was_forked()

    @classmethod
    def __class_getitem__(cls, _):
        # Generic for type checkers only.
        return cls

    def __dealloc__(self):
        free_row(&self.loose)
        free_row(&self.slotted)

    # ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def keep_newest(self):
        """From now on ``full`` is never true: beyond its capacity each lane drops its oldest item."""
        self.newest_only = True

    def keep_all(self):
        """End ``keep_newest``; True when it had begun."""
        began, self.newest_only = self.newest_only, False
        return began

    def put_high(self, item, /):
        """Add to the high lane; never drops (the producer asks ``full`` before it goes on), but for ``keep_newest``."""
        self.add_high(item)

    def put_first(self, item, /):
        """Add to the high lane, before what waits there."""
        self.high.appendleft(item)
        self.unfinished += 1

    cdef int add_high(self, object item) except -1:
        self.high.append(item)
        self.unfinished += 1
        if self.newest_only and len(<object>self.high) > self.high_capacity:
            self.high_dropped += 1
            self.unfinished -= 1
            self.high.popleft()
        return 0

    def put_low(self, item, kind, position_id, /):
        """Add to the low lane, replacing or dropping as its policy says; ``position_id`` may be None."""
        self.add_low(item, kind, position_id)

    cdef int add_low(self, object item, object kind, object position) except -1:
        cdef PyObject *slots = NULL
        cdef PyObject *number
        cdef Entry *entry
        cdef Entry dropped
        cdef PyObject *replaced
        if position is not None:
            slots = PyDict_GetItemWithError(self.slots_of, <PyObject *>kind)
        if slots != NULL:
            number = PyDict_GetItemWithError(<object>slots, <PyObject *>position)
            if number != NULL:
                # In place: the slot keeps its turn, so a position that updates often cannot starve.
                entry = entry_at(&self.slotted, PyLong_AsUnsignedLongLong(<object>number))
                replaced = entry.item
                entry.item = <PyObject *>item
                Py_INCREF(entry.item)
                self.conflated += 1
                Py_DECREF(replaced)
                return 0
            append_entry(&self.slotted, item, position, slots, self.arrivals)
            (<dict>slots)[position] = self.slotted.tail - 1
            self.arrivals += 1
            self.unfinished += 1
            if self.slotted.count > MAX_NEWEST:
                self.dropped += 1
                self.unfinished -= 1
                self.give(&self.slotted, self.slotted.head)
            return 0
        append_entry(&self.loose, item, position, NULL, self.arrivals)
        self.arrivals += 1
        self.unfinished += 1
        if self.loose.count > self.low_capacity and (self.newest_only or not self.lossless):
            dropped = take_out(&self.loose, self.loose.head)
            self.dropped += 1
            self.unfinished -= 1
            Py_XDECREF(dropped.position)
            Py_DECREF(dropped.item)
        return 0

    def forget_position(self, position_id, unwanted=None, /):
        """Take out what waits in the low lane about a position; returns how many.

        Args:
            position_id: the key under which it was put there.
            unwanted: called with each such item, on this thread, the producer's; True takes it out. None: all of them.
        """
        cdef list gone = []
        cdef list found = []
        cdef PyObject *number
        cdef uint64_t at
        for slots in self.slots_of.values():
            number = PyDict_GetItemWithError(slots, <PyObject *>position_id)
            if number != NULL:
                found.append((True, <object>number))
        for at in range(self.loose.head, self.loose.tail):
            if (
                entry_at(&self.loose, at).item != NULL
                and entry_at(&self.loose, at).position != NULL
                and <object>entry_at(&self.loose, at).position == position_id
            ):
                found.append((False, at))
        for is_slotted, place in found:
            self.take_unwanted(&self.slotted if is_slotted else &self.loose, place, unwanted, gone)
        self.unfinished -= len(gone)
        return len(gone)

    cdef int take_unwanted(self, Row *row, uint64_t at, object unwanted, list gone) except -1:
        cdef object item
        # Consumers may take entries while `unwanted` runs. Nobody puts any: only the producer does, and that is us.
        if at < row.head or entry_at(row, at).item == NULL:
            return 0
        if unwanted is not None:
            item = <object>entry_at(row, at).item
            if not unwanted(item) or at < row.head or entry_at(row, at).item != <PyObject *>item:
                return 0
        gone.append(self.give(row, at))
        return 0

    # ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────

    cdef object give(self, Row *row, uint64_t number):
        """The item of an entry, taken out of the row and of its slot."""
        cdef Entry entry = take_out(row, number)
        if entry.slots != NULL:
            del (<dict>entry.slots)[<object>entry.position]
        Py_XDECREF(entry.position)
        item = <object>entry.item
        Py_DECREF(entry.item)  # the line above counted one more
        return item

    cdef inline Row *first_row(self) noexcept:
        """The row of the low lane whose head came first; NULL when nothing waits there."""
        if self.slotted.count == 0:
            return &self.loose if self.loose.count > 0 else NULL
        if self.loose.count == 0:
            return &self.slotted
        if entry_at(&self.loose, self.loose.head).arrival < entry_at(&self.slotted, self.slotted.head).arrival:
            return &self.loose
        return &self.slotted

    def has(self, lane="any", /):
        """True when an item waits in ``"any"`` lane, in ``"high"``, or in ``"low"``."""
        return (lane != "low" and len(<object>self.high) > 0) or (lane != "high" and self.first_row() != NULL)

    def pop(self, lane="any", /):
        """The next item of a lane, high before low.

        Raises:
            IndexError: none waits there.
        """
        cdef Row *row
        if lane != "low" and len(<object>self.high) > 0:
            return self.high.popleft()
        row = self.first_row() if lane != "high" else NULL
        if row == NULL:
            raise IndexError("nothing waits in this lane")
        return self.give(row, row.head)

    def pop_into(self, list batch, Py_ssize_t max_items, /):
        """Append what waits, high before low, until the list has ``max_items``."""
        cdef Row *row
        while len(batch) < max_items and len(<object>self.high) > 0:
            batch.append(self.high.popleft())
        while len(batch) < max_items:
            row = self.first_row()
            if row == NULL:
                return
            batch.append(self.give(row, row.head))

    def get(self, block=True, timeout=None):
        """The next event, the high lane's first.

        Args:
            block: wait for one.
            timeout: seconds to wait; None for ever.

        Raises:
            queue.Empty: none within that time.
            StreamClosed: the stream was closed and everything was read.
            Exception: the cause, when the stream failed for good and everything was read.
            ValueError: a negative timeout.
        """
        # What waits, at once; the rest is get_blocking's work.
        cdef Row *row
        if self.quick and not self.producer_waits and self.is_of_this_process():
            if len(<object>self.high) > 0:
                return self.high.popleft()
            row = self.first_row()
            if row != NULL:
                return self.give(row, row.head)
        return self.get_blocking(block, timeout)

    def unpark(self):
        """From now on ``get`` may hand out what waits without asking ``get_blocking`` first."""
        self.quick = True

    def done(self, Py_ssize_t count=1, /):
        """So many of the items that were got are dealt with; returns how many are not.

        Raises:
            ValueError: more than there were.
        """
        if count > self.unfinished:
            raise ValueError("task_done() called too many times")
        self.unfinished -= count
        return self.unfinished

    # ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def qsize(self):
        """How many items wait in both lanes."""
        return len(<object>self.high) + self.loose.count + self.slotted.count

    def full(self):
        """True when the producer should stop; ``room_again`` then tells when it may go on."""
        self.producer_waits = not self.newest_only and (
            len(<object>self.high) >= self.high_capacity
            or (self.lossless and self.loose.count >= self.low_capacity)
        )
        return self.producer_waits

    def room_again(self):
        """True once when the producer waits and both lanes are half empty: going on for one place would thrash."""
        if not self.producer_waits:
            return False
        if len(<object>self.high) * 2 > self.high_capacity or (
            self.lossless and self.loose.count * 2 > self.low_capacity
        ):
            return False
        self.producer_waits = False
        return True
