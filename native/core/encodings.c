/* Small numeric encodings: one-hot vectors, buckets between boundaries, rows padded to a matrix. */
#include "core.h"

/* A buffer of elements of 4 or 8 bytes; -1 with an exception. */
static int open_elements(PyObject *object, Py_buffer *view) {
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS) < 0) return -1;
    if (view->itemsize == 4 || view->itemsize == 8) return 0;
    PyBuffer_Release(view);
    PyErr_SetString(PyExc_ValueError, "expected elements of 4 or 8 bytes");
    return -1;
}

/* Fills `count` elements with the one at `value`. */
static void fill_elements(char *out, Py_ssize_t count, const void *value, Py_ssize_t size) {
    if (size == 4) {
        uint32_t pattern, *at = (uint32_t *)out;
        memcpy(&pattern, value, 4);
        for (Py_ssize_t i = 0; i < count; i++) at[i] = pattern;
    } else {
        uint64_t pattern, *at = (uint64_t *)out;
        memcpy(&pattern, value, 8);
        for (Py_ssize_t i = 0; i < count; i++) at[i] = pattern;
    }
}

/* Four buffers, the last writable: 0, or -1 with an exception and none open. */
static int open_four(PyObject *const *objects, Py_buffer *views) {
    for (int i = 0; i < 4; i++) {
        int failed = i < 3 ? open_elements(objects[i], &views[i]) : writable(objects[i], -1, views[2].itemsize, &views[i]);
        if (failed < 0) {
            while (i-- > 0) PyBuffer_Release(&views[i]);
            return -1;
        }
    }
    return 0;
}

static PyObject *close_four(Py_buffer *views, int done) {
    for (int i = 0; i < 4; i++) PyBuffer_Release(&views[i]);
    return PyBool_FromLong(done);
}

/* one_hot(ids, on, off, out) -> whether the sizes fit: for each id a row of `off` with `on` at its place, if it has one. */
PyObject *one_hot(PyObject *self, PyObject *args) {
    PyObject *objects[4];
    Py_buffer views[4];
    if (!PyArg_ParseTuple(args, "OOOO", &objects[0], &objects[1], &objects[2], &objects[3])) return NULL;
    if (open_four(objects, views) < 0) return NULL;
    Py_ssize_t size = views[1].itemsize, wide = views[0].itemsize, count = views[0].len / wide, total = views[3].len / size;
    if (views[1].len != size || views[2].len != size || views[2].itemsize != size || count == 0 || total % count)
        return close_four(views, count == 0 && total == 0);
    Py_ssize_t depth = total / count;
    fill_elements(views[3].buf, total, views[2].buf, size);
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t id = wide == 8 ? ((const int64_t *)views[0].buf)[i] : ((const int32_t *)views[0].buf)[i];
        if ((uint64_t)id < (uint64_t)depth) memcpy((char *)views[3].buf + (i * depth + id) * size, views[1].buf, (size_t)size);
    }
    return close_four(views, 1);
}

/* pad_rows(values, lengths, pad, out) -> whether the lengths fit: consecutive rows, cut or padded to the width of `out`. */
PyObject *pad_rows(PyObject *self, PyObject *args) {
    PyObject *objects[4];
    Py_buffer views[4];
    if (!PyArg_ParseTuple(args, "OOOO", &objects[0], &objects[1], &objects[2], &objects[3])) return NULL;
    if (open_four(objects, views) < 0) return NULL;
    Py_ssize_t size = views[0].itemsize, values = views[0].len / size, rows = views[1].len / 8, total = views[3].len / size;
    if (views[1].itemsize != 8 || views[2].len != size || views[2].itemsize != size || rows == 0 || total % rows) return close_four(views, 0);
    Py_ssize_t width = total / rows, used = 0;
    const char *at = views[0].buf;
    char *out = views[3].buf;
    for (Py_ssize_t row = 0; row < rows; row++, out += width * size) {
        int64_t length = ((const int64_t *)views[1].buf)[row];
        if (length < 0 || length > values - used) return close_four(views, 0);
        Py_ssize_t kept = length < width ? (Py_ssize_t)length : width;
        if (kept > 0) memcpy(out, at, (size_t)(kept * size));
        fill_elements(out + kept * size, width - kept, views[2].buf, size);
        at += length * size;
        used += (Py_ssize_t)length;
    }
    return close_four(views, used == values);
}

enum { FEW = 16 }; /* boundaries that are compared one by one */

static int ascending(const float *edges, Py_ssize_t count) {
    for (Py_ssize_t i = 0; i + 1 < count; i++)
        if (!(edges[i] <= edges[i + 1])) return 0;
    return count == 0 || edges[0] == edges[0];
}

/* The first of ascending edges above a value: NaN is above all. */
static Py_ssize_t upper_bound(const float *edges, Py_ssize_t count, float value) {
    Py_ssize_t low = 0;
    while (low < count) {
        Py_ssize_t middle = low + (count - low) / 2;
        if (!(edges[middle] > value)) low = middle + 1;
        else count = middle;
    }
    return low;
}

/* buckets(values, edges, flush, out): the number of edges less than or equal to each float; `flush` takes denormals for zero. */
PyObject *buckets(PyObject *self, PyObject *args) {
    PyObject *given, *bounds, *target;
    Py_buffer values, edges, out;
    int flush, done = 0;
    if (!PyArg_ParseTuple(args, "OOpO", &given, &bounds, &flush, &target)) return NULL;
    if (open_elements(given, &values) < 0) return NULL;
    if (open_elements(bounds, &edges) == 0) {
        Py_ssize_t count = values.len / 4, limits = edges.len / 4;
        if (writable(target, count, 4, &out) == 0) {
            const float *edge = edges.buf;
            int32_t *found = out.buf;
            done = 1;
            if (limits <= FEW && ascending(edge, limits)) {
                const float *x = values.buf;
                memset(found, 0, (size_t)out.len);
                for (Py_ssize_t k = 0; k < limits; k++) {
                    float limit = edge[k], least = flush ? 0x1p-126f : 0.0f;
                    for (Py_ssize_t i = 0; i < count; i++) {
                        float value = x[i] < least && x[i] > -least ? 0.0f : x[i];
                        found[i] += !(limit > value);
                    }
                }
            } else {
                for (Py_ssize_t i = 0; i < count; i++) {
                    float value = ((const float *)values.buf)[i];
                    if (flush && value < 0x1p-126f && value > -0x1p-126f) value = 0.0f;
                    found[i] = (int32_t)upper_bound(edge, limits, value);
                }
            }
            PyBuffer_Release(&out);
        }
        PyBuffer_Release(&edges);
    }
    PyBuffer_Release(&values);
    if (!done) return NULL;
    Py_RETURN_NONE;
}
