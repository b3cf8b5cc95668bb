/* Words: a hash table from byte strings to ids. It has a fixed size, entries never move, and each slot is one atomic word with the
 * offset of its entry, so threads can read it without the GIL while another, which holds the GIL, adds words. */
#include "core.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#error "words are read as little-endian numbers: without this module Python does the same"
#endif

#if defined(_MSC_VER) /* volatile accesses are ordered there */
#define READ(place) (*(const volatile uint64_t *)(place))
#define PUBLISH(place, value) (*(volatile uint64_t *)(place) = (value))
#else
#define READ(place) __atomic_load_n((place), __ATOMIC_ACQUIRE)
#define PUBLISH(place, value) __atomic_store_n((place), (value), __ATOMIC_RELEASE)
#endif

enum { WORD = 8, HEADER = 8, MOST_IDS = 1 << 16 };

struct Words {
    PyObject_HEAD
    uint64_t *slots; /* the upper half of the hash, and the entry's offset in units of eight bytes plus one; 0 if empty */
    uint64_t mask;
    char *entries;
    uint64_t used, room; /* in bytes */
    Py_ssize_t count, most;
};

static uint64_t secret[2]; /* random, from Python, so that nobody can construct collisions */

int start_words(void) {
    for (int i = 0; i < 2; i++) {
        PyObject *seed = PyBytes_FromFormat("torch_towers %d", i);
        Py_hash_t hash = seed == NULL ? -1 : PyObject_Hash(seed);
        Py_XDECREF(seed);
        if (hash == -1) return -1;
        secret[i] = (uint64_t)hash | 1;
    }
    return 0;
}

/* The folded 128-bit product of two numbers. */
static inline uint64_t fold(uint64_t a, uint64_t b) {
#ifdef __SIZEOF_INT128__
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#else
    uint64_t low = (a & UINT32_MAX) * (b & UINT32_MAX), high = (a >> 32) * (b >> 32);
    uint64_t one = (a >> 32) * (b & UINT32_MAX) + (low >> 32), other = (a & UINT32_MAX) * (b >> 32) + (one & UINT32_MAX);
    return (other << 32 | (low & UINT32_MAX)) ^ (high + (one >> 32) + (other >> 32));
#endif
}

static inline uint64_t read8(const unsigned char *at) { uint64_t value; memcpy(&value, at, 8); return value; }
static inline uint64_t read4(const unsigned char *at) { uint32_t value; memcpy(&value, at, 4); return value; }

/* A key of the table: its first 16 bytes, zero-padded, and its hash. */
typedef struct {
    const unsigned char *at;
    size_t size;
    uint64_t low, high, hash;
} Key;

/* Hashes like wyhash: 16 bytes per multiplication. */
static inline void hash_key(Key *key) {
    uint64_t seed = secret[1] ^ key->size;
    for (size_t rest = key->size; rest > 16; rest -= 16) { /* from the end, so that the first 16 bytes remain */
        const unsigned char *at = key->at + rest - 16;
        seed = fold(read8(at) ^ secret[0], read8(at + 8) ^ seed);
    }
    key->hash = fold(key->low ^ secret[0], key->high ^ seed);
}

/* A key from a word without readable bytes after its end. */
static inline Key key_of(const unsigned char *at, size_t size) {
    Key key = {at, size, 0, 0, 0};
    if (size >= 8) {
        key.low = read8(at);
        if (size >= 16) key.high = read8(at + 8);
        else if (size > 8) key.high = read8(at + size - 8) >> 8 * (16 - size);
    } else if (size >= 4) key.low = read4(at) | read4(at + size - 4) << 8 * (size - 4);
    else if (size > 0) key.low = (uint64_t)at[0] | (uint64_t)at[size >> 1] << 8 * (size >> 1) | (uint64_t)at[size - 1] << 8 * (size - 1);
    hash_key(&key);
    return key;
}

/* A key from a word of which 16 bytes can be read: branchless. */
static inline Key key_of_padded(const unsigned char *at, size_t size) {
    static const uint64_t masks[9] = {0, 0xFF, 0xFFFF, 0xFFFFFF, UINT32_MAX, 0xFFFFFFFFFF, 0xFFFFFFFFFFFF, 0xFFFFFFFFFFFFFF, UINT64_MAX};
    size_t low = size < 8 ? size : 8, high = size < 16 ? size - low : 8;
    Key key = {at, size, read8(at) & masks[low], read8(at + 8) & masks[high], 0};
    hash_key(&key);
    return key;
}

static inline const Entry *entry_at(const Words *words, uint64_t slot) {
    return (const Entry *)(words->entries + ((slot & UINT32_MAX) - 1) * WORD);
}

static inline int is_key(const Entry *entry, const Key *key) {
    const unsigned char *word = (const unsigned char *)&entry->ids[entry->count];
    if (entry->size != key->size) return 0;
    if (key->size > 16) return memcmp(word, key->at, key->size) == 0;
    uint64_t high = key->size > 8 ? read8(word + 8) : 0;
    return ((read8(word) ^ key->low) | (high ^ key->high)) == 0; /* the entry is zero-padded too */
}

/* The slot of a word, or the empty slot for it. There is always an empty one. */
static inline uint64_t *slot_of(const Words *words, const Key *key) {
    for (uint64_t i = key->hash & words->mask;; i = (i + 1) & words->mask) {
        uint64_t slot = READ(&words->slots[i]);
        if (slot == 0 || (slot >> 32 == key->hash >> 32 && is_key(entry_at(words, slot), key))) return &words->slots[i];
    }
}

static inline const Entry *find_key(const Words *words, const Key *key) {
    uint64_t slot = READ(slot_of(words, key));
    return slot == 0 ? NULL : entry_at(words, slot);
}

const Entry *find_word(const Words *words, const unsigned char *word, size_t size) {
    Key key = key_of(word, size);
    return find_key(words, &key);
}

const Entry *find_padded(const Words *words, const unsigned char *word, size_t size) {
    Key key = key_of_padded(word, size);
    return find_key(words, &key);
}

/* The bytes of an entry's word, zero-padded to a multiple of eight, at least 8. */
static uint64_t padded(size_t size) { return size == 0 ? WORD : (size + WORD - 1) / WORD * WORD; }

/* Allocates an entry of `count` ids; NULL if the table is full. */
static Entry *new_entry(Words *words, const unsigned char *word, size_t size, size_t count) {
    uint64_t bytes = HEADER + WORD * (uint64_t)count + padded(size);
    if (words->count >= words->most || bytes > words->room - words->used) return NULL;
    Entry *entry = (Entry *)(words->entries + words->used);
    entry->size = (uint32_t)size;
    entry->count = (uint32_t)count;
    memset((char *)entry + bytes - WORD, 0, WORD);
    memcpy(&entry->ids[count], word, size);
    return entry;
}

/* Publishes an entry to readers, replacing one of the same word. */
static void publish(Words *words, Entry *entry) {
    Key key = key_of((const unsigned char *)&entry->ids[entry->count], entry->size);
    uint64_t *slot = slot_of(words, &key), place = words->used / WORD + 1;
    words->count += *slot == 0;
    words->used += HEADER + WORD * (uint64_t)entry->count + padded(entry->size);
    PUBLISH(slot, key.hash >> 32 << 32 | place);
}

/* add(word, ids) -> bool: sets the ids of a word; False if the table is full. */
static PyObject *add(Words *words, PyObject *args) {
    PyObject *word, *ids;
    if (!PyArg_ParseTuple(args, "O!O!", &PyBytes_Type, &word, &PyList_Type, &ids)) return NULL;
    Py_ssize_t count = PyList_GET_SIZE(ids), size = PyBytes_GET_SIZE(word);
    if (count > MOST_IDS || size > INT32_MAX) Py_RETURN_FALSE;
    Entry *entry = new_entry(words, (const unsigned char *)PyBytes_AS_STRING(word), (size_t)size, (size_t)count);
    if (entry == NULL) Py_RETURN_FALSE;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!PyLong_CheckExact(PyList_GET_ITEM(ids, i))) { PyErr_SetString(PyExc_TypeError, "an id must be an int"); return NULL; }
        entry->ids[i] = PyLong_AsLongLong(PyList_GET_ITEM(ids, i));
        if (entry->ids[i] == -1 && PyErr_Occurred()) return NULL;
    }
    publish(words, entry);
    Py_RETURN_TRUE;
}

/* extend(words, first) -> bool: adds ids from `first` on; False if one is not `bytes`, is a duplicate or has no room. */
static PyObject *extend(Words *words, PyObject *args) {
    PyObject *array;
    long long first;
    Objects objects;
    Bytes word;
    if (!PyArg_ParseTuple(args, "OL", &array, &first) || open_objects(array, PY_SSIZE_T_MAX, &objects) < 0) return NULL;
    Py_ssize_t i = 0;
    for (; i < objects.count; i++) {
        Entry *entry = NULL;
        if (bytes_at(&objects, i, &word) && word.size <= INT32_MAX) entry = new_entry(words, word.at, (size_t)word.size, 1);
        if (entry == NULL || find_word(words, word.at, (size_t)word.size) != NULL) break;
        entry->ids[0] = (int64_t)((uint64_t)first + (uint64_t)i);
        publish(words, entry);
    }
    int whole = i == objects.count;
    close_objects(&objects);
    return PyBool_FromLong(whole);
}

/* Words(most, room): an empty table for `most` words with entries of at most `room` bytes in total. */
static PyObject *new_words(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    Py_ssize_t most, room;
    if (!PyArg_ParseTuple(args, "nn", &most, &room)) return NULL;
    if (most < 0 || most > (Py_ssize_t)1 << 31 || room < 0 || room > (Py_ssize_t)UINT32_MAX * WORD) {
        PyErr_SetString(PyExc_ValueError, "the size of the table is out of range");
        return NULL;
    }
    Words *words = (Words *)type->tp_alloc(type, 0);
    if (words == NULL) return NULL;
    uint64_t slots = 8;
    while (slots < 2 * (uint64_t)most + 1) slots *= 2;
    words->mask = slots - 1;
    words->most = most;
    words->room = (uint64_t)room;
    words->slots = PyMem_RawCalloc((size_t)slots, sizeof *words->slots);
    words->entries = PyMem_RawMalloc((size_t)room + sizeof(Entry)); /* never zero bytes */
    if (words->slots == NULL || words->entries == NULL) {
        Py_DECREF(words);
        return PyErr_NoMemory();
    }
    return (PyObject *)words;
}

static void drop_words(Words *words) {
    PyMem_RawFree(words->slots);
    PyMem_RawFree(words->entries);
    Py_TYPE(words)->tp_free((PyObject *)words);
}

static Py_ssize_t words_length(Words *words) { return words->count; }

static PyMethodDef words_methods[] = {
    {"add", (PyCFunction)add, METH_VARARGS, "add(word, ids) -> bool"},
    {"extend", (PyCFunction)extend, METH_VARARGS, "extend(words, first) -> bool"},
    {NULL, NULL, 0, NULL},
};

static PySequenceMethods words_sequence = {.sq_length = (lenfunc)words_length};

PyTypeObject WordsType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "torch_towers.kernels._native.Words",
    .tp_basicsize = sizeof(Words),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Words(most, room): a table from byte strings to ids",
    .tp_new = new_words,
    .tp_dealloc = (destructor)drop_words,
    .tp_methods = words_methods,
    .tp_as_sequence = &words_sequence,
};

/* find(words, keys, missing, out) -> list of rows or None: the id of each key, as int64s. `missing` is the id of an unknown
 * key; if it is None, the rows of such keys are returned, and those of elements that are not `bytes`. */
PyObject *find(PyObject *self, PyObject *args) {
    PyObject *array, *standard, *out;
    Words *words;
    Py_buffer view;
    Objects objects;
    Bytes key;
    if (!PyArg_ParseTuple(args, "O!OOO", &WordsType, &words, &array, &standard, &out)) return NULL;
    int64_t missing = standard == Py_None ? 0 : PyLong_AsLongLong(standard);
    if (missing == -1 && PyErr_Occurred()) return NULL;
    if (writable(out, -1, 8, &view) < 0) return NULL;
    if (open_objects(array, 4096, &objects) < 0) { PyBuffer_Release(&view); return NULL; }
    int fits = view.len / 8 == objects.count, memory = 1;
    Pile rows = {NULL, 0, 0};
    for (Py_ssize_t i = 0; fits && memory && i < objects.count; i++) {
        const Entry *entry = NULL;
        int plain = bytes_at(&objects, i, &key);
        if (plain) entry = find_word(words, key.at, (size_t)key.size);
        if (!plain || (entry == NULL && standard == Py_None)) memory = pile(&rows, &i, sizeof i);
        memcpy((char *)view.buf + 8 * i, entry == NULL ? &missing : entry->ids, 8);
    }
    close_objects(&objects);
    PyBuffer_Release(&view);
    PyObject *left = NULL;
    if (!fits) PyErr_SetString(PyExc_ValueError, "the buffer has another size");
    else left = memory ? row_list(&rows) : PyErr_NoMemory();
    PyMem_RawFree(rows.data);
    return left;
}

/* find_integers(words, keys, missing, out) -> rows or None: like `find` for int64s, whose eight bytes are the key. */
PyObject *find_integers(PyObject *self, PyObject *args) {
    PyObject *array, *standard, *out, *left = NULL;
    Words *words;
    Py_buffer keys, view;
    Pile rows = {NULL, 0, 0};
    if (!PyArg_ParseTuple(args, "O!OOO", &WordsType, &words, &array, &standard, &out)) return NULL;
    int64_t missing = standard == Py_None ? 0 : PyLong_AsLongLong(standard);
    if (missing == -1 && PyErr_Occurred()) return NULL;
    if (PyObject_GetBuffer(array, &keys, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    if (writable(out, keys.len / 8, 8, &view) < 0) { PyBuffer_Release(&keys); return NULL; }
    int memory = 1;
    for (Py_ssize_t i = 0; memory && i < keys.len / 8; i++) {
        const Entry *entry = find_word(words, (const unsigned char *)keys.buf + 8 * i, 8);
        if (entry == NULL && standard == Py_None) memory = pile(&rows, &i, sizeof i);
        memcpy((char *)view.buf + 8 * i, entry == NULL ? &missing : entry->ids, 8);
    }
    PyBuffer_Release(&keys);
    PyBuffer_Release(&view);
    left = memory ? row_list(&rows) : PyErr_NoMemory();
    PyMem_RawFree(rows.data);
    return left;
}
