/* The products of a decoding step: few vectors times a large matrix, where reading the matrix takes all the time.

   out[v][r] = sum over i of weights[r][i] * vectors[v][i], with n_rows rows of n_columns weights. A weight is read
   from memory once for a block of vectors. What one vector gets does not depend on the others, to the bit: its
   sums are taken in the same order whatever their number. Returns 0, or 1 where there is no memory.

   float32 and bfloat16 weights: sums in float32. int8 weights, each row with a scale: a vector is rounded to 16 bits
   with a scale of its own, and the products are added as integers; the rounding to 16 bits is some hundred times finer
   than that of the weights. That way one instruction multiplies twice as many numbers. The lanes of a sum, exact,
   are joined as float32, since all together may need more than 32 bits. Where the processor multiplies tiles (tiles.h),
   they take most rows of bfloat16 and int8.

   The rows that are read together lie an eighth of the matrix apart: memory answers eight readers in different
   places sooner than one, and each is asked for what it will read PREFETCH_BYTES later (docs/LOG.md). */

#include <stdlib.h>
#include "products.h"
#include "tiles.h"
#include "vectors.h"

#define GROUP_ROWS 8     /* With one vector: as many readers as memory serves best. */
#define TILE_ROWS 4      /* With TILE_VECTORS: as many sums as the registers hold. */
#define TILE_VECTORS 3
#define BLOCK_VECTORS 48 /* That many stay in the cache while the matrix goes by. */
#define EXACT_COLUMNS 2048 /* A lane's share of so many products of 8 and 16 bits fits in 32 bits. */

#if LANES == 16
typedef __m512i integers;
INLINE integers no_integers(void) { return _mm512_setzero_si512(); }
INLINE integers load_bytes(const int8_t *from) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)from)); }
INLINE integers load_shorts(const int16_t *from) { return _mm512_loadu_si512(from); }
#if defined(__AVX512VNNI__)
INLINE integers add_products(integers sum, integers a, integers b) { return _mm512_dpwssd_epi32(sum, a, b); }
#else
INLINE integers add_products(integers sum, integers a, integers b) { return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)); }
#endif
INLINE float total_integers(integers sum) { return _mm512_reduce_add_ps(_mm512_cvtepi32_ps(sum)); }
#elif LANES == 8
typedef __m256i integers;
INLINE integers no_integers(void) { return _mm256_setzero_si256(); }
INLINE integers load_bytes(const int8_t *from) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)from)); }
INLINE integers load_shorts(const int16_t *from) { return _mm256_loadu_si256((const void *)from); }
INLINE integers add_products(integers sum, integers a, integers b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
INLINE float total_integers(integers sum)
{
    __m256 eight = _mm256_cvtepi32_ps(sum);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
#else
typedef int32_t integers __attribute__((vector_size(4 * LANES * 2)));
typedef int16_t eight_shorts __attribute__((vector_size(4 * LANES)));
typedef int8_t eight_bytes __attribute__((vector_size(2 * LANES)));
INLINE integers no_integers(void) { return (integers){0}; }
INLINE integers load_shorts(const int16_t *from)
{
    eight_shorts values;
    memcpy(&values, from, sizeof values);
    return __builtin_convertvector(values, integers);
}
INLINE integers load_bytes(const int8_t *from)
{
    eight_bytes values;
    memcpy(&values, from, sizeof values);
    return __builtin_convertvector(values, integers);
}
INLINE integers add_products(integers sum, integers a, integers b) { return sum + a * b; }
INLINE float total_integers(integers sum)
{
    float total = 0;
    UNROLL for (int lane = 0; lane < 2 * LANES; lane++) total += (float)sum[lane];
    return total;
}
#endif

static long smaller(long a, long b) { return a < b ? a : b; }

/* A tile: some rows, each n_apart weights behind the one before, times some vectors. The numbers of rows and vectors are
   known to the compiler. A line of memory holds several steps of a row. */
#define FLOAT_TILE(NAME, TYPE)                                                                                    \
    INLINE void NAME##_step(const TYPE *weights, const float *vectors, floats sums[][TILE_VECTORS],             \
                            long n_columns, long n_apart, int rows, int count)                                  \
    {                                                                                                             \
        floats values[TILE_VECTORS];                                                                              \
        UNROLL for (int v = 0; v < count; v++) values[v] = load_float32(vectors + v * n_columns);                 \
        UNROLL for (int r = 0; r < rows; r++) {                                                                   \
            floats row = load_##NAME(weights + r * n_apart);                                                      \
            UNROLL for (int v = 0; v < count; v++) sums[r][v] += row * values[v];                                 \
        }                                                                                                         \
    }                                                                                                             \
    INLINE void NAME##_tile(const TYPE *weights, const float *vectors, float *out, long n_columns, long n_out,    \
                            long n_apart, int rows, int count)                                                    \
    {                                                                                                             \
        const long per_line = LINE_BYTES / sizeof(TYPE), rows_apart = n_apart / n_columns;                        \
        floats sums[GROUP_ROWS][TILE_VECTORS] = {{{0}}};                                                          \
        long i = 0;                                                                                               \
        for (; i + per_line <= n_columns; i += per_line) {                                                        \
            UNROLL for (int r = 0; r < rows; r++)                                                                 \
                __builtin_prefetch((const char *)(weights + r * n_apart + i) + PREFETCH_BYTES);                   \
            UNROLL for (long step = 0; step < per_line; step += LANES)                                            \
                NAME##_step(weights + i + step, vectors + i + step, sums, n_columns, n_apart, rows, count);       \
        }                                                                                                         \
        for (; i + LANES <= n_columns; i += LANES)                                                                \
            NAME##_step(weights + i, vectors + i, sums, n_columns, n_apart, rows, count);                         \
        UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < count; v++) {                            \
            float sum = total_floats(sums[r][v]);                                                                 \
            for (long k = i; k < n_columns; k++)                                                                  \
                sum += one_##NAME(weights + r * n_apart + k) * vectors[v * n_columns + k];                        \
            out[v * n_out + r * rows_apart] = sum;                                                                \
        }                                                                                                         \
    }

FLOAT_TILE(float32, float)
FLOAT_TILE(bfloat16, uint16_t)

INLINE void int8_step(const int8_t *weights, const int16_t *vectors, integers sums[][TILE_VECTORS], long n_columns,
                      long n_apart, int rows, int count)
{
    integers values[TILE_VECTORS];
    UNROLL for (int v = 0; v < count; v++) values[v] = load_shorts(vectors + v * n_columns);
    UNROLL for (int r = 0; r < rows; r++) {
        integers row = load_bytes(weights + r * n_apart);
        UNROLL for (int v = 0; v < count; v++) sums[r][v] = add_products(sums[r][v], row, values[v]);
    }
}

INLINE void int8_tile(const int8_t *weights, const int16_t *vectors, float *out, long n_columns, long n_out,
                      long n_apart, int rows, int count)
{
    const long rows_apart = n_apart / n_columns;
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < count; v++) out[v * n_out + r * rows_apart] = 0;
    for (long start = 0; start < n_columns; start += EXACT_COLUMNS) {
        long end = smaller(start + EXACT_COLUMNS, n_columns), i = start;
        integers sums[GROUP_ROWS][TILE_VECTORS];
        UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < count; v++) sums[r][v] = no_integers();
        for (; i + LINE_BYTES <= end; i += LINE_BYTES) {
            UNROLL for (int r = 0; r < rows; r++) __builtin_prefetch(weights + r * n_apart + i + PREFETCH_BYTES);
            UNROLL for (long step = 0; step < LINE_BYTES; step += 2 * LANES)
                int8_step(weights + i + step, vectors + i + step, sums, n_columns, n_apart, rows, count);
        }
        for (; i + 2 * LANES <= end; i += 2 * LANES)
            int8_step(weights + i, vectors + i, sums, n_columns, n_apart, rows, count);
        UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < count; v++) {
            int64_t rest = 0;
            for (long k = i; k < end; k++) rest += weights[r * n_apart + k] * vectors[v * n_columns + k];
            out[v * n_out + r * rows_apart] += total_integers(sums[r][v]) + (float)rest;
        }
    }
}

/* All rows times up to BLOCK_VECTORS vectors, each of whose results are n_out behind the last's; threads share the rows. The last
   rows, too few for a group, go one by one. */
#define PRODUCT(NAME, TYPE, VECTOR)                                                                               \
    static void NAME##_block(const TYPE *weights, const VECTOR *vectors, float *out, long n_columns, long n_rows,  \
                             long n_out, long count, int threads)                                                 \
    {                                                                                                             \
        const long n_groups = n_rows / GROUP_ROWS, n_apart = n_groups * n_columns;                                \
        _Pragma("omp parallel for schedule(static) num_threads(threads)")                                         \
        for (long group = 0; group < n_groups; group++) {                                                         \
            if (count == 1) {                                                                                     \
                NAME##_tile(weights + group * n_columns, vectors, out + group, n_columns, n_out, n_apart,         \
                            GROUP_ROWS, 1);                                                                       \
                continue;                                                                                         \
            }                                                                                                     \
            for (long row = group; row < GROUP_ROWS * n_groups; row += TILE_ROWS * n_groups) {                    \
                const TYPE *from = weights + row * n_columns;                                                     \
                long v = 0;                                                                                       \
                for (; v + TILE_VECTORS <= count; v += TILE_VECTORS)                                              \
                    NAME##_tile(from, vectors + v * n_columns, out + v * n_out + row, n_columns, n_out, n_apart,  \
                                TILE_ROWS, TILE_VECTORS);                                                         \
                for (; v < count; v++)                                                                            \
                    NAME##_tile(from, vectors + v * n_columns, out + v * n_out + row, n_columns, n_out, n_apart,  \
                                TILE_ROWS, 1);                                                                    \
            }                                                                                                     \
        }                                                                                                         \
        for (long row = GROUP_ROWS * n_groups; row < n_rows; row++)                                               \
            for (long v = 0; v < count; v++)                                                                      \
                NAME##_tile(weights + row * n_columns, vectors + v * n_columns, out + v * n_out + row, n_columns, \
                            n_out, n_columns, 1, 1);                                                              \
    }

PRODUCT(float32, float, float)
PRODUCT(bfloat16, uint16_t, float)
PRODUCT(int8, int8_t, int16_t)

int multiply_float32(const float *weights, const float *vectors, float *out, long n_columns, long n_rows, long n_vectors,
                     int threads)
{
    for (long v = 0; v < n_vectors; v += BLOCK_VECTORS)
        float32_block(weights, vectors + v * n_columns, out + v * n_rows, n_columns, n_rows, n_rows,
                      smaller(BLOCK_VECTORS, n_vectors - v), threads);
    return 0;
}

int multiply_bfloat16(const uint16_t *weights, const float *vectors, float *out, long n_columns, long n_rows,
                      long n_vectors, int threads)
{
    for (long v = 0; v < n_vectors; v += SIDE) {
        const float *from = vectors + v * n_columns;
        long count = smaller(SIDE, n_vectors - v);
        long done = bfloat16_by_tiles(weights, from, out + v * n_rows, n_columns, n_rows, count, threads);
        if (done < 0) return 1;
        bfloat16_block(weights + done * n_columns, from, out + v * n_rows + done, n_columns, n_rows - done, n_rows, count,
                       threads);
    }
    return 0;
}

/* A vector in 16 bits, and what one of these is worth. */
static float rounded_to_shorts(const float *vector, int16_t *rounded, long size)
{
    float largest = 0;
    for (long i = 0; i < size; i++) {
        float absolute = vector[i] < 0 ? -vector[i] : vector[i];
        largest = absolute > largest ? absolute : largest;
    }
    float per_step = largest > 0 ? 32767 / largest : 0;
    for (long i = 0; i < size; i++) {
        float value = vector[i] * per_step;
        rounded[i] = (int16_t)(value + (value < 0 ? -0.5f : 0.5f));
    }
    return largest / 32767;
}

int multiply_int8(const int8_t *weights, const float *scales, const float *vectors, float *out, long n_columns,
                  long n_rows, long n_vectors, int threads)
{
    int16_t *rounded = malloc(SIDE * n_columns * sizeof *rounded);
    if (!rounded) return 1;
    for (long first = 0; first < n_vectors; first += SIDE) {
        long count = smaller(SIDE, n_vectors - first);
        float steps[SIDE], *block = out + first * n_rows;
        for (long v = 0; v < count; v++)
            steps[v] = rounded_to_shorts(vectors + (first + v) * n_columns, rounded + v * n_columns, n_columns);
        long done = int8_by_tiles(weights, rounded, block, n_columns, n_rows, count, threads);
        if (done < 0) {
            free(rounded);
            return 1;
        }
        int8_block(weights + done * n_columns, rounded, block + done, n_columns, n_rows - done, n_rows, count, threads);
        for (long v = 0; v < count; v++)
            for (long r = 0; r < n_rows; r++) block[v * n_rows + r] *= scales[r] * steps[v];
    }
    free(rounded);
    return 0;
}
