# JSON text to message objects, driven by the schema in the wire classes: the glue between json_scan.c and attrs slots.
#
# A wire class is compiled once into a Plan: for each field its key's bytes, its kind, what "absent" means, and where
# its slot lies in the instance. Reading allocates the instance without its constructor and writes every slot with a
# reference of its own. The way of reading, and so every error, is the one that _pure/decoder.py describes.
#
# Reference rules of this file (README.md): all objects are PyObject*, counted by hand; a function that returns a
# PyObject* returns a new reference, or NULL with either state.error filled or a Python exception set.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyTypeObject
from cpython.unicode cimport PyUnicode_AsUTF8String
from libc.math cimport isinf
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from "json_scan.h" nogil:
    enum:
        LS_OK
        LS_TEXT_ENDS
        LS_TEXT_GOES_ON
        LS_NO_COMMA_IN_OBJECT
        LS_NO_COMMA_IN_ARRAY
        LS_NUMBER_RANGE
        LS_INTEGER_RANGE
        LS_WRONG_KIND
        LS_MISSING_FIELD
        LS_DUPLICATE_FIELD
        LS_LONE_SURROGATE
        LS_UNKNOWN_TYPE
    ctypedef int ls_reason
    ctypedef struct ls_error:
        ls_reason reason
        const uint8_t *at
        const char *wanted
        const char *found
    ctypedef struct ls_string:
        const uint8_t *begin
        const uint8_t *end
        bint is_ascii
        bint is_escaped
    ctypedef struct ls_number:
        const uint8_t *begin
        const uint8_t *end
        bint is_negative
        bint is_exact
        uint64_t mantissa
        int64_t exponent
    const char *ls_reason_text(ls_reason reason)
    const uint8_t *ls_fail(ls_error *error, ls_reason reason, const uint8_t *at)
    const uint8_t *ls_fail_kind(ls_error *error, const uint8_t *at, const uint8_t *end, const char *wanted)
    ctypedef struct ls_key:
        const uint8_t *text
        size_t size
    void ls_prepare_key(ls_key *key, const uint8_t *text, size_t size)
    bint ls_key_comes(const ls_key *key, const uint8_t *at, const uint8_t *end, const uint8_t *limit,
                      unsigned int no_comma)
    bint ls_wide_key_comes(const ls_key *key, const uint8_t *at, unsigned int no_comma)
    bint ls_ends_value(uint8_t byte)
    const uint8_t *ls_plain_run(const uint8_t *at, const uint8_t *end)
    const uint8_t *ls_scan_usual_digits(const uint8_t *at, uint64_t *out)
    const uint8_t *ls_skip_space(const uint8_t *at, const uint8_t *end)
    bint ls_starts_with(const uint8_t *at, const uint8_t *end, const uint8_t *key, size_t size)
    const uint8_t *ls_scan_string(const uint8_t *at, const uint8_t *end, ls_string *out, ls_error *error)
    const uint8_t *ls_scan_string_wide(const uint8_t *at, const uint8_t *end, const uint8_t *limit, ls_string *out,
                                       ls_error *error)
    size_t ls_unescape(const ls_string *string, uint8_t *out)
    const uint8_t *ls_scan_digits(const uint8_t *begin, const uint8_t *at, const uint8_t *end, uint64_t *out)
    const uint8_t *ls_scan_decimal(const uint8_t *begin, const uint8_t *at, const uint8_t *end, uint64_t *mantissa,
                                   unsigned int *scale)
    const uint8_t *ls_scan_integer_slow(const uint8_t *at, const uint8_t *end, const char *kind, uint64_t max,
                                        bint is_signed, uint64_t *out, ls_error *error)
    const uint8_t *ls_scan_number(const uint8_t *at, const uint8_t *end, ls_number *out, ls_error *error)
    const uint8_t *ls_scan_literal(const uint8_t *at, const uint8_t *end, ls_error *error)
    const uint8_t *ls_scan_key(const uint8_t *at, const uint8_t *end, ls_string *out, ls_error *error)
    const uint8_t *ls_skip_value(const uint8_t *at, const uint8_t *end, int depth, ls_error *error)
    unsigned int ls_lowest_bit(uint64_t bits)
    uint64_t ls_load64(const uint8_t *at)
    uint64_t ls_hash(const uint8_t *at, size_t size)
    bint ls_same_bytes(const uint8_t *one, const uint8_t *other, size_t size)

# Declared with PyObject*, so that Cython counts no references behind our back.
cdef extern from "py_glue.h":
    ctypedef struct PyObject:
        pass
    PyObject *Py_None
    PyObject *Py_True
    PyObject *Py_False
    void Py_INCREF(PyObject *value)
    void Py_DECREF(PyObject *value)
    void Py_XDECREF(PyObject *value)
    PyObject *ls_integer(uint64_t magnitude, bint is_negative)
    PyObject *PyFloat_FromDouble(double value)
    PyObject *PyUnicode_DecodeUTF8(const char *bytes, Py_ssize_t size, const char *errors)
    PyObject *PyTuple_New(Py_ssize_t size)
    void PyTuple_SET_ITEM(PyObject *items, Py_ssize_t index, PyObject *value)
    PyObject *PyErr_NoMemory()
    void PyErr_Clear()
    bint ls_exact_double(uint64_t mantissa, int64_t exponent, bint is_negative, double *out)
    bint ls_nearest_double(const ls_number *number, double *out)
    int ls_propagate() except -1
    void ls_take_over_release(PyTypeObject *type)
    void PyObject_GC_UnTrack(void *value)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    const uint8_t *PyUnicode_1BYTE_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    PyObject *ls_new_instance(PyTypeObject *type)
    Py_ssize_t ls_slot_offset(PyObject *descriptor, PyTypeObject *owner)
    bint ls_is_plain_layout(PyTypeObject *type, Py_ssize_t slots)
    PyObject *ls_ascii_string(const char *bytes, Py_ssize_t size)
    bint ls_is_ascii_string(PyObject *text, const uint8_t *bytes, Py_ssize_t size)


# ── plans ────────────────────────────────────────────────────────────────────────────────────────────────────────

cdef enum:
    MAX_FIELDS = 64         # one bit each in a word
    MAX_NAME_BYTES = 64
    TYPE_WORD_AT = 7        # where in a message those eight bytes are: the shortest type has four letters
    MAX_KEY_BYTES = 512     # a name written all in escapes takes six bytes a character; a longer key is no name of ours
    MAX_PLAN_DEPTH = 6      # objects inside objects in the schema
    MAX_STEPS = 2 * MAX_PLAN_DEPTH + 2
    SHORT_STRING = 44       # a base58 public key; what is longer (signatures, transactions) does not repeat
    CACHE_BITS = 11
    CACHE_SIZE = 1 << CACHE_BITS
    ITEMS_ON_STACK = 16
    ROOM_BEFORE = 16        # bytes that the fast reader of digits steps back into
    ROOM_BEHIND = 18        # and that it may read from a number's first byte on: a sign, sixteen digits, what follows

cdef enum Kind:
    KIND_U64, KIND_U32, KIND_U16, KIND_U8, KIND_I64, KIND_F64, KIND_BOOL, KIND_STR, KIND_OBJECT, KIND_LIST, KIND_STR_LIST

cdef struct Plan

cdef struct Field:
    ls_key key              # the name as it stands behind another field: ,"name":
    uint32_t slot           # offset in the instance
    int kind
    uint64_t bit            # in a set of the plan's fields
    bint is_required
    bint null_is_default
    bint accepts_one
    Py_ssize_t room         # readable bytes from its comma on that the fast reading of key and number needs
    uint64_t max            # of an integer
    const char *kind_name
    PyObject *default
    const Plan *plan        # of the objects in it

cdef struct Alias:
    const uint8_t *name
    uint32_t size
    uint32_t field

cdef struct Plan:
    PyTypeObject *type      # NULL: an object without fields, for messages of unknown types
    int number              # among the decoder's messages; -1: not a message, or of an unknown type
    uint32_t field_count
    uint32_t alias_count
    uint64_t all_fields
    Field *fields
    Alias *aliases

cdef struct TypeName:
    const uint8_t *name
    size_t size
    const uint8_t *opening  # how the server begins such a message: {"type":"pong",
    size_t opening_size
    uint64_t opening_word   # the eight bytes that tell the types apart
    const Plan *plan

cdef dict KINDS = {
    "u64": KIND_U64, "i64": KIND_I64, "u32": KIND_U32, "u16": KIND_U16, "u8": KIND_U8, "f64": KIND_F64,
    "bool": KIND_BOOL, "str": KIND_STR, "object": KIND_OBJECT, "list": KIND_LIST, "str_list": KIND_STR_LIST,
}
cdef dict INTEGER_MAX = {"u64": 2**64 - 1, "i64": 2**63 - 1, "u32": 2**32 - 1, "u16": 2**16 - 1, "u8": 2**8 - 1}


cdef class _Plans:
    """Owns the plans of one decoder, and every object that they point to."""

    cdef list owned          # objects that plans hold bare pointers to
    cdef dict by_class       # class to its plan's address
    cdef list addresses      # of every allocation

    def __cinit__(self):
        self.owned = []
        self.by_class = {}
        self.addresses = []

    def __dealloc__(self):
        for address in self.addresses:
            PyMem_Free(<void *><size_t>address)

    cdef void *allocate(self, size_t count, size_t size) except NULL:
        cdef void *memory = PyMem_Calloc(count if count > 0 else 1, size)
        if memory == NULL:
            raise MemoryError
        self.addresses.append(<size_t>memory)
        return memory

    cdef const uint8_t *keep_bytes(self, bytes text) except NULL:
        self.owned.append(text)
        return <const uint8_t *>PyBytes_AS_STRING(text)

    cdef const Plan *empty(self) except NULL:
        """For messages of unknown types: an object in which every field is ignored."""
        cdef Plan *plan = <Plan *>self.allocate(1, sizeof(Plan))
        plan.number = -1
        return plan

    cdef const Plan *compile(self, object cls, int depth) except NULL:
        """The plan of a wire class; raises TypeError if its instances cannot be filled by writing slots."""
        cdef Plan *plan
        cdef size_t index
        if depth > MAX_PLAN_DEPTH:
            raise TypeError(f"{cls.__name__}: objects are nested more than {MAX_PLAN_DEPTH} deep in the schema")
        if cls in self.by_class:
            return <const Plan *><size_t>self.by_class[cls]
        if not isinstance(cls, type):
            raise TypeError(f"{cls!r} is not a class")
        specs = cls.wire_fields
        if len(specs) > MAX_FIELDS:
            raise TypeError(f"{cls.__name__} has more than {MAX_FIELDS} fields")
        if not ls_is_plain_layout(<PyTypeObject *>cls, len(specs)):
            raise TypeError(f"{cls.__name__} is not a slotted class with exactly its wire fields")
        plan = <Plan *>self.allocate(1, sizeof(Plan))
        plan.type = <PyTypeObject *>cls
        plan.number = -1
        plan.field_count = len(specs)
        plan.fields = <Field *>self.allocate(len(specs), sizeof(Field))
        offsets = set()
        for index, spec in enumerate(specs):
            self.compile_field(&plan.fields[index], cls, spec, depth)
            plan.fields[index].bit = (<uint64_t>1) << index
            plan.all_fields |= plan.fields[index].bit
            offsets.add(plan.fields[index].slot)
        if len(offsets) != len(specs):
            raise TypeError(f"{cls.__name__}: two fields share a slot")
        self.compile_aliases(plan, cls)
        ls_take_over_release(plan.type)
        self.owned.append(cls)
        self.by_class[cls] = <size_t>plan
        return plan

    cdef int compile_field(self, Field *field, object cls, object spec, int depth) except -1:
        name = spec.name.encode("ascii")
        if len(name) > MAX_NAME_BYTES or spec.name.encode("unicode_escape") != name or '"' in spec.name:
            raise TypeError(f"{cls.__name__}.{spec.name}: not a plain short field name")
        key = b',"' + name + b'":'
        descriptor = cls.__dict__[spec.name]
        cdef Py_ssize_t offset = ls_slot_offset(<PyObject *>descriptor, <PyTypeObject *>cls)
        if offset < <Py_ssize_t>sizeof(PyObject):
            raise TypeError(f"{cls.__name__}.{spec.name} is not a slot of its class")
        # Finished instances leave the garbage collector's sight, so nothing in them may ever refer to something mutable.
        absent = spec.absent
        if not (absent is None or absent == () or type(absent) in (bool, int, float, str)):
            raise TypeError(f"{cls.__name__}.{spec.name}: the default {absent!r} is not an immutable scalar")
        self.owned.append(absent)
        kind_name = spec.kind.encode("ascii")
        ls_prepare_key(&field.key, self.keep_bytes(key), len(key))
        field.room = max(len(key), 16) + ROOM_BEHIND
        field.slot = offset
        field.kind = KINDS[spec.kind]
        field.kind_name = <const char *>self.keep_bytes(kind_name)
        field.is_required = spec.required
        # Absent and null mean the same for optional fields everywhere, and for all defaults in what the server writes.
        field.null_is_default = not spec.required and (absent is None or cls.null_is_default)
        field.accepts_one = spec.accepts_one
        field.max = INTEGER_MAX.get(spec.kind, 0)
        field.default = <PyObject *>absent
        if field.kind == KIND_OBJECT or field.kind == KIND_LIST:
            field.plan = self.compile(spec.cls, depth + 1)
        return 0

    cdef int compile_aliases(self, Plan *plan, object cls) except -1:
        cdef size_t index
        names = [spec.name for spec in cls.wire_fields]
        plan.aliases = <Alias *>self.allocate(len(cls.wire_aliases), sizeof(Alias))
        for index, (old, name) in enumerate(cls.wire_aliases.items()):
            spelling = old.encode("ascii")
            plan.aliases[index].name = self.keep_bytes(spelling)
            plan.aliases[index].size = len(spelling)
            plan.aliases[index].field = names.index(name)
            plan.alias_count += 1
        return 0


# ── one call's state ─────────────────────────────────────────────────────────────────────────────────────────────

# A step of the path to an error; filled from the innermost outwards, on failure only.
cdef struct Step:
    const uint8_t *name     # NULL: an index
    size_t size             # of the name, or the index itself

cdef struct State:
    const uint8_t *begin
    const uint8_t *end
    const uint8_t *limit    # bytes up to here may be read: what follows the text in its buffer, and is no part of it
    PyObject **cache        # the decoder's short strings
    ls_error error
    int step_count
    Step steps[MAX_STEPS]


cdef inline void add_step(State *state, const uint8_t *name, size_t size) noexcept:
    if state.step_count < MAX_STEPS:
        state.steps[state.step_count].name = name
        state.steps[state.step_count].size = size
        state.step_count += 1


cdef inline const uint8_t *name_of(const Field *field) noexcept:
    return field.key.text + 2  # behind comma and quote


cdef inline size_t name_size(const Field *field) noexcept:
    return field.key.size - 4  # without comma, quotes and colon


cdef inline void add_field_step(State *state, const Field *field) noexcept:
    add_step(state, name_of(field), name_size(field))


cdef str path_of(const State *state):
    parts = ["$"]
    cdef int index = state.step_count
    while index > 0:
        index -= 1
        if state.steps[index].name == NULL:
            parts.append(f"[{state.steps[index].size}]")
        else:
            parts.append("." + state.steps[index].name[:state.steps[index].size].decode("ascii"))
    return "".join(parts)


cdef str reason_of(const State *state, object type_name):
    reason = ls_reason_text(state.error.reason).decode("ascii")
    if state.error.reason == LS_WRONG_KIND:
        return f"{reason} {state.error.wanted.decode('ascii')}, found {state.error.found.decode('ascii')}"
    if state.error.reason == LS_INTEGER_RANGE:
        return f"{reason} {state.error.wanted.decode('ascii')}"
    if state.error.reason == LS_UNKNOWN_TYPE:
        return f"{reason} {type_name[:64]!r}"
    return reason


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────
# Each reader takes the value's first byte, which lies before the end, stores a new reference, and returns the byte
# behind the value, or NULL.

cdef inline const uint8_t *read_unsigned(State *state, const Field *field, const uint8_t *at, PyObject **out) noexcept:
    cdef uint64_t value
    cdef const uint8_t *behind = ls_scan_digits(state.begin, at, state.limit, &value)
    if behind == NULL or behind > state.end or value > field.max:
        if at[0] != c"-" and (at[0] < c"0" or at[0] > c"9"):
            return ls_fail_kind(&state.error, at, state.end, "a number")
        behind = ls_scan_integer_slow(at, state.end, field.kind_name, field.max, False, &value, &state.error)
        if behind == NULL:
            return NULL
    out[0] = ls_integer(value, False)
    return behind if out[0] != NULL else NULL


cdef inline const uint8_t *read_signed(State *state, const Field *field, const uint8_t *at, PyObject **out) noexcept:
    cdef uint64_t value
    cdef bint is_negative = at[0] == c"-"
    cdef const uint8_t *behind = ls_scan_digits(state.begin, at + is_negative, state.limit, &value)
    if behind == NULL or behind > state.end or value > field.max or (is_negative and value == 0):
        if not is_negative and (at[0] < c"0" or at[0] > c"9"):
            return ls_fail_kind(&state.error, at, state.end, "a number")
        behind = ls_scan_integer_slow(at, state.end, field.kind_name, field.max, True, &value, &state.error)
        if behind == NULL:
            return NULL
        # The slow reader gives two's complement.
        is_negative = <int64_t>value < 0
        value = 0 - value if is_negative else value
    out[0] = ls_integer(value, is_negative)
    return behind if out[0] != NULL else NULL


cdef const uint8_t *read_float(State *state, const uint8_t *at, PyObject **out) noexcept:
    cdef ls_number number
    cdef double value
    cdef uint64_t mantissa
    cdef unsigned int scale
    cdef bint is_negative = at[0] == c"-"
    if not is_negative and (at[0] < c"0" or at[0] > c"9"):
        return ls_fail_kind(&state.error, at, state.end, "a number")
    cdef const uint8_t *behind = ls_scan_decimal(state.begin, at + is_negative, state.limit, &mantissa, &scale)
    if behind != NULL and behind <= state.end and ls_exact_double(mantissa, -<int>scale, is_negative, &value):
        out[0] = PyFloat_FromDouble(value)
        return behind if out[0] != NULL else NULL
    behind = ls_scan_number(at, state.end, &number, &state.error)
    if behind == NULL or not ls_nearest_double(&number, &value):
        return NULL
    if isinf(value):
        return ls_fail(&state.error, LS_NUMBER_RANGE, at)
    out[0] = PyFloat_FromDouble(value)
    return behind if out[0] != NULL else NULL


cdef inline const uint8_t *read_bool(State *state, const uint8_t *at, PyObject **out) noexcept:
    if at[0] != c"t" and at[0] != c"f":
        return ls_fail_kind(&state.error, at, state.end, "a boolean")
    cdef const uint8_t *behind = ls_scan_literal(at, state.end, &state.error)
    if behind != NULL:
        out[0] = Py_True if at[0] == c"t" else Py_False
        Py_INCREF(out[0])
    return behind


cdef inline PyObject *short_string(State *state, const uint8_t *begin, Py_ssize_t size) noexcept:
    """Plain text that may come again: wallets, mints, accounts, words.

    One look at a table that keeps the newest string of each hash; two texts with one hash only take turns. No Python
    code can run in here, so the interpreter lock keeps the table whole.
    """
    cdef PyObject **place = state.cache + (ls_hash(begin, size) >> (64 - CACHE_BITS))
    if place[0] != NULL and ls_is_ascii_string(place[0], begin, size):
        Py_INCREF(place[0])
        return place[0]
    cdef PyObject *made = ls_ascii_string(<const char *>begin, size)
    if made != NULL:
        Py_XDECREF(place[0])
        place[0] = made
        Py_INCREF(made)
    return made


cdef PyObject *general_string(const ls_string *string) noexcept:
    cdef size_t size = string.end - string.begin
    if not string.is_escaped:
        return PyUnicode_DecodeUTF8(<const char *>string.begin, size, "strict")
    cdef uint8_t *plain = <uint8_t *>PyMem_Malloc(size)
    if plain == NULL:
        return PyErr_NoMemory()
    cdef PyObject *made = PyUnicode_DecodeUTF8(<const char *>plain, ls_unescape(string, plain), "strict")
    PyMem_Free(plain)
    return made


cdef inline PyObject *plain_string(State *state, const uint8_t *begin, Py_ssize_t size) noexcept:
    if size <= SHORT_STRING:
        return short_string(state, begin, size)
    return ls_ascii_string(<const char *>begin, size)


cdef inline PyObject *make_string(State *state, const ls_string *string) noexcept:
    cdef Py_ssize_t size = string.end - string.begin
    if not string.is_ascii or string.is_escaped:
        return general_string(string)
    return plain_string(state, string.begin, size)


cdef inline const uint8_t *read_string(State *state, const uint8_t *at, PyObject **out) noexcept:
    cdef ls_string string
    if at[0] != c'"':
        return ls_fail_kind(&state.error, at, state.end, "a string")
    cdef const uint8_t *behind = ls_scan_string_wide(at, state.end, state.limit, &string, &state.error)
    if behind == NULL:
        return NULL
    out[0] = make_string(state, &string)
    return behind if out[0] != NULL else NULL


cdef const uint8_t *read_list(State *state, const Field *field, const uint8_t *at, int depth, PyObject **out) noexcept:
    """A tuple of the field's objects, or of strings; `depth` is the array's own level."""
    cdef PyObject *on_stack[ITEMS_ON_STACK]
    cdef ItemBuffer items
    items.items = on_stack
    items.on_stack = on_stack
    items.count = 0
    items.capacity = ITEMS_ON_STACK
    if at[0] == c'"' and field.accepts_one:
        at = read_string(state, at, items.items)
        items.count = 1 if at != NULL else 0
    elif at[0] != c"[":
        return ls_fail_kind(&state.error, at, state.end, "an array")
    else:
        at = read_items(state, field, at + 1, depth, &items)
    if at != NULL:
        out[0] = tuple_of(&items)
        if out[0] == NULL:
            at = NULL
    else:
        while items.count > 0:
            items.count -= 1
            Py_DECREF(items.items[items.count])
    if items.items != on_stack:
        PyMem_Free(items.items)
    return at


# Grows with the items that were really there.
cdef struct ItemBuffer:
    PyObject **items
    PyObject **on_stack
    Py_ssize_t count
    Py_ssize_t capacity


cdef bint make_room(ItemBuffer *items) noexcept:
    """False with MemoryError set."""
    if items.count < items.capacity:
        return True
    cdef PyObject **grown = <PyObject **>PyMem_Realloc(
        NULL if items.items == items.on_stack else items.items, 2 * items.capacity * sizeof(PyObject *))
    if grown == NULL:
        PyErr_NoMemory()
        return False
    if items.items == items.on_stack:
        memcpy(grown, items.on_stack, items.count * sizeof(PyObject *))
    items.items = grown
    items.capacity = 2 * items.capacity
    return True


cdef PyObject *tuple_of(ItemBuffer *items) noexcept:
    """A tuple that takes the items over; on failure they are released."""
    cdef Py_ssize_t index
    cdef PyObject *made = PyTuple_New(items.count)
    for index in range(items.count):
        if made == NULL:
            Py_DECREF(items.items[index])
        else:
            PyTuple_SET_ITEM(made, index, items.items[index])
    if made != NULL and items.count > 0:
        PyObject_GC_UnTrack(made)  # all in it is immutable, and the empty tuple is not ours to touch
    return made


cdef const uint8_t *read_items(State *state, const Field *field, const uint8_t *at, int depth, ItemBuffer *items) noexcept:
    """From behind the opening bracket to behind the closing one."""
    cdef const uint8_t *end = state.end
    at = ls_skip_space(at, end)
    if at < end and at[0] == c"]":
        return at + 1
    while True:
        if not make_room(items):
            return NULL
        if at == end:
            at = ls_fail(&state.error, LS_TEXT_ENDS, at)
        elif field.plan != NULL:
            at = read_object(state, field.plan, at, depth + 1, items.items + items.count)
        else:
            at = read_string(state, at, items.items + items.count)
        if at == NULL:
            add_step(state, NULL, items.count)
            return NULL
        items.count += 1
        at = ls_skip_space(at, end)
        if at < end and at[0] == c"]":
            return at + 1
        if at == end or at[0] != c",":
            return ls_fail(&state.error, LS_TEXT_ENDS if at == end else LS_NO_COMMA_IN_ARRAY, at)
        at = ls_skip_space(at + 1, end)


# ── objects ──────────────────────────────────────────────────────────────────────────────────────────────────────

cdef inline const uint8_t *read_value(State *state, const Field *field, const uint8_t *at, int depth, PyObject **out) noexcept:
    """A field's value; `depth` is the level of the object that has the field."""
    cdef const uint8_t *behind
    cdef int kind = field.kind
    if at[0] == c"n" and field.null_is_default:
        behind = ls_scan_literal(at, state.end, &state.error)
        if behind != NULL:
            out[0] = field.default
            Py_INCREF(out[0])
        return behind
    if kind <= KIND_U8:
        return read_unsigned(state, field, at, out)
    if kind == KIND_I64:
        return read_signed(state, field, at, out)
    if kind == KIND_STR:
        return read_string(state, at, out)
    if kind == KIND_F64:
        return read_float(state, at, out)
    if kind == KIND_BOOL:
        return read_bool(state, at, out)
    if kind == KIND_OBJECT:
        return read_object(state, field.plan, at, depth + 1, out)
    return read_list(state, field, at, depth + 1, out)


cdef const uint8_t *read_object(State *state, const Plan *plan, const uint8_t *at, int depth, PyObject **out) noexcept:
    if at[0] != c"{":
        return ls_fail_kind(&state.error, at, state.end, "an object")
    return read_instance(state, plan, at + 1, depth, False, out)


cdef const uint8_t *read_instance(
    State *state, const Plan *plan, const uint8_t *at, int depth, bint has_type, PyObject **out
) noexcept:
    """An object from behind its opening brace or, with `has_type`, a message from behind its type.

    The instance is invisible to everyone, the garbage collector included, until it is complete; it stays untracked
    because all it refers to is immutable. NULL is stored for the plan without a class.
    """
    cdef uint64_t seen = 0
    cdef PyObject *instance = NULL
    if plan.type != NULL:
        instance = ls_new_instance(plan.type)
        if instance == NULL:
            return NULL
    at = read_fields(state, plan, at, depth, has_type, instance, &seen)
    if at != NULL and (seen == plan.all_fields or fill_absent(state, plan, instance, &seen, at - 1)):
        out[0] = instance
        return at
    if instance != NULL:
        release_unfinished(plan, instance, seen)
    return NULL


cdef inline PyObject **slot_of(PyObject *instance, const Field *field) noexcept:
    return <PyObject **>(<char *>instance + field.slot)


cdef bint fill_absent(State *state, const Plan *plan, PyObject *instance, uint64_t *seen, const uint8_t *closing_brace) noexcept:
    """Defaults for what did not come; False if something required is missing."""
    cdef uint64_t absent = plan.all_fields & ~seen[0]
    cdef const Field *field
    cdef unsigned int index
    while absent != 0:
        index = ls_lowest_bit(absent)
        absent &= absent - 1
        field = &plan.fields[index]
        if field.is_required:
            add_field_step(state, field)
            ls_fail(&state.error, LS_MISSING_FIELD, closing_brace)
            return False
        slot_of(instance, field)[0] = field.default
        Py_INCREF(field.default)
        seen[0] |= field.bit
    return True


cdef void release_unfinished(const Plan *plan, PyObject *instance, uint64_t seen) noexcept:
    """Let go of an instance of which only the `seen` slots were written."""
    cdef uint32_t index
    for index in range(plan.field_count):
        if not (seen >> index) & 1:
            slot_of(instance, &plan.fields[index])[0] = NULL
    Py_DECREF(instance)


cdef const uint8_t *read_fields(
    State *state, const Plan *plan, const uint8_t *at, int depth, bint has_type, PyObject *instance, uint64_t *seen_out
) noexcept:
    """From behind the opening brace, or behind a message's type, to behind the closing one.

    `seen_out` tells which slots were written, on failure too. What the loop needs is in locals: the compiler must
    assume that writing a slot changes everything that is reached by a pointer.
    """
    cdef const uint8_t *end = state.end
    cdef const uint8_t *key_at
    cdef const Field *field
    cdef const Field *bet = plan.fields
    cdef const Field *last = plan.fields + plan.field_count
    cdef uint64_t seen = 0
    # The first field has no comma before it, unless a type stood there.
    cdef int commas = 1 if has_type else 0
    while True:
        at = read_in_order(state, last, at, instance, &bet, &commas, &seen)
        if at < end and at[0] == c"}":
            at += 1
            break
        key_at = at + commas
        field = bet_field(bet, last, key_at - 1, end, state.limit, 1 - commas)
        if field != NULL:
            at = ls_skip_space(key_at + field.key.size - 1, end)
        else:
            at = find_field(state, plan, at, depth, commas, &has_type, &key_at, &field)
            if at == NULL or key_at == NULL:  # an error, or the closing brace
                break
        commas = 1
        if field == NULL:  # not ours, and passed over
            continue
        if seen & field.bit:
            at = ls_fail(&state.error, LS_DUPLICATE_FIELD, key_at)
        elif at == end:
            at = ls_fail(&state.error, LS_TEXT_ENDS, at)
        else:
            at = read_value(state, field, at, depth, slot_of(instance, field))
        if at == NULL:
            add_field_step(state, field)
            break
        seen |= field.bit
        bet = field + 1
    seen_out[0] = seen
    return at


cdef inline const uint8_t *read_in_order(
    State *state, const Field *last, const uint8_t *at, PyObject *instance, const Field **bet_out, int *commas,
    uint64_t *seen_out
) noexcept:
    """Numbers and plain strings in the server's order and spelling, as far as they go; then, where it stopped.

    Nothing is an error here: whatever is not as expected, and what is near the end of the readable bytes, is left to the
    caller, who knows all rules.
    """
    cdef const uint8_t *end = state.end
    cdef const uint8_t *limit = state.limit
    cdef const Field *bet = bet_out[0]
    cdef uint64_t seen = seen_out[0]
    cdef unsigned int no_comma = 1 - commas[0]
    cdef const uint8_t *behind
    # A message's type, or the fields before a nested object, are more than enough to step back into.
    if at - state.begin < ROOM_BEFORE:
        return at
    while bet < last and limit - at >= bet.room:
        if not ls_wide_key_comes(&bet.key, at - no_comma, no_comma):
            if bet.is_required:
                break
            bet += 1
            continue
        if seen & bet.bit:
            break
        behind = read_plain(state, bet, at + bet.key.size - no_comma, end, limit, slot_of(instance, bet))
        if behind == NULL:
            break
        at = behind
        seen |= bet.bit
        bet += 1
        no_comma = 0
    bet_out[0] = bet
    seen_out[0] = seen
    commas[0] = 1 - no_comma
    return at


cdef inline const uint8_t *read_plain(
    State *state, const Field *field, const uint8_t *at, const uint8_t *end, const uint8_t *limit, PyObject **out
) noexcept:
    """A number, or a string without escapes, with a comma or closing brace right behind it; NULL for anything else."""
    cdef uint64_t value
    cdef double number
    cdef unsigned int scale
    cdef bint is_negative
    cdef const uint8_t *behind
    if field.kind <= KIND_I64:
        is_negative = field.kind == KIND_I64 and at[0] == c"-"
        behind = ls_scan_usual_digits(at + is_negative, &value)
        if behind == NULL or behind >= end or value > field.max or (is_negative and value == 0):
            return NULL
        out[0] = ls_integer(value, is_negative)
    elif field.kind == KIND_STR and at[0] == c'"':
        behind = ls_plain_run(at + 1, limit)
        if behind + 1 >= end or behind[0] != c'"' or not ls_ends_value(behind[1]):
            return NULL
        out[0] = plain_string(state, at + 1, behind - at - 1)
        behind += 1
    elif field.kind == KIND_F64:
        is_negative = at[0] == c"-"
        behind = ls_scan_decimal(state.begin, at + is_negative, limit, &value, &scale)
        if behind == NULL or behind >= end or not ls_ends_value(behind[0]):
            return NULL
        if not ls_exact_double(value, -<int>scale, is_negative, &number):
            return NULL
        out[0] = PyFloat_FromDouble(number)
    else:
        return NULL
    if out[0] == NULL:  # no memory: the caller tries again, and tells
        PyErr_Clear()
        return NULL
    return behind


cdef inline const Field *bet_field(
    const Field *bet, const Field *last, const uint8_t *comma, const uint8_t *end, const uint8_t *limit, int no_comma
) noexcept:
    """The field whose key comes next if the server keeps its order: the `bet`, or one behind absent optionals.

    `comma` is where the comma before the key is, or with `no_comma` the opening brace.
    """
    while bet < last:
        if ls_key_comes(&bet.key, comma, end, limit, no_comma):
            return bet
        if bet.is_required:
            return NULL
        bet += 1
    return NULL


cdef const uint8_t *find_field(
    State *state, const Plan *plan, const uint8_t *at, int depth, int commas, bint *has_type,
    const uint8_t **key_at, const Field **field
) noexcept:
    """Whatever comes next in an object, behind its opening brace (no `commas`) or behind a value (one).

    Returns the first byte of a field's value, with the `field` and its key; or the byte behind a value that is not
    ours, with `field` NULL; or the byte behind the closing brace, with `key_at` NULL.
    """
    cdef const uint8_t *end = state.end
    cdef ls_string key
    at = ls_skip_space(at, end)
    if at < end and at[0] == c"}":
        key_at[0] = NULL
        return at + 1
    if commas > 0:
        if at == end or at[0] != c",":
            return ls_fail(&state.error, LS_TEXT_ENDS if at == end else LS_NO_COMMA_IN_OBJECT, at)
        at = ls_skip_space(at + 1, end)
    key_at[0] = at
    at = ls_scan_key(at, end, &key, &state.error)
    if at == NULL:
        return NULL
    field[0] = field_of_key(plan, &key)
    if field[0] != NULL:
        return at
    if depth == 1 and is_name(&key, <const uint8_t *>"type", 4):
        if has_type[0]:
            add_step(state, <const uint8_t *>"type", 4)
            return ls_fail(&state.error, LS_DUPLICATE_FIELD, key_at[0])
        has_type[0] = True
    return ls_skip_value(at, end, depth, &state.error)


cdef bint is_name(const ls_string *key, const uint8_t *name, size_t size) noexcept:
    """Does the key, which may be written with escapes, spell this name?"""
    cdef uint8_t plain[MAX_KEY_BYTES]
    cdef size_t key_size = key.end - key.begin
    if not key.is_escaped:
        return key_size == size and ls_same_bytes(key.begin, name, size)
    if key_size > MAX_KEY_BYTES:
        return False
    return ls_unescape(key, plain) == size and ls_same_bytes(plain, name, size)


cdef const Field *field_of_key(const Plan *plan, const ls_string *key) noexcept:
    cdef uint32_t index
    for index in range(plan.field_count):
        if is_name(key, name_of(&plan.fields[index]), name_size(&plan.fields[index])):
            return &plan.fields[index]
    for index in range(plan.alias_count):
        if is_name(key, plan.aliases[index].name, plan.aliases[index].size):
            return &plan.fields[plan.aliases[index].field]
    return NULL


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────

cdef class Decoder:
    # What stands before the text is for inspect.signature(); Cython writes it for functions only.
    """Decoder(classes, unknown, error)\n--\n\nReads messages of the given classes.

    Args:
        classes: wire type name to attrs class; the class's ``wire_fields``, ``wire_aliases`` and ``null_is_default``
            are the schema.
        unknown: builds the object for a well-formed message of any other type from the type's name and the message's
            bytes; None makes such a message an error.
        error: what unreadable input raises, called with (reason, path, offset in bytes of the UTF-8 form).

    Threads: any; a decoder does not change after construction, but for a table of strings seen before, which the
    interpreter lock guards.
    """

    cdef _Plans plans
    cdef object unknown
    cdef object error
    cdef TypeName *types
    cdef size_t type_count
    cdef const Plan *empty_plan
    cdef PyObject **cache

    def __cinit__(self, classes, unknown, error):
        cdef size_t index
        self.cache = <PyObject **>PyMem_Calloc(CACHE_SIZE, sizeof(PyObject *))
        if self.cache == NULL:
            raise MemoryError
        self.plans = _Plans()
        self.unknown = unknown
        self.error = error
        self.empty_plan = self.plans.empty()
        self.types = <TypeName *>self.plans.allocate(len(classes), sizeof(TypeName))
        for index, (name, cls) in enumerate(classes.items()):
            spelling = name.encode("utf-8")
            self.types[index].name = self.plans.keep_bytes(spelling)
            self.types[index].size = len(spelling)
            if not spelling.replace(b"_", b"").isalnum():
                raise TypeError(f"{name!r} is not a type name: letters, digits and underscores")
            opening = b'{"type":"' + spelling + b'",'
            self.types[index].opening = self.plans.keep_bytes(opening)
            self.types[index].opening_size = len(opening)
            if len(opening) >= TYPE_WORD_AT + 8:
                self.types[index].opening_word = ls_load64(self.types[index].opening + TYPE_WORD_AT)
            self.types[index].plan = self.plans.compile(cls, 1)
            (<Plan *>self.types[index].plan).number = index
        self.type_count = len(classes)

    def __dealloc__(self):
        cdef size_t index
        if self.cache != NULL:
            for index in range(<size_t>CACHE_SIZE):
                Py_XDECREF(self.cache[index])
            PyMem_Free(self.cache)

    def decode(self, data, /):
        """The message that ``data`` spells: JSON text, as str or as UTF-8 bytes.

        Returns:
            An instance of the class of the message's ``type``, or what ``unknown`` makes of it.

        Raises:
            DecodeError: (the ``error`` given) it cannot be read; ``path``, ``offset`` and ``reason`` say where and why.
            TypeError: ``data`` is of another type.

        Threads: any.
        """
        cdef const Plan *plan
        if isinstance(data, bytes):
            return self.read(data, <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), &plan)
        if isinstance(data, str):
            if PyUnicode_IS_COMPACT_ASCII(data):
                return self.read(data, PyUnicode_1BYTE_DATA(data), PyUnicode_GET_LENGTH(data), &plan)
            text = self.utf8_of(data)
        elif isinstance(data, (bytearray, memoryview)):
            # A copy: another thread could change the buffer while we read.
            text = bytes(data)
        else:
            raise TypeError(f"a message is str, bytes, bytearray or memoryview, not {type(data).__name__}")
        return self.read(text, <const uint8_t *>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), &plan)

    cdef const Plan *known_plan(self, object cls) noexcept:
        """The plan of a message class; NULL when it is none of ours."""
        cdef size_t index
        for index in range(self.type_count):
            if self.types[index].plan.type == <PyTypeObject *>cls:
                return self.types[index].plan
        return NULL

    cdef bytes utf8_of(self, text):
        try:
            return PyUnicode_AsUTF8String(text)
        except UnicodeEncodeError as error:
            offset = len(PyUnicode_AsUTF8String(text[:error.start]))
        raise self.error(ls_reason_text(LS_LONE_SURROGATE).decode("ascii"), "$", offset)

    cdef object read(self, object data, const uint8_t *text, Py_ssize_t size, const Plan **plan_out):
        """The message in `text`, and its plan. `data` is None, or the object that `text` belongs to."""
        cdef State state
        cdef ls_string type_name
        cdef PyObject *message = NULL
        if not self.scan(&state, text, text + size, text + size, &type_name, plan_out, &message):
            return self.fail(&state, &type_name)
        if plan_out[0] == self.empty_plan:
            raw = data if type(data) is bytes else PyBytes_FromStringAndSize(<const char *>text, size)
            return self.unknown(self.text_of(&type_name), raw)
        made = <object>message
        Py_DECREF(message)  # the line above counted one more
        return made

    cdef bint scan(
        self, State *state, const uint8_t *text, const uint8_t *end, const uint8_t *limit, ls_string *type_name,
        const Plan **plan_out, PyObject **message
    ) noexcept:
        """True with the message that stands in [text, end), and its plan; of an unknown type there is only a name.

        Bytes up to `limit` may be read.
        """
        cdef const Plan *plan = NULL
        cdef const uint8_t *at
        cdef bint has_type = False
        state.begin = text
        state.end = end
        state.limit = limit
        state.cache = self.cache
        state.error.reason = LS_OK
        state.step_count = 0
        message[0] = NULL
        at = self.read_type(state, type_name, &plan, &has_type)
        if at != NULL:
            at = read_instance(state, plan, at, 1, has_type, message)
        if at != NULL:
            at = ls_skip_space(at, end)
            if at < end:
                Py_XDECREF(message[0])
                at = ls_fail(&state.error, LS_TEXT_GOES_ON, at)
        plan_out[0] = plan
        return at != NULL

    cdef const uint8_t *read_type(
        self, State *state, ls_string *type_name, const Plan **plan, bint *has_type
    ) noexcept:
        """The message's plan, and where its fields begin: behind the type if that came first, else behind the brace."""
        cdef const uint8_t *end = state.end
        cdef const uint8_t *start = ls_skip_space(state.begin, end)
        cdef const uint8_t *at
        cdef size_t index
        cdef uint64_t word
        if end - start >= TYPE_WORD_AT + 8:
            word = ls_load64(start + TYPE_WORD_AT)
            for index in range(self.type_count):
                if word == self.types[index].opening_word and ls_starts_with(
                    start, end, self.types[index].opening, self.types[index].opening_size
                ):
                    plan[0] = self.types[index].plan
                    has_type[0] = True
                    return start + self.types[index].opening_size - 1  # at the comma
        # Anything else: another order or spacing, an unknown type, or no message at all.
        if start == end or start[0] != c"{":
            return ls_fail_kind(&state.error, start, end, "an object")
        at = find_type(state, start, type_name)
        if at == NULL:
            return NULL
        plan[0] = self.plan_of(type_name)
        if plan[0] == NULL:
            if self.unknown is None:
                add_step(state, <const uint8_t *>"type", 4)
                return ls_fail(&state.error, LS_UNKNOWN_TYPE, type_name.begin - 1)
            plan[0] = self.empty_plan
        return start + 1

    cdef const Plan *plan_of(self, const ls_string *type_name) noexcept:
        cdef size_t index
        for index in range(self.type_count):
            if is_name(type_name, self.types[index].name, self.types[index].size):
                return self.types[index].plan
        return NULL

    cdef str text_of(self, const ls_string *type_name):
        cdef PyObject *made = general_string(type_name)
        if made == NULL:
            ls_propagate()
        text = <object>made
        Py_DECREF(made)
        return text

    cdef object fail(self, State *state, const ls_string *type_name):
        """Raise what the state says, or the Python exception that is set (no memory)."""
        if state.error.reason == LS_OK:
            ls_propagate()
        name = self.text_of(type_name) if state.error.reason == LS_UNKNOWN_TYPE else None
        raise self.error(reason_of(state, name), path_of(state), state.error.at - state.begin)


cdef const uint8_t *find_type(State *state, const uint8_t *start, ls_string *type_name) noexcept:
    """Searches the top level for the message's type, wherever it stands; what stands before it is checked."""
    cdef const uint8_t *end = state.end
    cdef const uint8_t *at = ls_skip_space(start + 1, end)
    cdef ls_string key
    while at == end or at[0] != c"}":
        at = ls_scan_key(at, end, &key, &state.error)
        if at == NULL:
            return NULL
        if is_name(&key, <const uint8_t *>"type", 4):
            if at < end and at[0] == c'"':
                at = ls_scan_string(at, end, type_name, &state.error)
            else:
                at = ls_fail_kind(&state.error, at, end, "a string")
            if at == NULL:
                add_step(state, <const uint8_t *>"type", 4)
            return at
        at = ls_skip_value(at, end, 1, &state.error)
        if at == NULL:
            return NULL
        at = ls_skip_space(at, end)
        if at < end and at[0] == c"}":
            break
        if at == end or at[0] != c",":
            return ls_fail(&state.error, LS_TEXT_ENDS if at == end else LS_NO_COMMA_IN_OBJECT, at)
        at = ls_skip_space(at + 1, end)
        if at < end and at[0] == c"}":  # a comma must be followed by a field
            return ls_scan_key(at, end, &key, &state.error)
    add_step(state, <const uint8_t *>"type", 4)
    return ls_fail(&state.error, LS_MISSING_FIELD, at)
