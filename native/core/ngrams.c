/* The n-grams of rows of strings. */
#include "core.h"

enum { MAX_WIDTH = 1 << 20 }; /* wider ones use the fallback */

typedef struct {
    Bytes separator, left, right;
    Py_ssize_t pads; /* -1: width - 1 */
    int keeps_short; /* a row without n-grams becomes one, padded */
} Style;

/* Token `index` of a row of `count` tokens with `pad` padding tokens on each side. */
static inline Bytes token(const Objects *values, const Style *style, Py_ssize_t first, Py_ssize_t count, Py_ssize_t pad, Py_ssize_t index) {
    Bytes bytes = {NULL, 0};
    if (index < pad) return style->left;
    if (index >= pad + count) return style->right;
    bytes_at(values, first + index - pad, &bytes);
    return bytes;
}

/* `width` tokens from `index` on, joined. */
static PyObject *gram(const Objects *values, const Style *style, Py_ssize_t first, Py_ssize_t count, Py_ssize_t pad, Py_ssize_t index, Py_ssize_t width) {
    if (width == 1 && pad == 0) return Py_NewRef(values->items[first + index]);
    Py_ssize_t size = 0;
    for (Py_ssize_t i = 0; i < width; i++) {
        Py_ssize_t more = token(values, style, first, count, pad, index + i).size + (i ? style->separator.size : 0);
        if (more > PY_SSIZE_T_MAX / 2 - size) return PyErr_NoMemory();
        size += more;
    }
    PyObject *text = PyBytes_FromStringAndSize(NULL, size);
    char *at = text == NULL ? NULL : PyBytes_AS_STRING(text);
    for (Py_ssize_t i = 0; at != NULL && i < width; i++) {
        Bytes part = token(values, style, first, count, pad, index + i);
        if (i) memcpy(at, style->separator.at, (size_t)style->separator.size), at += style->separator.size;
        memcpy(at, part.at, (size_t)part.size);
        at += part.size;
    }
    return text;
}

static int append(PyObject *list, PyObject *item) {
    int done = item == NULL ? -1 : PyList_Append(list, item);
    Py_XDECREF(item);
    return done;
}

/* The n-grams of one row: 1 done, 0 fallback, -1 exception. */
static int row_grams(const Objects *values, const Style *style, PyObject *widths, Py_ssize_t first, Py_ssize_t count, PyObject *list) {
    Py_ssize_t before = PyList_GET_SIZE(list);
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(widths); k++) {
        Py_ssize_t width = PyLong_AsSsize_t(PyTuple_GET_ITEM(widths, k)), pad = style->pads;
        if (width <= 0 || width > MAX_WIDTH) return PyErr_Occurred() ? -1 : 0;
        if (pad < 0 || pad > width - 1) pad = width - 1;
        for (Py_ssize_t i = 0; i + width <= count + 2 * pad; i++)
            if (append(list, gram(values, style, first, count, pad, i, width)) < 0) return -1;
    }
    if (!style->keeps_short || count == 0 || PyList_GET_SIZE(list) > before) return 1;
    if (style->pads < 0) return 0; /* an error, which Python reports */
    return append(list, gram(values, style, first, count, style->pads, 0, count + 2 * style->pads)) < 0 ? -1 : 1;
}

/* Appends all n-grams to `list`, and the end of each row to `ends`: 1 done, 0 fallback, -1 exception. */
static int all_grams(const Objects *values, const Py_buffer *splits, const Style *style, PyObject *widths, PyObject *list, int64_t *ends) {
    const int64_t *bounds = splits->buf;
    Py_ssize_t rows = splits->len / 8 - 1;
    Bytes bytes;
    if (rows < 0 || bounds[0] != 0 || bounds[rows] != values->count) return 0;
    for (Py_ssize_t i = 0; i < rows; i++)
        if (bounds[i + 1] < bounds[i] || bounds[i + 1] > values->count) return 0;
    for (Py_ssize_t i = 0; i < values->count; i++)
        if (!bytes_at(values, i, &bytes)) return 0;
    ends[0] = 0;
    for (Py_ssize_t i = 0; i < rows; i++) {
        int done = row_grams(values, style, widths, (Py_ssize_t)bounds[i], (Py_ssize_t)(bounds[i + 1] - bounds[i]), list);
        if (done != 1) return done;
        ends[i + 1] = (int64_t)PyList_GET_SIZE(list);
    }
    return 1;
}

/* ngrams(values, splits, widths, separator, left, right, pads, keeps_short, ends) -> list or None: the n-grams of each row, by
 * width. `splits` and `ends` are int64s of equal length; None for the fallback. */
PyObject *ngrams(PyObject *self, PyObject *args) {
    PyObject *array, *bounds, *widths, *target, *list = NULL;
    const char *separator, *left, *right;
    Style style;
    Objects values;
    Py_buffer splits, ends;
    if (!PyArg_ParseTuple(args, "OOO!y#y#y#npO", &array, &bounds, &PyTuple_Type, &widths, &separator, &style.separator.size, &left, &style.left.size,
                          &right, &style.right.size, &style.pads, &style.keeps_short, &target)) return NULL;
    style.separator.at = (const unsigned char *)separator;
    style.left.at = (const unsigned char *)left;
    style.right.at = (const unsigned char *)right;
    if (style.pads > MAX_WIDTH) Py_RETURN_NONE;
    if (PyObject_GetBuffer(bounds, &splits, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    if (writable(target, splits.len / 8, 8, &ends) < 0) { PyBuffer_Release(&splits); return NULL; }
    int done = open_objects(array, PY_SSIZE_T_MAX, &values);
    if (done == 0) {
        if ((list = PyList_New(0)) == NULL) done = -1;
        else done = all_grams(&values, &splits, &style, widths, list, ends.buf);
        close_objects(&values);
    }
    PyBuffer_Release(&splits);
    PyBuffer_Release(&ends);
    if (done == 1) return list;
    Py_XDECREF(list);
    if (done < 0) return NULL;
    Py_RETURN_NONE;
}
