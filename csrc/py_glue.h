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

/* PyObject_GC_New without its cast: an instance with its header, neither zeroed nor tracked by the collector. */
static inline PyObject *ls_new_instance(PyTypeObject *type)
{
    return PyType_IS_GC(type) ? PyObject_GC_New(PyObject, type) : PyObject_New(PyObject, type);
}

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

/*
 * The deallocator of wire classes, in place of the general one of Python classes, which looks for dictionaries,
 * weak references, finalizers and base classes with slots that a plain layout cannot have: a tenth of the time
 * that a short-lived message takes. An instance of a subclass comes here from its own class's deallocator.
 */
static void ls_release_instance(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyTypeObject *owner = type;
    while (owner->tp_dealloc != ls_release_instance) {
        owner = owner->tp_base;
    }
    PyObject_GC_UnTrack(self); /* one made by its constructor is tracked */
    Py_TRASHCAN_BEGIN(self, ls_release_instance) /* who builds a million levels gets them released one by one */
    PyObject **slot = (PyObject **)((char *)self + sizeof(PyObject));
    PyObject **last = (PyObject **)((char *)self + owner->tp_basicsize);
    for (; slot < last; slot++) {
        Py_XDECREF(*slot);
    }
    type->tp_free(self);
    Py_DECREF(type);
    Py_TRASHCAN_END
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
