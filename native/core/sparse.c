/* Integers of sparse tensors: fill empty rows, chunk segments, find unique ids. */
#include "core.h"
#include <math.h>

/* A buffer of int64s, read-only or writable; -1 with an exception. */
static int integers(PyObject *object, int flags, Py_buffer *view) {
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS | flags) < 0) return -1;
    if (view->itemsize == 8) return 0;
    PyBuffer_Release(view);
    PyErr_SetString(PyExc_ValueError, "expected 64-bit integers");
    return -1;
}

static int64_t *table_of(Py_ssize_t count) { return PyMem_RawCalloc((size_t)count + 1, sizeof(int64_t)); }

/* Writes the elements and the empty rows to `out`; returns their number, -1 if a row is out of range. `next` is zeroed. */
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

/* fill_rows(indices, rank, out, position, empty) -> elements, or -1 if a row is out of range: `indices` with an element added to each
 * empty row, the new position of each element, and a mask of empty rows. `out` has room for one more element per row. */
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

/* The number of chunks, -1 if the ids are not ascending or out of range. */
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

/* The unique values in order of first occurrence; returns their number. `slots` holds `mask + 1` zeros: an index + 1. */
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

/* distinct(given, values, inverse, counts) -> number: the unique int64s in order of first occurrence, the index of
 * each element among them, and their counts. All four have the same size. */
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

/* -- bags: the ids of each row of a sparse tensor, and the sums of their embeddings ---------------------------------------------- */

/* The ids of each row one after another, in their order, and how many each row has; -1 where a row is out of range. `next` has
 * `count + 1` zeros. A negative id is left out. */
static Py_ssize_t gather_bags(const int64_t *indices, Py_ssize_t elements, Py_ssize_t rank, const int64_t *values, Py_ssize_t count, int64_t *next, int64_t *rows, int64_t *ids, int64_t *lengths) {
    int64_t last = 0;
    int ascending = 1;
    Py_ssize_t used = 0;
    memset(lengths, 0, (size_t)count * sizeof *lengths);
    for (Py_ssize_t i = 0; i < elements; i++) {
        if (values[i] < 0) continue;
        int64_t row = indices[i * rank];
        if (row < 0 || row >= count) return -1;
        if (row < last) ascending = 0;
        last = row;
        lengths[row]++;
        rows[used] = row;
        ids[used++] = values[i];
    }
    if (ascending) return used;
    for (Py_ssize_t row = 0, total = 0; row < count; total += (Py_ssize_t)lengths[row++]) next[row] = total;
    for (Py_ssize_t i = 0; i < elements; i++)
        if (values[i] >= 0) ids[next[indices[i * rank]]++] = values[i];
    for (Py_ssize_t row = 0, at = 0; row < count; row++)
        for (int64_t i = 0; i < lengths[row]; i++) rows[at++] = row;
    return used;
}

/* bags(indices, rank, values, ids, chunks, owners, lengths) -> (ids, chunks), how many there are, or None where a row is out of
 * range: see `sparse_bags` in ops/sparse.py. `ids`, `chunks` and `owners` have the size of `values`, `lengths` one number a row. */
PyObject *bags(PyObject *self, PyObject *args) {
    PyObject *given, *numbers, *targets[4];
    Py_ssize_t rank, used = -1, chunked = -1, opened = 0;
    Py_buffer indices, values, out[4];
    if (!PyArg_ParseTuple(args, "OnOOOOO", &given, &rank, &numbers, &targets[0], &targets[1], &targets[2], &targets[3])) return NULL;
    if (integers(given, 0, &indices) < 0) return NULL;
    if (integers(numbers, 0, &values) < 0) {
        PyBuffer_Release(&indices);
        return NULL;
    }
    Py_ssize_t elements = values.len / 8;
    while (opened < 4 && writable(targets[opened], opened < 3 ? elements : -1, 8, &out[opened]) == 0) opened++;
    int fits = rank > 0 && indices.len / 8 == elements * rank;
    if (opened == 4 && fits) {
        Py_ssize_t count = out[3].len / 8;
        int64_t *next = table_of(count + elements);
        if (next != NULL) {
            int64_t *rows = next + count;
            used = gather_bags(indices.buf, elements, rank, values.buf, count, next, rows, out[0].buf, out[3].buf);
            if (used >= 0) chunked = cut_segments(rows, used, count, out[1].buf, out[2].buf, out[3].buf);
        } else PyErr_NoMemory();
        PyMem_RawFree(next);
    } else if (opened == 4) PyErr_SetString(PyExc_ValueError, "an index for each value is needed");
    while (opened > 0) PyBuffer_Release(&out[--opened]);
    PyBuffer_Release(&values);
    PyBuffer_Release(&indices);
    if (PyErr_Occurred()) return NULL;
    if (used < 0) Py_RETURN_NONE;
    return Py_BuildValue("nn", used, chunked);
}

static void add(float *restrict sum, const float *restrict row, Py_ssize_t width) {
    for (Py_ssize_t j = 0; j < width; j++) sum[j] += row[j];
}

enum { AHEAD = 6, LINE = 16 }; /* rows that are asked of memory before their turn; floats of a line of its */

/* The sum of `size` rows, one after another; `end` is behind the last row of all. */
static void add_up(float *restrict sum, const float *data, const int64_t *rows, Py_ssize_t size, Py_ssize_t width, const int64_t *end) {
    for (Py_ssize_t i = 0; i < size; i++) {
        if (end - (rows + i) > AHEAD)
            for (Py_ssize_t j = 0; j < width; j += LINE) __builtin_prefetch(data + rows[i + AHEAD] * width + j);
        if (i == 0) memcpy(sum, data + rows[0] * width, (size_t)width * sizeof *sum);
        else add(sum, data + rows[i] * width, width);
    }
}

enum { SCALED = 10 }; /* segments of fewer rows are multiplied by 1/n, others divided by n */

/* Each segment's rows added up in chunks, then divided: `by` 0 by nothing, 1 by their number, 2 by its root. */
static void add_segments(const float *data, Py_ssize_t width, const int64_t *rows, const int64_t *end, const int64_t *lengths, Py_ssize_t count, int by, float *chunk, float *out) {
    for (Py_ssize_t segment = 0; segment < count; segment++, out += width) {
        Py_ssize_t size = (Py_ssize_t)lengths[segment], head = size % CHUNK < 2 ? size % CHUNK + CHUNK : size % CHUNK;
        if (size == 0) {
            memset(out, 0, (size_t)width * sizeof *out);
            continue;
        }
        if (head > size) head = size;
        add_up(out, data, rows, head, width, end);
        for (Py_ssize_t i = head; i < size; i += CHUNK) {
            add_up(chunk, data, rows + i, CHUNK, width, end);
            add(out, chunk, width);
        }
        rows += size;
        if (by == 0) continue;
        float divisor = by == 1 ? (float)size : (float)sqrt((double)size), factor = 1 / divisor;
        if (size < SCALED) for (Py_ssize_t j = 0; j < width; j++) out[j] *= factor;
        else for (Py_ssize_t j = 0; j < width; j++) out[j] /= divisor;
    }
}

static int are_rows(const int64_t *rows, Py_ssize_t elements, Py_ssize_t height, const int64_t *lengths, Py_ssize_t count) {
    for (Py_ssize_t i = 0; i < elements; i++)
        if ((uint64_t)rows[i] >= (uint64_t)height) return 0;
    Py_ssize_t left = elements;
    for (Py_ssize_t i = 0; i < count; left -= (Py_ssize_t)lengths[i++])
        if (lengths[i] < 0 || lengths[i] > left) return 0;
    return left == 0;
}

/* segment_sums(data, rows, lengths, by, out) -> bool: `sparse_segment_reduce` of ops/segments.py for matrices of floats; False
 * where a row is not one of `data`, or the lengths are not those of the rows. */
PyObject *segment_sums(PyObject *self, PyObject *args) {
    PyObject *sources[3], *target;
    Py_buffer in[3], out;
    int by, done = 0, opened = 0;
    if (!PyArg_ParseTuple(args, "OOOiO", &sources[0], &sources[1], &sources[2], &by, &target)) return NULL;
    if (PyObject_GetBuffer(sources[0], &in[0], PyBUF_C_CONTIGUOUS | PyBUF_ND) < 0) return NULL;
    for (opened = 1; opened < 3 && integers(sources[opened], 0, &in[opened]) == 0;) opened++;
    if (opened == 3 && in[0].itemsize == sizeof(float) && in[0].ndim == 2) {
        Py_ssize_t width = in[0].shape[1], count = in[2].len / 8;
        if (writable(target, count * width, sizeof(float), &out) == 0) {
            float *chunk = PyMem_RawMalloc((size_t)(width + 1) * sizeof *chunk);
            if (chunk == NULL) PyErr_NoMemory();
            else {
                Py_BEGIN_ALLOW_THREADS;
                done = are_rows(in[1].buf, in[1].len / 8, in[0].shape[0], in[2].buf, count);
                if (done) add_segments(in[0].buf, width, in[1].buf, (int64_t *)in[1].buf + in[1].len / 8, in[2].buf, count, by, chunk, out.buf);
                Py_END_ALLOW_THREADS;
            }
            PyMem_RawFree(chunk);
            PyBuffer_Release(&out);
        }
    } else if (opened == 3) PyErr_SetString(PyExc_ValueError, "expected a matrix of 32-bit floats");
    while (opened > 0) PyBuffer_Release(&in[--opened]);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(done);
}

/* -- histograms --------------------------------------------------------------------------------------------------------------- */

#define COUNT(name, type)                                                                                                            \
    static void name(const int64_t *values, Py_ssize_t size, int once, Py_ssize_t bins, type *out) {                                 \
        for (Py_ssize_t i = 0; i < size; i++) {                                                                                      \
            if (values[i] >= bins) continue;                                                                                         \
            if (once) out[values[i]] = 1;                                                                                            \
            else out[values[i]] += 1;                                                                                                \
        }                                                                                                                            \
    }
COUNT(count_floats, float)
COUNT(count_integers, int64_t)

/* histogram(values, splits, once, out) -> bool: how often each value below the width of `out` occurs in each row, or whether it
 * does; `out` [rows, width] holds zeros, floats or int64s. False where a value is negative, or the splits are not those of the values. */
PyObject *histogram(PyObject *self, PyObject *args) {
    PyObject *given, *ends, *target;
    Py_buffer values, splits, out;
    int once, done = 0;
    if (!PyArg_ParseTuple(args, "OOpO", &given, &ends, &once, &target)) return NULL;
    if (integers(given, 0, &values) < 0) return NULL;
    if (integers(ends, 0, &splits) == 0) {
        if (PyObject_GetBuffer(target, &out, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS | PyBUF_ND) == 0) {
            const int64_t *numbers = values.buf, *at = splits.buf;
            Py_ssize_t count = values.len / 8, rows = splits.len / 8 - 1;
            if (out.ndim != 2 || out.shape[0] != rows || (out.itemsize != 4 && out.itemsize != 8))
                PyErr_SetString(PyExc_ValueError, "expected a row of numbers for each two splits");
            else {
                done = at[0] == 0 && at[rows] == count;
                for (Py_ssize_t i = 0; done && i < rows; i++) done = at[i] <= at[i + 1];
                for (Py_ssize_t i = 0; done && i < count; i++) done = numbers[i] >= 0;
                for (Py_ssize_t i = 0, width = out.shape[1]; done && i < rows; i++) {
                    if (out.itemsize == 4) count_floats(numbers + at[i], at[i + 1] - at[i], once, width, (float *)out.buf + i * width);
                    else count_integers(numbers + at[i], at[i + 1] - at[i], once, width, (int64_t *)out.buf + i * width);
                }
            }
            PyBuffer_Release(&out);
        }
        PyBuffer_Release(&splits);
    }
    PyBuffer_Release(&values);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(done);
}
