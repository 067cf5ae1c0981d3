# The latest items, numbered: what the memory of a session is made of. The fallback is _pure/tables.py.

cdef class EventRing:
    # What stands before the text is for inspect.signature(); Cython writes it for functions only.
    """EventRing(capacity)\n--\n\nThe latest items, each with its number.

    Args:
        capacity: how many are kept.

    Threads: one numbers and keeps; any may ask.
    """

    cdef object items           # a deque: they may refer to anything, so the collector must see them
    cdef unsigned long long serial

    def __init__(self, Py_ssize_t capacity):
        self.items = deque(maxlen=capacity)

    @classmethod
    def __class_getitem__(cls, _):
        # Generic for type checkers only.
        return cls

    def number(self, item, /):
        """Give it the next number: (number, item)."""
        self.serial += 1
        return self.serial, item

    def keep(self, item, /):
        """Give it the next number, and keep it instead of the oldest: (number, item)."""
        return self.keep_item(item)

    cdef object keep_item(self, object item):
        self.serial += 1
        numbered = (self.serial, item)
        self.items.append(numbered)
        return numbered

    def add(self, item, /):
        """What a router calls while somebody watches; here as ``keep``."""
        self.keep_item(item)

    def kept(self):
        """All that are kept, oldest first, as (number, item); copied in one step, whoever goes on adding."""
        return list(self.items)
