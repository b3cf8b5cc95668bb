/* Hashes of many strings: FarmHash's Fingerprint64 and SipHash-2-4, after google/farmhash and Aumasson and Bernstein (2012).
 * Words are little-endian, as on all processors with wheels; elsewhere Python libraries are used. */
#include "core.h"

static const uint64_t K0 = 0xc3a5c85c97cb3127u, K1 = 0xb492b66fbe98f273u, K2 = 0x9ae16a3b2f90404fu;

typedef struct { uint64_t first, second; } Pair;

static inline uint64_t load64(const unsigned char *at) { uint64_t value; memcpy(&value, at, 8); return value; }
static inline uint64_t load32(const unsigned char *at) { uint32_t value; memcpy(&value, at, 4); return value; }
static inline uint64_t right(uint64_t value, int bits) { return value >> bits | value << (64 - bits); }
static inline uint64_t left(uint64_t value, int bits) { return right(value, 64 - bits); }
static inline uint64_t mixed(uint64_t value) { return value ^ value >> 47; }

static inline uint64_t joined(uint64_t u, uint64_t v, uint64_t factor) {
    uint64_t a = mixed((u ^ v) * factor);
    return mixed((v ^ a) * factor) * factor;
}

static uint64_t of_16(const unsigned char *s, uint64_t n) {
    uint64_t factor = K2 + n * 2;
    if (n >= 8) {
        uint64_t a = load64(s) + K2, b = load64(s + n - 8);
        return joined(right(b, 37) * factor + a, (right(a, 25) + b) * factor, factor);
    }
    if (n >= 4) return joined(n + (load32(s) << 3), load32(s + n - 4), factor);
    if (n == 0) return K2;
    uint32_t y = s[0] + ((uint32_t)s[n >> 1] << 8), z = (uint32_t)n + ((uint32_t)s[n - 1] << 2);
    return mixed(y * K2 ^ z * K0) * K2;
}

static uint64_t of_32(const unsigned char *s, uint64_t n) {
    uint64_t factor = K2 + n * 2, a = load64(s) * K1, b = load64(s + 8), c = load64(s + n - 8) * factor, d = load64(s + n - 16) * K2;
    return joined(right(a + b, 43) + right(c, 30) + d, a + right(b + K2, 18) + c, factor);
}

static uint64_t of_64(const unsigned char *s, uint64_t n) {
    uint64_t factor = K2 + n * 2, a = load64(s) * K2, b = load64(s + 8), c = load64(s + n - 8) * factor, d = load64(s + n - 16) * K2;
    uint64_t y = right(a + b, 43) + right(c, 30) + d, z = joined(y, a + right(b + K2, 18) + c, factor);
    uint64_t e = load64(s + 16) * factor, f = load64(s + 24), g = (y + load64(s + n - 32)) * factor, h = (z + load64(s + n - 24)) * factor;
    return joined(right(e + f, 43) + right(g, 30) + h, e + right(f + a, 18) + g, factor);
}

/* A weak hash of 32 bytes with two seeds. */
static inline Pair weak(const unsigned char *s, uint64_t a, uint64_t b) {
    uint64_t w = load64(s), x = load64(s + 8), y = load64(s + 16), z = load64(s + 24), c;
    a += w;
    b = right(b + a + z, 21);
    c = a;
    a += x + y;
    b += right(a, 44);
    return (Pair){a + z, b + c};
}

static inline void swap(uint64_t *a, uint64_t *b) { uint64_t c = *a; *a = *b; *b = c; }

static uint64_t fingerprint64(const unsigned char *s, uint64_t n) {
    if (n <= 16) return of_16(s, n);
    if (n <= 32) return of_32(s, n);
    if (n <= 64) return of_64(s, n);
    const unsigned char *end = s + (n - 1) / 64 * 64, *last = end + ((n - 1) & 63) - 63;
    uint64_t x = 81 * K2 + load64(s), y = 81 * K1 + 113, z = mixed(y * K2 + 113) * K2, factor = K1;
    Pair v = {0, 0}, w = {0, 0};
    do {
        x = right(x + y + v.first + load64(s + 8), 37) * K1;
        y = right(y + v.second + load64(s + 48), 42) * K1;
        x ^= w.second;
        y += v.first + load64(s + 40);
        z = right(z + w.first, 33) * K1;
        v = weak(s, v.second * K1, x + w.first);
        w = weak(s + 32, z + w.second, y + load64(s + 16));
        swap(&z, &x);
        s += 64;
    } while (s != end);
    factor += (z & 0xff) << 1;
    s = last;
    w.first += (n - 1) & 63;
    v.first += w.first;
    w.first += v.first;
    x = right(x + y + v.first + load64(s + 8), 37) * factor;
    y = right(y + v.second + load64(s + 48), 42) * factor;
    x ^= w.second * 9;
    y += v.first * 9 + load64(s + 40);
    z = right(z + w.first, 33) * factor;
    v = weak(s, v.second * factor, x + w.first);
    w = weak(s + 32, z + w.second, y + load64(s + 16));
    swap(&z, &x);
    return joined(joined(v.first, w.first, factor) + mixed(y) * K0 + z, joined(v.second, w.second, factor) + x, factor);
}

static inline void rounds(uint64_t v[4], int count) {
    while (count-- > 0) {
        v[0] += v[1]; v[1] = left(v[1], 13) ^ v[0]; v[0] = left(v[0], 32);
        v[2] += v[3]; v[3] = left(v[3], 16) ^ v[2];
        v[0] += v[3]; v[3] = left(v[3], 21) ^ v[0];
        v[2] += v[1]; v[1] = left(v[1], 17) ^ v[2]; v[2] = left(v[2], 32);
    }
}

static uint64_t siphash(const uint64_t key[2], const unsigned char *s, uint64_t n) {
    uint64_t v[4] = {0x736f6d6570736575u ^ key[0], 0x646f72616e646f6du ^ key[1], 0x6c7967656e657261u ^ key[0], 0x7465646279746573u ^ key[1]};
    uint64_t tail = n << 56;
    for (const unsigned char *end = s + n / 8 * 8; s != end; s += 8) {
        uint64_t word = load64(s);
        v[3] ^= word;
        rounds(v, 2);
        v[0] ^= word;
    }
    for (uint64_t i = 0; i < (n & 7); i++) tail |= (uint64_t)s[i] << 8 * i;
    v[3] ^= tail;
    rounds(v, 2);
    v[0] ^= tail;
    v[2] ^= 0xff;
    rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* MurmurHash64A, TensorFlow's own hash. */
static uint64_t murmur(uint64_t seed, const unsigned char *s, uint64_t n) {
    const uint64_t factor = 0xc6a4a7935bd1e995u;
    uint64_t hash = seed ^ n * factor, tail = 0;
    for (const unsigned char *end = s + n / 8 * 8; s != end; s += 8) hash = (hash ^ mixed(load64(s) * factor) * factor) * factor;
    for (uint64_t i = 0; i < (n & 7); i++) tail |= (uint64_t)s[i] << 8 * i;
    if (n & 7) hash = (hash ^ tail) * factor;
    return mixed(mixed(hash) * factor);
}

/* The hash of a text under a key of so many bytes. */
static uint64_t hash_of(const uint64_t key[2], Py_ssize_t size, Bytes text) {
    if (size == 0) return fingerprint64(text.at, (uint64_t)text.size);
    return size == 8 ? murmur(key[0], text.at, (uint64_t)text.size) : siphash(key, text.at, (uint64_t)text.size);
}

static int is_key(Py_ssize_t size) {
    if (size == 0 || size == 8 || size == 16) return 1;
    PyErr_SetString(PyExc_ValueError, "the key must have 16 bytes, 8, or none");
    return 0;
}

/* hashes(strings, key, out) -> bool: 64 bits of each string of an array, SipHash's under a `key` of 16 bytes, MurmurHash64A's from
 * one of 8, Fingerprint64's without. */
PyObject *hashes(PyObject *self, PyObject *args) {
    const int one = 1;
    PyObject *array, *target;
    const char *secret;
    Py_ssize_t size;
    Objects strings;
    Py_buffer out;
    Bytes item;
    uint64_t key[2] = {0, 0};
    if (!PyArg_ParseTuple(args, "Oy#O", &array, &secret, &size, &target)) return NULL;
    if (!is_key(size)) return NULL;
    if (*(const char *)&one != 1) Py_RETURN_FALSE;
    memcpy(key, secret, (size_t)size);
    if (writable(target, -1, 8, &out) < 0) return NULL;
    if (open_objects(array, 4096, &strings) < 0) { PyBuffer_Release(&out); return NULL; }
    int fits = out.len / 8 == strings.count, plain = fits;
    for (Py_ssize_t i = 0; plain && i < strings.count; i++) {
        if (!(plain = bytes_at(&strings, i, &item))) break;
        uint64_t value = hash_of(key, size, item);
        memcpy((char *)out.buf + 8 * i, &value, 8);
    }
    close_objects(&strings);
    PyBuffer_Release(&out);
    if (!fits) { PyErr_SetString(PyExc_ValueError, "the buffer has another size"); return NULL; }
    return PyBool_FromLong(plain);
}

/* The decimal text of an integer, at the end of `room`. */
static Bytes decimal(int64_t value, unsigned char room[20]) {
    unsigned char *at = room + 20;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do *--at = (unsigned char)('0' + rest % 10); while (rest /= 10);
    if (value < 0) *--at = '-';
    return (Bytes){at, room + 20 - at};
}

/* hash_integers(values, key, out) -> bool: `hashes` of the decimal texts of int64s. */
PyObject *hash_integers(PyObject *self, PyObject *args) {
    const int one = 1;
    PyObject *given, *target;
    const char *secret;
    Py_ssize_t size;
    Py_buffer values, out;
    uint64_t key[2] = {0, 0};
    unsigned char room[20];
    if (!PyArg_ParseTuple(args, "Oy#O", &given, &secret, &size, &target)) return NULL;
    if (!is_key(size)) return NULL;
    if (*(const char *)&one != 1) Py_RETURN_FALSE;
    memcpy(key, secret, (size_t)size);
    if (PyObject_GetBuffer(given, &values, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    if (writable(target, values.len / 8, 8, &out) < 0) { PyBuffer_Release(&values); return NULL; }
    for (Py_ssize_t i = 0; i < values.len / 8; i++) {
        Bytes text = decimal(((int64_t *)values.buf)[i], room);
        ((uint64_t *)out.buf)[i] = hash_of(key, size, text);
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&out);
    Py_RETURN_TRUE;
}
