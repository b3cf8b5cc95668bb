/* tf.Example messages to columns of features: fixed-size and variable-length ones. */
#include "core.h"

typedef struct { const unsigned char *at, *end; } Span;

/* A varint of at most ten bytes. */
static int read_varint(Span *span, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 70 && span->at < span->end; shift += 7) {
        unsigned char byte = *span->at++;
        *value |= shift < 64 ? (uint64_t)(byte & 0x7F) << shift : 0;
        if (byte < 0x80) return 1;
    }
    return 0;
}

/* A field after `tag` and its length, which must be within `span`. */
static int read_part(Span *span, unsigned char tag, Span *part) {
    uint64_t length;
    if (span->at >= span->end || *span->at != tag) return 0;
    span->at++;
    if (!read_varint(span, &length) || length > INT32_MAX || length > (uint64_t)(span->end - span->at)) return 0;
    part->at = span->at;
    part->end = span->at += length;
    return 1;
}

enum { BYTES = 0x0A, FLOATS = 0x12, INTEGERS = 0x1A };

typedef struct {
    const char *key;
    Py_ssize_t key_size, step;
    int kind, seen;
    PyObject *defaults;      /* for strings */
    Py_buffer out, fallback; /* for objects, or for numbers */
    int uneven;              /* variable length: no `out`, but: */
    PyObject *texts;         /* a list of strings, */
    Pile numbers;            /* or numbers, */
    int64_t length;          /* and the number of values in this row */
    Pile lengths;
} Column;

static int put_bytes(Column *column, Py_ssize_t place, PyObject *value) {
    PyObject **slot = (PyObject **)column->out.buf + place, *before = *slot;
    if (value == NULL) return -1;
    *slot = value;
    Py_XDECREF(before);
    return 0;
}

/* The values of one feature in row `row`: 1 done, 0 fallback, -1 exception. */
static int read_feature(Column *column, Span feature, Py_ssize_t row) {
    Span list, packed;
    Py_ssize_t first = row * column->step;
    if (!read_part(&feature, (unsigned char)column->kind, &list) || feature.at != feature.end) return 0;
    if (column->kind == BYTES) {
        for (Py_ssize_t i = 0; i < column->step; i++) {
            if (!read_part(&list, 0x0A, &packed)) return 0;
            PyObject *value = PyBytes_FromStringAndSize((const char *)packed.at, packed.end - packed.at);
            if (put_bytes(column, first + i, value) < 0) return -1;
        }
        return list.at == list.end;
    }
    if (list.at < list.end && *list.at == 0x0A) {
        if (!read_part(&list, 0x0A, &packed) || list.at != list.end) return 0;
    } else if (column->step == 1 && list.at < list.end && *list.at == (column->kind == FLOATS ? 0x0D : 0x08)) {
        packed = list;
        packed.at++;
    } else return 0;
    if (column->kind == FLOATS) {
        if (packed.end - packed.at != 4 * column->step) return 0;
        memcpy((char *)column->out.buf + 4 * first, packed.at, 4 * column->step);
        return 1;
    }
    for (Py_ssize_t i = 0; i < column->step; i++) {
        uint64_t value;
        if (!read_varint(&packed, &value)) return 0;
        memcpy((char *)column->out.buf + 8 * (first + i), &value, 8);
    }
    return packed.at == packed.end;
}

/* The values of one variable-length feature: 1 done, 0 fallback, -1 exception. */
static int read_uneven(Column *column, Span feature) {
    Span list, packed;
    size_t before = column->numbers.used;
    if (!read_part(&feature, (unsigned char)column->kind, &list) || feature.at != feature.end) return 0;
    if (column->kind == BYTES) {
        for (column->length = 0; list.at < list.end; column->length++) {
            if (!read_part(&list, 0x0A, &packed)) return 0;
            PyObject *value = PyBytes_FromStringAndSize((const char *)packed.at, packed.end - packed.at);
            if (value == NULL || PyList_Append(column->texts, value) < 0) { Py_XDECREF(value); return -1; }
            Py_DECREF(value);
        }
        return 1;
    }
    int packed_list = list.at < list.end && *list.at == 0x0A;
    if (packed_list) {
        if (!read_part(&list, 0x0A, &packed) || list.at != list.end) return 0;
        list = packed;
    }
    if (packed_list && column->kind == FLOATS) {
        if ((list.end - list.at) % 4) return 0;
        if (!pile(&column->numbers, list.at, (size_t)(list.end - list.at))) { PyErr_NoMemory(); return -1; }
        list.at = list.end;
    }
    while (list.at < list.end) {
        uint64_t value;
        if (!packed_list && *list.at++ != (column->kind == FLOATS ? 0x0D : 0x08)) return 0;
        size_t size = column->kind == FLOATS ? 4 : 8;
        if (column->kind == FLOATS) {
            if (list.end - list.at < 4) return 0;
            memcpy(&value, list.at, 4);
            list.at += 4;
        } else if (!read_varint(&list, &value)) return 0;
        if (!pile(&column->numbers, &value, size)) { PyErr_NoMemory(); return -1; }
    }
    column->length = (int64_t)((column->numbers.used - before) / (column->kind == FLOATS ? 4 : 8));
    return 1;
}

/* The default of a feature missing in row `row`. */
static int fill_default(Column *column, Py_ssize_t row) {
    Py_ssize_t first = row * column->step;
    if (column->kind != BYTES) {
        if (column->fallback.obj == NULL) return 0;
        Py_ssize_t size = (column->kind == FLOATS ? 4 : 8) * column->step;
        memcpy((char *)column->out.buf + row * size, column->fallback.buf, size);
        return 1;
    }
    if (column->defaults == NULL) return 0;
    for (Py_ssize_t i = 0; i < column->step; i++)
        if (put_bytes(column, first + i, Py_NewRef(PyTuple_GET_ITEM(column->defaults, i))) < 0) return -1;
    return 1;
}

/* The column of a key: usually the one after the last, since examples have the same order. */
static Column *column_of(Column *columns, Py_ssize_t count, Span key, Py_ssize_t *next) {
    Py_ssize_t index = *next;
    for (Py_ssize_t i = 0; i < count; i++) {
        Column *column = &columns[index];
        index = index + 1 < count ? index + 1 : 0;
        if (column->key_size == key.end - key.at && memcmp(column->key, key.at, (size_t)column->key_size) == 0) {
            *next = index;
            return column;
        }
    }
    return NULL;
}

/* Parses one example into row `row`: 1 done, 0 fallback, -1 exception. */
static int read_example(Span data, Column *columns, Py_ssize_t count, Py_ssize_t row, Py_ssize_t *next) {
    Span features = {data.end, data.end}, entry, key, feature;
    for (Py_ssize_t i = 0; i < count; i++) columns[i].seen = 0, columns[i].length = 0;
    if (data.at < data.end && (!read_part(&data, 0x0A, &features) || data.at != data.end)) return 0;
    while (features.at < features.end) {
        if (!read_part(&features, 0x0A, &entry) || !read_part(&entry, 0x0A, &key)) return 0;
        if (!read_part(&entry, 0x12, &feature) || entry.at != entry.end) return 0;
        Column *column = column_of(columns, count, key, next);
        if (column == NULL) continue;
        if (column->seen || (feature.at == feature.end && !column->uneven)) return 0;
        int done = feature.at == feature.end ? 1 : column->uneven ? read_uneven(column, feature) : read_feature(column, feature, row);
        if (done != 1) return done;
        column->seen = 1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (columns[i].uneven) {
            if (!pile(&columns[i].lengths, &columns[i].length, sizeof columns[i].length)) { PyErr_NoMemory(); return -1; }
            continue;
        }
        int done = columns[i].seen ? 1 : fill_default(&columns[i], row);
        if (done != 1) return done;
    }
    return 1;
}

/* The output array of a string column, and its default. */
static int open_strings(Column *column, Py_ssize_t count, PyObject *out, PyObject *standard) {
    if (PyObject_GetBuffer(out, &column->out, PyBUF_WRITABLE | PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) < 0) return -1;
    int fits = column->out.format != NULL && strcmp(column->out.format, "O") == 0 && column->out.len / (Py_ssize_t)sizeof(PyObject *) == count;
    if (fits && standard != Py_None) fits = PyTuple_CheckExact(standard) && PyTuple_GET_SIZE(standard) == column->step;
    column->defaults = standard == Py_None ? NULL : standard;
    if (fits) return 0;
    PyErr_SetString(PyExc_ValueError, "the array or the default has another size");
    return -1;
}

/* One (key, kind, step, out, default): out is an array, of objects for strings; default a tuple of them, a buffer or None.
 * A column with step 0 has variable length and neither out nor default. */
static int open_column(PyObject *item, Py_ssize_t rows, Column *column) {
    PyObject *out, *standard;
    memset(column, 0, sizeof *column);
    if (!PyArg_ParseTuple(item, "y#inOO", &column->key, &column->key_size, &column->kind, &column->step, &out, &standard)) return -1;
    if (column->kind != BYTES && column->kind != FLOATS && column->kind != INTEGERS) {
        PyErr_SetString(PyExc_ValueError, "the kind is not known");
        return -1;
    }
    if (column->step == 0) {
        column->uneven = 1;
        if (column->kind == BYTES && (column->texts = PyList_New(0)) == NULL) return -1;
        return 0;
    }
    if (column->step < 1 || column->step > PY_SSIZE_T_MAX / 8 / (rows + 1)) {
        PyErr_SetString(PyExc_ValueError, "the number of values is out of range");
        return -1;
    }
    if (column->kind == BYTES) return open_strings(column, rows * column->step, out, standard);
    Py_ssize_t size = column->kind == FLOATS ? 4 : 8;
    if (writable(out, rows * column->step, size, &column->out) < 0) return -1;
    return standard == Py_None ? 0 : writable(standard, column->step, size, &column->fallback);
}

static void close_columns(Column *columns, Py_ssize_t count) {
    for (Py_ssize_t i = 0; i < count; i++) {
        if (columns[i].out.obj != NULL) PyBuffer_Release(&columns[i].out);
        if (columns[i].fallback.obj != NULL) PyBuffer_Release(&columns[i].fallback);
        PyMem_RawFree(columns[i].numbers.data);
        PyMem_RawFree(columns[i].lengths.data);
        Py_XDECREF(columns[i].texts);
    }
    PyMem_Free(columns);
}

static PyObject *piled(const Pile *numbers) {
    return PyByteArray_FromStringAndSize(numbers->data, (Py_ssize_t)numbers->used);
}

/* The variable-length columns in order: (lengths, values) of each, int64s and numbers as bytes, strings as a list. */
static PyObject *uneven_columns(const Column *columns, Py_ssize_t count) {
    Py_ssize_t total = 0, place = 0;
    for (Py_ssize_t i = 0; i < count; i++) total += columns[i].uneven;
    PyObject *found = PyTuple_New(total);
    for (Py_ssize_t i = 0; found != NULL && i < count; i++) {
        if (!columns[i].uneven) continue;
        PyObject *values = columns[i].texts != NULL ? Py_NewRef(columns[i].texts) : piled(&columns[i].numbers);
        PyObject *pair = values == NULL ? NULL : Py_BuildValue("(NN)", piled(&columns[i].lengths), values);
        if (pair == NULL) Py_CLEAR(found);
        else PyTuple_SET_ITEM(found, place++, pair);
    }
    return found;
}

/* examples(serialized, columns): parses an array of tf.Examples. Dense columns are written to their arrays; returns a tuple of
 * the (lengths, values) of variable-length ones, or None for the fallback. */
PyObject *examples(PyObject *self, PyObject *args) {
    PyObject *array, *wanted;
    Objects serialized;
    Bytes item;
    if (!PyArg_ParseTuple(args, "OO!", &array, &PyTuple_Type, &wanted)) return NULL;
    if (open_objects(array, PY_SSIZE_T_MAX, &serialized) < 0) return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(wanted), next = 0;
    Column *columns = PyMem_Calloc((size_t)count + 1, sizeof(Column));
    int done = columns == NULL ? -1 : 1;
    if (columns == NULL) PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count && done == 1; i++)
        if (open_column(PyTuple_GET_ITEM(wanted, i), serialized.count, &columns[i]) < 0) done = -1;
    for (Py_ssize_t row = 0; row < serialized.count && done == 1; row++) {
        done = bytes_at(&serialized, row, &item);
        if (done == 1) done = read_example((Span){item.at, item.at + item.size}, columns, count, row, &next);
    }
    PyObject *found = done == 1 ? uneven_columns(columns, count) : done == 0 ? Py_NewRef(Py_None) : NULL;
    if (columns != NULL) close_columns(columns, count);
    close_objects(&serialized);
    return found;
}
