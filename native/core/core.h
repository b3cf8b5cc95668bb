/* The native core: loops over many small byte strings that are several times slower in Python. Optional: if it is not built, the
 * Python code beside each caller gives bit-identical results. Nothing here reports errors: unusual or malformed
 * values are left to the Python code. */
#ifndef TORCH_TOWERS_CORE_H
#define TORCH_TOWERS_CORE_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* -- buffers (buffers.c) ------------------------------------------------------------------------------------------------------ */

/* A writable buffer of `count` elements of `size` bytes, or an exception; `count` -1 for any number. */
int writable(PyObject *object, Py_ssize_t count, Py_ssize_t size, Py_buffer *view);

/* The elements of an array of Python objects. */
typedef struct {
    PyObject **items; /* a copy with its own references if the GIL was released */
    Py_ssize_t count;
    Py_buffer view;
    PyThreadState *thread;
} Objects;

/* Opens an object array. With `many` or more elements it holds references and releases the GIL. -1 with an exception. */
int open_objects(PyObject *array, Py_ssize_t many, Objects *objects);
void take_lock(Objects *objects);     /* reacquires the GIL; the elements are unchanged */
void close_objects(Objects *objects); /* reacquires the GIL */

typedef struct {
    const unsigned char *at;
    Py_ssize_t size;
} Bytes;

/* Element `index`, which is `bytes`, or 0. Needs no GIL. */
static inline int bytes_at(const Objects *objects, Py_ssize_t index, Bytes *bytes) {
    PyObject *item = objects->items[index];
    if (item == NULL || !PyBytes_CheckExact(item)) return 0;
    bytes->at = (const unsigned char *)PyBytes_AS_STRING(item);
    bytes->size = PyBytes_GET_SIZE(item);
    return 1;
}

/* A growable buffer, usable without the GIL. */
typedef struct {
    char *data;
    size_t used, room;
} Pile;

int make_room(Pile *pile, size_t size);              /* reserves that many bytes; 0 without memory */
int pile(Pile *pile, const void *data, size_t size); /* the same */
PyObject *row_list(const Pile *rows);                /* its Py_ssize_ts as a list, None if empty */

/* -- texts (text.c) ----------------------------------------------------------------------------------------------------------- */

/* Strict: no surrogates, no overlong forms, nothing above U+10FFFF. */
int is_utf8(const unsigned char *at, const unsigned char *end);

/* -- words (words.c) ---------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t size, count;
    int64_t ids[]; /* `count` ids, then `size` bytes */
} Entry;

typedef struct Words Words;
extern PyTypeObject WordsType;
int start_words(void);

/* The entry of a word, or NULL. Needs no GIL: words may be added concurrently. */
const Entry *find_word(const Words *words, const unsigned char *word, size_t size);

/* The same for a word in a buffer of which 16 bytes from its start can be read. */
const Entry *find_padded(const Words *words, const unsigned char *word, size_t size);

/* -- functions of the module ---------------------------------------------------------------------------------------------------- */

PyObject *find(PyObject *self, PyObject *args);
PyObject *find_integers(PyObject *self, PyObject *args);
PyObject *text_ids(PyObject *self, PyObject *args);
PyObject *encode(PyObject *self, PyObject *args);
PyObject *numbers(PyObject *self, PyObject *args);
PyObject *lookup(PyObject *self, PyObject *args);
PyObject *examples(PyObject *self, PyObject *args);
PyObject *hashes(PyObject *self, PyObject *args);
PyObject *ngrams(PyObject *self, PyObject *args);
PyObject *replace_classes(PyObject *self, PyObject *args);
PyObject *split_classes(PyObject *self, PyObject *args);
PyObject *hash_integers(PyObject *self, PyObject *args);
PyObject *decode(PyObject *self, PyObject *args);
PyObject *encode_codes(PyObject *self, PyObject *args);
PyObject *fill_rows(PyObject *self, PyObject *args);
PyObject *chunks(PyObject *self, PyObject *args);
PyObject *distinct(PyObject *self, PyObject *args);
PyObject *bags(PyObject *self, PyObject *args);
PyObject *segment_sums(PyObject *self, PyObject *args);
PyObject *histogram(PyObject *self, PyObject *args);
PyObject *split(PyObject *self, PyObject *args);
PyObject *ascii_case(PyObject *self, PyObject *args);
PyObject *cut(PyObject *self, PyObject *args);
PyObject *read_numbers(PyObject *self, PyObject *args);
PyObject *places(PyObject *self, PyObject *args);
PyObject *below(PyObject *self, PyObject *args);
PyObject *one_hot(PyObject *self, PyObject *args);
PyObject *resize_bilinear(PyObject *self, PyObject *args);
PyObject *pad_rows(PyObject *self, PyObject *args);
PyObject *buckets(PyObject *self, PyObject *args);
PyObject *spread(PyObject *self, PyObject *args);
PyObject *cross(PyObject *self, PyObject *args);

#endif
