/* Places in tensors: whether indices lie inside a shape, where they stand in it laid flat, and crosses of rows. */
#include "core.h"

enum { MOST_AXES = 16 };

/* A buffer of 64-bit integers; -1 with an exception. */
static int open_numbers(PyObject *object, Py_buffer *view) {
    if (PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS) < 0) return -1;
    if (view->itemsize == 8) return 0;
    PyBuffer_Release(view);
    PyErr_SetString(PyExc_ValueError, "expected 64-bit integers");
    return -1;
}

/* The sizes of a tuple of integers; their number, 0 for what is left to Python, -1 with an exception. */
static Py_ssize_t read_sizes(PyObject *given, int64_t *sizes) {
    Py_ssize_t rank = PyTuple_GET_SIZE(given);
    int64_t total = 1;
    if (rank > MOST_AXES) return 0;
    for (Py_ssize_t i = 0; i < rank; i++) {
        sizes[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(given, i));
        if (sizes[i] == -1 && PyErr_Occurred()) return -1;
        if (sizes[i] < 0 || __builtin_mul_overflow(total, sizes[i] ? sizes[i] : 1, &total)) return 0;
    }
    return rank;
}

/* 2 if the flat places ascend, 1 if all indices are inside, else 0. */
static int flatten(const int64_t *indices, Py_ssize_t rows, const int64_t *sizes, Py_ssize_t rank, int64_t *out) {
    int64_t before = -1;
    int ascending = 1;
    for (Py_ssize_t i = 0; i < rows; i++) {
        int64_t place = 0;
        for (Py_ssize_t axis = 0; axis < rank; axis++) {
            int64_t index = *indices++;
            if ((uint64_t)index >= (uint64_t)sizes[axis]) return 0;
            place = place * sizes[axis] + index;
        }
        ascending &= place > before;
        before = place;
        if (out != NULL) out[i] = place;
    }
    return 1 + ascending;
}

/* places(indices, sizes, out) -> 2 if the flat places ascend strictly, 1 if they do not, 0 if an index is outside (or for Python).
 * `out` receives the places, unless it is None. */
PyObject *places(PyObject *self, PyObject *args) {
    PyObject *given, *shape, *target;
    int64_t sizes[MOST_AXES];
    Py_buffer indices, out = {0};
    int found = 0;
    if (!PyArg_ParseTuple(args, "OO!O", &given, &PyTuple_Type, &shape, &target)) return NULL;
    Py_ssize_t rank = read_sizes(shape, sizes);
    if (rank < 0) return NULL;
    if (rank == 0) return PyLong_FromLong(0);
    if (open_numbers(given, &indices) < 0) return NULL;
    Py_ssize_t rows = indices.len / 8 / rank;
    if (target == Py_None || writable(target, rows, 8, &out) == 0) {
        found = flatten(indices.buf, rows, sizes, rank, out.buf);
        if (out.obj != NULL) PyBuffer_Release(&out);
    }
    PyBuffer_Release(&indices);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(found);
}

/* below(numbers, limit) -> whether all int32s or int64s are in [0, limit). */
PyObject *below(PyObject *self, PyObject *args) {
    PyObject *given;
    long long limit;
    Py_buffer numbers;
    uint64_t outside = 0;
    if (!PyArg_ParseTuple(args, "OL", &given, &limit)) return NULL;
    if (PyObject_GetBuffer(given, &numbers, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    uint64_t end = limit < 0 ? 0 : (uint64_t)limit;
    Py_ssize_t count = numbers.itemsize > 0 ? numbers.len / numbers.itemsize : 0;
    if (numbers.itemsize == 8) {
        const int64_t *at = numbers.buf;
        for (Py_ssize_t i = 0; i < count; i++) outside |= (uint64_t)at[i] >= end;
    } else if (numbers.itemsize == 4) {
        const int32_t *at = numbers.buf;
        for (Py_ssize_t i = 0; i < count; i++) outside |= (uint64_t)(int64_t)at[i] >= end;
    } else outside = 1;
    PyBuffer_Release(&numbers);
    return PyBool_FromLong(outside == 0);
}

/* spread(lengths, out) -> the longest row, -1 if the lengths do not add up to the rows of `out`: (row, column) of each value. */
PyObject *spread(PyObject *self, PyObject *args) {
    PyObject *given, *target;
    Py_buffer lengths, out;
    int64_t longest = 0, total = 0;
    if (!PyArg_ParseTuple(args, "OO", &given, &target)) return NULL;
    if (open_numbers(given, &lengths) < 0) return NULL;
    if (writable(target, -1, 16, &out) == 0) {
        int64_t *at = out.buf, room = out.len / 16;
        for (Py_ssize_t row = 0; row < lengths.len / 8 && longest >= 0; row++) {
            int64_t length = ((const int64_t *)lengths.buf)[row];
            if (length < 0 || length > room - total) { longest = -1; break; }
            for (int64_t column = 0; column < length; column++) { *at++ = row; *at++ = column; }
            if (length > longest) longest = length;
            total += length;
        }
        if (total != room) longest = -1;
        PyBuffer_Release(&out);
    }
    PyBuffer_Release(&lengths);
    return PyErr_Occurred() ? NULL : PyLong_FromLongLong(longest);
}

/* -- crosses ---------------------------------------------------------------------------------------------------------------- */

/* One feature of a cross: the hashes of its values row by row, and how many each row has. */
typedef struct {
    Py_buffer hashes, lengths;
    Py_ssize_t start, size; /* where the current row starts, and its number of values */
} Crossed;

static const uint64_t MULTIPLIER = 0xC6A4A7935BD1E995u;

static uint64_t shift_mix(uint64_t x) { return x ^ x >> 47; }

/* TensorFlow's FingerprintCat64. */
static uint64_t joined(uint64_t first, uint64_t second) {
    uint64_t out = (first ^ MULTIPLIER) ^ shift_mix(second * MULTIPLIER) * MULTIPLIER;
    return shift_mix(shift_mix(out * MULTIPLIER) * MULTIPLIER);
}

/* (hashes, lengths): 1 done, 0 if the lengths are not those of the rows, -1 with an exception. */
static int open_crossed(PyObject *item, Py_ssize_t rows, Crossed *column) {
    PyObject *hashes, *lengths;
    Py_ssize_t total = 0;
    if (!PyArg_ParseTuple(item, "OO", &hashes, &lengths)) return -1;
    if (open_numbers(hashes, &column->hashes) < 0 || open_numbers(lengths, &column->lengths) < 0) return -1;
    Py_ssize_t values = column->hashes.len / 8;
    if (column->lengths.len / 8 != rows) return 0;
    for (Py_ssize_t row = 0; row < rows; row++) {
        int64_t length = ((const int64_t *)column->lengths.buf)[row];
        if (length < 0 || length > values - total) return 0;
        total += (Py_ssize_t)length;
    }
    return total == values;
}

/* The combinations of one row, the last column varying fastest; 0 without memory. `at` holds one index per column. */
static int cross_row(Crossed *columns, Py_ssize_t count, Py_ssize_t *at, int64_t row, const uint64_t *start, uint64_t buckets, Pile *where, Pile *found) {
    Py_ssize_t position = 0, axis;
    memset(at, 0, (size_t)count * sizeof *at);
    for (axis = 0; axis < count; axis++)
        if (columns[axis].size == 0) return 1;
    do {
        axis = start == NULL;
        uint64_t hash = start != NULL ? *start : ((uint64_t *)columns[0].hashes.buf)[columns[0].start + at[0]];
        for (; axis < count; axis++) hash = joined(hash, ((uint64_t *)columns[axis].hashes.buf)[columns[axis].start + at[axis]]);
        int64_t bucket = (int64_t)(hash % buckets), place[2] = {row, position++};
        if (!pile(where, place, sizeof place) || !pile(found, &bucket, sizeof bucket)) return 0;
        for (axis = count - 1; axis >= 0 && ++at[axis] == columns[axis].size; axis--) at[axis] = 0;
    } while (axis >= 0);
    return 1;
}

static Py_ssize_t values_of(const Crossed *column, Py_ssize_t row) {
    return (Py_ssize_t)((const int64_t *)column->lengths.buf)[row];
}

/* Memory for all combinations; 0 without. */
static int reserve(const Crossed *columns, Py_ssize_t count, Py_ssize_t rows, Pile *where, Pile *found) {
    Py_ssize_t total = 0, product, most = PY_SSIZE_T_MAX / 64;
    for (Py_ssize_t row = 0; row < rows; row++) {
        product = 1;
        for (Py_ssize_t i = 0; i < count; i++)
            if (__builtin_mul_overflow(product, values_of(&columns[i], row), &product)) return 0;
        if (product > most - total) return 0;
        total += product;
    }
    return make_room(where, 16 * (size_t)total) && make_room(found, 8 * (size_t)total);
}

/* The longest row, -1 without memory. */
static Py_ssize_t cross_rows(Crossed *columns, Py_ssize_t count, Py_ssize_t rows, const uint64_t *start, uint64_t buckets, Pile *where, Pile *found) {
    Py_ssize_t longest = reserve(columns, count, rows, where, found) ? 0 : -1;
    Py_ssize_t *at = PyMem_Calloc((size_t)count, sizeof *at);
    for (Py_ssize_t row = 0; row < rows && longest >= 0; row++) {
        size_t before = found->used;
        for (Py_ssize_t i = 0; i < count; i++) {
            columns[i].start += columns[i].size;
            columns[i].size = values_of(&columns[i], row);
        }
        if (at == NULL || !cross_row(columns, count, at, row, start, buckets, where, found)) longest = -1;
        else if ((Py_ssize_t)((found->used - before) / 8) > longest) longest = (Py_ssize_t)((found->used - before) / 8);
    }
    PyMem_Free(at);
    return longest;
}

/* cross(columns, rows, start, buckets) -> (indices, buckets, longest row), int64s as bytes; None if the lengths of a column, which
 * is (hashes, lengths), are not those of its rows. `start` is the hash that the combinations begin with, or None. */
PyObject *cross(PyObject *self, PyObject *args) {
    PyObject *wanted, *first, *result = NULL;
    Py_ssize_t rows;
    unsigned long long buckets;
    uint64_t start = 0;
    Pile where = {0}, found = {0};
    if (!PyArg_ParseTuple(args, "O!nOK", &PyTuple_Type, &wanted, &rows, &first, &buckets)) return NULL;
    if (first != Py_None) start = PyLong_AsUnsignedLongLongMask(first);
    Py_ssize_t count = PyTuple_GET_SIZE(wanted);
    if (!PyErr_Occurred() && (count == 0 || rows < 0 || buckets == 0)) PyErr_SetString(PyExc_ValueError, "a cross has columns, rows and buckets");
    if (PyErr_Occurred()) return NULL;
    Crossed *columns = PyMem_Calloc((size_t)count, sizeof *columns);
    if (columns == NULL) return PyErr_NoMemory();
    int done = 1;
    for (Py_ssize_t i = 0; i < count && done == 1; i++) done = open_crossed(PyTuple_GET_ITEM(wanted, i), rows, &columns[i]);
    if (done == 1) {
        Py_ssize_t longest = cross_rows(columns, count, rows, first == Py_None ? NULL : &start, buckets, &where, &found);
        if (longest < 0) PyErr_NoMemory();
        else result = Py_BuildValue("(NNn)", PyByteArray_FromStringAndSize(where.data, (Py_ssize_t)where.used),
                                    PyByteArray_FromStringAndSize(found.data, (Py_ssize_t)found.used), longest);
    } else if (done == 0) result = Py_NewRef(Py_None);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (columns[i].hashes.obj != NULL) PyBuffer_Release(&columns[i].hashes);
        if (columns[i].lengths.obj != NULL) PyBuffer_Release(&columns[i].lengths);
    }
    PyMem_Free(columns);
    PyMem_RawFree(where.data);
    PyMem_RawFree(found.data);
    return result;
}
