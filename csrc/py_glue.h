/*
 * What the glue needs of CPython and cannot be said in Cython: instances without constructors, the layout of slotted
 * classes, strings and floats. The only C file of this directory that knows Python.
 */
#ifndef LASERSELL_PY_GLUE_H
#define LASERSELL_PY_GLUE_H

#include <Python.h>

#include <float.h>
#include <structmember.h>

#include "json_scan.h"

/* ── instances ──────────────────────────────────────────────────────────────────────────────────────────────── */

/*
 * What a released instance leaves behind, its memory and its integers, is used again by the next one: a message lives
 * for a microsecond, and going through CPython's allocator twice for each of its values would be a fourth of that. All
 * of it is guarded by the interpreter lock, and left out where the interpreter counts objects or has no such lock.
 */
#if !defined(Py_REF_DEBUG) && !defined(Py_GIL_DISABLED) && !defined(PYPY_VERSION)
#define LS_SPARES 1
#endif

#define LS_MAX_SLOTS 32 /* of an instance whose memory is kept */
#define LS_MAX_SPARES 256 /* of each size; a burst that is kept for longer finds the allocator's memory again */

/* Under AddressSanitizer what lies spare is out of bounds, as freed memory is. */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define LS_LAY_ASIDE(at, size) ASAN_POISON_MEMORY_REGION((at), (size))
#define LS_TAKE_UP(at, size) ASAN_UNPOISON_MEMORY_REGION((at), (size))
#else
#define LS_LAY_ASIDE(at, size) ((void)0)
#define LS_TAKE_UP(at, size) ((void)0)
#endif

#ifdef LS_SPARES
typedef struct {
    int count;
    PyObject *items[LS_MAX_SPARES];
} ls_spares;

static ls_spares ls_spare_memory[LS_MAX_SLOTS + 1]; /* by number of slots */

static inline size_t ls_slot_count(const PyTypeObject *type)
{
    return ((size_t)type->tp_basicsize - sizeof(PyObject)) / sizeof(PyObject *);
}
#endif

/* An instance with its header, neither zeroed nor tracked by the collector; of a class with a plain layout. */
static inline PyObject *ls_new_instance(PyTypeObject *type)
{
    if (!PyType_IS_GC(type)) {
        return PyObject_New(PyObject, type);
    }
#ifdef LS_SPARES
    size_t slots = ls_slot_count(type);
    if (slots <= LS_MAX_SLOTS && ls_spare_memory[slots].count > 0) {
        ls_spares *spares = &ls_spare_memory[slots];
        PyObject *instance = spares->items[--spares->count];
        LS_TAKE_UP(instance, (size_t)type->tp_basicsize);
        Py_SET_TYPE(instance, type);
        Py_SET_REFCNT(instance, 1);
        Py_INCREF(type);
        return instance;
    }
#endif
    return PyObject_GC_New(PyObject, type); /* without its cast */
}

static inline void ls_free_instance(PyObject *instance, PyTypeObject *type)
{
#ifdef LS_SPARES
    size_t slots = ls_slot_count(type);
    if (slots <= LS_MAX_SLOTS && ls_spare_memory[slots].count < LS_MAX_SPARES && type->tp_free == PyObject_GC_Del) {
        ls_spares *spares = &ls_spare_memory[slots];
        spares->items[spares->count++] = instance;
        LS_LAY_ASIDE(instance, (size_t)type->tp_basicsize);
        return;
    }
#endif
    type->tp_free(instance);
}

static void ls_release_instance(PyObject *self);

static inline Py_ssize_t ls_slot_offset(PyObject *descriptor, PyTypeObject *owner)
{
    if (!Py_IS_TYPE(descriptor, &PyMemberDescr_Type) || PyDescr_TYPE(descriptor) != owner) {
        return -1;
    }
    PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
    return member->type == T_OBJECT_EX ? member->offset : -1;
}

/* Does the instance consist of a header and `slots` pointers and nothing else, and is it made the usual way? */
static inline int ls_is_plain_layout(PyTypeObject *type, Py_ssize_t slots)
{
    return type->tp_basicsize == (Py_ssize_t)(sizeof(PyObject) + (size_t)slots * sizeof(PyObject *)) &&
           type->tp_itemsize == 0 && type->tp_dictoffset == 0 && type->tp_weaklistoffset == 0 &&
           type->tp_base->tp_basicsize == (Py_ssize_t)sizeof(PyObject) && type->tp_alloc == PyType_GenericAlloc &&
           type->tp_finalize == NULL && type->tp_del == NULL;
}

/* ── integers ───────────────────────────────────────────────────────────────────────────────────────────────── */

/* An integer of one or two digits is given a new value when nobody else has it; where its inside is known. */
#if defined(LS_SPARES) && PYLONG_BITS_IN_DIGIT == 30 && PY_VERSION_HEX < 0x030F0000
#define LS_SPARE_INTEGERS 1

static ls_spares ls_spare_integers[2]; /* of one digit, of two */

#if PY_VERSION_HEX < 0x030C0000
static inline size_t ls_digit_count(PyObject *integer)
{
    Py_ssize_t size = Py_SIZE(integer);
    return (size_t)(size < 0 ? -size : size);
}

static inline digit *ls_digits(PyObject *integer)
{
    return ((PyLongObject *)integer)->ob_digit;
}

static inline int ls_is_short_positive(PyObject *integer)
{
    return Py_SIZE(integer) == 1 || Py_SIZE(integer) == 2;
}

static inline void ls_set_digits(PyObject *integer, size_t digits, int is_negative)
{
    Py_SET_SIZE((PyVarObject *)integer, is_negative ? -(Py_ssize_t)digits : (Py_ssize_t)digits);
}
#else
/* Above three bits of sign and flags; the sign of a negative number is 2. */
static inline size_t ls_digit_count(PyObject *integer)
{
    return (size_t)(((PyLongObject *)integer)->long_value.lv_tag >> 3);
}

static inline digit *ls_digits(PyObject *integer)
{
    return ((PyLongObject *)integer)->long_value.ob_digit;
}

static inline int ls_is_short_positive(PyObject *integer)
{
    size_t digits = ls_digit_count(integer);
    return (digits == 1 || digits == 2) && (((PyLongObject *)integer)->long_value.lv_tag & 2) == 0;
}

static inline void ls_set_digits(PyObject *integer, size_t digits, int is_negative)
{
    ((PyLongObject *)integer)->long_value.lv_tag = digits << 3 | (is_negative ? 2 : 0);
}
#endif

#define LS_INTEGER_BYTES(digits) (sizeof(PyVarObject) + (digits) * sizeof(digit))

/* True when it was kept; nobody but the caller has the integer, and the caller has not any more. */
static inline int ls_keep_integer(PyObject *integer)
{
    size_t digits = ls_digit_count(integer);
    if (digits - 1 > 1 || ls_spare_integers[digits - 1].count == LS_MAX_SPARES) {
        return 0;
    }
    ls_spares *spares = &ls_spare_integers[digits - 1];
    spares->items[spares->count++] = integer;
    LS_LAY_ASIDE(integer, LS_INTEGER_BYTES(digits));
    return 1;
}
#endif

/* The u64 that a Python integer says; 0 when it is none, or no integer. */
static inline int ls_id_of(PyObject *key, uint64_t *id)
{
    if (!PyLong_Check(key)) {
        return 0;
    }
#ifdef LS_SPARE_INTEGERS
    if (ls_is_short_positive(key)) {
        const digit *digits = ls_digits(key);
        *id = ls_digit_count(key) == 2 ? (uint64_t)digits[1] << 30 | digits[0] : digits[0];
        return 1;
    }
#endif
    *id = PyLong_AsUnsignedLongLong(key);
    if (*id == UINT64_MAX && PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    return 1;
}

#define LS_LARGEST_CACHED 256 /* CPython has these once, and a few negative ones */

/* The integer `magnitude`, or the one below zero; a negative one is at most 2^63. */
static inline PyObject *ls_integer(uint64_t magnitude, int is_negative)
{
#ifdef LS_SPARE_INTEGERS
    size_t digits = magnitude >> 30 == 0 ? 1 : 2;
    ls_spares *spares = &ls_spare_integers[digits - 1];
    if (magnitude > LS_LARGEST_CACHED && magnitude >> 60 == 0 && spares->count > 0) {
        PyObject *integer = spares->items[--spares->count];
        LS_TAKE_UP(integer, LS_INTEGER_BYTES(digits));
        digit *to = ls_digits(integer);
        ls_set_digits(integer, digits, is_negative);
        to[0] = (digit)(magnitude & ((1U << 30) - 1));
        if (digits == 2) {
            to[1] = (digit)(magnitude >> 30);
        }
        return integer;
    }
#endif
    if (magnitude <= INT64_MAX) { /* CPython makes small and medium integers faster from signed ones */
        return PyLong_FromLongLong(is_negative ? -(int64_t)magnitude : (int64_t)magnitude);
    }
    return is_negative ? PyLong_FromLongLong(INT64_MIN) : PyLong_FromUnsignedLongLong(magnitude);
}

/* ── the end of instances ───────────────────────────────────────────────────────────────────────────────────── */

static inline void ls_release_value(PyObject *value)
{
#ifdef LS_SPARE_INTEGERS
    if (value != NULL && Py_REFCNT(value) == 1 && Py_IS_TYPE(value, &PyLong_Type) && ls_keep_integer(value)) {
        return;
    }
#endif
    Py_XDECREF(value);
}

static inline void ls_release_slots(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyTypeObject *owner = type;
    while (owner->tp_dealloc != ls_release_instance) {
        owner = owner->tp_base;
    }
    PyObject **slot = (PyObject **)((char *)self + sizeof(PyObject));
    PyObject **last = (PyObject **)((char *)self + owner->tp_basicsize);
    for (; slot < last; slot++) {
        ls_release_value(*slot);
    }
    if (owner == type) {
        ls_free_instance(self, type);
    }
    else {
        type->tp_free(self);
    }
    Py_DECREF(type);
}

/* Who builds a million levels gets them released one by one. */
static void ls_release_nested(PyObject *self)
{
    Py_TRASHCAN_BEGIN(self, ls_release_instance)
    ls_release_slots(self);
    Py_TRASHCAN_END
}

/* Levels that are released as they come, the schema's own; what is deeper was built by hand. */
#define LS_PLAIN_LEVELS 16

/*
 * The deallocator of wire classes, in place of the general one of Python classes, which looks for dictionaries,
 * weak references, finalizers and base classes with slots that a plain layout cannot have: a tenth of the time
 * that a short-lived message takes. An instance of a subclass comes here from its own class's deallocator.
 */
static void ls_release_instance(PyObject *self)
{
    /* Other threads' releases may be counted too, when one is interrupted by a destructor: that only errs to safety. */
    static int levels = 0;
    PyObject_GC_UnTrack(self); /* one made by its constructor is tracked */
    levels += 1;
    if (levels <= LS_PLAIN_LEVELS) {
        ls_release_slots(self);
    }
    else {
        ls_release_nested(self);
    }
    levels -= 1;
}

static inline void ls_take_over_release(PyTypeObject *type)
{
    if (PyType_IS_GC(type)) { /* a class without fields has no slots to release */
        type->tp_dealloc = ls_release_instance;
    }
}

/* ── strings and floats ─────────────────────────────────────────────────────────────────────────────────────── */

/* Text whose bytes are all below 0x80. */
static inline PyObject *ls_ascii_string(const char *bytes, Py_ssize_t size)
{
    PyObject *made = PyUnicode_New(size, 127);
    if (made != NULL && size > 0) {
        memcpy(PyUnicode_1BYTE_DATA(made), bytes, (size_t)size);
    }
    return made;
}

static inline int ls_is_ascii_string(PyObject *text, const uint8_t *bytes, Py_ssize_t size)
{
    return PyUnicode_GET_LENGTH(text) == size && ls_same_bytes(PyUnicode_1BYTE_DATA(text), bytes, (size_t)size);
}

/*
 * mantissa * 10^exponent as a double, if the nearest one is certain: 1, else 0.
 *
 * With at most 53 bits of mantissa and a power of ten that is a double itself, both operands are exact and the
 * one rounding of the operation is the right one. Not so where intermediate results are wider (x87): they would
 * be rounded twice.
 */
static inline int ls_exact_double(uint64_t mantissa, int64_t exponent, int is_negative, double *out)
{
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 0
    static const double powers[23] = {
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
        1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
    };
    if (mantissa <= (UINT64_C(1) << 53) && exponent >= -22 && exponent <= 22) {
        double value = (double)mantissa;
        value = exponent >= 0 ? value * powers[exponent] : value / powers[-exponent];
        *out = is_negative ? -value : value;
        return 1;
    }
#endif
    return 0;
}

/*
 * The double nearest to the number, infinite if there is none; 0 with an exception set on failure. What has no
 * short way goes to Python's own parser, which wants a terminated text of its own.
 */
static int ls_nearest_double(const ls_number *number, double *out)
{
    char on_stack[64];
    char *text = on_stack;
    size_t size = (size_t)(number->end - number->begin);
    if (number->is_exact && ls_exact_double(number->mantissa, number->exponent, number->is_negative, out)) {
        return 1;
    }
    if (size >= sizeof on_stack && (text = PyMem_Malloc(size + 1)) == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    memcpy(text, number->begin, size);
    text[size] = 0;
    *out = PyOS_string_to_double(text, NULL, NULL);
    if (text != on_stack) {
        PyMem_Free(text);
    }
    return !(*out == -1.0 && PyErr_Occurred());
}

/* Tells Cython that an exception is set. */
static inline int ls_propagate(void)
{
    return -1;
}

#endif
