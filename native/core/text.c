/* Texts to rows of ids in one pass over their bytes: each byte is kept, rewritten, dropped or ends a word; words are looked up. */
#include "core.h"

/* What becomes of a byte, other than being kept: it ends a word, it is dropped; its text is left to Python, always or where it is
 * not valid UTF-8. */
enum { SPACE = 1, DROP = 2, LEAVE = 4, UTF8 = 8 };
enum { LONGEST = 255, BLOCK = 64 }; /* a longer word leaves its text to Python; bytes that are looked at together */

#ifdef _MSC_VER
#include <intrin.h>
static inline unsigned lowest_bit(uint64_t bits) { unsigned long place; _BitScanForward64(&place, bits); return place; }
#else
static inline unsigned lowest_bit(uint64_t bits) { return (unsigned)__builtin_ctzll(bits); }
#endif

typedef struct {
    const Words *words;
    const unsigned char *images, *kinds; /* 256 each */
    const int64_t *first, *last;         /* the ids before and behind those of each text */
    Py_ssize_t firsts, lasts, width, longest; /* rows of `width` are written, or the longest row is sought */
    int64_t missing, pad;
    int report; /* unknown words are reported, for `missing` is not their id */
    Pile rows, unknown;
} Plan;

int is_utf8(const unsigned char *at, const unsigned char *end) {
    while (at < end) {
        uint64_t eight;
        while (end - at >= 8 && (memcpy(&eight, at, 8), (eight & 0x8080808080808080u) == 0)) at += 8;
        if (at == end) break;
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

/* As many of `count` ids as the row (NULL: one that is only measured) still takes; the new column. */
static inline Py_ssize_t put(int64_t *row, Py_ssize_t column, Py_ssize_t width, const int64_t *ids, Py_ssize_t count) {
    Py_ssize_t kept = count < width - column ? count : width - column;
    if (row != NULL) memcpy(row + column, ids, (size_t)kept * sizeof *ids);
    return column + kept;
}

/* Writes down a word that must be learnt: its size and its bytes. */
static int report(Plan *plan, const unsigned char *word, Py_ssize_t size) {
    unsigned char head = (unsigned char)size;
    return pile(&plan->unknown, &head, 1) && pile(&plan->unknown, word, (size_t)size);
}

/* The next of a row's ids by a word; `known` becomes 0 where it is not known, -1 where memory ran out. */
static inline Py_ssize_t put_word(Plan *plan, int64_t *row, Py_ssize_t column, const unsigned char *word, Py_ssize_t size, int *known) {
    const Entry *entry = find_padded(plan->words, word, (size_t)size);
    if (entry != NULL) return put(row, column, plan->width, entry->ids, entry->count);
    if (plan->report) {
        if (!report(plan, word, size)) *known = -1;
        else if (*known == 1) *known = 0;
        return column;
    }
    return put(row, column, plan->width, &plan->missing, 1);
}

typedef struct {
    Py_ssize_t count; /* of the bytes that were kept or end a word */
    uint64_t ends;    /* a bit for each of those that end one */
    unsigned asked;   /* what any of them asks */
} Block;

/* Up to BLOCK bytes as they become, without branches. */
static inline Block read_block(const Plan *plan, const unsigned char *at, Py_ssize_t size, unsigned char *out) {
    const unsigned char *images = plan->images, *kinds = plan->kinds;
    Block block = {0, 0, 0}; /* in registers: nothing that is written through `out` can be it */
    for (Py_ssize_t i = 0; i < size; i++) {
        unsigned kind = kinds[at[i]];
        out[block.count] = images[at[i]];
        block.ends |= (uint64_t)(kind & SPACE) << block.count;
        block.asked |= kind;
        block.count += !(kind & DROP);
    }
    return block;
}

/* One text: 1 done, 0 left to Python, -1 no memory. */
static int read_text(Plan *plan, Bytes text, int64_t *row) {
    unsigned char buffer[LONGEST + BLOCK + 16]; /* a block, and before it what a word began with */
    Py_ssize_t begun = 0, column = put(row, 0, plan->width, plan->first, plan->firsts);
    int known = 1, valid = 0;
    for (Py_ssize_t at = 0; at < text.size && column < plan->width; at += BLOCK) {
        unsigned char *start = buffer + begun, *word = buffer;
        Block block = read_block(plan, text.at + at, text.size - at < BLOCK ? text.size - at : BLOCK, start);
        if (block.asked & LEAVE) return 0;
        if (block.asked & UTF8 && !valid && !(valid = is_utf8(text.at, text.at + text.size))) return 0;
        for (uint64_t ends = block.ends; ends && column < plan->width; ends &= ends - 1) {
            unsigned char *end = start + lowest_bit(ends);
            if (end - word > LONGEST) return 0;
            if (end > word) column = put_word(plan, row, column, word, end - word, &known);
            word = end + 1;
        }
        begun = start + block.count - word;
        if (begun > LONGEST) return 0;
        memmove(buffer, word, (size_t)begun);
    }
    if (begun > 0 && column < plan->width) column = put_word(plan, row, column, buffer, begun, &known);
    column = put(row, column, plan->width, plan->last, plan->lasts);
    if (row != NULL)
        while (column < plan->width) row[column++] = plan->pad;
    else if (known == 1 && column > plan->longest) plan->longest = column;
    return known;
}

static int read_texts(Plan *plan, const Objects *texts, int64_t *out) {
    Bytes text;
    for (Py_ssize_t i = 0; i < texts->count; i++) {
        int done = bytes_at(texts, i, &text) ? read_text(plan, text, out == NULL ? NULL : out + i * plan->width) : 0;
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

/* What Python gets: None where all rows were read, else those that are left and the words that it must learn. */
static PyObject *what_is_left(const Plan *plan) {
    if (plan->rows.used == 0) Py_RETURN_NONE;
    return Py_BuildValue("NN", row_list(&plan->rows), unknown_words(&plan->unknown));
}

/* Reads the texts into `out`, whose width is that of the rows, or measures them where it is None. */
static PyObject *run(Plan *plan, PyObject *array, PyObject *out) {
    Py_buffer view = {0};
    Objects texts;
    plan->width = PY_SSIZE_T_MAX;
    if (out != Py_None && writable(out, -1, 8, &view) < 0) return NULL;
    int done = open_objects(array, 256, &texts);
    if (done == 0) {
        Py_ssize_t count = texts.count > 0 ? texts.count : 1;
        int fits = view.len / 8 % count == 0 && (texts.count > 0 || view.len == 0);
        if (out != Py_None) plan->width = view.len / 8 / count;
        if (fits) done = read_texts(plan, &texts, view.buf);
        close_objects(&texts);
        if (!fits) PyErr_SetString(PyExc_ValueError, "the buffer has another size");
        else if (done < 0) PyErr_NoMemory();
        if (!fits) done = -1;
    }
    if (out != Py_None) PyBuffer_Release(&view);
    if (done < 0) return NULL;
    return out == Py_None ? Py_BuildValue("nN", plan->longest, what_is_left(plan)) : what_is_left(plan);
}

/* Whether no byte both ends a word and is left out: such a one would move no place, and its bit would be the next one's. */
static int sound(const unsigned char *kinds) {
    for (int i = 0; i < 256; i++)
        if ((kinds[i] & SPACE) && (kinds[i] & DROP)) return 0;
    return 1;
}

/* text_ids(words, bytes, first, last, missing, pad, texts, out) -> None, or (rows that are left, unknown words)
 *
 * `bytes` are 256 images and 256 kinds, `first` and `last` int64s, `missing` the id of an unknown word or None. Where `out` is None
 * nothing is written, and the length of the longest row comes before the rest. */
PyObject *text_ids(PyObject *self, PyObject *args) {
    PyObject *array, *missing, *out, *left = NULL;
    const char *table;
    Py_buffer first, last;
    Py_ssize_t size;
    long long pad;
    Words *words;
    Plan plan;
    memset(&plan, 0, sizeof plan);
    if (!PyArg_ParseTuple(args, "O!y#y*y*OLOO", &WordsType, &words, &table, &size, &first, &last, &missing, &pad, &array, &out)) return NULL;
    plan.words = words;
    plan.images = (const unsigned char *)table;
    plan.kinds = plan.images + 256;
    plan.first = first.buf, plan.firsts = first.len / 8;
    plan.last = last.buf, plan.lasts = last.len / 8;
    plan.pad = pad;
    plan.report = missing == Py_None;
    plan.missing = plan.report ? 0 : PyLong_AsLongLong(missing);
    if (size != 512) PyErr_SetString(PyExc_ValueError, "the table of bytes has another size");
    else if (!sound(plan.kinds)) PyErr_SetString(PyExc_ValueError, "a byte of the table both ends a word and is left out");
    else if (!PyErr_Occurred()) left = run(&plan, array, out);
    PyBuffer_Release(&first);
    PyBuffer_Release(&last);
    PyMem_RawFree(plan.rows.data);
    PyMem_RawFree(plan.unknown.data);
    return left;
}
