/* The integers of sparse tensors: rows filled up, segments cut into chunks, different ids found. */
#include "core.h"

/* A buffer of int64s, read-only or writable; -1 with an exception. */
static int integers(PyObject *object, int flags, Py_buffer *view) {
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | flags) < 0) return -1;
    if (view->itemsize == 8) return 0;
    PyBuffer_Release(view);
    PyErr_SetString(PyExc_ValueError, "expected 64-bit integers");
    return -1;
}

static int64_t *table_of(Py_ssize_t count) { return PyMem_RawCalloc((size_t)count + 1, sizeof(int64_t)); }

/* The elements and the empty rows onto `out`; how many there are, -1 where a row is out of range. `next` holds zeros. */
static Py_ssize_t fill(const int64_t *indices, Py_ssize_t elements, Py_ssize_t rank, Py_ssize_t count, int64_t *next, int64_t *out, int64_t *position, char *empty) {
    for (Py_ssize_t i = 0; i < elements; i++) {
        int64_t row = indices[i * rank];
        if (row < 0 || row >= count) return -1;
        next[row]++;
    }
    Py_ssize_t total = 0;
    for (Py_ssize_t row = 0; row < count; row++) {
        Py_ssize_t size = (Py_ssize_t)next[row];
        empty[row] = size == 0;
        next[row] = total;
        if (size == 0) {
            memset(out + total * rank, 0, (size_t)rank * sizeof *out);
            out[total * rank] = row;
        }
        total += size ? size : 1;
    }
    for (Py_ssize_t i = 0; i < elements; i++) {
        int64_t place = next[indices[i * rank]]++;
        memcpy(out + place * rank, indices + i * rank, (size_t)rank * sizeof *out);
        position[i] = place;
    }
    return total;
}

/* fill_rows(indices, rank, out, position, empty) -> elements, or -1 where a row is out of range: `indices` with one element in each
 * row that has none, where each element went, and which rows were empty. `out` has room for an element of each row more. */
PyObject *fill_rows(PyObject *self, PyObject *args) {
    PyObject *given, *target, *places, *flags;
    Py_ssize_t rank, total = -2;
    Py_buffer indices, out, position, empty;
    if (!PyArg_ParseTuple(args, "OnOOO", &given, &rank, &target, &places, &flags)) return NULL;
    if (integers(given, 0, &indices) < 0) return NULL;
    Py_ssize_t elements = rank > 0 ? indices.len / 8 / rank : 0;
    if (writable(flags, -1, 1, &empty) == 0) {
        if (writable(target, (elements + empty.len) * rank, 8, &out) == 0) {
            if (writable(places, elements, 8, &position) == 0) {
                int64_t *next = table_of(empty.len);
                if (next != NULL) total = fill(indices.buf, elements, rank, empty.len, next, out.buf, position.buf, empty.buf);
                else PyErr_NoMemory();
                PyMem_RawFree(next);
                PyBuffer_Release(&position);
            }
            PyBuffer_Release(&out);
        }
        PyBuffer_Release(&empty);
    }
    PyBuffer_Release(&indices);
    return total == -2 ? NULL : PyLong_FromSsize_t(total);
}

enum { CHUNK = 8 };

/* How many chunks there are, -1 where the ids are not ascending or out of range. */
static Py_ssize_t cut_segments(const int64_t *ids, Py_ssize_t rows, Py_ssize_t count, int64_t *chunks, int64_t *owners, int64_t *lengths) {
    Py_ssize_t used = 0;
    memset(lengths, 0, (size_t)count * sizeof *lengths);
    for (Py_ssize_t start = 0, end; start < rows; start = end) {
        int64_t id = ids[start];
        if (id < 0 || id >= count || (start > 0 && id < ids[start - 1])) return -1;
        for (end = start; end < rows && ids[end] == id;) end++;
        Py_ssize_t size = end - start, head = size % CHUNK < 2 ? size % CHUNK + CHUNK : size % CHUNK;
        if (head > size) head = size;
        for (Py_ssize_t i = start; i < end; i++) chunks[i] = used + (i - start < head ? 0 : 1 + (i - start - head) / CHUNK);
        for (Py_ssize_t last = (Py_ssize_t)chunks[end - 1]; used <= last; used++) owners[used] = id;
        lengths[id] = size;
    }
    return used;
}

/* chunks(ids, chunks, owners, lengths) -> chunks, or -1: see `segment_chunks` in ops/segments.py. */
PyObject *chunks(PyObject *self, PyObject *args) {
    PyObject *given, *first, *second, *third;
    Py_ssize_t used = -2;
    Py_buffer ids, chunk, owners, lengths;
    if (!PyArg_ParseTuple(args, "OOOO", &given, &first, &second, &third)) return NULL;
    if (integers(given, 0, &ids) < 0) return NULL;
    Py_ssize_t rows = ids.len / 8;
    if (writable(first, rows, 8, &chunk) == 0) {
        if (writable(second, rows, 8, &owners) == 0) {
            if (writable(third, -1, 8, &lengths) == 0) {
                used = cut_segments(ids.buf, rows, lengths.len / 8, chunk.buf, owners.buf, lengths.buf);
                PyBuffer_Release(&lengths);
            }
            PyBuffer_Release(&owners);
        }
        PyBuffer_Release(&chunk);
    }
    PyBuffer_Release(&ids);
    return used == -2 ? NULL : PyLong_FromSsize_t(used);
}

/* The different values in the order of their first occurrence; how many. `slots` holds `mask + 1` zeros: a place + 1. */
static Py_ssize_t find_distinct(const int64_t *given, Py_ssize_t count, int64_t *slots, uint64_t mask, int64_t *values, int64_t *inverse, int64_t *counts) {
    Py_ssize_t used = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint64_t value = (uint64_t)given[i], slot = value * 0x9E3779B97F4A7C15u;
        for (slot = (slot ^ slot >> 32) & mask; slots[slot] != 0 && values[slots[slot] - 1] != given[i];) slot = (slot + 1) & mask;
        if (slots[slot] == 0) {
            values[used] = given[i];
            counts[used] = 0;
            slots[slot] = ++used;
        }
        inverse[i] = slots[slot] - 1;
        counts[inverse[i]]++;
    }
    return used;
}

/* distinct(given, values, inverse, counts) -> how many: the different int64s in the order of their first occurrence, the place of
 * each among them, and how often they occur. All four have one size. */
PyObject *distinct(PyObject *self, PyObject *args) {
    PyObject *array, *first, *second, *third;
    Py_ssize_t used = -1;
    Py_buffer given, values, inverse, counts;
    if (!PyArg_ParseTuple(args, "OOOO", &array, &first, &second, &third)) return NULL;
    if (integers(array, 0, &given) < 0) return NULL;
    Py_ssize_t count = given.len / 8, size = 16;
    while (size < 2 * count) size *= 2;
    if (writable(first, count, 8, &values) == 0) {
        if (writable(second, count, 8, &inverse) == 0) {
            if (writable(third, count, 8, &counts) == 0) {
                int64_t *slots = table_of(size);
                if (slots != NULL) used = find_distinct(given.buf, count, slots, (uint64_t)size - 1, values.buf, inverse.buf, counts.buf);
                else PyErr_NoMemory();
                PyMem_RawFree(slots);
                PyBuffer_Release(&counts);
            }
            PyBuffer_Release(&inverse);
        }
        PyBuffer_Release(&values);
    }
    PyBuffer_Release(&given);
    return used < 0 ? NULL : PyLong_FromSsize_t(used);
}
