# Waiting at the lanes, and being woken. A consumer that sleeps here wakes in C and leaves with its item: what Python
# would do in between is what a message waits for, with caches that have gone cold. The fallback is _pure/priority_queue.py.
#
# Each parked thread waits for a lock of its own, made by threading.Lock, so that a patched one (gevent, eventlet) stays what
# it is and Python's signal handling is its own affair.

from cpython.exc cimport PyErr_CheckSignals

from queue import Empty
from threading import Lock, TIMEOUT_MAX


cdef extern from "clocks.h" nogil:
    int64_t ls_monotonic_ns()
    int64_t ls_boot_ns()


cdef class ParkedThread:
    """One consumer asleep: who takes it out of ``parked_threads`` may release its lock, and nobody else."""

    cdef object lock
    cdef object lane


cdef class PriorityQueue(Lanes):
    # What stands before the text is for inspect.signature(); Cython writes it for functions only.
    """PriorityQueue(conflated, low_capacity, high_capacity, *, lossless=False, guard=None, on_use=None, on_room=None)\n--\n\nLanes at which consumers can wait.

    Args:
        conflated, low_capacity, high_capacity, lossless: as Lanes.
        guard: called before a wait, and in a forked child before everything; may raise.
        on_use: called before every ``get`` until one has succeeded; may raise.
        on_room: called, by a consumer, when the producer may go on.

    Threads: any.
    """

    cdef list parked_threads
    cdef readonly object ending     # why nothing more will come; None as long as something may
    cdef object guard
    cdef object on_use
    cdef object on_room

    def __init__(self, conflated, Py_ssize_t low_capacity, Py_ssize_t high_capacity, *, bint lossless=False,
                 guard=None, on_use=None, on_room=None):
        Lanes.__init__(self, conflated, low_capacity, high_capacity, lossless=lossless)
        self.parked_threads = []
        self.guard = guard
        self.on_use = on_use
        self.on_room = on_room

    def wake(self):
        """Wake the consumers for whom something waits; whoever puts into the lanes calls this, once a batch."""
        self.wake_parked()

    cdef int wake_parked(self) except -1:
        cdef Py_ssize_t at = 0
        cdef ParkedThread parked
        # A lock's release may be anyone's code, where it was patched; so the list is looked at anew each time.
        while at < len(self.parked_threads):
            parked = <ParkedThread>self.parked_threads[at]
            if self.ending is None and not self.has(parked.lane):
                at += 1
                continue
            del self.parked_threads[at]
            parked.lock.release()
        return 0

    def end(self, cause, /):
        """Nothing more will come: who finds nothing gets ``cause``, an exception or its class. The first end counts."""
        if self.ending is None:
            self.ending = cause
        self.wake_parked()

    def get_blocking(self, block, timeout):
        """What ``get`` does when nothing waits, or before the first success, or when the producer may go on."""
        if not self.quick and self.on_use is not None:
            self.on_use()
        item = self.next_item("any", block, timeout)
        self.quick = True
        return item

    def take(self, *, lane="any", block=True, timeout_s=None):
        """As ``get``, of one lane: ``"any"``, ``"high"`` or ``"low"``."""
        return self.next_item(lane, block, timeout_s)

    cdef object next_item(self, object lane, object block, object timeout):
        cdef double seconds = -1.0
        if not self.producer_waits and self.is_of_this_process() and self.has(lane):
            return self.pop(lane)
        note_fork()
        if self.guard is not None:
            # Before anything else: in a forked child nobody will ever put something in.
            self.guard()
        if not block:
            seconds = 0.0
        elif timeout is not None:
            seconds = timeout
            if not seconds >= 0.0:
                raise ValueError(f"timeout={timeout}: seconds ≥ 0, or None to wait for ever")
        item = self.wait_for(lane, seconds)
        self.tell_room()
        return item

    def tell_room(self):
        """Call ``on_room`` if the producer waits and may go on; ``get`` and ``take`` do."""
        if self.producer_waits and self.room_again() and self.on_room is not None:
            self.on_room()

    cdef object wait_for(self, object lane, double seconds):
        """The next item, within so many seconds (negative: for ever)."""
        cdef double until = ls_monotonic_ns() / 1e9 + seconds if seconds >= 0 else 0.0
        cdef double left = -1.0
        cdef ParkedThread parked
        while True:
            # Asked before the lanes: what came before the end is handed out before it is told.
            ending = self.ending
            if self.has(lane):
                return self.pop(lane)
            if ending is not None:
                raise ending
            if seconds >= 0:
                left = until - ls_monotonic_ns() / 1e9
                if left <= 0:
                    raise Empty
                left = min(left, <double>TIMEOUT_MAX)
            parked = self.park(lane)
            try:
                # First down, then a look: who puts does it the other way round, so one of the two sees the other.
                if not self.has(lane) and self.ending is None:
                    parked.lock.acquire(True, left)
                    # Ctrl-C that came along with the wake-up, now, before an item is taken that nobody would get.
                    PyErr_CheckSignals()
            finally:
                self.leave(parked)

    cdef ParkedThread park(self, object lane):
        parked = ParkedThread()
        parked.lane = lane
        parked.lock = Lock()
        parked.lock.acquire()
        self.parked_threads.append(parked)
        return parked

    cdef int leave(self, ParkedThread parked) except -1:
        # Nothing to do for one that was woken; one that gave up takes itself out.
        if parked in self.parked_threads:
            self.parked_threads.remove(parked)
        return 0
