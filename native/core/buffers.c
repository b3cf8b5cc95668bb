/* Arrays passed from Python, and growable buffers returned to it. */
#include "core.h"

int writable(PyObject *object, Py_ssize_t count, Py_ssize_t size, Py_buffer *view) {
    if (PyObject_GetBuffer(object, view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) < 0) return -1;
    if (view->len % size == 0 && (count < 0 || view->len / size == count)) return 0;
    PyBuffer_Release(view);
    PyErr_SetString(PyExc_ValueError, "the buffer has another size");
    return -1;
}

int open_objects(PyObject *array, Py_ssize_t many, Objects *objects) {
    memset(objects, 0, sizeof *objects);
    if (PyObject_GetBuffer(array, &objects->view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) < 0) return -1;
    if (objects->view.format == NULL || strcmp(objects->view.format, "O") != 0 || objects->view.itemsize != sizeof(PyObject *)) {
        PyBuffer_Release(&objects->view);
        PyErr_SetString(PyExc_ValueError, "expected an array of objects");
        return -1;
    }
    objects->items = objects->view.buf;
    objects->count = objects->view.len / (Py_ssize_t)sizeof(PyObject *);
    if (objects->count < many) return 0;
    PyObject **kept = PyMem_RawMalloc((size_t)objects->view.len); /* another thread may replace the objects in the array */
    if (kept == NULL) {
        PyBuffer_Release(&objects->view);
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < objects->count; i++) {
        kept[i] = objects->items[i];
        Py_XINCREF(kept[i]);
    }
    objects->items = kept;
    objects->thread = PyEval_SaveThread();
    return 0;
}

void take_lock(Objects *objects) {
    if (objects->thread != NULL) PyEval_RestoreThread(objects->thread);
    objects->thread = NULL;
}

void close_objects(Objects *objects) {
    take_lock(objects);
    if (objects->items != objects->view.buf) {
        for (Py_ssize_t i = 0; i < objects->count; i++) Py_XDECREF(objects->items[i]);
        PyMem_RawFree(objects->items);
    }
    PyBuffer_Release(&objects->view);
}

int make_room(Pile *pile, size_t size) {
    if (size > pile->room - pile->used) {
        size_t room = pile->room < 128 ? 256 : 2 * pile->room;
        while (room - pile->used < size) {
            if (room > SIZE_MAX / 4) return 0;
            room *= 2;
        }
        char *grown = PyMem_RawRealloc(pile->data, room);
        if (grown == NULL) return 0;
        pile->data = grown;
        pile->room = room;
    }
    return 1;
}

int pile(Pile *pile, const void *data, size_t size) {
    if (!make_room(pile, size)) return 0;
    if (size == 0) return 1;  /* an empty buffer has no memory yet, and memcpy must not get NULL */
    memcpy(pile->data + pile->used, data, size);
    pile->used += size;
    return 1;
}

PyObject *row_list(const Pile *rows) {
    Py_ssize_t count = (Py_ssize_t)(rows->used / sizeof(Py_ssize_t)), row;
    if (count == 0) Py_RETURN_NONE;
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        memcpy(&row, rows->data + (size_t)i * sizeof row, sizeof row);
        PyObject *number = PyLong_FromSsize_t(row);
        if (number == NULL) { Py_CLEAR(list); break; }
        PyList_SET_ITEM(list, i, number);
    }
    return list;
}
