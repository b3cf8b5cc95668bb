/* Texts to rows of ids in one pass over their bytes: each byte is kept, rewritten, dropped or ends a word; words are looked up. */
#include "core.h"

enum { KEEP, SPACE, DROP, LEAVE, UTF8 = 4 }; /* what becomes of a byte; UTF8 beside it: only where the text is valid UTF-8 */
enum { LONGEST = 255 };                      /* a longer word leaves its text to Python */

typedef struct {
    const Words *words;
    const unsigned char *images, *kinds; /* 256 each */
    const int64_t *first, *last;         /* the ids before and behind those of each text */
    Py_ssize_t firsts, lasts, width;
    int64_t missing, pad;
    int report; /* unknown words are reported, for `missing` is not their id */
    Pile rows, unknown;
} Plan;

/* Strictly: no surrogates, nothing longer than it must be, nothing above U+10FFFF. */
static int is_utf8(const unsigned char *at, const unsigned char *end) {
    while (at < end) {
        unsigned char byte = *at++, low = 0x80, high = 0xBF;
        if (byte < 0x80) continue;
        int more = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
        if (byte < 0xC2 || byte > 0xF4 || end - at < more) return 0;
        if (byte == 0xE0) low = 0xA0;
        if (byte == 0xED) high = 0x9F;
        if (byte == 0xF0) low = 0x90;
        if (byte == 0xF4) high = 0x8F;
        if (*at < low || *at > high) return 0;
        for (at++; --more; at++)
            if (*at < 0x80 || *at > 0xBF) return 0;
    }
    return 1;
}

/* As many of `count` ids as the row still takes; the new column. */
static inline Py_ssize_t put(int64_t *row, Py_ssize_t column, Py_ssize_t width, const int64_t *ids, Py_ssize_t count) {
    Py_ssize_t kept = count < width - column ? count : width - column;
    memcpy(row + column, ids, (size_t)kept * sizeof *ids);
    return column + kept;
}

/* Writes down a word that must be learnt: its size and its bytes. */
static int report(Plan *plan, const unsigned char *word, Py_ssize_t size) {
    unsigned char head = (unsigned char)size;
    return pile(&plan->unknown, &head, 1) && pile(&plan->unknown, word, (size_t)size);
}

/* One text: 1 done, 0 left to Python, -1 no memory. */
static int read_text(Plan *plan, Bytes text, int64_t *row) {
    const unsigned char *at = text.at, *end = at + text.size;
    unsigned char word[LONGEST + 1];
    int valid = 0, known = 1;
    Py_ssize_t column = put(row, 0, plan->width, plan->first, plan->firsts);
    while (at < end && column < plan->width) {
        Py_ssize_t size = 0;
        while (at < end) {
            unsigned char byte = *at++, kind = plan->kinds[byte];
            if (kind & UTF8) {
                if (!valid && !is_utf8(text.at, end)) return 0;
                valid = 1;
                kind &= UTF8 - 1;
            }
            if (kind == KEEP) {
                if (size == LONGEST) return 0;
                word[size++] = plan->images[byte];
            } else if (kind == SPACE) break;
            else if (kind == LEAVE) return 0;
        }
        if (size == 0) continue;
        const Entry *entry = find_word(plan->words, word, (size_t)size);
        if (entry != NULL) column = put(row, column, plan->width, entry->ids, entry->count);
        else if (!plan->report) row[column++] = plan->missing;
        else if (!report(plan, word, size)) return -1;
        else known = 0;
    }
    column = put(row, column, plan->width, plan->last, plan->lasts);
    while (column < plan->width) row[column++] = plan->pad;
    return known;
}

static int read_texts(Plan *plan, const Objects *texts, int64_t *out) {
    Bytes text;
    for (Py_ssize_t i = 0; i < texts->count; i++) {
        int done = bytes_at(texts, i, &text) ? read_text(plan, text, out + i * plan->width) : 0;
        if (done < 0 || (done == 0 && !pile(&plan->rows, &i, sizeof i))) return -1;
    }
    return 0;
}

static PyObject *unknown_words(const Pile *unknown) {
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < unknown->used; i += 1 + (unsigned char)unknown->data[i]) {
        PyObject *word = PyBytes_FromStringAndSize(unknown->data + i + 1, (unsigned char)unknown->data[i]);
        if (word == NULL || PyList_Append(list, word) < 0) Py_CLEAR(list);
        Py_XDECREF(word);
    }
    return list;
}

/* text_ids(words, bytes, first, last, missing, pad, texts, out) -> None, or (rows that are left, unknown words)
 *
 * `bytes` are 256 images and 256 kinds, `first` and `last` int64s, `missing` the id of an unknown word or None. */
PyObject *text_ids(PyObject *self, PyObject *args) {
    PyObject *array, *missing, *out;
    const char *table;
    Py_buffer first, last, view;
    Py_ssize_t size;
    long long pad;
    Words *words;
    Objects texts;
    Plan plan;
    memset(&plan, 0, sizeof plan);
    if (!PyArg_ParseTuple(args, "O!y#y*y*OLOO", &WordsType, &words, &table, &size, &first, &last, &missing, &pad, &array, &out)) return NULL;
    PyObject *left = NULL;
    plan.words = words;
    plan.images = (const unsigned char *)table;
    plan.kinds = plan.images + 256;
    plan.first = first.buf, plan.firsts = first.len / 8;
    plan.last = last.buf, plan.lasts = last.len / 8;
    plan.pad = pad;
    plan.report = missing == Py_None;
    plan.missing = plan.report ? 0 : PyLong_AsLongLong(missing);
    if (plan.missing == -1 && PyErr_Occurred()) goto plain;
    if (size != 512 || writable(out, -1, 8, &view) < 0) {
        if (size == 512) goto plain;
        PyErr_SetString(PyExc_ValueError, "the table of bytes has another size");
        goto plain;
    }
    if (open_objects(array, 256, &texts) < 0) goto buffer;
    int done = 0, fits = texts.count > 0 ? view.len / 8 % texts.count == 0 : view.len == 0;
    if (fits && texts.count > 0) {
        plan.width = view.len / 8 / texts.count;
        done = read_texts(&plan, &texts, view.buf);
    }
    close_objects(&texts);
    if (!fits) PyErr_SetString(PyExc_ValueError, "the buffer has another size");
    else if (done < 0) PyErr_NoMemory();
    else if (plan.rows.used == 0) left = Py_NewRef(Py_None);
    else left = Py_BuildValue("NN", row_list(&plan.rows), unknown_words(&plan.unknown));
buffer:
    PyBuffer_Release(&view);
plain:
    PyBuffer_Release(&first);
    PyBuffer_Release(&last);
    PyMem_RawFree(plan.rows.data);
    PyMem_RawFree(plan.unknown.data);
    return left;
}
