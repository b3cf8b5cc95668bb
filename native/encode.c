/* Python's strings to bytes. */
#include "core.h"

static PyObject *encoded(PyObject *item) {
    if (PyBytes_CheckExact(item)) return Py_NewRef(item);
    if (!PyUnicode_CheckExact(item)) return NULL;
    if (PyUnicode_IS_COMPACT_ASCII(item)) return PyBytes_FromStringAndSize((const char *)PyUnicode_1BYTE_DATA(item), PyUnicode_GET_LENGTH(item));
    return PyUnicode_AsUTF8String(item);
}

/* encode(strings, out) -> bool: a list or tuple of `str` or `bytes` as an array of `bytes`. */
PyObject *encode(PyObject *self, PyObject *args) {
    PyObject *list, *out;
    Py_buffer view;
    if (!PyArg_ParseTuple(args, "OO", &list, &out)) return NULL;
    if (!PyList_CheckExact(list) && !PyTuple_CheckExact(list)) Py_RETURN_FALSE;
    if (PyObject_GetBuffer(out, &view, PyBUF_WRITABLE | PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) < 0) return NULL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(list), i = 0;
    if (view.format == NULL || strcmp(view.format, "O") != 0 || view.len != count * (Py_ssize_t)sizeof(PyObject *)) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_ValueError, "expected an array of as many objects");
        return NULL;
    }
    for (PyObject **place = view.buf; i < count && i < PySequence_Fast_GET_SIZE(list); i++, place++) {
        PyObject *value = encoded(PySequence_Fast_GET_ITEM(list, i)), *before = *place;
        if (value == NULL) break;
        *place = value;
        Py_XDECREF(before);
    }
    PyBuffer_Release(&view);
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return NULL;
        PyErr_Clear();
    }
    return PyBool_FromLong(i == count);
}
