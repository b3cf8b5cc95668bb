/* The numeric loops of layers.c, written once and compiled for each instruction set.

   The file that includes this one sets LANES (floats in a register), TARGET (a function attribute) and NAME(x) (the name of x for
   this instruction set). A lane is one row of the batch (of attention, one head of a row), so that a row's sums run in order,
   whatever its neighbours are, and small sizes fill the registers too. */

typedef float NAME(V) __attribute__((vector_size(4 * LANES)));
typedef int32_t NAME(I) __attribute__((vector_size(4 * LANES)));
#define V NAME(V)
#define I NAME(I)
#define INLINE TARGET static inline __attribute__((always_inline))

INLINE V NAME(all)(float x) { return x - (V){0}; }

/* `yes` where `mask` is -1, `no` where it is 0. */
INLINE V NAME(select)(I mask, V yes, V no) { return (V)((mask & (I)yes) | (~mask & (I)no)); }

/* e to the power of x, within an ulp or two; NaN stays. */
INLINE V NAME(exponential)(V x) {
    V low = NAME(all)(-104.0f), high = NAME(all)(104.0f); /* beyond them it is 0 and infinity */
    x = NAME(select)(x < low, low, x);
    x = NAME(select)(x > high, high, x);
    V shifted = x * 1.44269504088896341f + 12582912.0f; /* the last bits hold the nearest integer */
    V n = shifted - 12582912.0f, rest = x - n * 0.693359375f - n * -2.12194440e-4f;
    V sum = rest * 1.9875691500e-4f + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * (rest * rest) + rest + 1.0f;
    I power = (I)shifted - 0x4B400000, half = power >> 1; /* two factors: 2^128 and 2^-149 are reached by none */
    return sum * (V)((half + 127) << 23) * (V)((power - half + 127) << 23);
}

INLINE V NAME(sigmoid)(V x) { return 1.0f / (1.0f + NAME(exponential)(-x)); }

INLINE V NAME(tangent)(V x) {
    V size = (V)((I)x & 0x7fffffff), square = x * x;
    V near = square * -5.70498872745e-3f + 2.06390887954e-2f;
    near = near * square - 5.37397155531e-2f;
    near = near * square + 1.33314422036e-1f;
    near = near * square - 3.33332819422e-1f;
    near = near * square * x + x;
    V far = 1.0f - 2.0f / (NAME(exponential)(size + size) + 1.0f);
    far = (V)((I)far | ((I)x & (I)NAME(all)(-0.0f)));
    return NAME(select)(size < 0.625f, near, far);
}

INLINE V NAME(activated)(V x, int activation, float slope) {
    V zero = {0};
    switch (activation) {
    case RELU: return NAME(select)(x < zero, zero, x);
    case TANH: return NAME(tangent)(x);
    case SIGMOID: return NAME(sigmoid)(x);
    case CLIPPED_LINE:
        x = x * slope + 0.5f;
        x = NAME(select)(x < zero, zero, x);
        return NAME(select)(x > 1.0f, NAME(all)(1.0f), x);
    case HARD_SIGMOID:
        x = x + 3.0f;
        x = NAME(select)(x < zero, zero, x);
        return NAME(select)(x > 6.0f, NAME(all)(6.0f), x) * slope;
    default: return x;
    }
}

/* sums[r] += the sum of matrix[r * across + i * down] * x[i], for `rows` sums of `count` products. A matrix of numbers has the same
   for all lanes. */
#define PRODUCTS(TYPE, ROWS)                                                                                                   \
    for (; r + ROWS <= rows; r += ROWS) {                                                                                      \
        V found[ROWS];                                                                                                         \
        const TYPE *from = matrix + r * across;                                                                                \
        for (int k = 0; k < ROWS; k++) found[k] = sums[r + k];                                                                 \
        for (Py_ssize_t i = 0; i < count; i++, from += down)                                                                   \
            for (int k = 0; k < ROWS; k++) found[k] += from[k * across] * x[i];                                                \
        for (int k = 0; k < ROWS; k++) sums[r + k] = found[k];                                                                 \
    }
TARGET static void NAME(weighted)(const float *matrix, Py_ssize_t rows, Py_ssize_t count, const V *x, V *sums) {
    Py_ssize_t r = 0, across = count, down = 1;
    PRODUCTS(float, 8)
    PRODUCTS(float, 1)
}
INLINE void NAME(multiplied)(const V *matrix, Py_ssize_t across, Py_ssize_t down, Py_ssize_t rows, Py_ssize_t count, const V *x,
                             V *sums) {
    Py_ssize_t r = 0;
    PRODUCTS(V, 4)
    PRODUCTS(V, 1)
}
#undef PRODUCTS

/* Reads `count` numbers of each lane, from its own place on. */
INLINE void NAME(read)(const char *const *from, Py_ssize_t stride, Py_ssize_t count, V *to) {
    Py_ssize_t done = 0;
    if (stride == 4)
        for (; done + 4 <= count; done += 4)
            for (int lane = 0; lane < LANES; lane += 4) {
                four block[4];
                for (int k = 0; k < 4; k++) memcpy(&block[k], from[lane + k] + done * 4, sizeof(four));
                turn(block);
                for (int k = 0; k < 4; k++) memcpy((float *)(to + done + k) + lane, &block[k], sizeof(four));
            }
    for (int lane = 0; lane < LANES; lane++)
        for (Py_ssize_t i = done; i < count; i++) ((float *)(to + i))[lane] = *(const float *)(from[lane] + i * stride);
}

/* Writes `count` numbers of each of the first `lanes` lanes. */
INLINE void NAME(write)(const V *from, float *const *to, Py_ssize_t count, int lanes) {
    Py_ssize_t done = 0;
    if (lanes == LANES)
        for (; done + 4 <= count; done += 4)
            for (int lane = 0; lane < LANES; lane += 4) {
                four block[4];
                for (int k = 0; k < 4; k++) memcpy(&block[k], (const float *)(from + done + k) + lane, sizeof(four));
                turn(block);
                for (int k = 0; k < 4; k++) memcpy(to[lane + k] + done, &block[k], sizeof(four));
            }
    for (int lane = 0; lane < lanes; lane++)
        for (Py_ssize_t i = done; i < count; i++) to[lane][i] = ((const float *)(from + i))[lane];
}

/* What the mask adds to the scores of one query in each lane. Returns the lanes that may see something. */
TARGET static I NAME(read_mask)(const Attention *a, const char *const *from, V *added) {
    I some = {0};
    if (!a->is_boolean) {
        NAME(read)(from, a->mask_strides[3], a->keys, added);
        return some - 1;
    }
    for (int lane = 0; lane < LANES; lane++) {
        int any = 0;
        for (Py_ssize_t j = 0; j < a->keys; j++) any |= from[lane][j * a->mask_strides[3]];
        for (Py_ssize_t j = 0; j < a->keys; j++) /* where nothing may be seen, all is seen alike */
            ((float *)(added + j))[lane] = !any || from[lane][j * a->mask_strides[3]] ? 0.0f : -INFINITY;
        some[lane] = any ? -1 : 0;
    }
    return some;
}

/* LANES heads from `first` on; lanes after the last head repeat it. */
TARGET static void NAME(attend)(const Attention *a, Py_ssize_t first, char *room) {
    Py_ssize_t t = a->queries, s = a->keys, dim = a->dim, width = a->width;
    const char *query[LANES], *key[LANES], *value[LANES], *mask[LANES], *row[LANES];
    float *out[LANES];
    int lanes = a->items - first < LANES ? (int)(a->items - first) : LANES;
    for (int lane = 0; lane < LANES; lane++) {
        Py_ssize_t item = first + (lane < lanes ? lane : lanes - 1), n = item / a->heads, head = item % a->heads;
        query[lane] = a->query + n * a->query_strides[0] + head * a->query_strides[1];
        key[lane] = a->key + n * a->key_strides[0] + head * a->key_strides[1];
        value[lane] = a->value + n * a->value_strides[0] + head * a->value_strides[1];
        if (a->mask) mask[lane] = a->mask + n * a->mask_strides[0] + head * a->mask_strides[1];
        out[lane] = a->out + (n * t * a->heads + head) * width;
    }
    V *keys = (V *)room, *values = keys + s * dim, *x = values + s * width, *scores = x + dim, *added = scores + s, *sums = added + s;
    for (Py_ssize_t j = 0; j < s; j++) {
        for (int lane = 0; lane < LANES; lane++) row[lane] = key[lane] + j * a->key_strides[2];
        NAME(read)(row, a->key_strides[3], dim, keys + j * dim);
        for (int lane = 0; lane < LANES; lane++) row[lane] = value[lane] + j * a->value_strides[2];
        NAME(read)(row, a->value_strides[3], width, values + j * width);
    }
    for (Py_ssize_t i = 0; i < t; i++) {
        I some = (I){0} - 1;
        for (int lane = 0; lane < LANES; lane++) row[lane] = query[lane] + i * a->query_strides[2];
        NAME(read)(row, a->query_strides[3], dim, x);
        if (a->mask) {
            for (int lane = 0; lane < LANES; lane++) row[lane] = mask[lane] + i * a->mask_strides[2];
            some = NAME(read_mask)(a, row, added);
        }
        for (Py_ssize_t d = 0; d < dim; d++) x[d] = NAME(select)(some, x[d] * a->scale, (V){0});
        for (Py_ssize_t j = 0; j < s; j++) scores[j] = (V){0};
        NAME(multiplied)(keys, dim, 1, s, dim, x, scores);
        V top = NAME(all)(-INFINITY), total = {0};
        for (Py_ssize_t j = 0; j < s; j++) {
            if (a->mask) scores[j] += added[j];
            top = NAME(select)(scores[j] <= top, top, scores[j]); /* NaN spreads to all scores */
        }
        for (Py_ssize_t j = 0; j < s; j++) total += scores[j] = NAME(exponential)(scores[j] - top);
        for (Py_ssize_t d = 0; d < width; d++) sums[d] = (V){0};
        NAME(multiplied)(values, 1, width, width, s, scores, sums);
        for (Py_ssize_t d = 0; d < width; d++) sums[d] = a->empty ? NAME(select)(some, sums[d] / total, (V){0}) : sums[d] / total;
        NAME(write)(sums, out, width, lanes);
        for (int lane = 0; lane < lanes; lane++) out[lane] += a->heads * width;
    }
}

/* One step of a recurrent layer: `h`, of which `c` is the second state, from the sums of the gates. */
INLINE void NAME(step)(const Recurrent *l, const V *x, V *h, V *c, V *gates, V *other) {
    Py_ssize_t size = l->hidden, count = l->gates * size;
    for (Py_ssize_t i = 0; i < count; i++) gates[i] = NAME(all)(l->start[i]);
    NAME(weighted)(l->weight_ih, count, l->input, x, gates);
    switch (l->kind) {
    case RNN:
        NAME(weighted)(l->weight_hh, size, size, h, gates);
        for (Py_ssize_t i = 0; i < size; i++) h[i] = NAME(activated)(gates[i], l->activation, l->slope);
        break;
    case LSTM:
        NAME(weighted)(l->weight_hh, count, size, h, gates);
        for (Py_ssize_t i = 0; i < size; i++) {
            V in = NAME(activated)(gates[i], l->gate, l->slope), forget = NAME(activated)(gates[size + i], l->gate, l->slope);
            V out = NAME(activated)(gates[3 * size + i], l->gate, l->slope);
            c[i] = forget * c[i] + in * NAME(activated)(gates[2 * size + i], l->activation, l->slope);
            h[i] = out * NAME(activated)(c[i], l->activation, l->slope);
        }
        break;
    default: /* the products of the new state with the reset before or after them */
        NAME(weighted)(l->weight_hh, 2 * size, size, h, gates);
        for (Py_ssize_t i = 0; i < 2 * size; i++) gates[i] = NAME(activated)(gates[i], l->gate, l->slope);
        if (l->kind == GRU_AFTER) {
            for (Py_ssize_t i = 0; i < size; i++) other[i] = NAME(all)(l->start[count + i]);
            NAME(weighted)(l->weight_hh + 2 * size * size, size, size, h, other);
            for (Py_ssize_t i = 0; i < size; i++) gates[2 * size + i] += gates[i] * other[i];
        } else {
            for (Py_ssize_t i = 0; i < size; i++) other[i] = gates[i] * h[i];
            NAME(weighted)(l->weight_hh + 2 * size * size, size, size, other, gates + 2 * size);
        }
        for (Py_ssize_t i = 0; i < size; i++) {
            V update = gates[size + i], new = NAME(activated)(gates[2 * size + i], l->activation, l->slope);
            h[i] = (1.0f - update) * new + update * h[i];
        }
    }
}

/* The same for rows of `stride` numbers from `to` on. */
INLINE void NAME(write_rows)(const V *from, float *to, Py_ssize_t stride, Py_ssize_t count, int lanes) {
    float *rows[LANES];
    for (int lane = 0; lane < lanes; lane++) rows[lane] = to + lane * stride;
    NAME(write)(from, rows, count, lanes);
}

/* All steps of LANES rows from `first` on; lanes after the last row repeat it. */
TARGET static void NAME(run)(const Recurrent *l, Py_ssize_t first, char *room) {
    Py_ssize_t size = l->hidden;
    int lanes = l->rows - first < LANES ? (int)(l->rows - first) : LANES;
    const char *from[LANES];
    V *x = (V *)room, *h = x + l->input, *c = h + size, *output = c + size, *kept = output + size, *gates = kept + 2 * size;
    V *other = gates + l->gates * size;
    for (int lane = 0; lane < LANES; lane++) {
        Py_ssize_t row = first + (lane < lanes ? lane : lanes - 1);
        for (Py_ssize_t i = 0; i < size; i++) {
            ((float *)(h + i))[lane] = l->h ? l->h[row * size + i] : 0.0f;
            ((float *)(c + i))[lane] = l->c ? l->c[row * size + i] : 0.0f;
            ((float *)(output + i))[lane] = 0.0f;
        }
    }
    for (Py_ssize_t step = 0; step < l->length; step++) {
        I on = (I){0} - 1;
        int any = !l->mask;
        for (int lane = 0; lane < LANES; lane++) {
            Py_ssize_t row = first + (lane < lanes ? lane : lanes - 1);
            from[lane] = l->x + row * l->strides[0] + step * l->strides[1];
            if (l->mask) any |= on[lane] = l->mask[row * l->mask_strides[0] + step * l->mask_strides[1]] ? -1 : 0;
        }
        if (any) {
            memcpy(kept, h, (size_t)(2 * size) * sizeof(V)); /* both states */
            NAME(read)(from, l->strides[2], l->input, x);
            NAME(step)(l, x, h, c, gates, other);
            for (Py_ssize_t i = 0; i < size; i++) {
                output[i] = NAME(select)(on, h[i], output[i]);
                h[i] = NAME(select)(on, h[i], kept[i]);
                c[i] = NAME(select)(on, c[i], kept[size + i]);
            }
        }
        if (l->sequence) {
            for (Py_ssize_t i = 0; i < size; i++) other[i] = l->zero ? NAME(select)(on, output[i], (V){0}) : output[i];
            NAME(write_rows)(other, l->sequence + (first * l->length + step) * size, l->length * size, size, lanes);
        }
    }
    NAME(write_rows)(output, l->last + first * size, size, size, lanes);
    NAME(write_rows)(h, l->last_h + first * size, size, size, lanes);
    if (l->last_c) NAME(write_rows)(c, l->last_c + first * size, size, size, lanes);
}

/* The softmax of LANES rows of `size` numbers each. */
TARGET static void NAME(softmax)(const float *from, float *to, Py_ssize_t size, Py_ssize_t first, Py_ssize_t rows, char *room) {
    const char *row[LANES];
    int lanes = rows - first < LANES ? (int)(rows - first) : LANES;
    V *x = (V *)room, top = NAME(all)(-INFINITY), total = {0};
    for (int lane = 0; lane < LANES; lane++) row[lane] = (const char *)(from + (first + (lane < lanes ? lane : lanes - 1)) * size);
    NAME(read)(row, 4, size, x);
    for (Py_ssize_t i = 0; i < size; i++) top = NAME(select)(x[i] <= top, top, x[i]);
    for (Py_ssize_t i = 0; i < size; i++) total += x[i] = NAME(exponential)(x[i] - top);
    for (Py_ssize_t i = 0; i < size; i++) x[i] /= total;
    NAME(write_rows)(x, to + first * size, size, size, lanes);
}

static const Kernel NAME(kernel) = {LANES, NAME(attend), NAME(run), NAME(softmax)};

#undef V
#undef I
#undef INLINE
#undef LANES
#undef TARGET
#undef NAME
