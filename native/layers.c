/* Layers over many small rows: attention, recurrent layers and softmax, each in one pass. torch's kernels take a microsecond for each
   head of a row, or each step. Optional, like all native code here, and needs GNU C (gcc, clang); otherwise torch does the same
   (torch_towers/kernels/small_layers.py). All numbers are float32. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef __GNUC__
#error "needs GNU C: the package works without this module"
#endif

enum { LINEAR, RELU, TANH, SIGMOID, CLIPPED_LINE, HARD_SIGMOID, ACTIVATIONS };
enum { RNN, LSTM, GRU_AFTER, GRU_BEFORE, KINDS };
static const int GATES[KINDS] = {1, 4, 3, 3};

typedef struct {
    const char *query, *key, *value, *mask; /* [rows, heads, t, dim], ... [rows, heads, t, s]; strides in bytes */
    const Py_ssize_t *query_strides, *key_strides, *value_strides, *mask_strides;
    float *out; /* [rows, t, heads, width] */
    Py_ssize_t items, heads, queries, keys, dim, width;
    float scale;
    int is_boolean, empty;
} Attention;

typedef struct {
    const char *x, *mask; /* [rows, length, input], [rows, length]; strides in bytes */
    const Py_ssize_t *strides, *mask_strides;
    const float *weight_ih, *weight_hh; /* [gates * hidden, input], [gates * hidden, hidden] */
    float *start;                       /* [gates * hidden]: where the sums of the gates start; GRU_AFTER: hidden more, inside the reset */
    const float *h, *c;                         /* the first state, or NULL */
    float *sequence, *last, *last_h, *last_c;   /* [rows, length, hidden] or NULL; [rows, hidden] */
    Py_ssize_t rows, length, input, hidden, gates;
    int kind, activation, gate, zero;
    float slope;
} Recurrent;

typedef struct {
    int lanes;
    void (*attend)(const Attention *a, Py_ssize_t first, char *room);
    void (*run)(const Recurrent *l, Py_ssize_t first, char *room);
    void (*softmax)(const float *from, float *to, Py_ssize_t size, Py_ssize_t first, Py_ssize_t rows, char *room);
} Kernel;

typedef float four __attribute__((vector_size(16)));

/* The transpose of a block of 4 x 4 numbers. */
static inline __attribute__((always_inline)) void turn(four *block) {
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
    four a = __builtin_shufflevector(block[0], block[1], 0, 4, 1, 5), b = __builtin_shufflevector(block[2], block[3], 0, 4, 1, 5);
    four c = __builtin_shufflevector(block[0], block[1], 2, 6, 3, 7), d = __builtin_shufflevector(block[2], block[3], 2, 6, 3, 7);
    block[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5), block[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
    block[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5), block[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
#else
    four given[4];
    memcpy(given, block, sizeof given);
    for (int i = 0; i < 4; i++) block[i] = (four){given[0][i], given[1][i], given[2][i], given[3][i]};
#endif
}

#if defined(__x86_64__)
#define LANES 16
#define TARGET __attribute__((target("avx512f,fma")))
#define NAME(x) avx512_##x
#include "layers.h"
#define LANES 8
#define TARGET __attribute__((target("avx2,fma")))
#define NAME(x) avx2_##x
#include "layers.h"
#endif
#define LANES 4
#define TARGET
#define NAME(x) plain_##x
#include "layers.h"

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

/* -- arrays from Python ------------------------------------------------------------------------------------------------------ */

/* The arrays of a call; `held` of them are open. */
typedef struct {
    Py_buffer views[16];
    int held;
} Arrays;

static void release(Arrays *arrays) {
    while (arrays->held) PyBuffer_Release(&arrays->views[--arrays->held]);
}

static int refused(void) {
    PyErr_SetString(PyExc_ValueError, "no such arrays");
    return 0;
}

/* The next array, with `ndim` axes of the sizes that are not -1, of floats, or also of booleans with `or_boolean`; NULL for None, or with
   an exception. Without `strided` it is contiguous. */
static Py_buffer *opened(Arrays *arrays, PyObject *object, int flags, int ndim, const Py_ssize_t *sizes, int or_boolean) {
    if (object == Py_None || PyErr_Occurred()) return NULL;
    Py_buffer *view = &arrays->views[arrays->held];
    if (PyObject_GetBuffer(object, view, flags | PyBUF_FORMAT) < 0) return NULL;
    arrays->held++;
    int fits = view->ndim == ndim && view->format && (!strcmp(view->format, "f") || (or_boolean && !strcmp(view->format, "?")));
    for (int i = 0; fits && i < ndim; i++) fits = sizes[i] < 0 || view->shape[i] == sizes[i];
    return fits || refused() ? view : NULL;
}

static void *data(const Py_buffer *view) { return view ? view->buf : NULL; }

/* Memory for `vectors` registers of `kernel`. */
static char *workspace(const Kernel *kernel, Py_ssize_t vectors) {
    return aligned_alloc(64, ((size_t)vectors * kernel->lanes * 4 + 63) / 64 * 64);
}

enum { MOST = 1 << 12 }; /* the largest size of an axis that is held for all lanes */

/* -- functions of the module ------------------------------------------------------------------------------------------------- */

/* attention(query, key, value, mask, out, scale, empty, kernel): [rows, heads, t, dim] and the like; `mask` [rows, heads, t, s] is float
   or boolean, or None; `out` is [rows, t, heads, width]. */
static PyObject *attention(PyObject *self, PyObject *args) {
    PyObject *objects[5];
    Arrays arrays = {.held = 0};
    Attention a = {0};
    double scale;
    int kind;
    if (!PyArg_ParseTuple(args, "OOOOOdpi", &objects[0], &objects[1], &objects[2], &objects[3], &objects[4], &scale, &a.empty, &kind))
        return NULL;
    Py_ssize_t any[] = {-1, -1, -1, -1};
    Py_buffer *query = opened(&arrays, objects[0], PyBUF_STRIDES, 4, any, 0), *key = NULL, *value = NULL, *mask = NULL, *out = NULL;
    if (query) {
        Py_ssize_t *sizes = query->shape;
        key = opened(&arrays, objects[1], PyBUF_STRIDES, 4, (Py_ssize_t[]){sizes[0], sizes[1], -1, sizes[3]}, 0);
        if (key) value = opened(&arrays, objects[2], PyBUF_STRIDES, 4, (Py_ssize_t[]){sizes[0], sizes[1], key->shape[2], -1}, 0);
        if (value) {
            mask = opened(&arrays, objects[3], PyBUF_STRIDES, 4, (Py_ssize_t[]){sizes[0], sizes[1], sizes[2], key->shape[2]}, 1);
            out = opened(&arrays, objects[4], PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS, 4,
                         (Py_ssize_t[]){sizes[0], sizes[2], sizes[1], value->shape[3]}, 0);
        }
    }
    char *room = NULL;
    if (out && kind >= 0 && kind <= best_kernel() && key->shape[2] <= MOST && query->shape[3] <= MOST && value->shape[3] <= MOST) {
        const Kernel *kernel = KERNELS[kind];
        a.query = query->buf, a.key = key->buf, a.value = value->buf, a.mask = data(mask), a.out = out->buf;
        a.query_strides = query->strides, a.key_strides = key->strides, a.value_strides = value->strides;
        a.mask_strides = mask ? mask->strides : NULL, a.is_boolean = mask && mask->itemsize == 1;
        a.heads = query->shape[1], a.items = query->shape[0] * a.heads, a.queries = query->shape[2], a.dim = query->shape[3];
        a.keys = key->shape[2], a.width = value->shape[3], a.scale = (float)scale;
        room = workspace(kernel, a.keys * (a.dim + a.width + 2) + a.dim + a.width + 1);
        if (room == NULL) PyErr_NoMemory();
        else {
            Py_BEGIN_ALLOW_THREADS;
            for (Py_ssize_t first = 0; first < a.items; first += kernel->lanes) kernel->attend(&a, first, room);
            Py_END_ALLOW_THREADS;
        }
        free(room);
    } else if (!PyErr_Occurred()) refused();
    release(&arrays);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

/* Where the sums of the gates start: the biases, where there are any. */
static void fill_start(const Recurrent *l, const float *of_inputs, const float *of_state, float forget) {
    Py_ssize_t size = l->hidden, count = l->gates * size, inside = l->kind == GRU_AFTER ? 2 * size : count;
    for (Py_ssize_t i = 0; i < count; i++) l->start[i] = (of_inputs ? of_inputs[i] : 0) + (of_state && i < inside ? of_state[i] : 0);
    for (Py_ssize_t i = inside; i < count; i++) l->start[i + size] = of_state ? of_state[i] : 0;
    for (Py_ssize_t i = size; l->kind == LSTM && i < 2 * size; i++) l->start[i] += forget;
}

/* recurrent(x, mask, (weight_ih, weight_hh, bias_ih, bias_hh), states, sequence, last, last_states,
   (kind, activation, gate, zero, slope, forget), kernel): x [rows, length, input], mask [rows, length] or None; biases may be None; states
   and last_states are tuples of [rows, hidden]; sequence [rows, length, hidden] or None. */
static PyObject *recurrent(PyObject *self, PyObject *args) {
    PyObject *given, *masks, *weights[4], *states, *sequence, *last, *last_states;
    Arrays arrays = {.held = 0};
    Recurrent l = {0};
    double slope, forget;
    int kind;
    if (!PyArg_ParseTuple(args, "OO(OOOO)O!OOO!(iiipdd)i", &given, &masks, &weights[0], &weights[1], &weights[2], &weights[3],
                          &PyTuple_Type, &states, &sequence, &last, &PyTuple_Type, &last_states, &l.kind, &l.activation, &l.gate,
                          &l.zero, &slope, &forget, &kind))
        return NULL;
    int known = l.kind >= 0 && l.kind < KINDS && l.activation >= 0 && l.activation < ACTIVATIONS && l.gate >= 0 &&
                l.gate < ACTIVATIONS && kind >= 0 && kind <= best_kernel();
    Py_ssize_t any[] = {-1, -1, -1};
    Py_buffer *x = opened(&arrays, given, PyBUF_STRIDES, 3, any, 0), *hh = opened(&arrays, weights[1], PyBUF_C_CONTIGUOUS, 2, any, 0);
    if (x && hh && known && x->shape[2] <= MOST && hh->shape[1] <= MOST && hh->shape[0] == GATES[l.kind] * hh->shape[1]) {
        l.gates = GATES[l.kind], l.rows = x->shape[0], l.length = x->shape[1], l.input = x->shape[2], l.hidden = hh->shape[1];
        Py_ssize_t state[] = {l.rows, l.hidden}, count = l.gates * l.hidden;
        int kept = l.kind == LSTM ? 2 : 1, write = PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS;
        Py_buffer *found[4] = {0}, *mask = opened(&arrays, masks, PyBUF_STRIDES, 2, (Py_ssize_t[]){l.rows, l.length}, 1);
        Py_buffer *ih = opened(&arrays, weights[0], PyBUF_C_CONTIGUOUS, 2, (Py_ssize_t[]){count, l.input}, 0);
        const float *of_inputs = data(opened(&arrays, weights[2], PyBUF_C_CONTIGUOUS, 1, &count, 0));
        const float *of_state = data(opened(&arrays, weights[3], PyBUF_C_CONTIGUOUS, 1, &count, 0));
        l.sequence = data(opened(&arrays, sequence, write, 3, (Py_ssize_t[]){l.rows, l.length, l.hidden}, 0));
        l.last = data(opened(&arrays, last, write, 2, state, 0));
        for (int i = 0; i < kept; i++) {
            if (i < PyTuple_GET_SIZE(states)) found[i] = opened(&arrays, PyTuple_GET_ITEM(states, i), PyBUF_C_CONTIGUOUS, 2, state, 0);
            if (i < PyTuple_GET_SIZE(last_states)) found[2 + i] = opened(&arrays, PyTuple_GET_ITEM(last_states, i), write, 2, state, 0);
        }
        known = ih && l.last && found[2] && (kept == 1 || found[3]) && (!mask || mask->itemsize == 1);
        if (known && !PyErr_Occurred()) {
            const Kernel *kernel = KERNELS[kind];
            l.x = x->buf, l.strides = x->strides, l.mask = data(mask), l.mask_strides = mask ? mask->strides : NULL;
            l.weight_ih = ih->buf, l.weight_hh = hh->buf, l.slope = (float)slope;
            l.h = data(found[0]), l.c = data(found[1]), l.last_h = data(found[2]), l.last_c = data(found[3]);
            char *room = workspace(kernel, l.input + (6 + l.gates) * l.hidden + 1);
            l.start = malloc((size_t)(l.gates + 1) * l.hidden * sizeof(float) + 1);
            if (room == NULL || l.start == NULL) PyErr_NoMemory();
            else {
                Py_BEGIN_ALLOW_THREADS;
                fill_start(&l, of_inputs, of_state, (float)forget);
                for (Py_ssize_t first = 0; first < l.rows; first += kernel->lanes) kernel->run(&l, first, room);
                Py_END_ALLOW_THREADS;
            }
            free(l.start);
            free(room);
        } else if (!PyErr_Occurred()) refused();
    } else if (!PyErr_Occurred()) refused();
    release(&arrays);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

/* softmax(x, out, kernel): of each row of [rows, size]. */
static PyObject *softmax(PyObject *self, PyObject *args) {
    PyObject *given, *target;
    Arrays arrays = {.held = 0};
    int kind;
    if (!PyArg_ParseTuple(args, "OOi", &given, &target, &kind)) return NULL;
    Py_buffer *x = opened(&arrays, given, PyBUF_C_CONTIGUOUS, 2, (Py_ssize_t[]){-1, -1}, 0), *out = NULL;
    if (x) out = opened(&arrays, target, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS, 2, x->shape, 0);
    if (out && kind >= 0 && kind <= best_kernel() && x->shape[1] <= MOST) {
        const Kernel *kernel = KERNELS[kind];
        char *room = workspace(kernel, x->shape[1] + 1);
        if (room == NULL) PyErr_NoMemory();
        else {
            Py_BEGIN_ALLOW_THREADS;
            for (Py_ssize_t first = 0; first < x->shape[0]; first += kernel->lanes)
                kernel->softmax(x->buf, out->buf, x->shape[1], first, x->shape[0], room);
            Py_END_ALLOW_THREADS;
        }
        free(room);
    } else if (!PyErr_Occurred()) refused();
    release(&arrays);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"attention", attention, METH_VARARGS, "attention(query, key, value, mask, out, scale, empty, kernel)"},
    {"recurrent", recurrent, METH_VARARGS, "recurrent(x, mask, weights, states, sequence, last, last_states, kind, kernel)"},
    {"softmax", softmax, METH_VARARGS, "softmax(x, out, kernel)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "torch_towers.kernels._layers", NULL, -1, methods, NULL, NULL, NULL, NULL};

/* `kernels`: the number of KERNELS that this processor supports, in the order plain C, AVX2, AVX-512. */
PyMODINIT_FUNC PyInit__layers(void) {
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && PyModule_AddIntConstant(made, "kernels", best_kernel() + 1) < 0) Py_CLEAR(made);
    if (made != NULL && PyModule_AddObject(made, "sources", PyLong_FromUnsignedLong(SOURCES)) < 0) Py_CLEAR(made);
    return made;
}
