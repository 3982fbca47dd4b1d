/* The products of a decoding step: few vectors times a large matrix, where reading the matrix takes all the time.

   out[v][r] = sum over i of weights[r][i] * vectors[v][i] (+ bias[r]), with n_rows rows of n_columns weights. A
   weight is read from memory once for a block of vectors. What one vector gets does not depend on the others, to
   the bit: its sums are taken in the same order whatever their number. Returns 0, or 1 where there is no memory.

   float32 and bfloat16 weights: sums in float32. int8 weights, each row with a scale: a vector is rounded to 16 bits
   with a scale of its own, and the products are added as integers; the rounding to 16 bits is some hundred times finer
   than that of the weights. That way one instruction multiplies twice as many numbers. The lanes of a sum, exact,
   are joined as float32, since all together may need more than 32 bits.

   Memory is asked for the next rows while these are computed: a row is too short for the processor to foresee it. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define UNROLL _Pragma("GCC unroll 8")
#define TILE_ROWS 4     /* With TILE_VECTORS: as many sums as the registers hold. */
#define TILE_VECTORS 3
#define BLOCK_VECTORS 48 /* That many stay in the cache while the matrix goes by. */
#define EXACT_COLUMNS 2048 /* A lane's share of so many products of 8 and 16 bits fits in 32 bits. */

#if defined(__AVX512F__) && defined(__AVX512BW__)
#define LANES 16
typedef __m512i integers;
static inline integers no_integers(void) { return _mm512_setzero_si512(); }
static inline integers load_bytes(const int8_t *from) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const void *)from)); }
static inline integers load_shorts(const int16_t *from) { return _mm512_loadu_si512(from); }
static inline integers add_products(integers sum, integers a, integers b) { return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)); }
static inline float total_integers(integers sum) { return _mm512_reduce_add_ps(_mm512_cvtepi32_ps(sum)); }
#elif defined(__AVX2__)
#define LANES 8
typedef __m256i integers;
static inline integers no_integers(void) { return _mm256_setzero_si256(); }
static inline integers load_bytes(const int8_t *from) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)from)); }
static inline integers load_shorts(const int16_t *from) { return _mm256_loadu_si256((const void *)from); }
static inline integers add_products(integers sum, integers a, integers b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
static inline float total_integers(integers sum)
{
    __m256 eight = _mm256_cvtepi32_ps(sum);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
#else
#define LANES 4
typedef int32_t integers __attribute__((vector_size(4 * LANES * 2)));
typedef int16_t eight_shorts __attribute__((vector_size(4 * LANES)));
typedef int8_t eight_bytes __attribute__((vector_size(2 * LANES)));
static inline integers no_integers(void) { return (integers){0}; }
static inline integers load_shorts(const int16_t *from)
{
    eight_shorts values;
    memcpy(&values, from, sizeof values);
    return __builtin_convertvector(values, integers);
}
static inline integers load_bytes(const int8_t *from)
{
    eight_bytes values;
    memcpy(&values, from, sizeof values);
    return __builtin_convertvector(values, integers);
}
static inline integers add_products(integers sum, integers a, integers b) { return sum + a * b; }
static inline float total_integers(integers sum)
{
    float total = 0;
    UNROLL for (int lane = 0; lane < 2 * LANES; lane++) total += (float)sum[lane];
    return total;
}
#endif

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

static inline floats load_float32(const float *from)
{
    floats values;
    memcpy(&values, from, sizeof values);
    return values;
}

static inline floats load_bfloat16(const uint16_t *from) /* A bfloat16 is the upper half of a float32. */
{
#if defined(__AVX2__) && LANES == 8
    return (floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)from)), 16);
#else
    halves values;
    memcpy(&values, from, sizeof values);
    return (floats)(__builtin_convertvector(values, words) << 16);
#endif
}

static inline float one_float32(const float *from) { return *from; }

static inline float one_bfloat16(const uint16_t *from)
{
    uint32_t word = (uint32_t)*from << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

static inline float total_floats(floats sum)
{
    float total = 0;
    UNROLL for (int lane = 0; lane < LANES; lane++) total += sum[lane];
    return total;
}

/* A tile: some rows times some vectors, the numbers of both known to the compiler. */
#define FLOAT_TILE(NAME, TYPE)                                                                                  \
    static inline __attribute__((always_inline)) void NAME##_tile(                                              \
        const TYPE *weights, const float *vectors, float *out, long n_columns, long n_rows, int rows, int count) \
    {                                                                                                           \
        floats sums[8][TILE_VECTORS] = {{{0}}};                                                                 \
        long i = 0;                                                                                             \
        for (; i + LANES <= n_columns; i += LANES) {                                                            \
            floats values[TILE_VECTORS];                                                                        \
            for (long ahead = 0; ahead < rows * LANES * (long)sizeof(TYPE); ahead += 64)                       \
                __builtin_prefetch((const char *)(weights + rows * n_columns + rows * i) + ahead);             \
            UNROLL for (int v = 0; v < count; v++) values[v] = load_float32(vectors + v * n_columns + i);       \
            UNROLL for (int r = 0; r < rows; r++) {                                                             \
                floats row = load_##NAME(weights + r * n_columns + i);                                          \
                UNROLL for (int v = 0; v < count; v++) sums[r][v] += row * values[v];                           \
            }                                                                                                   \
        }                                                                                                       \
        UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < count; v++) {                          \
            float sum = total_floats(sums[r][v]);                                                               \
            for (long k = i; k < n_columns; k++)                                                                \
                sum += one_##NAME(weights + r * n_columns + k) * vectors[v * n_columns + k];                    \
            out[v * n_rows + r] = sum;                                                                          \
        }                                                                                                       \
    }

FLOAT_TILE(float32, float)
FLOAT_TILE(bfloat16, uint16_t)

static inline __attribute__((always_inline)) void int8_tile(
    const int8_t *weights, const int16_t *vectors, float *out, long n_columns, long n_rows, int rows, int count)
{
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < count; v++) out[v * n_rows + r] = 0;
    for (long start = 0; start < n_columns; start += EXACT_COLUMNS) {
        long end = start + EXACT_COLUMNS < n_columns ? start + EXACT_COLUMNS : n_columns, i = start;
        integers sums[8][TILE_VECTORS];
        UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < count; v++) sums[r][v] = no_integers();
        for (; i + 2 * LANES <= end; i += 2 * LANES) {
            integers values[TILE_VECTORS];
            for (long ahead = 0; ahead < rows * 2 * LANES; ahead += 64)
                __builtin_prefetch(weights + rows * n_columns + rows * i + ahead);
            UNROLL for (int v = 0; v < count; v++) values[v] = load_shorts(vectors + v * n_columns + i);
            UNROLL for (int r = 0; r < rows; r++) {
                integers row = load_bytes(weights + r * n_columns + i);
                UNROLL for (int v = 0; v < count; v++) sums[r][v] = add_products(sums[r][v], row, values[v]);
            }
        }
        UNROLL for (int r = 0; r < rows; r++) UNROLL for (int v = 0; v < count; v++) {
            int64_t rest = 0;
            for (long k = i; k < end; k++) rest += weights[r * n_columns + k] * vectors[v * n_columns + k];
            out[v * n_rows + r] += total_integers(sums[r][v]) + (float)rest;
        }
    }
}

/* All rows times up to BLOCK_VECTORS vectors; threads share the rows. */
#define PRODUCT(NAME, TYPE, VECTOR)                                                                             \
    static void NAME##_block(const TYPE *weights, const VECTOR *vectors, float *out, long n_columns, long n_rows, \
                             long count, int threads)                                                           \
    {                                                                                                           \
        _Pragma("omp parallel for schedule(static) num_threads(threads)")                                       \
        for (long first = 0; first < n_rows; first += 8) {                                                      \
            long row = first, end = first + 8 < n_rows ? first + 8 : n_rows;                                    \
            if (count == 1 && end - row == 8) {                                                                 \
                NAME##_tile(weights + row * n_columns, vectors, out + row, n_columns, n_rows, 8, 1);            \
                continue;                                                                                       \
            }                                                                                                   \
            for (; row + TILE_ROWS <= end; row += TILE_ROWS) {                                                  \
                const TYPE *from = weights + row * n_columns;                                                   \
                long v = 0;                                                                                     \
                for (; v + TILE_VECTORS <= count; v += TILE_VECTORS)                                            \
                    NAME##_tile(from, vectors + v * n_columns, out + v * n_rows + row, n_columns, n_rows,       \
                                TILE_ROWS, TILE_VECTORS);                                                       \
                for (; v < count; v++)                                                                          \
                    NAME##_tile(from, vectors + v * n_columns, out + v * n_rows + row, n_columns, n_rows,       \
                                TILE_ROWS, 1);                                                                  \
            }                                                                                                   \
            for (; row < end; row++)                                                                            \
                for (long v = 0; v < count; v++)                                                                \
                    NAME##_tile(weights + row * n_columns, vectors + v * n_columns, out + v * n_rows + row,     \
                                n_columns, n_rows, 1, 1);                                                       \
        }                                                                                                       \
    }

PRODUCT(float32, float, float)
PRODUCT(bfloat16, uint16_t, float)
PRODUCT(int8, int8_t, int16_t)

static long smaller(long a, long b) { return a < b ? a : b; }

int multiply_float32(const float *weights, const float *vectors, float *out, long n_columns, long n_rows, long n_vectors,
                     int threads)
{
    for (long v = 0; v < n_vectors; v += BLOCK_VECTORS)
        float32_block(weights, vectors + v * n_columns, out + v * n_rows, n_columns, n_rows,
                      smaller(BLOCK_VECTORS, n_vectors - v), threads);
    return 0;
}

int multiply_bfloat16(const uint16_t *weights, const float *vectors, float *out, long n_columns, long n_rows,
                      long n_vectors, int threads)
{
    for (long v = 0; v < n_vectors; v += BLOCK_VECTORS)
        bfloat16_block(weights, vectors + v * n_columns, out + v * n_rows, n_columns, n_rows,
                       smaller(BLOCK_VECTORS, n_vectors - v), threads);
    return 0;
}

int multiply_int8(const int8_t *weights, const float *scales, const float *vectors, float *out, long n_columns,
                  long n_rows, long n_vectors, int threads)
{
    int16_t *rounded = malloc(BLOCK_VECTORS * n_columns * sizeof *rounded);
    if (!rounded) return 1;
    for (long first = 0; first < n_vectors; first += BLOCK_VECTORS) {
        long count = smaller(BLOCK_VECTORS, n_vectors - first);
        float steps[BLOCK_VECTORS];
        for (long v = 0; v < count; v++) {
            const float *from = vectors + (first + v) * n_columns;
            float largest = 0;
            for (long i = 0; i < n_columns; i++) {
                float size = from[i] < 0 ? -from[i] : from[i];
                largest = size > largest ? size : largest;
            }
            steps[v] = largest / 32767;
            float per_step = largest > 0 ? 32767 / largest : 0;
            for (long i = 0; i < n_columns; i++) {
                float value = from[i] * per_step;
                rounded[v * n_columns + i] = (int16_t)(value + (value < 0 ? -0.5f : 0.5f));
            }
        }
        float *block = out + first * n_rows;
        int8_block(weights, rounded, block, n_columns, n_rows, count, threads);
        for (long v = 0; v < count; v++)
            for (long r = 0; r < n_rows; r++) block[v * n_rows + r] *= scales[r] * steps[v];
    }
    free(rounded);
    return 0;
}
