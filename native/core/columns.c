/* Lists of Python strings and numbers to arrays. */
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

typedef struct {
    char format; /* of the array: an integer or float of `size` bytes */
    Py_ssize_t size;
} Number;

/* Writes a float or integer with numpy's casting; 0 for other types or if it does not fit. Runs no Python code. */
static int put_number(PyObject *item, PyTypeObject *type, Number number, char *place) {
    if (Py_TYPE(item) != type) return 0;
    if (type == &PyFloat_Type) {
        double value = PyFloat_AS_DOUBLE(item);
        float narrow = (float)value;
        if (number.format != 'f') return 0;
        memcpy(place, number.size == 8 ? (void *)&value : (void *)&narrow, (size_t)number.size);
        return 1;
    }
    int overflow;
    int64_t value = PyLong_AsLongLongAndOverflow(item, &overflow);
    if (overflow) return 0;
    if (number.format == 'f') {
        double wide = (double)value;
        float narrow = (float)wide; /* rounds twice, like numpy */
        memcpy(place, number.size == 8 ? (void *)&wide : (void *)&narrow, (size_t)number.size);
        return 1;
    }
    int32_t half = (int32_t)value;
    if (number.size == 4 && half != value) return 0;
    memcpy(place, number.size == 8 ? (void *)&value : (void *)&half, (size_t)number.size);
    return 1;
}

/* numbers(list, out) -> bool: a list of `float`, or one of `int`, as an array of floats or signed integers of 4 or 8 bytes. */
PyObject *numbers(PyObject *self, PyObject *args) {
    PyObject *list, *out;
    Py_buffer view;
    if (!PyArg_ParseTuple(args, "O!O", &PyList_Type, &list, &out)) return NULL;
    if (PyObject_GetBuffer(out, &view, PyBUF_WRITABLE | PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) < 0) return NULL;
    Py_ssize_t count = PyList_GET_SIZE(list), i = 0;
    const char *format = view.format == NULL ? "" : view.format;
    Number number = {strchr("fd", format[0]) ? 'f' : 'i', view.itemsize};
    int fits = strlen(format) == 1 && strchr("fdilq", format[0]) && (number.size == 4 || number.size == 8) && view.len == count * number.size;
    PyTypeObject *type = count ? Py_TYPE(PyList_GET_ITEM(list, 0)) : NULL;
    if (fits && (type == &PyFloat_Type || type == &PyLong_Type))
        while (i < count && put_number(PyList_GET_ITEM(list, i), type, number, (char *)view.buf + i * number.size)) i++;
    PyBuffer_Release(&view);
    if (fits) return PyBool_FromLong(i == count);
    PyErr_SetString(PyExc_ValueError, "expected an array of as many numbers");
    return NULL;
}
