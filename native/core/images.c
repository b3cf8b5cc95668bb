/* Bilinear interpolation of images, in one pass. Products and sums are rounded one by one, as torch rounds them. */
#include "core.h"
#include <math.h>
#include <stdlib.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

/* The source pixels on both sides of a coordinate, and the share of the upper one. */
typedef struct {
    Py_ssize_t lower, upper;
    float share;
} Neighbours;

static void find_neighbours(Neighbours *found, Py_ssize_t count, Py_ssize_t size, float scale, int half) {
    for (Py_ssize_t i = 0; i < count; i++) {
        float grid = (float)i, at = half ? (grid + 0.5f) * scale - 0.5f : grid * scale, whole = floorf(at);
        Py_ssize_t lower = (Py_ssize_t)whole, upper = (Py_ssize_t)ceilf(at);
        found[i].lower = lower < 0 ? 0 : lower < size ? lower : size - 1;
        found[i].upper = upper < size ? upper : size - 1;
        found[i].share = at - whole;
    }
}

/* One row of the result: inlined for the usual numbers of channels. */
static inline void mix_rows(const float *top, const float *bottom, float down, const Neighbours *columns, Py_ssize_t width,
                            Py_ssize_t channels, float *out) {
    for (Py_ssize_t column = 0; column < width; column++, out += channels) {
        Py_ssize_t left = columns[column].lower * channels, right = columns[column].upper * channels;
        float along = columns[column].share;
        for (Py_ssize_t k = 0; k < channels; k++) {
            float a = top[left + k], b = bottom[left + k];
            float upper = a + (top[right + k] - a) * along, lower = b + (bottom[right + k] - b) * along;
            out[k] = upper + (lower - upper) * down;
        }
    }
}

/* resize_bilinear(images, out, (count, height, width, channels), (height, width), (scale, scale), half) -> whether the sizes
 * fit: images of the first shape, in the second size. */
PyObject *resize_bilinear(PyObject *self, PyObject *args) {
    PyObject *given, *target;
    Py_buffer images, result;
    Py_ssize_t count, height, width, channels, rows, columns;
    double down, along;
    int half;
    if (!PyArg_ParseTuple(args, "OO(nnnn)(nn)(dd)p", &given, &target, &count, &height, &width, &channels, &rows, &columns, &down,
                          &along, &half))
        return NULL;
    if (PyObject_GetBuffer(given, &images, PyBUF_C_CONTIGUOUS) < 0) return NULL;
    if (writable(target, -1, 4, &result) < 0) {
        PyBuffer_Release(&images);
        return NULL;
    }
    Py_ssize_t size = count * height * width * channels, wanted = count * rows * columns * channels;
    int done = height > 0 && width > 0 && rows > 0 && columns > 0 && images.len == size * 4 && result.len == wanted * 4;
    Neighbours *found = done ? malloc((size_t)(rows + columns) * sizeof(Neighbours)) : NULL;
    done = found != NULL;
    if (done) {
        Py_BEGIN_ALLOW_THREADS
        const Neighbours *row = found, *across = found + rows;
        const float *image = images.buf;
        float *out = result.buf;
        find_neighbours(found, rows, height, (float)down, half);
        find_neighbours(found + rows, columns, width, (float)along, half);
        for (Py_ssize_t i = 0; i < count; i++, image += height * width * channels) {
            for (Py_ssize_t j = 0; j < rows; j++, out += columns * channels) {
                const float *top = image + row[j].lower * width * channels, *bottom = image + row[j].upper * width * channels;
                if (channels == 3) mix_rows(top, bottom, row[j].share, across, columns, 3, out);
                else if (channels == 1) mix_rows(top, bottom, row[j].share, across, columns, 1, out);
                else mix_rows(top, bottom, row[j].share, across, columns, channels, out);
            }
        }
        Py_END_ALLOW_THREADS
    }
    free(found);
    PyBuffer_Release(&result);
    PyBuffer_Release(&images);
    return PyBool_FromLong(done);
}
