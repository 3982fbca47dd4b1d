/* The cross entropy of tokens over a vocabulary, and its gradients. The scores of all tokens are never in memory.

   The vocabulary is gone through twice, some hundred words at a time, so that their weights and a few tokens' scores stay
   in the cache: first for the logarithm of each token's sum of exp(scores); then the scores are computed again for their
   gradients, weight * (exp(score - log sum) - is it the label), which are rounded to bfloat16 and multiplied with head and
   hidden vectors. One product more is less work than scores that go to memory and come back. */

#include <math.h>
#include <stdlib.h>
#include "blocks.h"
#include "cross_entropy.h"

#if HAVE_BLOCKS

#include "exponential.h"

int cross_entropy_pays(void) { return have_tiles(); }

#define WORD_BLOCKS 16  /* of 32 words, at a time */
#define TOKEN_BLOCKS 32 /* whose part of the words' gradients is summed before the next */

/* Lengths in blocks, and what is kept in blocks: left ones by rows, right ones by columns, sums by rows. */
struct workspace {
    long N, V, D;
    uint16_t *hidden, *hidden_right;   /* N x D */
    uint16_t *head_turned, *head;      /* of the words at hand: as factors for scores, and for hidden vectors' gradients */
    uint16_t *of_scores_turned;        /* of the words at hand, for all tokens */
    float *of_hidden, *of_head;        /* N x D; of the words at hand */
    float *largest, *log_sums;         /* of each token's scores so far; the second is a plain sum until all were seen */
};

/* Where a token's number for a word stands among blocks of sums that are side by side. */
INLINE long place(long row, long word)
{
    return word / SIDE * BLOCK + row / HALF * 2 * SUMS + word % SIDE / HALF * SUMS + row % HALF * HALF + word % HALF;
}

/* 32 x 32 numbers at (row, column) of a matrix as bfloat16, with zeros outside of it; and sums as such numbers. */
INLINE void read_block(const float *matrix, long n_rows, long n_columns, long row, long column, uint16_t *to)
{
    for (long r = 0; r < SIDE; r++) {
        __m512 halves[2];
        for (long half = 0; half < 2; half++) {
            const long first = column + half * HALF;
            const __mmask16 lanes = row + r < n_rows ? first_lanes(n_columns - first) : 0;
            halves[half] = _mm512_maskz_loadu_ps(lanes, matrix + (row + r) * n_columns + first);
        }
        _mm512_store_si512(to + r * SIDE, to_bfloat16(halves[0], halves[1]));
    }
}

INLINE void write_block(const float *sums, float *matrix, long n_rows, long n_columns, long row, long column)
{
    for (long r = 0; r < smaller(SIDE, n_rows - row); r++)
        for (long half = 0; half < 2; half++)
            _mm512_mask_storeu_ps(matrix + (row + r) * n_columns + column + half * HALF,
                                  first_lanes(n_columns - column - half * HALF),
                                  _mm512_load_ps(sums + place(r, half * HALF)));
}

/* Threads share the work of what follows up to `all_threads`: by words or by tokens, of which each has some. */

static void pack_hidden(const struct cross_entropy *c, const struct workspace *w)
{
    _Pragma("omp for schedule(static)")
    for (long i = 0; i < w->N; i++) for (long d = 0; d < w->D; d++) {
        uint16_t *block = w->hidden + (i * w->D + d) * BLOCK;
        memset(block, 0, BLOCK * sizeof *block);
        for (long r = 0; r < smaller(SIDE, c->n_tokens - i * SIDE); r++)
            memcpy(block + r * SIDE, c->hidden + (i * SIDE + r) * c->size + d * SIDE,
                   smaller(SIDE, c->size - d * SIDE) * sizeof *block);
        if (c->of_head) paired(block, SIDE, w->hidden_right + (d * w->N + i) * BLOCK);
    }
}

static void pack_words(const struct cross_entropy *c, const struct workspace *w, long first, long n)
{
    uint16_t block[BLOCK] __attribute__((aligned(LINE)));
    _Pragma("omp for schedule(static)")
    for (long j = 0; j < n; j++) for (long d = 0; d < w->D; d++) {
        read_block(c->head, c->n_words, c->size, (first + j) * SIDE, d * SIDE, block);
        turned(block, SIDE, w->head_turned + (j * w->D + d) * BLOCK);
        paired(block, SIDE, w->head + (d * WORD_BLOCKS + j) * BLOCK);
    }
}

/* The scores of 32 tokens with the words at hand; -inf for what is no word. */
INLINE void make_scores(const struct cross_entropy *c, const struct workspace *w, long i, long first, long n, float *scores)
{
    for (long j = 0; j < n; j++)
        multiply_blocks(w->hidden + i * w->D * BLOCK, SIDE, BLOCK, w->head_turned + j * w->D * BLOCK, w->D, 0,
                        scores + j * BLOCK);
    for (long word = smaller(n * SIDE, c->n_words - first * SIDE); word < n * SIDE; word++)
        for (long r = 0; r < SIDE; r++) scores[place(r, word)] = -INFINITY;
}

/* The score of a token's label, if it is one of the words at hand. */
INLINE float *score_of_label(const struct cross_entropy *c, long token, long first, long n, float *scores)
{
    const long word = c->labels[token] - first * SIDE;
    return word >= 0 && word < n * SIDE ? scores + place(token % SIDE, word) : NULL;
}

static void add_up_scores(const struct cross_entropy *c, const struct workspace *w, long i, long first, long n)
{
    float scores[WORD_BLOCKS * BLOCK] __attribute__((aligned(LINE)));
    make_scores(c, w, i, first, n, scores);
    for (long r = 0; r < smaller(SIDE, c->n_tokens - i * SIDE); r++) {
        const long token = i * SIDE + r;
        const float *row = scores + place(r, 0), *label = score_of_label(c, token, first, n, scores);
        __m512 most = _mm512_set1_ps(w->largest[token]), sum = _mm512_setzero_ps();
        for (long j = 0; j < n; j++)
            for (long half = 0; half < 2; half++) most = _mm512_max_ps(most, _mm512_load_ps(row + j * BLOCK + half * SUMS));
        const float largest = _mm512_reduce_max_ps(most), from = largest == -INFINITY ? 0 : largest; /* -inf - -inf is none */
        for (long j = 0; j < n; j++)
            for (long half = 0; half < 2; half++) {
                const __m512 score = _mm512_load_ps(row + j * BLOCK + half * SUMS);
                sum = _mm512_add_ps(sum, exponential(_mm512_sub_ps(score, _mm512_set1_ps(from))));
            }
        w->log_sums[token] = w->log_sums[token] * expf(w->largest[token] - from) + _mm512_reduce_add_ps(sum);
        w->largest[token] = largest;
        if (label) c->losses[token] = *label;
    }
}

/* The gradients of 32 tokens' scores with the words at hand, and what these add to those of the hidden vectors. */
static void take_gradients(const struct cross_entropy *c, const struct workspace *w, long i, long first, long n)
{
    float scores[WORD_BLOCKS * BLOCK] __attribute__((aligned(LINE)));
    uint16_t of_scores[WORD_BLOCKS * BLOCK] __attribute__((aligned(LINE)));
    make_scores(c, w, i, first, n, scores);
    for (long r = 0; r < SIDE; r++) {
        const long token = i * SIDE + r;
        const int is_token = token < c->n_tokens;
        float *row = scores + place(r, 0), *label = is_token ? score_of_label(c, token, first, n, scores) : NULL;
        const __m512 weight = _mm512_set1_ps(is_token ? c->weights[token] : 0);
        const __m512 log_sum = _mm512_set1_ps(is_token ? w->log_sums[token] : 0);
        for (long j = 0; j < n; j++)
            for (long half = 0; half < 2; half++) {
                float *at = row + j * BLOCK + half * SUMS;
                _mm512_store_ps(at, _mm512_mul_ps(weight, exponential(_mm512_sub_ps(_mm512_load_ps(at), log_sum))));
            }
        if (label) *label -= c->weights[token];
    }
    for (long j = 0; j < n; j++) {
        rounded(scores + j * BLOCK, of_scores + j * BLOCK, SIDE);
        rounded_transpose(scores + j * BLOCK, w->of_scores_turned + (j * w->N + i) * BLOCK, SIDE);
    }
    for (long d = 0; d < w->D; d++)
        multiply_blocks(of_scores, SIDE, BLOCK, w->head + d * WORD_BLOCKS * BLOCK, n, first > 0,
                        w->of_hidden + (i * w->D + d) * BLOCK);
}

/* A thread has the same words at each turn, so it need not wait for others in between. Without tokens the sums are 0. */
static void take_gradients_of_words(const struct cross_entropy *c, const struct workspace *w, long first, long n)
{
    for (long i = 0; i == 0 || i < w->N; i += TOKEN_BLOCKS) {
        _Pragma("omp for schedule(static) nowait")
        for (long j = 0; j < n; j++) for (long d = 0; d < w->D; d++) {
            float *sums = w->of_head + (j * w->D + d) * BLOCK;
            multiply_blocks(w->of_scores_turned + (j * w->N + i) * BLOCK, SIDE, BLOCK, w->hidden_right + (d * w->N + i) * BLOCK,
                            smaller(TOKEN_BLOCKS, w->N - i), i > 0, sums);
            if (i + TOKEN_BLOCKS >= w->N) write_block(sums, c->of_head, c->n_words, c->size, (first + j) * SIDE, d * SIDE);
        }
    }
}

static void all_threads(const struct cross_entropy *c, const struct workspace *w)
{
    pack_hidden(c, w);
    begin_products();
    for (long first = 0; first < w->V; first += WORD_BLOCKS) {
        const long n = smaller(WORD_BLOCKS, w->V - first);
        pack_words(c, w, first, n);
        _Pragma("omp for schedule(static)")
        for (long i = 0; i < w->N; i++) add_up_scores(c, w, i, first, n);
    }
    _Pragma("omp for schedule(static)")
    for (long token = 0; token < c->n_tokens; token++) {
        w->log_sums[token] = w->largest[token] + logf(w->log_sums[token]);
        c->losses[token] = c->weights[token] * (w->log_sums[token] - c->losses[token]);
    }
    for (long first = 0; first < w->V && c->of_head; first += WORD_BLOCKS) {
        const long n = smaller(WORD_BLOCKS, w->V - first);
        pack_words(c, w, first, n);
        _Pragma("omp for schedule(static)")
        for (long i = 0; i < w->N; i++) take_gradients(c, w, i, first, n);
        take_gradients_of_words(c, w, first, n);
    }
    end_products();
    if (!c->of_head) return;
    _Pragma("omp for schedule(static)")
    for (long i = 0; i < w->N; i++) for (long d = 0; d < w->D; d++)
        write_block(w->of_hidden + (i * w->D + d) * BLOCK, c->of_hidden, c->n_tokens, c->size, i * SIDE, d * SIDE);
}

static void *taken(char **memory, long bytes)
{
    char *from = *memory;
    *memory += bytes;
    return from;
}

int cross_entropy(const struct cross_entropy *c)
{
    struct workspace w = {.N = in_blocks(c->n_tokens), .V = in_blocks(c->n_words), .D = in_blocks(c->size)};
    const long numbers = BLOCK * sizeof(uint16_t), sums = BLOCK * sizeof(float), of_tokens = w.N * SIDE * sizeof(float);
    const long in_numbers = 2 * w.N * w.D + WORD_BLOCKS * (2 * w.D + w.N), in_sums = (w.N + WORD_BLOCKS) * w.D;
    char *memory = aligned_alloc(LINE, in_numbers * numbers + in_sums * sums + 2 * of_tokens), *rest = memory;
    if (!memory) return 1;
    w.hidden = taken(&rest, w.N * w.D * numbers);
    w.hidden_right = taken(&rest, w.N * w.D * numbers);
    w.of_hidden = taken(&rest, w.N * w.D * sums);
    w.head_turned = taken(&rest, WORD_BLOCKS * w.D * numbers);
    w.head = taken(&rest, WORD_BLOCKS * w.D * numbers);
    w.of_scores_turned = taken(&rest, WORD_BLOCKS * w.N * numbers);
    w.of_head = taken(&rest, WORD_BLOCKS * w.D * sums);
    w.largest = taken(&rest, of_tokens);
    w.log_sums = taken(&rest, of_tokens);
    for (long token = 0; token < c->n_tokens; token++) w.largest[token] = -INFINITY, w.log_sums[token] = 0;
    _Pragma("omp parallel num_threads(c->threads)")
    all_threads(c, &w);
    free(memory);
    return 0;
}

#else
int cross_entropy_pays(void) { return 0; }
int cross_entropy(const struct cross_entropy *c) { return 1; }
#endif
