/* Texts to rows of ids in one pass over their bytes: each byte is kept, mapped, dropped or ends a word; words, or the n-grams of
 * them, are looked up. A row holds the ids, or how often each occurs. */
#include "core.h"

/* Actions for a byte other than keeping it: it ends a word, or is dropped; its text uses the fallback, always or if it is
 * invalid UTF-8. */
enum { SPACE = 1, DROP = 2, LEAVE = 4, UTF8 = 8 };
enum { MOST_WIDTHS = 16, WIDEST = 1 << 20 };
enum { MAX_WORD = 255, BLOCK = 64 }; /* longer words use the fallback; bytes processed at a time */

#ifdef _MSC_VER
#include <intrin.h>
static inline unsigned lowest_bit(uint64_t bits) { unsigned long place; _BitScanForward64(&place, bits); return place; }
#else
static inline unsigned lowest_bit(uint64_t bits) { return (unsigned)__builtin_ctzll(bits); }
#endif

typedef struct {
    const Words *words;
    const unsigned char *images, *kinds; /* 256 each */
    const int64_t *first, *last;         /* the ids before and after those of each text */
    Py_ssize_t firsts, lasts, width, longest; /* rows of `width` are written, or the longest row is computed */
    int64_t missing, pad;
    int report; /* unknown words are reported, because `missing` is not their id */
    int tally;  /* rows hold numbers of occurrences, of `tally` bytes: floats or int64s */
    int once;   /* each at most 1 */
    Py_ssize_t size; /* ids from here on are not counted */
    Py_ssize_t widths[MOST_WIDTHS], grams; /* of n-grams, and how many; 0: words are looked up */
    Bytes separator;
    Pile words_of_text, ends; /* the words of a text, joined by the separator, and where each ends */
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

/* Counts ids in the row; 0 if one is negative, which Python refuses. */
static inline int tally(const Plan *plan, void *row, const int64_t *ids, Py_ssize_t count) {
    for (Py_ssize_t i = 0; i < count; i++) {
        if (ids[i] < 0) return 0;
        if (ids[i] >= plan->size) continue;
        if (plan->tally == 4) ((float *)row)[ids[i]] = plan->once ? 1 : ((float *)row)[ids[i]] + 1;
        else ((int64_t *)row)[ids[i]] = plan->once ? 1 : ((int64_t *)row)[ids[i]] + 1;
    }
    return 1;
}

/* Appends up to `count` ids while the row (NULL: only measured) has room, or counts them; returns the new column. `known` becomes 0
 * where the row is left to Python. */
static inline Py_ssize_t put(const Plan *plan, void *row, Py_ssize_t column, const int64_t *ids, Py_ssize_t count, int *known) {
    if (plan->tally) {
        if (!tally(plan, row, ids, count) && *known == 1) *known = 0;
        return column;
    }
    Py_ssize_t kept = count < plan->width - column ? count : plan->width - column;
    if (row != NULL) memcpy((int64_t *)row + column, ids, (size_t)kept * sizeof *ids);
    return column + kept;
}

/* Records a word to be learnt: its size and bytes. */
static int report(Plan *plan, const unsigned char *word, Py_ssize_t size) {
    unsigned char head = (unsigned char)size;
    return pile(&plan->unknown, &head, 1) && pile(&plan->unknown, word, (size_t)size);
}

/* Keeps a word of a text for its n-grams; 0 without memory. */
static int keep_word(Plan *plan, const unsigned char *word, Py_ssize_t size) {
    Pile *joined = &plan->words_of_text;
    if (plan->ends.used > 0 && !pile(joined, plan->separator.at, (size_t)plan->separator.size)) return 0;
    return pile(joined, word, (size_t)size) && pile(&plan->ends, &joined->used, sizeof joined->used);
}

/* Appends the ids of a word to the row; `known` becomes 0 if it is unknown, -1 without memory. */
static inline Py_ssize_t put_word(Plan *plan, void *row, Py_ssize_t column, const unsigned char *word, Py_ssize_t size, int *known) {
    if (plan->grams > 0) {
        if (!keep_word(plan, word, size)) *known = -1;
        return column;
    }
    const Entry *entry = find_padded(plan->words, word, (size_t)size);
    if (entry != NULL) return put(plan, row, column, entry->ids, entry->count, known);
    if (plan->report) {
        if (!report(plan, word, size)) *known = -1;
        else if (*known == 1) *known = 0;
        return column;
    }
    return put(plan, row, column, &plan->missing, 1, known);
}

/* Appends the ids of the n-grams of the words that were kept, by width. Their bytes lie side by side: an n-gram is a span. */
static Py_ssize_t put_grams(Plan *plan, void *row, Py_ssize_t column, int *known) {
    const size_t *ends = (const size_t *)plan->ends.data;
    Py_ssize_t count = (Py_ssize_t)(plan->ends.used / sizeof *ends);
    if (!make_room(&plan->words_of_text, 16)) { *known = -1; return column; } /* `find_padded` reads beyond a word */
    const unsigned char *joined = (const unsigned char *)plan->words_of_text.data;
    for (Py_ssize_t k = 0; k < plan->grams; k++) {
        Py_ssize_t width = plan->widths[k];
        for (Py_ssize_t i = 0; i + width <= count && column < plan->width; i++) {
            size_t start = i > 0 ? ends[i - 1] + (size_t)plan->separator.size : 0;
            const Entry *entry = find_padded(plan->words, joined + start, ends[i + width - 1] - start);
            column = entry == NULL ? put(plan, row, column, &plan->missing, 1, known) : put(plan, row, column, entry->ids, entry->count, known);
        }
    }
    return column;
}

typedef struct {
    Py_ssize_t count; /* of the bytes that are kept or end a word */
    uint64_t ends;    /* a bit for each byte that ends a word */
    unsigned asked;   /* the requirements of all bytes */
} Block;

/* Maps up to BLOCK bytes without branches. */
static inline Block read_block(const Plan *plan, const unsigned char *at, Py_ssize_t size, unsigned char *out) {
    const unsigned char *images = plan->images, *kinds = plan->kinds;
    Block block = {0, 0, 0}; /* in registers: writes through `out` cannot alias it */
    for (Py_ssize_t i = 0; i < size; i++) {
        unsigned kind = kinds[at[i]];
        out[block.count] = images[at[i]];
        block.ends |= (uint64_t)(kind & SPACE) << block.count;
        block.asked |= kind;
        block.count += !(kind & DROP);
    }
    return block;
}

/* One text: 1 done, 0 fallback, -1 no memory. */
static int read_text(Plan *plan, Bytes text, void *row) {
    unsigned char buffer[MAX_WORD + BLOCK + 16]; /* a block, preceded by the start of a word */
    int known = 1, valid = 0;
    Py_ssize_t begun = 0, column = put(plan, row, 0, plan->first, plan->firsts, &known);
    plan->words_of_text.used = plan->ends.used = 0;
    for (Py_ssize_t at = 0; at < text.size && column < plan->width; at += BLOCK) {
        unsigned char *start = buffer + begun, *word = buffer;
        Block block = read_block(plan, text.at + at, text.size - at < BLOCK ? text.size - at : BLOCK, start);
        if (block.asked & LEAVE) return 0;
        if (block.asked & UTF8 && !valid && !(valid = is_utf8(text.at, text.at + text.size))) return 0;
        for (uint64_t ends = block.ends; ends && column < plan->width; ends &= ends - 1) {
            unsigned char *end = start + lowest_bit(ends);
            if (end - word > MAX_WORD) return 0;
            if (end > word) column = put_word(plan, row, column, word, end - word, &known);
            word = end + 1;
        }
        begun = start + block.count - word;
        if (begun > MAX_WORD) return 0;
        memmove(buffer, word, (size_t)begun);
    }
    if (begun > 0 && column < plan->width) column = put_word(plan, row, column, buffer, begun, &known);
    if (plan->grams > 0 && known == 1) column = put_grams(plan, row, column, &known);
    column = put(plan, row, column, plan->last, plan->lasts, &known);
    if (plan->tally) return known;
    if (row != NULL)
        while (column < plan->width) ((int64_t *)row)[column++] = plan->pad;
    else if (known == 1 && column > plan->longest) plan->longest = column;
    return known;
}

static int read_texts(Plan *plan, const Objects *texts, char *out) {
    Py_ssize_t stride = plan->tally ? plan->tally * plan->size : out == NULL ? 0 : 8 * plan->width;
    Bytes text;
    for (Py_ssize_t i = 0; i < texts->count; i++) {
        int done = bytes_at(texts, i, &text) ? read_text(plan, text, out == NULL ? NULL : out + i * stride) : 0;
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

/* The result for Python: None if all rows were read, else the remaining rows and the words to learn. */
static PyObject *what_is_left(const Plan *plan) {
    if (plan->rows.used == 0) Py_RETURN_NONE;
    return Py_BuildValue("NN", row_list(&plan->rows), unknown_words(&plan->unknown));
}

/* Reads the texts into `out`, which has the rows' width, or measures them if it is None. */
static PyObject *run(Plan *plan, PyObject *array, PyObject *out) {
    Py_buffer view = {0};
    Objects texts;
    plan->width = PY_SSIZE_T_MAX;
    if (out != Py_None && writable(out, -1, plan->tally ? plan->tally : 8, &view) < 0) return NULL;
    int done = open_objects(array, 256, &texts);
    if (done == 0) {
        Py_ssize_t count = texts.count > 0 ? texts.count : 1, numbers = view.len / (plan->tally ? plan->tally : 8);
        int fits = numbers % count == 0 && (texts.count > 0 || view.len == 0) && (!plan->tally || out != Py_None);
        if (plan->tally) plan->size = numbers / count;
        else if (out != Py_None) plan->width = numbers / count;
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

/* Whether no byte both ends a word and is dropped: it would not advance, and its bit would belong to the next byte. */
static int sound(const unsigned char *kinds) {
    for (int i = 0; i < 256; i++)
        if ((kinds[i] & SPACE) && (kinds[i] & DROP)) return 0;
    return 1;
}

/* The widths of n-grams, a tuple or NULL: 0, or -1 with an exception. */
static int read_widths(Plan *plan, PyObject *widths) {
    Py_ssize_t count = widths == NULL ? 0 : PyTuple_GET_SIZE(widths);
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t width = PyLong_AsSsize_t(PyTuple_GET_ITEM(widths, i));
        if (PyErr_Occurred()) return -1;
        if (i == MOST_WIDTHS || width < 1 || width > WIDEST) {
            PyErr_SetString(PyExc_ValueError, "the widths of n-grams are too many or out of range");
            return -1;
        }
        plan->widths[plan->grams++] = width;
    }
    if (plan->grams == 0 || !(plan->report || plan->firsts || plan->lasts)) return 0;
    PyErr_SetString(PyExc_ValueError, "n-grams are only looked up");
    return -1;
}

/* text_ids(words, bytes, first, last, missing, pad, texts, out, widths, separator, tally, once) -> None, or (remaining rows, unknown
 * words)
 *
 * `bytes` are 256 images and 256 kinds, `first` and `last` int64s, `missing` the id of an unknown word or None. If `out` is None,
 * nothing is written, and the result starts with the length of the longest row. `widths` are those of n-grams, joined by
 * `separator`; without any, words are looked up. `tally`: `out` is zeros, floats (4) or int64s (8), in which ids are counted. */
PyObject *text_ids(PyObject *self, PyObject *args) {
    PyObject *array, *missing, *out, *widths = NULL, *left = NULL;
    const char *table, *separator = "";
    Py_buffer first, last;
    Py_ssize_t size;
    long long pad;
    Words *words;
    Plan plan;
    memset(&plan, 0, sizeof plan);
    if (!PyArg_ParseTuple(args, "O!y#y*y*OLOO|O!y#ip", &WordsType, &words, &table, &size, &first, &last, &missing, &pad, &array, &out,
                          &PyTuple_Type, &widths, &separator, &plan.separator.size, &plan.tally, &plan.once)) return NULL;
    plan.words = words;
    plan.images = (const unsigned char *)table;
    plan.kinds = plan.images + 256;
    plan.first = first.buf, plan.firsts = first.len / 8;
    plan.last = last.buf, plan.lasts = last.len / 8;
    plan.pad = pad;
    plan.report = missing == Py_None;
    plan.missing = plan.report ? 0 : PyLong_AsLongLong(missing);
    plan.separator.at = (const unsigned char *)separator;
    if (size != 512) PyErr_SetString(PyExc_ValueError, "the table of bytes has another size");
    else if (!sound(plan.kinds)) PyErr_SetString(PyExc_ValueError, "a byte of the table both ends a word and is left out");
    else if (plan.tally != 0 && plan.tally != 4 && plan.tally != 8) PyErr_SetString(PyExc_ValueError, "numbers have 4 or 8 bytes");
    else if (!PyErr_Occurred() && read_widths(&plan, widths) == 0) left = run(&plan, array, out);
    PyBuffer_Release(&first);
    PyBuffer_Release(&last);
    PyMem_RawFree(plan.rows.data);
    PyMem_RawFree(plan.unknown.data);
    PyMem_RawFree(plan.words_of_text.data);
    PyMem_RawFree(plan.ends.data);
    return left;
}
