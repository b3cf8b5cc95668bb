/* Replaces or splits at matches of character classes: single characters, or runs of them. */
#include "core.h"

/* The kind of each code point, in pages of 256. Low four bits: 0 no match starts here, 1 a single match, n + 2 a run of class n
 * starts. High bits: the classes whose runs contain it. */
typedef struct {
    uint16_t pages[0x1100];
    const unsigned char *kinds, *ascii;
} Classes;

enum { PLANE = 0x1100 * 2, PAGE = 256 };

typedef struct {
    const unsigned char *start, *end;
} Found;

/* -1 with an exception for an invalid table. */
static int open_classes(const char *bytes, Py_ssize_t size, Classes *classes) {
    Py_ssize_t count = (size - PLANE) / PAGE;
    int fits = size > PLANE && (size - PLANE) % PAGE == 0;
    if (fits) memcpy(classes->pages, bytes, PLANE);
    for (int i = 0; fits && i < 0x1100; i++) fits = classes->pages[i] < count;
    if (!fits) { PyErr_SetString(PyExc_ValueError, "the table of classes is not one"); return -1; }
    classes->kinds = (const unsigned char *)bytes + PLANE;
    classes->ascii = classes->kinds + classes->pages[0] * PAGE;
    return 0;
}

/* The kind of the UTF-8 character at `*at`; advances `*at`. */
static inline unsigned next_kind(const Classes *classes, const unsigned char **at) {
    const unsigned char *s = *at;
    uint32_t code;
    if (s[0] < 0x80) { *at = s + 1; return classes->ascii[s[0]]; }
    if (s[0] < 0xE0) code = (s[0] & 0x1Fu) << 6 | (s[1] & 0x3Fu), *at = s + 2;
    else if (s[0] < 0xF0) code = (s[0] & 0xFu) << 12 | (s[1] & 0x3Fu) << 6 | (s[2] & 0x3Fu), *at = s + 3;
    else code = (s[0] & 7u) << 18 | (s[1] & 0x3Fu) << 12 | (s[2] & 0x3Fu) << 6 | (s[3] & 0x3Fu), *at = s + 4;
    return classes->kinds[classes->pages[code >> 8] * PAGE + (code & 0xFF)];
}

/* The first match from `at` on; 0 if there is none. */
static int search(const Classes *classes, const unsigned char *at, const unsigned char *end, Found *found) {
    while (at < end) {
        const unsigned char *start = at, *next;
        unsigned begins = next_kind(classes, &at) & 15;
        if (begins == 0) continue;
        if (begins > 1)
            for (next = at; next < end && next_kind(classes, &next) >> 4 >> (begins - 2) & 1;) at = next;
        found->start = start;
        found->end = at;
        return 1;
    }
    return 0;
}

/* Whether a nonempty text is one match as a whole. */
static int is_match(const Classes *classes, const unsigned char *at, const unsigned char *end) {
    unsigned kind = next_kind(classes, &at), common = kind >> 4;
    if (at == end) return kind != 0;
    while (at < end && common) common &= next_kind(classes, &at) >> 4;
    return common != 0;
}

/* -- replacing ---------------------------------------------------------------------------------------------------------------- */

typedef struct {
    Bytes before, after; /* replacement of a match, before and after it if it is kept */
    int keeps;
} Rewrite;

/* Initial capacity in bytes; most replacements are short. */
static inline void put(Pile *out, const unsigned char *at, Py_ssize_t size) {
    char *place = out->data + out->used;
    out->used += (size_t)size;
    if (size > 16) memcpy(place, at, (size_t)size);
    else for (Py_ssize_t i = 0; i < size; i++) place[i] = (char)at[i];
}

enum { SAME = -1, LEFT = -2 };

/* Appends the new text to `out` and its size to `sizes`: SAME without a match, LEFT for invalid UTF-8; returns 0 without memory. */
static int replace_text(const Classes *classes, const Rewrite *rewrite, Bytes text, int plain, Pile *out, Pile *sizes) {
    const unsigned char *at = text.at, *end = at + text.size;
    size_t begun = out->used;
    Found found;
    int64_t size = plain && is_utf8(at, end) ? SAME : LEFT;
    while (size != LEFT && search(classes, at, end, &found)) {
        size = 0;
        if (!make_room(out, (size_t)(found.end - at) + (size_t)rewrite->before.size + (size_t)rewrite->after.size)) return 0;
        put(out, at, found.start - at);
        put(out, rewrite->before.at, rewrite->before.size);
        if (rewrite->keeps) put(out, found.start, found.end - found.start);
        put(out, rewrite->after.at, rewrite->after.size);
        at = found.end;
    }
    if (size == 0 && !pile(out, at, (size_t)(end - at))) return 0;
    if (size == 0) size = (int64_t)(out->used - begun);
    return pile(sizes, &size, sizeof size);
}

/* The new texts; unchanged ones are the same objects, None means the fallback. */
static PyObject *new_texts(const Objects *texts, const Pile *out, const Pile *sizes) {
    PyObject *list = PyList_New(texts->count);
    const char *at = out->data;
    for (Py_ssize_t i = 0; list != NULL && i < texts->count; i++) {
        int64_t size;
        memcpy(&size, sizes->data + (size_t)i * sizeof size, sizeof size);
        PyObject *text = size == LEFT ? Py_NewRef(Py_None) : size == SAME ? Py_NewRef(texts->items[i]) : PyBytes_FromStringAndSize(at, (Py_ssize_t)size);
        if (text == NULL) { Py_CLEAR(list); break; }
        if (size > 0) at += size;
        PyList_SET_ITEM(list, i, text);
    }
    return list;
}

/* replace_classes(texts, classes, before, after, keeps) -> list: the texts with each match replaced by `before`, the match if it is
 * kept, and `after`; None for invalid UTF-8. */
PyObject *replace_classes(PyObject *self, PyObject *args) {
    PyObject *array, *list = NULL;
    const char *bytes;
    Py_ssize_t size;
    Classes classes;
    Rewrite rewrite;
    Objects texts;
    Bytes text = {NULL, 0};
    Pile out = {NULL, 0, 0}, sizes = {NULL, 0, 0};
    const char *before, *after;
    if (!PyArg_ParseTuple(args, "Oy#y#y#p", &array, &bytes, &size, &before, &rewrite.before.size, &after, &rewrite.after.size, &rewrite.keeps)) return NULL;
    rewrite.before.at = (const unsigned char *)before;
    rewrite.after.at = (const unsigned char *)after;
    if (open_classes(bytes, size, &classes) < 0 || open_objects(array, 256, &texts) < 0) return NULL;
    int done = 1;
    for (Py_ssize_t i = 0; done && i < texts.count; i++) {
        int plain = bytes_at(&texts, i, &text);
        done = replace_text(&classes, &rewrite, text, plain, &out, &sizes);
    }
    take_lock(&texts);
    if (done) list = new_texts(&texts, &out, &sizes);
    else PyErr_NoMemory();
    close_objects(&texts);
    PyMem_RawFree(out.data);
    PyMem_RawFree(sizes.data);
    return list;
}

/* -- splitting ---------------------------------------------------------------------------------------------------------------- */

typedef struct {
    Pile starts, limits, splits, rows; /* rows: those left to the fallback */
    int64_t count;
} Tokens;

static int put_token(Tokens *tokens, const unsigned char *text, const unsigned char *at, const unsigned char *end) {
    int64_t start = at - text, limit = end - text;
    tokens->count++;
    return pile(&tokens->starts, &start, sizeof start) && pile(&tokens->limits, &limit, sizeof limit);
}

/* Splits between the matches of `classes`; matches of `kept` (or NULL) are tokens too; 0: no memory. */
static int split_text(const Classes *classes, const Classes *kept, Bytes text, Tokens *tokens) {
    const unsigned char *at = text.at, *end = at + text.size;
    Found found;
    while (search(classes, at, end, &found)) {
        if (found.start > at && !put_token(tokens, text.at, at, found.start)) return 0;
        if (kept != NULL && is_match(kept, found.start, found.end) && !put_token(tokens, text.at, found.start, found.end)) return 0;
        at = found.end;
    }
    return at == end || put_token(tokens, text.at, at, end);
}

static int split_texts(const Classes *classes, const Classes *kept, const Objects *texts, Tokens *tokens) {
    Bytes text;
    int done = pile(&tokens->splits, &tokens->count, sizeof tokens->count);
    for (Py_ssize_t i = 0; done && i < texts->count; i++) {
        int plain = bytes_at(texts, i, &text);
        const unsigned char *zero = plain && text.size ? memchr(text.at, 0, (size_t)text.size) : NULL;
        if (zero != NULL) text.size = zero - text.at;
        if (plain && is_utf8(text.at, text.at + text.size)) done = split_text(classes, kept, text, tokens);
        else done = pile(&tokens->rows, &i, sizeof i);
        done = done && pile(&tokens->splits, &tokens->count, sizeof tokens->count);
    }
    return done;
}

static PyObject *token_list(const Objects *texts, const Tokens *tokens) {
    PyObject *list = PyList_New((Py_ssize_t)tokens->count);
    const int64_t *starts = (int64_t *)tokens->starts.data, *limits = (int64_t *)tokens->limits.data, *splits = (int64_t *)tokens->splits.data;
    for (Py_ssize_t i = 0; list != NULL && i < texts->count; i++) {
        for (int64_t k = splits[i]; k < splits[i + 1]; k++) {
            const char *text = PyBytes_AS_STRING(texts->items[i]);
            PyObject *token = PyBytes_FromStringAndSize(text + starts[k], (Py_ssize_t)(limits[k] - starts[k]));
            if (token == NULL) { Py_DECREF(list); return NULL; }
            PyList_SET_ITEM(list, (Py_ssize_t)k, token);
        }
    }
    return list;
}

static PyObject *as_bytes(const Pile *numbers) { return PyByteArray_FromStringAndSize(numbers->data, (Py_ssize_t)numbers->used); }

/* split_classes(texts, classes, kept) -> (tokens, starts, limits, splits, rows): the tokens as a list, three int64 arrays as bytes,
 * and the rows left to the fallback (without tokens here) or None. `kept` is a table like `classes`, or None. */
PyObject *split_classes(PyObject *self, PyObject *args) {
    PyObject *array, *list, *result = NULL;
    const char *bytes, *more;
    Py_ssize_t size, more_size;
    Classes classes, kept;
    Objects texts;
    Tokens tokens;
    memset(&tokens, 0, sizeof tokens);
    if (!PyArg_ParseTuple(args, "Oy#z#", &array, &bytes, &size, &more, &more_size)) return NULL;
    if (open_classes(bytes, size, &classes) < 0 || (more != NULL && open_classes(more, more_size, &kept) < 0)) return NULL;
    if (open_objects(array, 256, &texts) < 0) return NULL;
    int done = split_texts(&classes, more == NULL ? NULL : &kept, &texts, &tokens);
    take_lock(&texts);
    if (!done) PyErr_NoMemory();
    else if ((list = token_list(&texts, &tokens)) != NULL)
        result = Py_BuildValue("NNNNN", list, as_bytes(&tokens.starts), as_bytes(&tokens.limits), as_bytes(&tokens.splits), row_list(&tokens.rows));
    close_objects(&texts);
    PyMem_RawFree(tokens.starts.data);
    PyMem_RawFree(tokens.limits.data);
    PyMem_RawFree(tokens.splits.data);
    PyMem_RawFree(tokens.rows.data);
    return result;
}
