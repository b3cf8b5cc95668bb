/* Elementwise string ops: split, case, slice, count, parse numbers. */
#include "core.h"

/* -- splitting ---------------------------------------------------------------------------------------------------------------- */

enum { SPACES, SEPARATOR, ANY, EACH };

typedef struct {
    int how, skips; /* `skips`: empty parts are dropped */
    Bytes mark;
    unsigned char ends[256]; /* delimiter bytes for SPACES and ANY */
    PyObject *parts;
    Pile indices; /* row and column of each part */
    int64_t row, column, longest;
} Split;

static int put_part(Split *split, const unsigned char *at, const unsigned char *end) {
    if (split->skips && at == end) return 1;
    int64_t index[2] = {split->row, split->column++};
    PyObject *part = PyBytes_FromStringAndSize((const char *)at, end - at);
    int done = part != NULL && PyList_Append(split->parts, part) == 0;
    Py_XDECREF(part);
    if (done && !pile(&split->indices, index, sizeof index)) { PyErr_NoMemory(); return 0; }
    return done;
}

static int is_mark(const Split *split, const unsigned char *at, const unsigned char *end) {
    return end - at >= split->mark.size && memcmp(at, split->mark.at, (size_t)split->mark.size) == 0;
}

/* The parts of one text; 0 with an exception. */
static int split_one(Split *split, Bytes text) {
    const unsigned char *at = text.at, *end = at + text.size, *next;
    if (text.size == 0) return split->how != SEPARATOR || put_part(split, at, end);
    if (split->how == EACH) {
        for (; at < end; at++)
            if (!put_part(split, at, at + 1)) return 0;
        return 1;
    }
    if (split->how == SEPARATOR) {
        for (next = at; (next = memchr(next, split->mark.at[0], (size_t)(end - next))) != NULL;) {
            if (!is_mark(split, next, end)) { next++; continue; }
            if (!put_part(split, at, next)) return 0;
            at = next += split->mark.size;
        }
        return put_part(split, at, end);
    }
    for (next = at; next < end; next++)
        if (split->ends[*next]) {
            if (!put_part(split, at, next)) return 0;
            at = next + 1;
        }
    return put_part(split, at, end);
}

/* split(texts, marks, how, skips) -> (parts, indices, longest) or None: the parts of all texts as a list, their rows and columns as
 * int64s in bytes, and the maximum number of parts. `how`: 0 at runs of ASCII white space, 1 at the separator `marks`, 2 at any byte
 * of it, 3 into bytes. None if an element is not bytes. */
PyObject *split(PyObject *self, PyObject *args) {
    PyObject *array, *result = NULL;
    const char *marks;
    Objects texts;
    Bytes text;
    Split split;
    memset(&split, 0, sizeof split);
    if (!PyArg_ParseTuple(args, "Oy#ip", &array, &marks, &split.mark.size, &split.how, &split.skips)) return NULL;
    if (split.how < SPACES || split.how > EACH || (split.how == SEPARATOR && split.mark.size == 0)) {
        PyErr_SetString(PyExc_ValueError, "unknown way to split");
        return NULL;
    }
    split.mark.at = (const unsigned char *)marks;
    for (const char *space = " \t\n\v\f\r"; split.how == SPACES && *space; space++) split.ends[(unsigned char)*space] = 1;
    for (Py_ssize_t i = 0; split.how == ANY && i < split.mark.size; i++) split.ends[split.mark.at[i]] = 1;
    if (open_objects(array, PY_SSIZE_T_MAX, &texts) < 0) return NULL;
    int done = (split.parts = PyList_New(0)) != NULL, plain = 1;
    for (; done && plain && split.row < texts.count; split.row++) {
        split.column = 0;
        if (!(plain = bytes_at(&texts, (Py_ssize_t)split.row, &text))) break;
        done = split_one(&split, text);
        if (split.column > split.longest) split.longest = split.column;
    }
    close_objects(&texts);
    if (done && plain) {
        PyObject *indices = PyByteArray_FromStringAndSize(split.indices.data, (Py_ssize_t)split.indices.used);
        if (indices != NULL) result = Py_BuildValue("ONL", split.parts, indices, (long long)split.longest);
    } else if (done) result = Py_NewRef(Py_None);
    Py_XDECREF(split.parts);
    PyMem_RawFree(split.indices.data);
    return result;
}

/* -- case --------------------------------------------------------------------------------------------------------------------- */

/* An ASCII text, ended by a NUL, in the given case; the same object if unchanged; NULL without an exception if it is not ASCII. */
static PyObject *case_of(PyObject *item, Bytes text, unsigned char first) {
    const unsigned char *zero = text.size ? memchr(text.at, 0, (size_t)text.size) : NULL;
    Py_ssize_t size = zero == NULL ? text.size : zero - text.at;
    unsigned char seen = 0, changes = zero != NULL;
    for (Py_ssize_t i = 0; i < size; i++) {
        seen |= text.at[i];
        changes |= (unsigned char)(text.at[i] - first) < 26;
    }
    if (seen & 0x80) return NULL;
    if (!changes) return Py_NewRef(item);
    PyObject *cased = PyBytes_FromStringAndSize(NULL, size);
    unsigned char *out = cased == NULL ? NULL : (unsigned char *)PyBytes_AS_STRING(cased);
    if (size == 1 && cased != NULL) { /* single bytes are shared objects */
        unsigned char byte = text.at[0];
        Py_DECREF(cased);
        byte ^= (unsigned char)(byte - first) < 26 ? 0x20 : 0;
        return PyBytes_FromStringAndSize((char *)&byte, 1);
    }
    for (Py_ssize_t i = 0; out != NULL && i < size; i++) out[i] = text.at[i] ^ ((unsigned char)(text.at[i] - first) < 26 ? 0x20 : 0);
    return cased;
}

/* ascii_case(texts, upper) -> list: texts in lower or upper case, ended by a NUL; None for non-ASCII. */
PyObject *ascii_case(PyObject *self, PyObject *args) {
    PyObject *array;
    int upper;
    Objects texts;
    Bytes text;
    if (!PyArg_ParseTuple(args, "Op", &array, &upper)) return NULL;
    if (open_objects(array, PY_SSIZE_T_MAX, &texts) < 0) return NULL;
    PyObject *list = PyList_New(texts.count);
    for (Py_ssize_t i = 0; list != NULL && i < texts.count; i++) {
        PyObject *cased = bytes_at(&texts, i, &text) ? case_of(texts.items[i], text, upper ? 'a' : 'A') : NULL;
        if (cased == NULL && PyErr_Occurred()) { Py_CLEAR(list); break; }
        PyList_SET_ITEM(list, i, cased == NULL ? Py_NewRef(Py_None) : cased);
    }
    close_objects(&texts);
    return list;
}

/* -- parts and lengths -------------------------------------------------------------------------------------------------------- */

static inline int is_start(const unsigned char *text, Py_ssize_t i) { return i == 0 || (text[i] & 0xC0) != 0x80; }

/* The offset of character `number`, or the end. */
static Py_ssize_t place_of(Bytes text, Py_ssize_t at, int64_t number) {
    for (; at < text.size; at++)
        if (is_start(text.at, at) && number-- == 0) break;
    return at;
}

static int64_t characters_of(Bytes text) {
    int64_t count = 0;
    for (Py_ssize_t i = 0; i < text.size; i++) count += is_start(text.at, i);
    return count;
}

/* The slice of one text for `substr`; 0 for an error. */
static int cut_one(Bytes text, int64_t pos, int64_t length, int characters, Bytes *part) {
    int64_t size = characters ? characters_of(text) : text.size;
    int64_t first = pos < 0 ? pos + size : pos;
    if (first < 0 || first > size || (characters && pos < 0 && length < 0)) return 0;
    if (length < 0 && characters) length = 0;
    if (length < 0 || length > size - first) length = size - first;
    Py_ssize_t start = characters ? place_of(text, 0, first) : (Py_ssize_t)first;
    Py_ssize_t end = characters ? (length ? place_of(text, start, length) : start) : start + (Py_ssize_t)length;
    part->at = text.at + start;
    part->size = end - start;
    return 1;
}

/* cut(texts, positions, lengths, characters) -> list or None: slices of `lengths` bytes or characters from `positions`, both
 * int64s; None for an error, which Python reports. */
PyObject *cut(PyObject *self, PyObject *args) {
    PyObject *array, *first, *second;
    int characters, plain = 1;
    Objects texts;
    Bytes text;
    Py_buffer positions, lengths;
    if (!PyArg_ParseTuple(args, "OOOp", &array, &first, &second, &characters)) return NULL;
    if (PyObject_GetBuffer(first, &positions, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    if (PyObject_GetBuffer(second, &lengths, PyBUF_C_CONTIGUOUS) < 0) { PyBuffer_Release(&positions); return NULL; }
    if (open_objects(array, PY_SSIZE_T_MAX, &texts) < 0) { PyBuffer_Release(&positions); PyBuffer_Release(&lengths); return NULL; }
    PyObject *list = NULL;
    if (positions.len != 8 * texts.count || lengths.len != 8 * texts.count) PyErr_SetString(PyExc_ValueError, "expected a position and a length of each text");
    else list = PyList_New(texts.count);
    for (Py_ssize_t i = 0; list != NULL && i < texts.count; i++) {
        Bytes part;
        plain = bytes_at(&texts, i, &text) && cut_one(text, ((int64_t *)positions.buf)[i], ((int64_t *)lengths.buf)[i], characters, &part);
        PyObject *item = plain ? PyBytes_FromStringAndSize((const char *)part.at, part.size) : NULL;
        if (item == NULL) { Py_CLEAR(list); break; }
        PyList_SET_ITEM(list, i, item);
    }
    close_objects(&texts);
    PyBuffer_Release(&positions);
    PyBuffer_Release(&lengths);
    if (list == NULL && !PyErr_Occurred() && !plain) Py_RETURN_NONE;
    return list;
}

/* -- numbers ------------------------------------------------------------------------------------------------------------------ */

static int is_blank(unsigned char byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }
static int is_digit(unsigned char byte) { return byte >= '0' && byte <= '9'; }

static Bytes stripped(Bytes text) {
    while (text.size && is_blank(text.at[0])) text.at++, text.size--;
    while (text.size && is_blank(text.at[text.size - 1])) text.size--;
    return text;
}

/* An integer of at most 18 digits; 0 for anything else. */
static int read_integer(Bytes text, int64_t *value) {
    int negative = text.size && text.at[0] == '-';
    Py_ssize_t i = text.size && (text.at[0] == '-' || text.at[0] == '+');
    if (text.size == i || text.size - i > 18) return 0;
    for (*value = 0; i < text.size; i++) {
        if (!is_digit(text.at[i])) return 0;
        *value = 10 * *value + (text.at[i] - '0');
    }
    if (negative) *value = -*value;
    return 1;
}

/* A decimal number, with optional point and exponent; 0 for anything else, -1 with an exception. */
static int read_double(Bytes text, double *value) {
    char copy[64];
    Py_ssize_t i = 0, digits = 0;
    if (text.size == 0 || text.size >= (Py_ssize_t)sizeof copy) return 0;
    if (text.at[0] == '-' || text.at[0] == '+') i++;
    while (i < text.size && is_digit(text.at[i])) i++, digits++;
    if (i < text.size && text.at[i] == '.') i++;
    while (i < text.size && is_digit(text.at[i])) i++, digits++;
    if (digits == 0) return 0;
    if (i < text.size && (text.at[i] == 'e' || text.at[i] == 'E')) {
        i++;
        if (i < text.size && (text.at[i] == '-' || text.at[i] == '+')) i++;
        if (i == text.size) return 0;
        while (i < text.size && is_digit(text.at[i])) i++;
    }
    if (i != text.size) return 0;
    memcpy(copy, text.at, (size_t)text.size);
    copy[text.size] = 0;
    *value = PyOS_string_to_double(copy, NULL, NULL); /* infinite on overflow, like float() */
    return PyErr_Occurred() ? -1 : 1;
}

/* read_numbers(texts, floats, out) -> bool: parses each text as float64 or int64; False if one is not a plain decimal number. */
PyObject *read_numbers(PyObject *self, PyObject *args) {
    PyObject *array, *target;
    int floats, done = 1;
    Objects texts;
    Bytes text;
    Py_buffer out;
    if (!PyArg_ParseTuple(args, "OpO", &array, &floats, &target)) return NULL;
    if (open_objects(array, PY_SSIZE_T_MAX, &texts) < 0) return NULL;
    if (writable(target, texts.count, 8, &out) < 0) { close_objects(&texts); return NULL; }
    for (Py_ssize_t i = 0; done == 1 && i < texts.count; i++) {
        if (!bytes_at(&texts, i, &text)) done = 0;
        else if (floats) done = read_double(stripped(text), (double *)out.buf + i);
        else done = read_integer(stripped(text), (int64_t *)out.buf + i);
    }
    close_objects(&texts);
    PyBuffer_Release(&out);
    return done < 0 ? NULL : PyBool_FromLong(done);
}
