/* Attention for training, forward and backward, each head by one thread and in its cache.

   The tokens are taken 32 at a time: a block of queries with the blocks of keys that it may see. Forward, a row of
   scores is at hand at once, so its softmax is plain, and only the logarithm of its sum is kept. Backward, the weights
   are computed again from it (Dao et al., FlashAttention, arXiv 2205.14135): with w = exp(s - log sum) and g the
   gradient of the output, the gradient of a weight is p = g v^T, and that of a score w (p - sum of w p over the row).
   Both stay in float32 until they are rounded for the products; where a token looks at one other alone, they are small
   differences of large numbers. */

#include <math.h>
#include <stdlib.h>
#include "attention.h"
#include "blocks.h"

#if HAVE_BLOCKS

#include "exponential.h"

/* A head's tokens as they stand, or filled up with zeros in a copy. */
INLINE const uint16_t *tokens_of(const struct attention *a, const struct heads *m, long row, long head, uint16_t *copy,
                                 long *apart)
{
    const uint16_t *from = m->numbers + row * m->row + head * m->head;
    *apart = m->token;
    if (a->n_tokens % SIDE == 0 && a->size % SIDE == 0) return from;
    const long width = in_blocks(a->size) * SIDE;
    memset(copy, 0, in_blocks(a->n_tokens) * SIDE * width * sizeof *copy);
    for (long t = 0; t < a->n_tokens; t++) memcpy(copy + t * width, from + t * m->token, a->size * sizeof *copy);
    *apart = width;
    return copy;
}

/* Block (i, e) of sums as a head's numbers, each row times its factor, if there are such. */
INLINE void write_tokens(const struct attention *a, const struct heads *m, long row, long head, long i, long e,
                         const float *sums, const float *factors)
{
    uint16_t *to = m->numbers + row * m->row + head * m->head + i * SIDE * m->token + e * SIDE;
    const long n = smaller(SIDE, a->size - e * SIDE);
    const __mmask32 lanes = n == SIDE ? 0xffffffffu : (1u << n) - 1;
    for (long r = 0; r < smaller(SIDE, a->n_tokens - i * SIDE); r++) {
        const float *from = sums + r / HALF * 2 * SUMS + r % HALF * HALF;
        const __m512 factor = _mm512_set1_ps(factors ? factors[r] : 1);
        _mm512_mask_storeu_epi16(to + r * m->token, lanes,
                                 to_bfloat16(_mm512_mul_ps(factor, _mm512_loadu_ps(from)),
                                             _mm512_mul_ps(factor, _mm512_loadu_ps(from + SUMS))));
    }
}

/* Which of 16 keys from `key` on a token sees. */
INLINE __mmask16 seen(long token, long first, long key)
{
    return first_lanes(token + 1 - key) & (__mmask16)~first_lanes(first - key);
}

/* The first token that each sees, filled up: what is no token sees itself. Returns that of a block's earliest. */
INLINE long first_block(const struct attention *a, long row, long i, long *firsts)
{
    long least = i * SIDE;
    for (long r = 0; r < SIDE; r++) {
        const long token = i * SIDE + r;
        firsts[r] = token < a->n_tokens ? a->first_seen[row * a->n_tokens + token] : token;
        least = smaller(least, firsts[r]);
    }
    return least / SIDE;
}

/* Scores become weights, not yet divided by their sum. Returns this in `sums`, and the largest of each row. */
static void soften(float *scores, uint16_t *weights, long i, long first, const long *firsts, float scale, float *sums,
                   float *largest)
{
    for (long r = 0; r < SIDE; r++) {
        float *row = scores + r / HALF * 2 * SUMS + r % HALF * HALF;
        __m512 most = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
        for (long j = first; j <= i; j++)
            for (long half = 0; half < 2; half++) {
                float *at = row + (j - first) * BLOCK + half * SUMS;
                const __mmask16 lanes = seen(i * SIDE + r, firsts[r], j * SIDE + half * HALF);
                const __m512 score = _mm512_mul_ps(_mm512_load_ps(at), _mm512_set1_ps(scale));
                most = _mm512_mask_max_ps(most, lanes, most, score);
                _mm512_store_ps(at, _mm512_mask_blend_ps(lanes, _mm512_set1_ps(-INFINITY), score));
            }
        largest[r] = _mm512_reduce_max_ps(most);
        for (long j = first; j <= i; j++) {
            const float *at = row + (j - first) * BLOCK;
            const __m512 one = exponential(_mm512_sub_ps(_mm512_load_ps(at), _mm512_set1_ps(largest[r])));
            const __m512 two = exponential(_mm512_sub_ps(_mm512_load_ps(at + SUMS), _mm512_set1_ps(largest[r])));
            sum = _mm512_add_ps(sum, _mm512_add_ps(one, two));
            _mm512_store_si512(weights + (j - first) * BLOCK + r * SIDE, to_bfloat16(one, two));
        }
        sums[r] = _mm512_reduce_add_ps(sum);
    }
}

static int forward(const struct attention *a, const struct heads *q, const struct heads *k, const struct heads *v,
                   const struct heads *out, long row, long head)
{
    const long n = in_blocks(a->n_tokens), E = in_blocks(a->size), kv_head = head / (a->n_heads / a->n_kv_heads);
    const long whole = n * E * BLOCK;
    uint16_t *memory = aligned_alloc(LINE, (5 * whole + n * BLOCK) * sizeof *memory + n * BLOCK * sizeof(float));
    if (!memory) return 1;
    uint16_t *keys = memory + 3 * whole, *values = memory + 4 * whole, *weights = memory + 5 * whole;
    float *scores = (float *)(weights + n * BLOCK), block[BLOCK] __attribute__((aligned(LINE)));
    long q_apart, k_apart, v_apart, firsts[SIDE];
    const uint16_t *q_tokens = tokens_of(a, q, row, head, memory, &q_apart);
    const uint16_t *k_tokens = tokens_of(a, k, row, kv_head, memory + whole, &k_apart);
    const uint16_t *v_tokens = tokens_of(a, v, row, kv_head, memory + 2 * whole, &v_apart);
    for (long j = 0; j < n; j++)
        for (long e = 0; e < E; e++) {
            turned(k_tokens + j * SIDE * k_apart + e * SIDE, k_apart, keys + (j * E + e) * BLOCK);
            paired(v_tokens + j * SIDE * v_apart + e * SIDE, v_apart, values + (e * n + j) * BLOCK);
        }
    for (long i = 0; i < n; i++) {
        float sums[SIDE], largest[SIDE];
        const long first = first_block(a, row, i, firsts);
        for (long j = first; j <= i; j++)
            multiply_blocks(q_tokens + i * SIDE * q_apart, q_apart, SIDE, keys + j * E * BLOCK, E, 0,
                            scores + (j - first) * BLOCK);
        soften(scores, weights, i, first, firsts, a->scale, sums, largest);
        for (long r = 0; r < smaller(SIDE, a->n_tokens - i * SIDE); r++)
            a->log_sums[(row * a->n_heads + head) * a->n_tokens + i * SIDE + r] = largest[r] + logf(sums[r]);
        for (long r = 0; r < SIDE; r++) sums[r] = 1 / sums[r];
        for (long e = 0; e < E; e++) {
            multiply_blocks(weights, SIDE, BLOCK, values + (e * n + first) * BLOCK, i - first + 1, 0, block);
            write_tokens(a, out, row, head, i, e, block, sums);
        }
    }
    free(memory);
    return 0;
}

int attend_forward(const struct attention *a, const struct heads *q, const struct heads *k, const struct heads *v,
                   const struct heads *out)
{
    int failures = 0;
    _Pragma("omp parallel num_threads(a->threads) reduction(+ : failures)")
    {
        begin_products();
        _Pragma("omp for schedule(static)")
        for (long each = 0; each < a->n_rows * a->n_heads; each++)
            failures += forward(a, q, k, v, out, each / a->n_heads, each % a->n_heads);
        end_products();
    }
    return failures;
}

/* A row of scores becomes weights, and their gradients those of the scores. */
static void weigh(float *scores, float *gradients, long i, long first, const long *firsts, const float *log_sums,
                  float scale)
{
    for (long r = 0; r < SIDE; r++) {
        const long row = r / HALF * 2 * SUMS + r % HALF * HALF;
        __m512 along = _mm512_setzero_ps();
        for (long j = first; j <= i; j++)
            for (long half = 0; half < 2; half++) {
                const long at = row + (j - first) * BLOCK + half * SUMS;
                const __mmask16 lanes = seen(i * SIDE + r, firsts[r], j * SIDE + half * HALF);
                const __m512 score = _mm512_mul_ps(_mm512_load_ps(scores + at), _mm512_set1_ps(scale));
                const __m512 weight = exponential(_mm512_sub_ps(score, _mm512_set1_ps(log_sums[r])));
                _mm512_store_ps(scores + at, _mm512_maskz_mov_ps(lanes, weight));
                along = _mm512_mask3_fmadd_ps(weight, _mm512_load_ps(gradients + at), along, lanes);
            }
        const __m512 shared = _mm512_set1_ps(_mm512_reduce_add_ps(along));
        for (long j = first; j <= i; j++)
            for (long half = 0; half < 2; half++) {
                const long at = row + (j - first) * BLOCK + half * SUMS;
                const __m512 weight = _mm512_mul_ps(_mm512_load_ps(scores + at), _mm512_set1_ps(scale));
                const __m512 apart = _mm512_sub_ps(_mm512_load_ps(gradients + at), shared);
                _mm512_store_ps(gradients + at, _mm512_mul_ps(weight, apart));
            }
    }
}

/* What a head's backward pass needs, in blocks: factors of products, and per pair of blocks the turned weights and the
   gradients of scores, as they are and turned. */
struct backward_memory {
    uint16_t *copies[4], *queries, *keys_turned, *keys, *values_turned, *grads;
    uint16_t *weights_turned, *of_scores, *of_scores_turned;
    float *of_keys, *of_values, *scores, *gradients;
};

/* All queries of one head: their gradients are written, and those of its keys and values added up. */
static void backward(const struct attention *a, const struct backward_memory *w, const struct heads *q,
                     const struct heads *grad_out, const struct heads *grad_q, long row, long head, int is_first)
{
    const long n = in_blocks(a->n_tokens), E = in_blocks(a->size);
    float block[BLOCK] __attribute__((aligned(LINE))), log_sums[SIDE];
    long q_apart, g_apart, firsts[SIDE], last_seeing[n];
    const uint16_t *q_tokens = tokens_of(a, q, row, head, w->copies[0], &q_apart);
    const uint16_t *g_tokens = tokens_of(a, grad_out, row, head, w->copies[1], &g_apart);
    for (long i = 0; i < n; i++) {
        last_seeing[i] = i;
        for (long e = 0; e < E; e++) {
            paired(q_tokens + i * SIDE * q_apart + e * SIDE, q_apart, w->queries + (e * n + i) * BLOCK);
            paired(g_tokens + i * SIDE * g_apart + e * SIDE, g_apart, w->grads + (e * n + i) * BLOCK);
        }
    }
    for (long i = 0; i < n; i++) {
        const long first = first_block(a, row, i, firsts);
        for (long r = 0; r < SIDE; r++) {
            const long token = smaller(i * SIDE + r, a->n_tokens - 1);
            log_sums[r] = a->log_sums[(row * a->n_heads + head) * a->n_tokens + token];
        }
        for (long j = first; j <= i; j++) {
            multiply_blocks(q_tokens + i * SIDE * q_apart, q_apart, SIDE, w->keys_turned + j * E * BLOCK, E, 0,
                            w->scores + (j - first) * BLOCK);
            multiply_blocks(g_tokens + i * SIDE * g_apart, g_apart, SIDE, w->values_turned + j * E * BLOCK, E, 0,
                            w->gradients + (j - first) * BLOCK);
        }
        weigh(w->scores, w->gradients, i, first, firsts, log_sums, a->scale);
        for (long j = first; j <= i; j++) {
            rounded(w->gradients + (j - first) * BLOCK, w->of_scores + (j - first) * BLOCK, SIDE);
            rounded_transpose(w->gradients + (j - first) * BLOCK, w->of_scores_turned + (j * n + i) * BLOCK, SIDE);
            rounded_transpose(w->scores + (j - first) * BLOCK, w->weights_turned + (j * n + i) * BLOCK, SIDE);
            last_seeing[j] = i;
        }
        for (long e = 0; e < E; e++) {
            multiply_blocks(w->of_scores, SIDE, BLOCK, w->keys + (e * n + first) * BLOCK, i - first + 1, 0, block);
            write_tokens(a, grad_q, row, head, i, e, block, NULL);
        }
    }
    for (long j = 0; j < n; j++)
        for (long e = 0; e < E; e++) {
            const long at = (j * n + j) * BLOCK, right = (e * n + j) * BLOCK, sums = (j * E + e) * BLOCK;
            multiply_blocks(w->of_scores_turned + at, SIDE, BLOCK, w->queries + right, last_seeing[j] - j + 1, !is_first,
                            w->of_keys + sums);
            multiply_blocks(w->weights_turned + at, SIDE, BLOCK, w->grads + right, last_seeing[j] - j + 1, !is_first,
                            w->of_values + sums);
        }
}

static int backward_of_group(const struct attention *a, const struct heads *q, const struct heads *k, const struct heads *v,
                             const struct heads *grad_out, const struct heads *grad_q, const struct heads *grad_k,
                             const struct heads *grad_v, long row, long kv_head)
{
    const long n = in_blocks(a->n_tokens), E = in_blocks(a->size), whole = n * E * BLOCK, group = a->n_heads / a->n_kv_heads;
    uint16_t *memory = aligned_alloc(LINE, (9 * whole + (2 * n * n + n) * BLOCK) * sizeof *memory +
                                                   (2 * whole + 2 * n * BLOCK) * sizeof(float));
    if (!memory) return 1;
    struct backward_memory w = {.queries = memory + 4 * whole};
    for (int each = 0; each < 4; each++) w.copies[each] = memory + each * whole;
    w.keys_turned = w.queries + whole;
    w.keys = w.keys_turned + whole;
    w.values_turned = w.keys + whole;
    w.grads = w.values_turned + whole;
    w.weights_turned = w.grads + whole;
    w.of_scores_turned = w.weights_turned + n * n * BLOCK;
    w.of_scores = w.of_scores_turned + n * n * BLOCK;
    w.of_keys = (float *)(w.of_scores + n * BLOCK);
    w.of_values = w.of_keys + whole;
    w.scores = w.of_values + whole;
    w.gradients = w.scores + n * BLOCK;
    long k_apart, v_apart;
    const uint16_t *k_tokens = tokens_of(a, k, row, kv_head, w.copies[2], &k_apart);
    const uint16_t *v_tokens = tokens_of(a, v, row, kv_head, w.copies[3], &v_apart);
    for (long j = 0; j < n; j++)
        for (long e = 0; e < E; e++) {
            turned(k_tokens + j * SIDE * k_apart + e * SIDE, k_apart, w.keys_turned + (j * E + e) * BLOCK);
            paired(k_tokens + j * SIDE * k_apart + e * SIDE, k_apart, w.keys + (e * n + j) * BLOCK);
            turned(v_tokens + j * SIDE * v_apart + e * SIDE, v_apart, w.values_turned + (j * E + e) * BLOCK);
        }
    for (long each = 0; each < group; each++)
        backward(a, &w, q, grad_out, grad_q, row, kv_head * group + each, each == 0);
    for (long j = 0; j < n; j++)
        for (long e = 0; e < E; e++) {
            write_tokens(a, grad_k, row, kv_head, j, e, w.of_keys + (j * E + e) * BLOCK, NULL);
            write_tokens(a, grad_v, row, kv_head, j, e, w.of_values + (j * E + e) * BLOCK, NULL);
        }
    free(memory);
    return 0;
}

int attend_backward(const struct attention *a, const struct heads *q, const struct heads *k, const struct heads *v,
                    const struct heads *grad_out, const struct heads *grad_q, const struct heads *grad_k,
                    const struct heads *grad_v)
{
    int failures = 0;
    _Pragma("omp parallel num_threads(a->threads) reduction(+ : failures)")
    {
        begin_products();
        _Pragma("omp for schedule(static)")
        for (long each = 0; each < a->n_rows * a->n_kv_heads; each++)
            failures += backward_of_group(a, q, k, v, grad_out, grad_q, grad_k, grad_v, each / a->n_kv_heads,
                                          each % a->n_kv_heads);
        end_products();
    }
    return failures;
}

#else
int attend_forward(const struct attention *a, const struct heads *q, const struct heads *k, const struct heads *v,
                   const struct heads *out)
{
    return 1;
}
int attend_backward(const struct attention *a, const struct heads *q, const struct heads *k, const struct heads *v,
                    const struct heads *grad_out, const struct heads *grad_q, const struct heads *grad_k,
                    const struct heads *grad_v)
{
    return 1;
}
#endif
