/* Exact search in one pass: the products of queries with candidates, and of them the largest k of each query, never written out.

   Optional, like all native code here, and needs GNU C (gcc, clang) and POSIX threads: where there are none, torch does the same
   (torch_towers/best.py). Scores are sums in float32; of equal scores the lower place comes first; with NaN it gives up. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef __GNUC__
#error "needs GNU C: the package works without this module"
#endif

enum {
    FEW = 4,               /* queries up to which lanes are dimensions, and beyond which they are queries */
    ROWS = 24,             /* a multiple of every tile's number of candidates */
    TILE_SCORES = 24 * 16, /* of the largest tile */
    BLOCK_BYTES = 1 << 17, /* of candidates that a thread takes at a time: they stay in its cache while all queries see them */
    LINE = 16,             /* floats in a line of the cache */
    AHEAD = 2048           /* floats from a candidate to the one that is fetched beside it */
};

typedef uint32_t (*Tile)(const float *queries, const float *rows, Py_ssize_t dim, const float *floors, float *scores);
typedef void (*Dots)(const float *queries, const float *rows, Py_ssize_t count, Py_ssize_t dim, float *scores);
typedef struct {
    int lanes, wide, rows[4];
    Tile tiles[4], single[4];
    Dots dots[FEW];
} Kernel;

typedef float four __attribute__((vector_size(16)));
typedef float eight __attribute__((vector_size(32)));

#if defined(__x86_64__)
#include <immintrin.h>
#define LANES 16
#define WIDE 4
#define TARGET __attribute__((target("avx512f,fma")))
#define NAME(x) avx512_##x
#define ANY_ABOVE(scores, floors) (_mm512_cmp_ps_mask((__m512)(scores), (__m512)(floors), _CMP_NLE_UQ) != 0)
#define ROWS_1 12
#define ROWS_2 12
#define ROWS_3 8
#define ROWS_4 6
#include "_scores.h"
#define LANES 8
#define WIDE 2
#define TARGET __attribute__((target("avx2,fma")))
#define NAME(x) avx2_##x
#define ANY_ABOVE(scores, floors) (_mm256_movemask_ps(_mm256_cmp_ps((__m256)(scores), (__m256)(floors), _CMP_NLE_UQ)) != 0)
#define ROWS_1 8
#define ROWS_2 6
#include "_scores.h"
#endif

static inline int any_above(four scores, four floors) {
    int any = 0;
    for (int i = 0; i < 4; i++) any |= !(scores[i] <= floors[i]);
    return any;
}

#define LANES 4
#define WIDE 2
#define TARGET
#define NAME(x) plain_##x
#define ANY_ABOVE(scores, floors) any_above(scores, floors)
#define ROWS_1 8
#define ROWS_2 6
#include "_scores.h"

static const Kernel *const KERNELS[] = {
    &plain_kernel,
#if defined(__x86_64__)
    &avx2_kernel,
    &avx512_kernel,
#endif
};

/* The last of KERNELS that this processor runs. */
static int best_kernel(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma")) return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

typedef struct {
    float score;
    int32_t place;
} Entry;

static int worse(Entry a, Entry b) { return a.score < b.score || (a.score == b.score && a.place > b.place); }

/* The best entries of one query so far: a heap whose first is the worst. `floor`: what a score must exceed; NaN until it is full. */
static void down(Entry *heap, Py_ssize_t count, Entry entry) {
    Py_ssize_t at = 0, child;
    while ((child = 2 * at + 1) < count) {
        if (child + 1 < count && worse(heap[child + 1], heap[child])) child++;
        if (!worse(heap[child], entry)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = entry;
}

static void offer(Entry *heap, int32_t *filled, Py_ssize_t k, float *floor, Entry entry) {
    if (*filled < k) {
        Py_ssize_t at = (*filled)++;
        for (; at && worse(entry, heap[(at - 1) / 2]); at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
        heap[at] = entry;
    } else if (worse(heap[0], entry)) {
        down(heap, k, entry);
    }
    if (*filled == k) *floor = heap[0].score;
}

typedef struct {
    const Kernel *kernel;
    const float *queries, *candidates;
    Py_ssize_t n, m, dim, k, block; /* queries, candidates, dimensions, wanted, candidates at a time */
    float *packed;                  /* the queries in groups of `wide` registers, each dimension's side by side; NULL for few */
    Py_ssize_t next;                /* the first candidate that no thread has taken (atomic) */
    int strange;                    /* a NaN was met (atomic) */
    int users;                      /* threads that will still look at this (atomic); the last frees it */
} Search;

typedef struct {
    Search *search;
    int state; /* WAITING, RUNNING or CANCELLED (atomic) */
    pthread_t thread;
    Entry *heaps;     /* [n][k] */
    float *floors;    /* [n], and as many again as fill a group: their lanes hold no query */
    int32_t *filled;  /* [n] */
    float *scores;    /* room for a tile, or for a block of few queries */
} Worker;

enum { WAITING, RUNNING, CANCELLED };

static int met(Worker *worker, Py_ssize_t query, Entry entry) {
    Search *search = worker->search;
    if (query >= search->n) return 1;
    if (isnan(entry.score)) {
        __atomic_store_n(&search->strange, 1, __ATOMIC_RELAXED);
        return 0;
    }
    offer(worker->heaps + query * search->k, worker->filled + query, search->k, worker->floors + query, entry);
    return 1;
}

static int few(Worker *worker, Py_ssize_t first, Py_ssize_t count) {
    Search *search = worker->search;
    search->kernel->dots[search->n - 1](search->queries, search->candidates + first * search->dim, count, search->dim, worker->scores);
    for (Py_ssize_t query = 0; query < search->n; query++) {
        const float *scores = worker->scores + query * count;
        for (Py_ssize_t row = 0; row < count; row++)
            if (!(scores[row] <= worker->floors[query]) && !met(worker, query, (Entry){scores[row], (int32_t)(first + row)})) return 0;
    }
    return 1;
}

static int many(Worker *worker, Py_ssize_t first, Py_ssize_t count) {
    Search *search = worker->search;
    const Kernel *kernel = search->kernel;
    Py_ssize_t group = (Py_ssize_t)kernel->wide * kernel->lanes;
    for (Py_ssize_t query = 0; query < search->n; query += group) {
        Py_ssize_t left = search->n - query;
        int width = left >= group ? kernel->wide : (int)((left + kernel->lanes - 1) / kernel->lanes);
        const float *queries = search->packed + query * search->dim;
        for (Py_ssize_t row = 0, rows; row < count; row += rows) {
            int whole = count - row >= kernel->rows[width - 1];
            rows = whole ? kernel->rows[width - 1] : 1;
            const float *candidates = search->candidates + (first + row) * search->dim;
            uint32_t found = (whole ? kernel->tiles : kernel->single)[width - 1](
                queries, candidates, search->dim, worker->floors + query, worker->scores);
            for (; found; found &= found - 1) {
                int at = __builtin_ctz(found);
                const float *scores = worker->scores + (Py_ssize_t)at * kernel->lanes;
                Py_ssize_t place = first + row + at / width, start = query + (Py_ssize_t)(at % width) * kernel->lanes;
                for (int lane = 0; lane < kernel->lanes; lane++)
                    if (!(scores[lane] <= worker->floors[start + lane]) &&
                        !met(worker, start + lane, (Entry){scores[lane], (int32_t)place}))
                        return 0;
            }
        }
    }
    return 1;
}

/* Takes blocks of candidates until there are none. */
static void work(Worker *worker) {
    Search *search = worker->search;
    while (!__atomic_load_n(&search->strange, __ATOMIC_RELAXED)) {
        Py_ssize_t first = __atomic_fetch_add(&search->next, search->block, __ATOMIC_RELAXED);
        if (first >= search->m) return;
        Py_ssize_t count = search->m - first < search->block ? search->m - first : search->block;
        if (!(search->packed ? many : few)(worker, first, count)) return;
    }
}

static void release(Worker *workers) {
    if (__atomic_sub_fetch(&workers->search->users, 1, __ATOMIC_ACQ_REL) == 0) free(workers->search);
}

/* A thread beside the caller's. One that wakes after the work was done finds itself cancelled: nobody waited for it. */
static void *help(void *argument) {
    Worker *worker = argument;
    int state = WAITING;
    if (__atomic_compare_exchange_n(&worker->state, &state, RUNNING, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) work(worker);
    release(worker);
    return NULL;
}

/* Memory for everything, in one piece; NULL if there is none. */
static Worker *prepared(const Kernel *kernel, const float *queries, const float *candidates, Py_ssize_t n, Py_ssize_t m,
                        Py_ssize_t dim, Py_ssize_t k, int threads) {
    Py_ssize_t group = (Py_ssize_t)kernel->wide * kernel->lanes, padded = (n + group - 1) / group * group;
    Py_ssize_t block = BLOCK_BYTES / (4 * dim) / ROWS * ROWS;
    if (block < ROWS) block = ROWS;
    if (block > 4096 / ROWS * ROWS) block = 4096 / ROWS * ROWS;
    int is_few = n <= FEW;
    size_t packed = is_few ? 0 : (size_t)padded * dim, scores = is_few ? (size_t)n * block : TILE_SCORES;
    size_t each = 8 * (size_t)n * k + 4 * (size_t)padded + 4 * (size_t)padded + 4 * scores + 64;
    size_t size = sizeof(Search) + threads * sizeof(Worker) + 64 + 4 * packed + threads * each;
    char *memory = aligned_alloc(64, (size + 63) / 64 * 64);
    if (!memory) return NULL;
    Search *search = (Search *)memory;
    Worker *workers = (Worker *)(memory + sizeof(Search));
    memory += (sizeof(Search) + threads * sizeof(Worker) + 63) / 64 * 64;
    *search = (Search){kernel, queries, candidates, n, m, dim, k, block, packed ? (float *)memory : NULL, 0, 0, threads};
    memory += 4 * packed;
    for (int i = 0; i < threads; i++, memory += each / 64 * 64) {
        Entry *heaps = (Entry *)memory;
        float *floors = (float *)(heaps + n * k);
        int32_t *filled = (int32_t *)(floors + padded);
        workers[i] = (Worker){search, WAITING, 0, heaps, floors, filled, (float *)(filled + padded)};
        for (Py_ssize_t q = 0; q < padded; q++) floors[q] = q < n ? NAN : INFINITY, filled[q] = 0;
    }
    for (Py_ssize_t query = 0; packed && query < n; query += group) {
        int width = n - query >= group ? kernel->wide : (int)((n - query + kernel->lanes - 1) / kernel->lanes);
        Py_ssize_t columns = (Py_ssize_t)width * kernel->lanes;
        float *to = search->packed + query * dim;
        for (Py_ssize_t column = 0; column < columns; column++)
            for (Py_ssize_t d = 0; d < dim; d++)
                to[d * columns + column] = query + column < n ? queries[(query + column) * dim + d] : 0;
    }
    return workers;
}

/* Fills `scores` and `places` (integers of `width` bytes), [n][k]. 1: done, 0: NaN was met, -1: no memory. */
static int search(const Kernel *kernel, const float *queries, const float *candidates, Py_ssize_t n, Py_ssize_t m, Py_ssize_t dim,
                  Py_ssize_t k, int threads, float *scores, void *places, Py_ssize_t width) {
    Worker *workers = prepared(kernel, queries, candidates, n, m, dim, k, threads);
    if (!workers) return -1;
    int started = 1;
    for (; started < threads; started++) {
        if (pthread_create(&workers[started].thread, NULL, help, &workers[started])) break;
    }
    for (int i = started; i < threads; i++) release(workers);
    work(workers);
    for (int i = 1; i < started; i++) {
        int state = WAITING;
        if (__atomic_compare_exchange_n(&workers[i].state, &state, CANCELLED, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            pthread_detach(workers[i].thread);
            workers[i].filled = NULL;
        } else {
            pthread_join(workers[i].thread, NULL);
        }
    }
    int plain = !workers->search->strange;
    for (Py_ssize_t query = 0; plain && query < n; query++) {
        Entry *heap = workers->heaps + query * k;
        for (int i = 1; i < started; i++)
            for (Py_ssize_t j = 0; workers[i].filled && j < workers[i].filled[query]; j++)
                offer(heap, workers->filled + query, k, workers->floors + query, workers[i].heaps[query * k + j]);
        for (Py_ssize_t left = k; left--;) { /* the worst goes last */
            scores[query * k + left] = heap[0].score;
            if (width == 8) ((int64_t *)places)[query * k + left] = heap[0].place;
            else ((int32_t *)places)[query * k + left] = heap[0].place;
            down(heap, left, heap[left]);
        }
    }
    release(workers);
    return plain;
}

/* A buffer of `size` bytes, or an exception. */
static int viewed(PyObject *object, Py_ssize_t size, int flags, Py_buffer *view) {
    if (PyObject_GetBuffer(object, view, flags | PyBUF_C_CONTIGUOUS) < 0) return 0;
    if (view->len == size) return 1;
    PyBuffer_Release(view);
    PyErr_Format(PyExc_ValueError, "a buffer of %zd bytes is wanted, not %zd", size, view->len);
    return 0;
}

static PyObject *top_k(PyObject *self, PyObject *args) {
    PyObject *objects[4];
    Py_ssize_t n, m, dim, k, width;
    int threads, kind = -1, done = -2, held = 0;
    if (!PyArg_ParseTuple(args, "OOOOnnnnni|i", &objects[0], &objects[1], &objects[2], &objects[3], &n, &m, &dim, &k,
                          &width, &threads, &kind))
        return NULL;
    Py_ssize_t most = PY_SSIZE_T_MAX / 8;
    if (n < 1 || m < 1 || dim < 1 || k < 1 || k > m || m > INT32_MAX || n > INT32_MAX || n > most / (dim + 1) / 64 ||
        m > most / (dim + 1) || n > most / k / 64 || threads < 1 || threads > 1024 || (width != 4 && width != 8) || kind > best_kernel()) {
        PyErr_SetString(PyExc_ValueError, "no such sizes");
        return NULL;
    }
    const Kernel *kernel = KERNELS[kind < 0 ? best_kernel() : kind];
    Py_ssize_t sizes[4] = {4 * n * dim, 4 * m * dim, 4 * n * k, width * n * k};
    Py_buffer views[4];
    for (; held < 4; held++)
        if (!viewed(objects[held], sizes[held], held < 2 ? PyBUF_SIMPLE : PyBUF_WRITABLE, &views[held])) break;
    if (held == 4) {
        Py_BEGIN_ALLOW_THREADS;
        done = search(kernel, views[0].buf, views[1].buf, n, m, dim, k, threads, views[2].buf, views[3].buf, width);
        Py_END_ALLOW_THREADS;
    }
    while (held--) PyBuffer_Release(&views[held]);
    if (done == -2) return NULL;
    return done < 0 ? PyErr_NoMemory() : PyBool_FromLong(done);
}

static PyMethodDef methods[] = {
    {"top_k", top_k, METH_VARARGS, "top_k(queries, candidates, scores, places, n, m, dim, k, width, threads, kernel=-1) -> bool"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "torch_towers._scores", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__scores(void) { return PyModule_Create(&module); }
