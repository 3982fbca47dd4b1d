/* Products of blocks of 32 x 32 bfloat16 with sums in float32, on x86 processors that have instructions for them: Intel's
   tiles (AMX), or vectors (AVX512_BF16).

   A matrix is cut into blocks, filled up with zeros. A left factor's block is 32 rows of 32 numbers. A right factor's block
   is two tiles, one for 16 columns each, of 16 pairs of rows: the two numbers of a column stand side by side, since the
   instructions multiply pairs. Sums come as four tiles of 16 x 16: upper left, upper right, lower left, lower right. */

#ifndef BLOCKS_H
#define BLOCKS_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define HAVE_BLOCKS 1
#include <immintrin.h>

#define SIDE 32
#define HALF 16
#define BLOCK (SIDE * SIDE) /* numbers of a block; of its sums, too */
#define TILE (HALF * SIDE)  /* bfloat16 numbers of half a block */
#define SUMS (HALF * HALF)  /* float32 numbers of a quarter of the sums */
#define LINE 64             /* bytes to align to */
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

INLINE long smaller(long a, long b) { return a < b ? a : b; }
INLINE long in_blocks(long n) { return (n + SIDE - 1) / SIDE; }

INLINE __mmask16 first_lanes(long n) { return n >= HALF ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1); }

INLINE __m512 from_bfloat16(__m256i numbers) { return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(numbers), 16); }
INLINE __m512i to_bfloat16(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

#if defined(__AMX_BF16__) && defined(__AMX_TILE__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

static int have_tiles(void) /* Linux lends the registers to who asks for them. */
{
    static int answer = -1;
    if (answer < 0) answer = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* the tiles */) == 0;
    return answer;
}

static void begin_products(void) /* Each thread calls it before its first product, and the next after its last. */
{
    if (!have_tiles()) return;
    struct { uint8_t palette, start_row, reserved[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } shape = {1};
    for (int tile = 0; tile < 8; tile++) shape.rows[tile] = HALF, shape.row_bytes[tile] = 2 * SIDE;
    /* gcc 12 believes that only its first bytes are read, and might leave out the rest. */
    __asm__ volatile("" : : "r"(&shape) : "memory");
    _tile_loadconfig(&shape);
}

static void end_products(void)
{
    if (have_tiles()) _tile_release();
}

static void multiply_by_tiles(const uint16_t *left, long row_numbers, long left_apart, const uint16_t *right, long n_blocks,
                              int is_continued, float *sums)
{
    if (is_continued) {
        _tile_loadd(0, sums, 4 * HALF);
        _tile_loadd(1, sums + SUMS, 4 * HALF);
        _tile_loadd(2, sums + 2 * SUMS, 4 * HALF);
        _tile_loadd(3, sums + 3 * SUMS, 4 * HALF);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (long k = 0; k < n_blocks; k++, left += left_apart, right += BLOCK) {
        _tile_loadd(4, left, 2 * row_numbers);
        _tile_loadd(6, right, 2 * SIDE);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right + TILE, 2 * SIDE);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, left + HALF * row_numbers, 2 * row_numbers);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, 4 * HALF);
    _tile_stored(1, sums + SUMS, 4 * HALF);
    _tile_stored(2, sums + 2 * SUMS, 4 * HALF);
    _tile_stored(3, sums + 3 * SUMS, 4 * HALF);
}
#else
static int have_tiles(void) { return 0; }
static void begin_products(void) {}
static void end_products(void) {}
INLINE void multiply_by_tiles(const uint16_t *left, long n, long a, const uint16_t *right, long k, int c, float *sums) {}
#endif

#define ROWS_AT_ONCE 8 /* With two vectors of sums each, as many as the registers hold. */

static void multiply_by_vectors(const uint16_t *left, long row_numbers, long left_apart, const uint16_t *right,
                                long n_blocks, int is_continued, float *sums)
{
    for (int first = 0; first < SIDE; first += ROWS_AT_ONCE) {
        __m512 totals[ROWS_AT_ONCE][2];
        float *to = sums + first / HALF * 2 * SUMS + first % HALF * HALF;
        UNROLL for (int r = 0; r < ROWS_AT_ONCE; r++) {
            totals[r][0] = is_continued ? _mm512_loadu_ps(to + r * HALF) : _mm512_setzero_ps();
            totals[r][1] = is_continued ? _mm512_loadu_ps(to + SUMS + r * HALF) : _mm512_setzero_ps();
        }
        for (long k = 0; k < n_blocks; k++) {
            const uint16_t *rows = left + k * left_apart + first * row_numbers, *pairs = right + k * BLOCK;
            for (int p = 0; p < HALF; p++) {
                __m512bh columns[2] = {(__m512bh)_mm512_loadu_si512(pairs + p * SIDE),
                                       (__m512bh)_mm512_loadu_si512(pairs + TILE + p * SIDE)};
                UNROLL for (int r = 0; r < ROWS_AT_ONCE; r++) {
                    int32_t pair;
                    memcpy(&pair, rows + r * row_numbers + 2 * p, sizeof pair);
                    totals[r][0] = _mm512_dpbf16_ps(totals[r][0], (__m512bh)_mm512_set1_epi32(pair), columns[0]);
                    totals[r][1] = _mm512_dpbf16_ps(totals[r][1], (__m512bh)_mm512_set1_epi32(pair), columns[1]);
                }
            }
        }
        UNROLL for (int r = 0; r < ROWS_AT_ONCE; r++) {
            _mm512_storeu_ps(to + r * HALF, totals[r][0]);
            _mm512_storeu_ps(to + SUMS + r * HALF, totals[r][1]);
        }
    }
}

/* The sums of a row of left blocks with a column of right ones. Left blocks stand `left_apart` numbers apart, and their rows
   `row_numbers`; right ones stand one behind the other. `is_continued`: they are added to the sums that are there. */
INLINE void multiply_blocks(const uint16_t *left, long row_numbers, long left_apart, const uint16_t *right, long n_blocks,
                            int is_continued, float *sums)
{
    if (have_tiles()) multiply_by_tiles(left, row_numbers, left_apart, right, n_blocks, is_continued, sums);
    else multiply_by_vectors(left, row_numbers, left_apart, right, n_blocks, is_continued, sums);
}

/* 16 rows of 16 numbers of 32 bits: rows become columns. */
INLINE void transpose(__m512i rows[HALF])
{
    __m512i other[HALF];
    UNROLL for (int r = 0; r < HALF; r += 2) {
        other[r] = _mm512_unpacklo_epi32(rows[r], rows[r + 1]);
        other[r + 1] = _mm512_unpackhi_epi32(rows[r], rows[r + 1]);
    }
    UNROLL for (int r = 0; r < HALF; r += 4) {
        rows[r] = _mm512_unpacklo_epi64(other[r], other[r + 2]);
        rows[r + 1] = _mm512_unpackhi_epi64(other[r], other[r + 2]);
        rows[r + 2] = _mm512_unpacklo_epi64(other[r + 1], other[r + 3]);
        rows[r + 3] = _mm512_unpackhi_epi64(other[r + 1], other[r + 3]);
    }
    UNROLL for (int r = 0; r < 4; r++) {
        other[r] = _mm512_shuffle_i32x4(rows[r], rows[r + 4], 0x88);
        other[r + 4] = _mm512_shuffle_i32x4(rows[r], rows[r + 4], 0xdd);
        other[r + 8] = _mm512_shuffle_i32x4(rows[r + 8], rows[r + 12], 0x88);
        other[r + 12] = _mm512_shuffle_i32x4(rows[r + 8], rows[r + 12], 0xdd);
    }
    UNROLL for (int r = 0; r < 4; r++) {
        rows[r] = _mm512_shuffle_i32x4(other[r], other[r + 8], 0x88);
        rows[r + 4] = _mm512_shuffle_i32x4(other[r + 4], other[r + 12], 0x88);
        rows[r + 8] = _mm512_shuffle_i32x4(other[r], other[r + 8], 0xdd);
        rows[r + 12] = _mm512_shuffle_i32x4(other[r + 4], other[r + 12], 0xdd);
    }
}

/* 32 x 32 numbers as the right block of the product with their transpose. */
INLINE void turned(const uint16_t *from, long row_numbers, uint16_t *right)
{
    for (int tile = 0; tile < 2; tile++) {
        __m512i rows[HALF];
        UNROLL for (int r = 0; r < HALF; r++) rows[r] = _mm512_loadu_si512(from + (tile * HALF + r) * row_numbers);
        transpose(rows);
        UNROLL for (int r = 0; r < HALF; r++) _mm512_storeu_si512(right + tile * TILE + r * SIDE, rows[r]);
    }
}

/* 32 x 32 numbers as the right block of the product with them. */
INLINE void paired(const uint16_t *from, long row_numbers, uint16_t *right)
{
    const __m512i lower = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37,
                                           5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i upper = _mm512_add_epi16(lower, _mm512_set1_epi16(HALF));
    UNROLL for (int p = 0; p < HALF; p++) {
        __m512i even = _mm512_loadu_si512(from + 2 * p * row_numbers);
        __m512i odd = _mm512_loadu_si512(from + (2 * p + 1) * row_numbers);
        _mm512_storeu_si512(right + p * SIDE, _mm512_permutex2var_epi16(even, lower, odd));
        _mm512_storeu_si512(right + TILE + p * SIDE, _mm512_permutex2var_epi16(even, upper, odd));
    }
}

/* Sums, rounded, as 32 x 32 numbers. */
INLINE void rounded(const float *sums, uint16_t *to, long row_numbers)
{
    for (int r = 0; r < SIDE; r++) {
        const float *row = sums + r / HALF * 2 * SUMS + r % HALF * HALF;
        _mm512_storeu_si512(to + r * row_numbers, to_bfloat16(_mm512_loadu_ps(row), _mm512_loadu_ps(row + SUMS)));
    }
}

/* The same of their transpose. */
INLINE void rounded_transpose(const float *sums, uint16_t *to, long row_numbers)
{
    for (int half = 0; half < 2; half++, sums += SUMS) {
        __m512i upper[HALF], lower[HALF];
        UNROLL for (int r = 0; r < HALF; r++) upper[r] = _mm512_loadu_si512(sums + r * HALF);
        transpose(upper);
        UNROLL for (int r = 0; r < HALF; r++) lower[r] = _mm512_loadu_si512(sums + 2 * SUMS + r * HALF);
        transpose(lower);
        UNROLL for (int r = 0; r < HALF; r++)
            _mm512_storeu_si512(to + (half * HALF + r) * row_numbers, to_bfloat16((__m512)upper[r], (__m512)lower[r]));
    }
}

#else
#define HAVE_BLOCKS 0
#endif
#endif
