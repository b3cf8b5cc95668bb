/* Dense layers over few rows, where the calls into the libraries take longer than the products: float32, without a copy of the
 * weights. Sixteen products run side by side for each output and are added up in pairs, so that a row's result is nearer to the
 * exact one than a running sum and does not depend on the rows beside it. Needs AVX-512; `supported` says whether it is here. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f")))
#define INLINE static inline __attribute__((always_inline)) AVX512
#define EACH(i, n) _Pragma("GCC unroll 4") for (int i = 0; i < (n); i++)

enum { TILE = 4, LANES = 16 };

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

/* Rows of weights that a tile reads, what it adds, and which lanes of a quarter it writes. */
typedef struct {
    const float *row[TILE];
    __m512 bias;
    __mmask16 lanes;
} Columns;

/* `rows` rows of `x` (at most TILE) times the columns. */
INLINE void tile(const Layer *layer, const float *x, const Columns *columns, float *out, const int rows) {
    size_t inputs = layer->inputs, k = 0;
    __m512 sum[TILE][TILE], column[TILE], quad[TILE];
    EACH(r, TILE) EACH(c, TILE) sum[r][c] = _mm512_setzero_ps();
    for (; k + LANES <= inputs; k += LANES) {
        EACH(c, TILE) column[c] = _mm512_loadu_ps(columns->row[c] + k);
        EACH(r, rows) {
            __m512 values = _mm512_loadu_ps(x + r * inputs + k);
            EACH(c, TILE) sum[r][c] = _mm512_fmadd_ps(values, column[c], sum[r][c]);
        }
    }
    if (k < inputs) {
        __mmask16 rest = (__mmask16)((1u << (inputs - k)) - 1);
        EACH(c, TILE) column[c] = _mm512_maskz_loadu_ps(rest, columns->row[c] + k);
        EACH(r, rows) {
            __m512 values = _mm512_maskz_loadu_ps(rest, x + r * inputs + k);
            EACH(c, TILE) sum[r][c] = _mm512_fmadd_ps(values, column[c], sum[r][c]);
        }
    }
    EACH(r, TILE) quad[r] = fours(pairs(sum[r][0], sum[r][1]), pairs(sum[r][2], sum[r][3]));
    __m512 y = quarters(halves(quad[0], quad[1]), halves(quad[2], quad[3])); /* TILE outputs of row 0, of row 1, ... */
    y = _mm512_add_ps(y, columns->bias);
    if (layer->relu) y = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_NLE_UQ), y); /* NaN stays */
    EACH(r, rows) _mm512_mask_storeu_ps(out + r * layer->outputs - r * TILE, (__mmask16)(columns->lanes << (TILE * r)), y);
}

AVX512 static void product(const Layer *layer) {
    for (Py_ssize_t output = 0; output < layer->outputs; output += TILE) {
        Py_ssize_t left = layer->outputs - output, row = 0;
        Columns columns = {.bias = _mm512_setzero_ps(), .lanes = (__mmask16)(left < TILE ? (1 << left) - 1 : 0xF)};
        EACH(c, TILE) columns.row[c] = layer->weight + (output + (c < left ? c : 0)) * layer->inputs;
        if (layer->bias != NULL) {
            __m512 bias = _mm512_maskz_loadu_ps(columns.lanes, layer->bias + output);
            columns.bias = _mm512_shuffle_f32x4(bias, bias, 0);
        }
        const float *x = layer->x;
        float *out = layer->out + output;
        for (; row + TILE <= layer->rows; row += TILE, x += TILE * layer->inputs, out += TILE * layer->outputs)
            tile(layer, x, &columns, out, TILE);
        if (layer->rows - row == 3) tile(layer, x, &columns, out, 3);
        if (layer->rows - row == 2) tile(layer, x, &columns, out, 2);
        if (layer->rows - row == 1) tile(layer, x, &columns, out, 1);
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
