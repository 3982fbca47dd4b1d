/* The same products on processors that multiply tiles of 16 rows at once (Intel's AMX).

   A tile of weights holds a line of memory, 64 bytes, of each of 16 rows as it stands there. A tile of vectors holds the
   numbers that belong to it of up to 16 vectors: 4 bytes of one beside 4 bytes of the next. So the weights are read
   as they are, and the arithmetic takes less time than the reading. For bfloat16 weights the vectors are rounded to
   bfloat16. For int8 weights their 16 bits are multiplied as an upper and a lower byte; both sums are exact. */

#ifndef TILES_H
#define TILES_H

#include <stdlib.h>
#include "vectors.h"

#if defined(__AMX_BF16__) && defined(__AMX_INT8__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

#define SIDE 16 /* rows of a tile, and vectors of one */
#define PAIR_ROWS (2 * SIDE)
#define EXACT_SUM_COLUMNS 65536 /* So many products of two bytes fit in 32 bits. */
#define SUMS_A 0 /* The eight tiles, by number: the compiler writes them into the instructions. */
#define SUMS_B 1
#define LOW_SUMS_A 2
#define LOW_SUMS_B 3
#define WEIGHTS_A 4
#define WEIGHTS_B 5
#define VECTORS 6
#define LOW_VECTORS 7

static int have_tiles(void) /* Linux lends the registers to who asks for them. */
{
    static int answer = -1;
    if (answer < 0) answer = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* the tiles */) == 0;
    return answer;
}

static void shape_tiles(long n_vectors)
{
    struct { uint8_t palette, start_row, reserved[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } shape = {1};
    for (int tile = SUMS_A; tile <= LOW_VECTORS; tile++) {
        shape.rows[tile] = SIDE;
        shape.row_bytes[tile] = tile == WEIGHTS_A || tile == WEIGHTS_B ? LINE_BYTES : 4 * n_vectors;
    }
    /* gcc 12 believes that only its first bytes are read, and might leave out the rest. */
    __asm__ volatile("" : : "r"(&shape) : "memory");
    _tile_loadconfig(&shape);
}

INLINE void ask_for_lines(const void *weights, long bytes_apart)
{
    UNROLL for (int row = 0; row < SIDE; row++)
        __builtin_prefetch((const char *)weights + row * bytes_apart + PREFETCH_BYTES);
}

/* The sums (rows, n_vectors) of 32 rows, the i-th of which stands i * n_apart behind the first, with up to 16 vectors. */
INLINE void bfloat16_tiles(const uint16_t *weights, const uint16_t *packed, float *sums, long n_columns, long n_apart,
                           long n_vectors)
{
    const long bytes_apart = n_apart * n_columns * sizeof *weights, sums_apart = n_apart * n_vectors;
    const uint16_t *others = weights + SIDE * n_apart * n_columns;
    _tile_zero(SUMS_A);
    _tile_zero(SUMS_B);
    for (long i = 0; i < n_columns; i += LINE_BYTES / sizeof *weights) {
        ask_for_lines(weights + i, bytes_apart);
        ask_for_lines(others + i, bytes_apart);
        _tile_loadd(VECTORS, packed + i * n_vectors, 4 * n_vectors);
        _tile_loadd(WEIGHTS_A, weights + i, bytes_apart);
        _tile_dpbf16ps(SUMS_A, WEIGHTS_A, VECTORS);
        _tile_loadd(WEIGHTS_B, others + i, bytes_apart);
        _tile_dpbf16ps(SUMS_B, WEIGHTS_B, VECTORS);
    }
    _tile_stored(SUMS_A, sums, 4 * sums_apart);
    _tile_stored(SUMS_B, sums + SIDE * sums_apart, 4 * sums_apart);
}

/* The same with the upper and the lower bytes of the vectors. */
INLINE void int8_tiles(const int8_t *weights, const int8_t *upper, const uint8_t *lower, int32_t *sums, int32_t *low_sums,
                       long n_columns, long n_apart, long n_vectors)
{
    const long bytes_apart = n_apart * n_columns, sums_apart = n_apart * n_vectors;
    const int8_t *others = weights + SIDE * n_apart * n_columns;
    _tile_zero(SUMS_A);
    _tile_zero(SUMS_B);
    _tile_zero(LOW_SUMS_A);
    _tile_zero(LOW_SUMS_B);
    for (long i = 0; i < n_columns; i += LINE_BYTES) {
        ask_for_lines(weights + i, bytes_apart);
        ask_for_lines(others + i, bytes_apart);
        _tile_loadd(VECTORS, upper + i * n_vectors, 4 * n_vectors);
        _tile_loadd(LOW_VECTORS, lower + i * n_vectors, 4 * n_vectors);
        _tile_loadd(WEIGHTS_A, weights + i, bytes_apart);
        _tile_dpbssd(SUMS_A, WEIGHTS_A, VECTORS);
        _tile_dpbsud(LOW_SUMS_A, WEIGHTS_A, LOW_VECTORS);
        _tile_loadd(WEIGHTS_B, others + i, bytes_apart);
        _tile_dpbssd(SUMS_B, WEIGHTS_B, VECTORS);
        _tile_dpbsud(LOW_SUMS_B, WEIGHTS_B, LOW_VECTORS);
    }
    _tile_stored(SUMS_A, sums, 4 * sums_apart);
    _tile_stored(SUMS_B, sums + SIDE * sums_apart, 4 * sums_apart);
    _tile_stored(LOW_SUMS_A, low_sums, 4 * sums_apart);
    _tile_stored(LOW_SUMS_B, low_sums + SIDE * sums_apart, 4 * sums_apart);
}

/* out (count, n_rows): the products of the first rows, as many as make whole pairs of tiles, with up to 16 vectors. Returns how
   many rows these are; 0 where tiles cannot serve, -1 without memory. */
static long bfloat16_by_tiles(const uint16_t *weights, const float *vectors, float *out, long n_columns, long n_rows,
                              long count, int threads)
{
    const long n_apart = n_rows / PAIR_ROWS, per_line = LINE_BYTES / sizeof *weights;
    if (!n_apart || n_columns % per_line || !have_tiles()) return 0;
    uint16_t *packed = aligned_alloc(LINE_BYTES, n_columns * SIDE * sizeof *packed);
    float *sums = aligned_alloc(LINE_BYTES, n_apart * PAIR_ROWS * SIDE * sizeof *sums);
    if (packed && sums) {
        for (long i = 0; i < n_columns; i += 2)
            for (long v = 0; v < count; v++)
                for (long k = 0; k < 2; k++) keep_bfloat16(packed + i * count + 2 * v + k, vectors[v * n_columns + i + k]);
        _Pragma("omp parallel num_threads(threads)")
        {
            shape_tiles(count);
            _Pragma("omp for schedule(static)")
            for (long group = 0; group < n_apart; group++)
                bfloat16_tiles(weights + group * n_columns, packed, sums + group * count, n_columns, n_apart, count);
            _tile_release();
            _Pragma("omp for schedule(static)")
            for (long first = 0; first < n_apart * PAIR_ROWS; first += SIDE)
                for (long v = 0; v < count; v++)
                    UNROLL for (long r = first; r < first + SIDE; r++) out[v * n_rows + r] = sums[r * count + v];
        }
    }
    long n_done = packed && sums ? n_apart * PAIR_ROWS : -1;
    free(packed);
    free(sums);
    return n_done;
}

/* The same for vectors of 16 bits: sums of weights and vectors in their own units. */
static long int8_by_tiles(const int8_t *weights, const int16_t *vectors, float *out, long n_columns, long n_rows,
                          long count, int threads)
{
    const long n_apart = n_rows / PAIR_ROWS;
    if (!n_apart || n_columns % LINE_BYTES || n_columns > EXACT_SUM_COLUMNS || !have_tiles()) return 0;
    const long n_sums = n_apart * PAIR_ROWS * SIDE;
    int8_t *upper = aligned_alloc(LINE_BYTES, 2 * n_columns * SIDE);
    uint8_t *lower = (uint8_t *)upper + n_columns * SIDE;
    int32_t *sums = aligned_alloc(LINE_BYTES, 2 * n_sums * sizeof *sums), *low_sums = sums + n_sums;
    if (upper && sums) {
        for (long i = 0; i < n_columns; i += 4)
            for (long v = 0; v < count; v++)
                for (long k = 0; k < 4; k++) {
                    int16_t number = vectors[v * n_columns + i + k];
                    upper[i * count + 4 * v + k] = (int8_t)(number >> 8);
                    lower[i * count + 4 * v + k] = (uint8_t)(number & 255);
                }
        _Pragma("omp parallel num_threads(threads)")
        {
            shape_tiles(count);
            _Pragma("omp for schedule(static)")
            for (long group = 0; group < n_apart; group++)
                int8_tiles(weights + group * n_columns, upper, lower, sums + group * count, low_sums + group * count,
                           n_columns, n_apart, count);
            _tile_release();
            _Pragma("omp for schedule(static)")
            for (long first = 0; first < n_apart * PAIR_ROWS; first += SIDE)
                for (long v = 0; v < count; v++)
                    UNROLL for (long r = first; r < first + SIDE; r++)
                        out[v * n_rows + r] = 256.0f * (float)sums[r * count + v] + (float)low_sums[r * count + v];
        }
    }
    long n_done = upper && sums ? n_apart * PAIR_ROWS : -1;
    free(upper);
    free(sums);
    return n_done;
}

#else
#define SIDE 16
INLINE long bfloat16_by_tiles(const uint16_t *w, const float *v, float *o, long c, long r, long n, int t) { return 0; }
INLINE long int8_by_tiles(const int8_t *w, const int16_t *v, float *o, long c, long r, long n, int t) { return 0; }
#endif
#endif
