/* Exact search in one pass: the k largest products of each query with all candidates, without storing all products.
   Optional, like all native code here, and needs GNU C (gcc, clang) and POSIX threads; otherwise torch does the same
   (torch_towers/kernels/top_k.py). Scores are float32 sums; ties go to the lower position; on NaN it gives up. */

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
    FEW_QUERIES = 4,       /* queries up to which SIMD lanes are dimensions; above, lanes are queries */
    ROWS = 24,             /* a multiple of the candidates per tile, for every tile */
    TILE_SCORES = 24 * 16, /* scores of the largest tile */
    BLOCK_BYTES = 1 << 17, /* candidates per block of a thread: they stay in its cache while all queries use them */
    LINE = 16,             /* floats per cache line */
    MAX_ROWS = 4080,       /* maximum candidates per block of a thread; such a multiple too */
    QUERY_BLOCK = 128,     /* queries per block of a thread if there are many */
    PREFETCH = 4096        /* prefetch distance in floats */
};

typedef uint32_t (*Tile)(const float *queries, const float *rows, Py_ssize_t dim, const float *floors, float *scores);
typedef void (*Dots)(const float *queries, const float *rows, Py_ssize_t count, Py_ssize_t dim, float *scores);
typedef struct {
    int lanes, wide, rows[4];
    Tile tiles[4], single[4];
    Dots dots[FEW_QUERIES];
    uint32_t (*above)(const float *scores, const float *floors);
} Kernel;

typedef float four __attribute__((vector_size(16)));
typedef float eight __attribute__((vector_size(32)));

#if defined(__x86_64__)
#include <immintrin.h>
#define LANES 16
#define WIDE 4
#define TARGET __attribute__((target("avx512f,fma")))
#define NAME(x) avx512_##x
#define ABOVE(scores, floors) (uint32_t)_mm512_cmp_ps_mask((__m512)(scores), (__m512)(floors), _CMP_NLE_UQ)
#define ROWS_1 12
#define ROWS_2 12
#define ROWS_3 8
#define ROWS_4 6
#include "scores.h"
#define LANES 8
#define WIDE 2
#define TARGET __attribute__((target("avx2,fma")))
#define NAME(x) avx2_##x
#define ABOVE(scores, floors) (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)(scores), (__m256)(floors), _CMP_NLE_UQ))
#define ROWS_1 8
#define ROWS_2 6
#include "scores.h"
#endif

static inline uint32_t above(four scores, four floors) {
    uint32_t lanes = 0;
    for (int i = 0; i < 4; i++) lanes |= (uint32_t)!(scores[i] <= floors[i]) << i;
    return lanes;
}

#define LANES 4
#define WIDE 2
#define TARGET
#define NAME(x) plain_##x
#define ABOVE(scores, floors) above(scores, floors)
#define ROWS_1 8
#define ROWS_2 6
#include "scores.h"

static const Kernel *const KERNELS[] = {
    &plain_kernel,
#if defined(__x86_64__)
    &avx2_kernel,
    &avx512_kernel,
#endif
};

/* The last of KERNELS that this processor supports. */
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

/* The best entries of one query so far: a heap with the worst on top. `floor`: what a score must exceed; NaN until it is full. */
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

/* -- threads ---------------------------------------------------------------------------------------------------------- */

typedef struct Team Team;
typedef void (*Work)(void *job, int worker);
typedef struct {
    Team *team;
    int worker;
    int state; /* WAITING, RUNNING or CANCELLED (atomic) */
    pthread_t thread;
} Helper;
struct Team {
    Work work;
    void *job;
    int users; /* threads that still access this (atomic); the last one frees it */
    Helper helpers[];
};
enum { WAITING, RUNNING, CANCELLED };

static int turns(Helper *helper, int state) {
    int waiting = WAITING;
    return __atomic_compare_exchange_n(&helper->state, &waiting, state, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static void leave(Team *team) {
    if (__atomic_sub_fetch(&team->users, 1, __ATOMIC_ACQ_REL) == 0) free(team);
}

static void *help(void *argument) {
    Helper *helper = argument;
    Team *team = helper->team;
    if (turns(helper, RUNNING)) team->work(team->job, helper->worker);
    leave(team);
    return NULL;
}

/* Runs `work`, which processes shared work until none is left, on the caller's thread as worker 0 and on helper threads.
   Threads live for one call, so a fork cannot lose any. A helper that starts after the work is done is cancelled:
   on a busy machine nobody waits for it. */
static void together(int threads, Work work, void *job) {
    Team *team = threads > 1 ? malloc(sizeof(Team) + (threads - 1) * sizeof(Helper)) : NULL;
    int helpers = 0;
    if (team) {
        *team = (Team){work, job, threads};
        for (; helpers < threads - 1; helpers++) {
            Helper *helper = &team->helpers[helpers];
            *helper = (Helper){team, helpers + 1, WAITING, 0};
            if (pthread_create(&helper->thread, NULL, help, helper)) break;
        }
    }
    work(job, 0);
    for (int i = 0; i < helpers; i++) {
        pthread_t thread = team->helpers[i].thread;
        if (turns(&team->helpers[i], CANCELLED)) pthread_detach(thread);
        else pthread_join(thread, NULL);
    }
    for (int left = team ? threads - helpers : 0; left; left--) leave(team);
}

/* -- one pass over the candidates ------------------------------------------------------------------------------------- */

typedef struct {
    const Kernel *kernel;
    const float *queries, *candidates;
    Py_ssize_t n, m, dim, k, block; /* queries, candidates, dimensions, results, candidates per block */
    float *packed;                  /* the queries in groups of `wide` registers, interleaved by dimension; NULL for few queries */
    struct Worker *workers;
    Py_ssize_t next; /* the first candidate that no thread has taken (atomic) */
    int strange;     /* NaN was found (atomic) */
} Pass;

typedef struct Worker {
    Entry *heaps;    /* [n][k] */
    float *floors;   /* [n], padded to a full group: the extra lanes have no query */
    int32_t *filled; /* [n] */
    float *scores;   /* room for a tile, or for a block of few queries */
} Worker;

static int met(Pass *pass, Worker *worker, Py_ssize_t query, float score, Py_ssize_t place) {
    if (query >= pass->n) return 1;
    if (isnan(score)) {
        __atomic_store_n(&pass->strange, 1, __ATOMIC_RELAXED);
        return 0;
    }
    Entry entry = {score, (int32_t)place};
    offer(worker->heaps + query * pass->k, worker->filled + query, pass->k, worker->floors + query, entry);
    return 1;
}

static int few(Pass *pass, Worker *worker, Py_ssize_t first, Py_ssize_t count) {
    pass->kernel->dots[pass->n - 1](pass->queries, pass->candidates + first * pass->dim, count, pass->dim, worker->scores);
    for (Py_ssize_t query = 0; query < pass->n; query++) {
        const float *scores = worker->scores + query * count;
        for (Py_ssize_t row = 0; row < count; row++)
            if (!(scores[row] <= worker->floors[query]) && !met(pass, worker, query, scores[row], first + row)) return 0;
    }
    return 1;
}

static int many(Pass *pass, Worker *worker, Py_ssize_t first, Py_ssize_t count) {
    const Kernel *kernel = pass->kernel;
    Py_ssize_t group = (Py_ssize_t)kernel->wide * kernel->lanes;
    for (Py_ssize_t query = 0; query < pass->n; query += group) {
        Py_ssize_t left = pass->n - query;
        int width = left >= group ? kernel->wide : (int)((left + kernel->lanes - 1) / kernel->lanes);
        const float *queries = pass->packed + query * pass->dim;
        for (Py_ssize_t row = 0, rows; row < count; row += rows) {
            int whole = count - row >= kernel->rows[width - 1];
            rows = whole ? kernel->rows[width - 1] : 1;
            const float *candidates = pass->candidates + (first + row) * pass->dim;
            uint32_t found = (whole ? kernel->tiles : kernel->single)[width - 1](
                queries, candidates, pass->dim, worker->floors + query, worker->scores);
            for (; found; found &= found - 1) {
                int at = __builtin_ctz(found);
                const float *scores = worker->scores + (Py_ssize_t)at * kernel->lanes;
                Py_ssize_t start = query + (Py_ssize_t)(at % width) * kernel->lanes;
                for (uint32_t lanes = kernel->above(scores, worker->floors + start); lanes; lanes &= lanes - 1) {
                    int lane = __builtin_ctz(lanes);
                    if (!met(pass, worker, start + lane, scores[lane], first + row + at / width)) return 0;
                }
            }
        }
    }
    return 1;
}

/* Processes blocks of candidates until there are none left. */
static void take_blocks(void *job, int worker) {
    Pass *pass = job;
    while (!__atomic_load_n(&pass->strange, __ATOMIC_RELAXED)) {
        Py_ssize_t first = __atomic_fetch_add(&pass->next, pass->block, __ATOMIC_RELAXED);
        if (first >= pass->m) return;
        Py_ssize_t count = pass->m - first < pass->block ? pass->m - first : pass->block;
        if (!(pass->packed ? many : few)(pass, pass->workers + worker, first, count)) return;
    }
}

/* Allocates all memory in one piece, starting with `workers`; NULL without memory. */
static Worker *prepare(Pass *pass, int threads) {
    Py_ssize_t lanes = pass->kernel->lanes, group = pass->kernel->wide * lanes, n = pass->n, dim = pass->dim;
    Py_ssize_t padded = (n + group - 1) / group * group;
    pass->block = BLOCK_BYTES / (4 * dim) / ROWS * ROWS;
    if (pass->block < ROWS) pass->block = ROWS;
    if (pass->block > MAX_ROWS) pass->block = MAX_ROWS;
    int is_few = n <= FEW_QUERIES;
    size_t packed = is_few ? 0 : (size_t)padded * dim, scores = is_few ? (size_t)n * pass->block : TILE_SCORES;
    size_t each = 8 * (size_t)n * pass->k + 8 * (size_t)padded + 4 * scores + 64;
    char *memory = aligned_alloc(64, (threads * sizeof(Worker) + 4 * packed + threads * each + 127) / 64 * 64);
    if (!memory) return NULL;
    pass->workers = (Worker *)memory;
    memory += (threads * sizeof(Worker) + 63) / 64 * 64;
    pass->packed = packed ? (float *)memory : NULL;
    memory += 4 * packed;
    for (int i = 0; i < threads; i++, memory += each / 64 * 64) {
        Entry *heaps = (Entry *)memory;
        float *floors = (float *)(heaps + n * pass->k);
        int32_t *filled = (int32_t *)(floors + padded);
        pass->workers[i] = (Worker){heaps, floors, filled, (float *)(filled + padded)};
        for (Py_ssize_t query = 0; query < padded; query++) floors[query] = query < n ? NAN : INFINITY, filled[query] = 0;
    }
    for (Py_ssize_t query = 0; packed && query < n; query += group) {
        Py_ssize_t left = n - query, columns = left >= group ? group : (left + lanes - 1) / lanes * lanes;
        float *to = pass->packed + query * dim;
        for (Py_ssize_t column = 0; column < columns; column++)
            for (Py_ssize_t d = 0; d < dim; d++)
                to[d * columns + column] = column < left ? pass->queries[(query + column) * dim + d] : 0;
    }
    return pass->workers;
}

typedef struct {
    Pass pass; /* the parameters */
    float *scores;
    void *places; /* integers of `width` bytes */
    Py_ssize_t width;
    Py_ssize_t next; /* the first query that no thread has taken (atomic) */
    int done;        /* 1: success, 0: NaN was found, -1: no memory (atomic) */
} Search;

/* The best of `count` queries from `first` on: fills their scores and positions. */
static int best_of(const Search *search, Py_ssize_t first, Py_ssize_t count, int threads) {
    Pass pass = search->pass;
    pass.queries += first * pass.dim;
    pass.n = count;
    if (!prepare(&pass, threads)) return -1;
    together(threads, take_blocks, &pass);
    Worker *own = pass.workers;
    for (Py_ssize_t query = 0; !pass.strange && query < count; query++) {
        Py_ssize_t k = pass.k, at = (first + query) * k;
        Entry *heap = own->heaps + query * k;
        for (int i = 1; i < threads; i++)
            for (Py_ssize_t j = 0; j < pass.workers[i].filled[query]; j++)
                offer(heap, own->filled + query, k, own->floors + query, pass.workers[i].heaps[query * k + j]);
        for (Py_ssize_t left = k; left--;) { /* the worst goes last */
            search->scores[at + left] = heap[0].score;
            if (search->width == 8) ((int64_t *)search->places)[at + left] = heap[0].place;
            else ((int32_t *)search->places)[at + left] = heap[0].place;
            down(heap, left, heap[left]);
        }
    }
    free(pass.workers);
    return !pass.strange;
}

/* Takes blocks of queries, with all candidates, until there are none left. */
static void take_queries(void *job, int worker) {
    (void)worker;
    Search *search = job;
    while (__atomic_load_n(&search->done, __ATOMIC_RELAXED) == 1) {
        Py_ssize_t first = __atomic_fetch_add(&search->next, QUERY_BLOCK, __ATOMIC_RELAXED);
        if (first >= search->pass.n) return;
        int done = best_of(search, first, search->pass.n - first < QUERY_BLOCK ? search->pass.n - first : QUERY_BLOCK, 1);
        if (done != 1) __atomic_store_n(&search->done, done, __ATOMIC_RELAXED);
    }
}

/* The number of threads worth starting: each costs some tens of microseconds. */
static int useful(const Pass *pass, int threads) {
    double products = (double)pass->n * pass->m * pass->dim, numbers = (double)pass->m * pass->dim;
    double worth = (numbers * 0.15 + products * 0.015) / 1e5; /* time to read the candidates and to multiply, in units of 0.1 ms */
    return worth < threads ? 1 + (int)worth : threads;
}

/* Many queries are divided among threads; for few, each thread takes part of the candidates. */
static int run(Search *search, int threads) {
    threads = useful(&search->pass, threads);
    if (search->pass.n < 2 * QUERY_BLOCK * threads) return best_of(search, 0, search->pass.n, threads);
    search->done = 1;
    together(threads, take_queries, search);
    return search->done;
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
        Pass pass = {.kernel = kernel, .queries = views[0].buf, .candidates = views[1].buf, .n = n, .m = m, .dim = dim, .k = k};
        Search search = {.pass = pass, .scores = views[2].buf, .places = views[3].buf, .width = width};
        done = run(&search, threads);
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

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "torch_towers.kernels._scores", NULL, -1, methods, NULL, NULL, NULL, NULL};

/* `kernels`: the number of KERNELS that this processor supports, in the order plain C, AVX2, AVX-512. */
PyMODINIT_FUNC PyInit__scores(void) {
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && PyModule_AddIntConstant(made, "kernels", best_kernel() + 1) < 0) Py_CLEAR(made);
    if (made != NULL && PyModule_AddObject(made, "sources", PyLong_FromUnsignedLong(SOURCES)) < 0) Py_CLEAR(made);
    return made;
}
