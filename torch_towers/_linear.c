/* Dense layers over few rows, where the calls into the libraries take longer than the products: float32, without a copy of the
 * weights. Sixteen products run side by side for each output and are added up in pairs, so that a row's result is nearer to the
 * exact one than a running sum and does not depend on the rows beside it. Needs AVX-512; `supported` says whether it is here. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f")))
#define INLINE static inline __attribute__((always_inline)) AVX512
#define EACH(i, n) _Pragma("GCC unroll 4") for (int i = 0; i < (n); i++)

enum { TILE = 4, LANES = 16, BLOCK = 64, NEAR = 1024 }; /* BLOCK rows stay in the cache while all weights pass by */

/* In each quarter: two sums of pairs of `a` and two of `b`; then one of four and four operands. */
INLINE __m512 pairs(__m512 a, __m512 b) { return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); }

INLINE __m512 fours(__m512 a, __m512 b) {
    __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}

/* The quarters 0 + 2 and 1 + 3 of `a`, then of `b`; and 0 + 1 and 2 + 3. */
INLINE __m512 halves(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
}

INLINE __m512 quarters(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
}

typedef struct {
    const float *x, *weight, *bias; /* bias may be NULL */
    float *out;
    Py_ssize_t rows, inputs, outputs;
    int relu;
} Layer;

/* Up to TILE rows of `x` times up to TILE rows of `weight`, which are `stride` apart. */
INLINE void tile(const Layer *layer, Py_ssize_t row, Py_ssize_t output, const float *weight, Py_ssize_t stride, const int rows) {
    Py_ssize_t inputs = layer->inputs, left = layer->outputs - output;
    const float *x = layer->x + row * inputs, *from[TILE];
    float *out = layer->out + row * layer->outputs + output;
    __m512 sum[TILE][TILE], column[TILE], quad[TILE];
    EACH(r, TILE) EACH(c, TILE) sum[r][c] = _mm512_setzero_ps();
    EACH(c, TILE) from[c] = weight + (c < left ? c : 0) * stride;
    Py_ssize_t k = 0;
    for (; k + LANES <= inputs; k += LANES) {
        EACH(c, TILE) column[c] = _mm512_loadu_ps(from[c] + k);
        EACH(r, rows) {
            __m512 values = _mm512_loadu_ps(x + r * inputs + k);
            EACH(c, TILE) sum[r][c] = _mm512_fmadd_ps(values, column[c], sum[r][c]);
        }
    }
    if (k < inputs) {
        __mmask16 rest = (__mmask16)((1u << (inputs - k)) - 1);
        EACH(c, TILE) column[c] = _mm512_maskz_loadu_ps(rest, from[c] + k);
        EACH(r, rows) {
            __m512 values = _mm512_maskz_loadu_ps(rest, x + r * inputs + k);
            EACH(c, TILE) sum[r][c] = _mm512_fmadd_ps(values, column[c], sum[r][c]);
        }
    }
    EACH(r, TILE) quad[r] = fours(pairs(sum[r][0], sum[r][1]), pairs(sum[r][2], sum[r][3]));
    __m512 y = quarters(halves(quad[0], quad[1]), halves(quad[2], quad[3])); /* TILE outputs of row 0, of row 1, ... */
    __mmask16 which = left < TILE ? (__mmask16)((1u << left) - 1) : 0xF;
    if (layer->bias != NULL) {
        __m512 bias = _mm512_maskz_loadu_ps(which, layer->bias + output);
        y = _mm512_add_ps(y, _mm512_shuffle_f32x4(bias, bias, 0));
    }
    if (layer->relu) y = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_NLE_UQ), y); /* NaN stays */
    EACH(r, rows) _mm512_mask_storeu_ps(out + r * (layer->outputs - TILE), (__mmask16)(which << (TILE * r)), y);
}

AVX512 static void product(const Layer *layer) {
    float near[TILE * NEAR] __attribute__((aligned(64))); /* weights whose rows do not begin where the cache's lines do */
    Py_ssize_t inputs = layer->inputs, aligned = (inputs + LANES - 1) / LANES * LANES;
    int copied = inputs != aligned && layer->rows >= 32 && aligned <= NEAR;
    Py_ssize_t stride = copied ? aligned : inputs;
    for (Py_ssize_t start = 0; start < layer->rows; start += BLOCK) {
        Py_ssize_t end = layer->rows - start < BLOCK ? layer->rows : start + BLOCK;
        for (Py_ssize_t output = 0; output < layer->outputs; output += TILE) {
            const float *weight = layer->weight + output * inputs;
            if (copied) {
                Py_ssize_t left = layer->outputs - output < TILE ? layer->outputs - output : TILE;
                for (Py_ssize_t c = 0; c < left; c++) memcpy(near + c * stride, weight + c * inputs, inputs * sizeof(float));
                weight = near;
            }
            Py_ssize_t row = start;
            for (; row + TILE <= end; row += TILE) tile(layer, row, output, weight, stride, TILE);
            if (end - row == 3) tile(layer, row, output, weight, stride, 3);
            if (end - row == 2) tile(layer, row, output, weight, stride, 2);
            if (end - row == 1) tile(layer, row, output, weight, stride, 1);
        }
    }
}

static int supported(void) { return __builtin_cpu_supports("avx512f"); }
#else
typedef struct { const float *x, *weight, *bias; float *out; Py_ssize_t rows, inputs, outputs; int relu; } Layer;
static void product(const Layer *layer) { (void)layer; }
static int supported(void) { return 0; }
#endif

/* linear(x, weight, bias, out, rows, inputs, outputs, relu): the addresses of contiguous float32s; a bias of 0 is none. */
static PyObject *linear(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    if (count != 8 || !supported()) {
        PyErr_SetString(PyExc_TypeError, count != 8 ? "linear takes 8 arguments" : "this processor lacks AVX-512");
        return NULL;
    }
    Layer layer = {
        PyLong_AsVoidPtr(args[0]), PyLong_AsVoidPtr(args[1]), PyLong_AsVoidPtr(args[2]), PyLong_AsVoidPtr(args[3]),
        PyLong_AsSsize_t(args[4]), PyLong_AsSsize_t(args[5]), PyLong_AsSsize_t(args[6]), args[7] == Py_True,
    };
    if (PyErr_Occurred()) return NULL;
    if (layer.rows * layer.inputs * layer.outputs < 1 << 18) { /* a few microseconds: other threads can wait */
        product(&layer);
    } else {
        Py_BEGIN_ALLOW_THREADS
        product(&layer);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"linear", (PyCFunction)(void (*)(void))linear, METH_FASTCALL, "linear(x, weight, bias, out, rows, inputs, outputs, relu)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_linear", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__linear(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddIntConstant(module, "supported", supported()) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
