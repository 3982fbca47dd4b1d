/* A step of Muon for many matrices, each by one thread and in its cache: momentum, Newton-Schulz, weights.

   Per iteration X becomes (a + b G + c G^2) X with G = X X^T. Kept are c^(1/4) X and with it c^(1/2) G, since then
   the bracket is a + (c^(1/2) G) (c^(1/2) G + b / c^(1/2)), and no product needs a factor. G and the bracket are
   symmetric, so half of their blocks are computed. X is wide: a tall matrix is turned. */

#include <math.h>
#include <stdlib.h>
#include "blocks.h"
#include "muon.h"

int blocks_serve(void) { return HAVE_BLOCKS; }

#if HAVE_BLOCKS

/* What one matrix needs: X as R x K left blocks, two of R x R, a column of right blocks, and its rows. */
struct workspace {
    uint16_t *x, *gram, *bracket, *column, *rows;
    long n_rows, n_columns; /* in blocks */
};

static void make_gram(const struct workspace *w)
{
    float sums[BLOCK] __attribute__((aligned(LINE)));
    const long R = w->n_rows, K = w->n_columns;
    for (long j = 0; j < R; j++) {
        for (long k = 0; k < K; k++) turned(w->x + (j * K + k) * BLOCK, SIDE, w->column + k * BLOCK);
        for (long i = 0; i <= j; i++) {
            multiply_blocks(w->x + i * K * BLOCK, SIDE, BLOCK, w->column, K, 0, sums);
            rounded(sums, w->gram + (i * R + j) * BLOCK, SIDE);
            if (i < j) rounded_transpose(sums, w->gram + (j * R + i) * BLOCK, SIDE);
        }
    }
}

static void add_to_diagonal(uint16_t *right, float value) /* of a right block */
{
    for (int i = 0; i < SIDE; i++) {
        uint16_t *at = right + i / HALF * TILE + i / 2 * SIDE + i % HALF * 2 + i % 2;
        uint32_t word = (uint32_t)*at << 16;
        float number;
        memcpy(&number, &word, sizeof word);
        number += value;
        memcpy(&word, &number, sizeof word);
        *at = (uint16_t)((word + 0x7fff + (word >> 16 & 1)) >> 16);
    }
}

static void make_bracket(const struct workspace *w, float a, float b_over_root_c)
{
    float sums[BLOCK] __attribute__((aligned(LINE)));
    const long R = w->n_rows;
    for (long j = 0; j < R; j++) {
        for (long k = 0; k < R; k++) paired(w->gram + (k * R + j) * BLOCK, SIDE, w->column + k * BLOCK);
        add_to_diagonal(w->column + j * BLOCK, b_over_root_c);
        for (long i = 0; i <= j; i++) {
            multiply_blocks(w->gram + i * R * BLOCK, SIDE, BLOCK, w->column, R, 0, sums);
            if (i == j)
                for (int d = 0; d < HALF; d++) {
                    sums[d * HALF + d] += a;
                    sums[3 * SUMS + d * HALF + d] += a;
                }
            rounded(sums, w->bracket + (i * R + j) * BLOCK, SIDE);
            if (i < j) rounded_transpose(sums, w->bracket + (j * R + i) * BLOCK, SIDE);
        }
    }
}

static void multiply_by_bracket(const struct workspace *w)
{
    float sums[BLOCK] __attribute__((aligned(LINE)));
    const long R = w->n_rows, K = w->n_columns;
    for (long j = 0; j < K; j++) {
        for (long k = 0; k < R; k++) paired(w->x + (k * K + j) * BLOCK, SIDE, w->column + k * BLOCK);
        for (long i = 0; i < R; i++) {
            multiply_blocks(w->bracket + i * R * BLOCK, SIDE, BLOCK, w->column, R, 0, sums);
            rounded(sums, w->x + (i * K + j) * BLOCK, SIDE);
        }
    }
}

/* Momentum and direction, whose rows are kept in bfloat16. Returns the direction's sum of squares. */
static double make_direction(const struct muon_matrix *m, float momentum, uint16_t *rows)
{
    const __m512 share = _mm512_set1_ps(momentum), rest = _mm512_set1_ps(1 - momentum);
    double total = 0;
    for (long r = 0; r < m->n_rows; r++) {
        __m512 sum = _mm512_setzero_ps();
        for (long c = 0; c < m->n_columns; c += HALF) {
            const __mmask16 lanes = first_lanes(m->n_columns - c);
            const long at = r * m->n_columns + c;
            __m512 direction = _mm512_maskz_loadu_ps(lanes, m->gradient + at);
            if (m->momentum) {
                __m512 gradient = direction, past = _mm512_maskz_loadu_ps(lanes, m->momentum + at);
                past = _mm512_fmadd_ps(rest, _mm512_sub_ps(gradient, past), past);
                _mm512_mask_storeu_ps(m->momentum + at, lanes, past);
                direction = _mm512_fmadd_ps(share, _mm512_sub_ps(past, gradient), gradient);
            }
            sum = _mm512_fmadd_ps(direction, direction, sum);
            _mm256_mask_storeu_epi16(rows + at, lanes, (__m256i)_mm512_cvtneps_pbh(direction));
        }
        total += _mm512_reduce_add_ps(sum);
    }
    return total;
}

/* The rows, times a factor, as X. */
static void blocks_of_rows(const struct muon_matrix *m, const struct workspace *w, int is_tall, float factor)
{
    float numbers[BLOCK] __attribute__((aligned(LINE)));
    const long K = w->n_columns;
    for (long i = 0; i < in_blocks(m->n_rows); i++) for (long j = 0; j < in_blocks(m->n_columns); j++) {
        for (int quarter = 0; quarter < 4; quarter++) for (int r = 0; r < HALF; r++) {
            const long row = i * SIDE + quarter / 2 * HALF + r, column = j * SIDE + quarter % 2 * HALF;
            const __mmask16 lanes = row < m->n_rows ? first_lanes(m->n_columns - column) : 0;
            __m256i read = _mm256_maskz_loadu_epi16(lanes, w->rows + row * m->n_columns + column);
            _mm512_store_ps(numbers + quarter * SUMS + r * HALF, _mm512_mul_ps(_mm512_set1_ps(factor), from_bfloat16(read)));
        }
        if (is_tall) rounded_transpose(numbers, w->x + (j * K + i) * BLOCK, SIDE);
        else rounded(numbers, w->x + (i * K + j) * BLOCK, SIDE);
    }
}

/* X as rows. */
static void rows_of_blocks(const struct muon_matrix *m, const struct workspace *w, int is_tall)
{
    float numbers[BLOCK] __attribute__((aligned(LINE)));
    uint16_t upright[BLOCK] __attribute__((aligned(LINE)));
    const long K = w->n_columns;
    for (long i = 0; i < in_blocks(m->n_rows); i++) for (long j = 0; j < in_blocks(m->n_columns); j++) {
        const uint16_t *block = w->x + (is_tall ? j * K + i : i * K + j) * BLOCK;
        if (is_tall) {
            for (int quarter = 0; quarter < 4; quarter++) for (int r = 0; r < HALF; r++) {
                const uint16_t *from = block + (quarter / 2 * HALF + r) * SIDE + quarter % 2 * HALF;
                _mm512_store_ps(numbers + quarter * SUMS + r * HALF, from_bfloat16(_mm256_loadu_si256((const void *)from)));
            }
            rounded_transpose(numbers, upright, SIDE);
            block = upright;
        }
        for (long r = 0; r < smaller(SIDE, m->n_rows - i * SIDE); r++)
            memcpy(w->rows + (i * SIDE + r) * m->n_columns + j * SIDE, block + r * SIDE,
                   smaller(SIDE, m->n_columns - j * SIDE) * sizeof *block);
    }
}

static void move_weights(const struct muon_matrix *m, const uint16_t *rows, float step)
{
    for (long at = 0; at < m->n_rows * m->n_columns; at += HALF) {
        const __mmask16 lanes = first_lanes(m->n_rows * m->n_columns - at);
        __m512 kept = _mm512_mul_ps(_mm512_set1_ps(m->keep), _mm512_maskz_loadu_ps(lanes, m->weights + at));
        __m512 direction = from_bfloat16(_mm256_maskz_loadu_epi16(lanes, rows + at));
        _mm512_mask_storeu_ps(m->weights + at, lanes, _mm512_fnmadd_ps(_mm512_set1_ps(step), direction, kept));
    }
}

static int update(const struct muon_matrix *m, float momentum, const float *coefficients, int iterations)
{
    const int is_tall = m->n_rows > m->n_columns;
    const long R = in_blocks(is_tall ? m->n_columns : m->n_rows), K = in_blocks(is_tall ? m->n_rows : m->n_columns);
    const float fourth_root = powf(coefficients[2], 0.25f);
    uint16_t *memory = aligned_alloc(LINE, (2 * R * K + 2 * R * R + K) * BLOCK * sizeof *memory);
    if (!memory) return 1;
    struct workspace w = {memory, memory + R * K * BLOCK, memory + (R * K + R * R) * BLOCK,
                          memory + (R * K + 2 * R * R) * BLOCK, memory + (R * K + 2 * R * R + K) * BLOCK, R, K};
    const double squares = make_direction(m, momentum, w.rows);
    blocks_of_rows(m, &w, is_tall, fourth_root / ((float)sqrt(squares) + 1e-7f));
    for (int i = 0; i < iterations; i++) {
        make_gram(&w);
        make_bracket(&w, coefficients[0], coefficients[1] / (fourth_root * fourth_root));
        multiply_by_bracket(&w);
    }
    rows_of_blocks(m, &w, is_tall);
    move_weights(m, w.rows, m->step / fourth_root);
    free(memory);
    return 0;
}

int muon_step(const struct muon_matrix *matrices, long n_matrices, float momentum, const float *coefficients,
              int iterations, int threads)
{
    int failures = 0;
    _Pragma("omp parallel num_threads(threads) reduction(+ : failures)")
    {
        begin_products();
        _Pragma("omp for schedule(dynamic)")
        for (long i = 0; i < n_matrices; i++) failures += update(matrices + i, momentum, coefficients, iterations);
        end_products();
    }
    return failures;
}

#else
int muon_step(const struct muon_matrix *m, long n, float momentum, const float *c, int iterations, int threads) { return 1; }
#endif
