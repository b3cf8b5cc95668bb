/* Ids of keys, from a Python dict. */
#include "core.h"

/* The id of a key, `missing` if the dict lacks it; -1 with an exception on errors. */
static int64_t id_of(PyObject *ids, PyObject *key, int64_t missing) {
    PyObject *found = PyDict_GetItemWithError(ids, key);
    if (found != NULL) return PyLong_AsLongLong(found);
    return PyErr_Occurred() ? -1 : missing;
}

/* lookup(ids, keys, missing, out) -> bool: the id of each key, as int64s. */
PyObject *lookup(PyObject *self, PyObject *args) {
    PyObject *ids, *keys, *out;
    long long missing;
    Py_buffer view;
    if (!PyArg_ParseTuple(args, "O!O!LO", &PyDict_Type, &ids, &PyList_Type, &keys, &missing, &out)) return NULL;
    Py_ssize_t count = PyList_GET_SIZE(keys);
    if (writable(out, count, 8, &view) < 0) return NULL;
    int plain = 1;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *key = PyList_GET_ITEM(keys, i); /* exact types: comparing them runs no Python code that could change the list */
        if (!PyBytes_CheckExact(key) && !PyLong_CheckExact(key)) { plain = 0; break; }
        int64_t id = id_of(ids, key, missing);
        if (id == -1 && PyErr_Occurred()) { PyBuffer_Release(&view); return NULL; }
        memcpy((char *)view.buf + 8 * i, &id, 8);
    }
    PyBuffer_Release(&view);
    return PyBool_FromLong(plain);
}

