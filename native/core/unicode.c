/* UTF-8 texts to code points, and back. */
#include "core.h"

static const unsigned char *next_code(const unsigned char *s, int32_t *code) {
    if (s[0] < 0x80) { *code = s[0]; return s + 1; }
    if (s[0] < 0xE0) { *code = (s[0] & 0x1F) << 6 | (s[1] & 0x3F); return s + 2; }
    if (s[0] < 0xF0) { *code = (s[0] & 0xF) << 12 | (s[1] & 0x3F) << 6 | (s[2] & 0x3F); return s + 3; }
    *code = (s[0] & 7) << 18 | (s[1] & 0x3F) << 12 | (s[2] & 0x3F) << 6 | (s[3] & 0x3F);
    return s + 4;
}

/* decode(texts) -> (codes, starts, splits) or None: the code points of all texts as int32s, the byte offset of each in its text and
 * the row splits as int64s, all in bytes; None for invalid UTF-8. */
PyObject *decode(PyObject *self, PyObject *args) {
    PyObject *array, *result = NULL;
    Objects texts;
    Bytes text;
    Pile codes = {NULL, 0, 0}, starts = {NULL, 0, 0}, splits = {NULL, 0, 0};
    int64_t count = 0;
    if (!PyArg_ParseTuple(args, "O", &array)) return NULL;
    if (open_objects(array, 256, &texts) < 0) return NULL;
    int done = pile(&splits, &count, sizeof count), plain = 1;
    for (Py_ssize_t i = 0; done && i < texts.count; i++) {
        if (!(plain = bytes_at(&texts, i, &text) && is_utf8(text.at, text.at + text.size))) break;
        for (const unsigned char *at = text.at, *end = at + text.size; done && at < end; count++) {
            int64_t start = at - text.at;
            int32_t code;
            at = next_code(at, &code);
            done = pile(&codes, &code, sizeof code) && pile(&starts, &start, sizeof start);
        }
        done = done && pile(&splits, &count, sizeof count);
    }
    close_objects(&texts);
    if (!done) PyErr_NoMemory();
    else if (!plain) result = Py_NewRef(Py_None);
    else {
        PyObject *parts[3];
        const Pile *piles[3] = {&codes, &starts, &splits};
        for (int k = 0; k < 3; k++) parts[k] = PyByteArray_FromStringAndSize(piles[k]->data, (Py_ssize_t)piles[k]->used);
        if (parts[0] != NULL && parts[1] != NULL && parts[2] != NULL) result = PyTuple_Pack(3, parts[0], parts[1], parts[2]);
        for (int k = 0; k < 3; k++) Py_XDECREF(parts[k]);
    }
    PyMem_RawFree(codes.data);
    PyMem_RawFree(starts.data);
    PyMem_RawFree(splits.data);
    return result;
}

/* The UTF-8 size of a code point; 0 if it is invalid. */
static int put_code(int32_t code, char *out) {
    if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return 0;
    if (code < 0x80) { out[0] = (char)code; return 1; }
    if (code < 0x800) { out[0] = (char)(0xC0 | code >> 6); out[1] = (char)(0x80 | (code & 0x3F)); return 2; }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12); out[1] = (char)(0x80 | (code >> 6 & 0x3F)); out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18); out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F)); out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

/* Appends one text to the buffer; 1 done, 0 fallback, -1 no memory. */
static int put_text(const int32_t *codes, Py_ssize_t start, Py_ssize_t stop, Pile *out) {
    out->used = 0;
    if (!make_room(out, 4 * (size_t)(stop - start) + 1)) return -1;
    for (Py_ssize_t i = start; i < stop; i++) {
        int size = put_code(codes[i], out->data + out->used);
        if (size == 0) return 0;
        out->used += (size_t)size;
    }
    return 1;
}

/* encode_codes(codes, splits) -> list or None: the texts of code points (int32s) between splits (int64s); None for an invalid code
 * point, or splits that do not rise from 0 to the number of code points. */
PyObject *encode_codes(PyObject *self, PyObject *args) {
    PyObject *given, *bounds, *list = NULL;
    Py_buffer codes, splits;
    Pile out = {NULL, 0, 0};
    if (!PyArg_ParseTuple(args, "OO", &given, &bounds)) return NULL;
    if (PyObject_GetBuffer(given, &codes, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    if (PyObject_GetBuffer(bounds, &splits, PyBUF_C_CONTIGUOUS) < 0) { PyBuffer_Release(&codes); return NULL; }
    const int64_t *ends = splits.buf;
    Py_ssize_t count = splits.len / 8 - 1;
    int done = codes.itemsize == 4 && splits.itemsize == 8 && count >= 0 && ends[0] == 0 && ends[count] == codes.len / 4;
    for (Py_ssize_t i = 0; done == 1 && i < count; i++) done = ends[i] <= ends[i + 1];
    if (done == 1 && (list = PyList_New(count)) == NULL) done = -1;
    for (Py_ssize_t i = 0; done == 1 && i < count; i++) {
        if ((done = put_text(codes.buf, (Py_ssize_t)ends[i], (Py_ssize_t)ends[i + 1], &out)) < 0) PyErr_NoMemory();
        if (done != 1) break;
        PyObject *text = PyBytes_FromStringAndSize(out.data, (Py_ssize_t)out.used);
        if (text == NULL) done = -1;
        else PyList_SET_ITEM(list, i, text);
    }
    PyBuffer_Release(&codes);
    PyBuffer_Release(&splits);
    PyMem_RawFree(out.data);
    if (done == 1) return list;
    Py_XDECREF(list);
    if (done < 0) return NULL;
    Py_RETURN_NONE;
}
