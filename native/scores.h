/* The numeric loops of scores.c, written once and compiled for each instruction set.

   The file that includes this one sets LANES (floats in a register), WIDE (registers of queries at a time), TARGET (a function
   attribute), NAME(x) (the name of x for this instruction set), and ROWS_1 to ROWS_4: the candidates per tile for that many
   registers of queries, so that all sums stay in registers. Every sum runs over the dimensions in order, whatever the
   tile: equal candidates get equal scores at any position. */

typedef float NAME(vector) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t NAME(mask) __attribute__((vector_size(4 * LANES)));

/* The scores of `rows` candidates with WIDTH * LANES queries. `queries` is interleaved by dimension. Returns a bit
   for each register with a score above its floor; only if there is one, `scores` is filled: [rows][WIDTH * LANES]. */
#define TILE(ROWS, WIDTH)                                                                                                      \
    TARGET static uint32_t NAME(tile_##ROWS##_##WIDTH)(const float *queries, const float *rows, Py_ssize_t dim,               \
                                                        const float *floors, float *scores) {                                 \
        NAME(vector) sums[ROWS][WIDTH], zero = {0};                                                                            \
        for (int r = 0; r < ROWS; r++)                                                                                         \
            for (int w = 0; w < WIDTH; w++) sums[r][w] = zero;                                                                 \
        for (Py_ssize_t line = 0; line < dim; line += LINE) {                                                                  \
            for (int r = 0; r < ROWS; r++) __builtin_prefetch(rows + (ROWS + r) * dim + line); /* the next tile's */           \
            Py_ssize_t end = line + LINE < dim ? line + LINE : dim;                                                            \
            for (Py_ssize_t d = line; d < end; d++) {                                                                          \
                NAME(vector) query[WIDTH];                                                                                     \
                for (int w = 0; w < WIDTH; w++) query[w] = *(const NAME(vector) *)(queries + (d * WIDTH + w) * LANES);         \
                for (int r = 0; r < ROWS; r++)                                                                                 \
                    for (int w = 0; w < WIDTH; w++) sums[r][w] += query[w] * rows[r * dim + d];                                \
            }                                                                                                                  \
        }                                                                                                                      \
        uint32_t found = 0;                                                                                                    \
        for (int r = 0; r < ROWS; r++)                                                                                         \
            for (int w = 0; w < WIDTH; w++)                                                                                    \
                found |= (uint32_t)(ABOVE(sums[r][w], *(const NAME(vector) *)(floors + w * LANES)) != 0) << (r * WIDTH + w); \
        if (found) memcpy(scores, sums, sizeof sums);                                                                          \
        return found;                                                                                                          \
    }

/* Which lanes exceed their floors, or are NaN, or have a NaN floor. */
TARGET static uint32_t NAME(lanes_above)(const float *scores, const float *floors) {
    return ABOVE(*(const NAME(vector) *)scores, *(const NAME(vector) *)floors);
}

#define TILES(ROWS, WIDTH) TILE(ROWS, WIDTH) TILE(1, WIDTH)
#define TILES_OF(ROWS, WIDTH) TILES(ROWS, WIDTH)

TILES_OF(ROWS_1, 1)
TILES_OF(ROWS_2, 2)
#if WIDE == 4
TILES_OF(ROWS_3, 3)
TILES_OF(ROWS_4, 4)
#endif

/* The sum of all lanes, always in the same order: repeatedly adding halves. */
TARGET static inline float NAME(total)(NAME(vector) sums) {
#if LANES == 16
    eight low, high;
    memcpy(&low, &sums, sizeof low);
    memcpy(&high, (const char *)&sums + sizeof low, sizeof high);
    low += high;
#elif LANES == 8
    eight low = sums;
#endif
#if LANES == 4
    four left = sums;
#else
    four left, right;
    memcpy(&left, &low, sizeof left);
    memcpy(&right, (const char *)&low + sizeof left, sizeof right);
    left += right;
#endif
    return (left[0] + left[2]) + (left[1] + left[3]);
}

/* The scores of `count` candidates with COUNT queries (few, so lanes are dimensions): [COUNT][count]. */
#define DOTS(COUNT)                                                                                                             \
    TARGET static void NAME(dots_##COUNT)(const float *queries, const float *rows, Py_ssize_t count, Py_ssize_t dim,           \
                                           float *scores) {                                                                    \
        Py_ssize_t whole = dim - dim % LANES;                                                                                  \
        for (Py_ssize_t row = 0; row < count; row++, rows += dim) {                                                            \
            NAME(vector) sums[COUNT], zero = {0};                                                                              \
            for (int q = 0; q < COUNT; q++) sums[q] = zero;                                                                    \
            for (Py_ssize_t d = 0; d < dim; d += LINE) __builtin_prefetch(rows + d + PREFETCH);                                \
            for (Py_ssize_t d = 0; d < whole; d += LANES) {                                                                    \
                NAME(vector) values = *(const NAME(vector) *)(rows + d);                                                       \
                for (int q = 0; q < COUNT; q++) sums[q] += values * *(const NAME(vector) *)(queries + q * dim + d);            \
            }                                                                                                                  \
            for (int q = 0; q < COUNT; q++) {                                                                                  \
                float rest = 0;                                                                                                \
                for (Py_ssize_t d = whole; d < dim; d++) rest += rows[d] * queries[q * dim + d];                               \
                scores[q * count + row] = NAME(total)(sums[q]) + rest;                                                         \
            }                                                                                                                  \
        }                                                                                                                      \
    }

DOTS(1)
DOTS(2)
DOTS(3)
DOTS(4)

#define JOINED(ROWS, WIDTH) NAME(tile_##ROWS##_##WIDTH)
#define JOINED_OF(ROWS, WIDTH) JOINED(ROWS, WIDTH)

static const Kernel NAME(kernel) = {
    LANES,
    WIDE,
#if WIDE == 4
    {ROWS_1, ROWS_2, ROWS_3, ROWS_4},
    {JOINED_OF(ROWS_1, 1), JOINED_OF(ROWS_2, 2), JOINED_OF(ROWS_3, 3), JOINED_OF(ROWS_4, 4)},
    {NAME(tile_1_1), NAME(tile_1_2), NAME(tile_1_3), NAME(tile_1_4)},
#else
    {ROWS_1, ROWS_2, 0, 0},
    {JOINED_OF(ROWS_1, 1), JOINED_OF(ROWS_2, 2), NULL, NULL},
    {NAME(tile_1_1), NAME(tile_1_2), NULL, NULL},
#endif
    {NAME(dots_1), NAME(dots_2), NAME(dots_3), NAME(dots_4)},
    NAME(lanes_above),
};

#undef TILE
#undef TILES
#undef TILES_OF
#undef DOTS
#undef JOINED
#undef JOINED_OF
#undef LANES
#undef ABOVE
#undef WIDE
#undef TARGET
#undef NAME
#undef ROWS_1
#undef ROWS_2
#undef ROWS_3
#undef ROWS_4
