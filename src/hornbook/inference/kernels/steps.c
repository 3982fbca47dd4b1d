/* What stands between the products of a decoding step: norms, attention over the cache, and gates.

   All vectors are float32, one after the other. For a single token each of these is so short that calling the dozen
   operations that torch would make of it takes longer than computing. */

#include <math.h>
#include "vectors.h"

#define MANY 16 /* From so many vectors on it pays to share them among threads. */

/* e^x = 2^n * e^rest, with n the integer nearest to x / ln 2, and e^rest by its series; off by less than
   a millionth. A loop of it becomes instructions on whole vectors; one of libm's does not. */
INLINE float exponential(float x)
{
    const float nearest = 12582912.0f; /* 1.5 * 2^23: a number of usual size added to it loses its fraction. */
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float shifted = x * 1.44269504f + nearest, n = shifted - nearest;
    float rest = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts, the first short enough to be exact */
    float series = 1.0f / 5040;
    series = series * rest + 1.0f / 720;
    series = series * rest + 1.0f / 120;
    series = series * rest + 1.0f / 24;
    series = series * rest + 1.0f / 6;
    series = series * rest + 0.5f;
    series = series * rest + 1.0f;
    series = series * rest + 1.0f;
    uint32_t power = (uint32_t)((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &power, sizeof scale);
    return series * scale;
}

INLINE float sum_of_squares(const float *x, long size)
{
    floats sums = {0};
    long i = 0;
    for (; i + LANES <= size; i += LANES) sums += load_float32(x + i) * load_float32(x + i);
    float sum = total_floats(sums);
    for (; i < size; i++) sum += x[i] * x[i];
    return sum;
}

INLINE void normalise(const float *x, const float *weight, float eps, float *out, long size)
{
    float scale = 1 / sqrtf(sum_of_squares(x, size) / size + eps);
    for (long i = 0; i < size; i++) out[i] = x[i] * scale * weight[i];
}

/* RMSNorm: each of `count` vectors of `size` numbers. */
void normalise_rms(const float *vectors, const float *weight, float eps, float *out, long count, long size, int threads)
{
    _Pragma("omp parallel for num_threads(threads) if (count >= MANY)")
    for (long v = 0; v < count; v++) normalise(vectors + v * size, weight, eps, out + v * size, size);
}

/* silu(gate) * up, where each vector holds `size` gates and then as many numbers up. */
void gate_silu(const float *gates_ups, float *out, long count, long size, int threads)
{
    _Pragma("omp parallel for num_threads(threads) if (count >= MANY)")
    for (long v = 0; v < count; v++) {
        const float *gate = gates_ups + 2 * v * size, *up = gate + size;
        for (long i = 0; i < size; i++) out[v * size + i] = gate[i] / (1 + exponential(-gate[i])) * up[i];
    }
}

/* Attention of one new token in each of n_texts texts over the cache, and the token's place in it. */
struct attention {
    long n_texts, n_heads, n_kv_heads, head_dim;
    long text_stride, head_stride; /* numbers of the cache from one text to the next, from one head to the next */
    long window;                   /* tokens that a token sees, itself included */
    const float *cosines, *sines;  /* (n_texts, head_dim / 2), or null where positions are not angles */
    const float *q_norm, *k_norm;  /* (head_dim), or null */
    float q_eps, k_eps;
};

INLINE void turn(float *head, const float *cosines, const float *sines, long n_pairs)
{
    for (long i = 0; i < n_pairs; i++) {
        float first = head[i], second = head[i + n_pairs];
        head[i] = first * cosines[i] - second * sines[i];
        head[i + n_pairs] = second * cosines[i] + first * sines[i];
    }
}

INLINE void prepare(float *head, const float *norm, float eps, const struct attention *how, long text)
{
    long n_pairs = how->head_dim / 2;
    if (norm) normalise(head, norm, eps, head, how->head_dim);
    if (how->cosines) turn(head, how->cosines + text * n_pairs, how->sines + text * n_pairs, n_pairs);
}

/* scores: room for the cache's columns. Softmax of query * keys / sqrt(head_dim), and the values weighted by it. */
#define ATTEND(NAME, TYPE)                                                                                        \
    INLINE void NAME##_keep(TYPE *to, const float *from, long size)                                               \
    {                                                                                                             \
        for (long i = 0; i < size; i++) keep_##NAME(to + i, from[i]);                                             \
    }                                                                                                             \
    INLINE float NAME##_score(const float *query, const TYPE *key, long size)                                     \
    {                                                                                                             \
        floats sums = {0};                                                                                        \
        long i = 0;                                                                                               \
        for (; i + LANES <= size; i += LANES) sums += load_float32(query + i) * load_##NAME(key + i);             \
        float score = total_floats(sums);                                                                         \
        for (; i < size; i++) score += query[i] * one_##NAME(key + i);                                            \
        return score;                                                                                             \
    }                                                                                                             \
    INLINE void NAME##_sum(const TYPE *values, const float *weights, float total, float *out, long n_seen, long size, \
                           int n_vectors)                                                                         \
    {                                                                                                             \
        floats sums[4] = {{0}};                                                                                   \
        for (long s = 0; s < n_seen; s++)                                                                         \
            UNROLL for (int v = 0; v < n_vectors; v++)                                                            \
                sums[v] += weights[s] * load_##NAME(values + s * size + v * LANES);                               \
        UNROLL for (int v = 0; v < n_vectors; v++) sums[v] /= total;                                              \
        memcpy(out, sums, n_vectors * sizeof *sums);                                                              \
    }                                                                                                             \
    INLINE void NAME##_attend(const float *query, const TYPE *keys, const TYPE *values, float *scores, float *out, \
                              long n_seen, long size)                                                             \
    {                                                                                                             \
        float largest = -INFINITY, total = 0, scale = 1 / sqrtf(size);                                            \
        UNROLL for (long s = 0; s < n_seen; s++) scores[s] = NAME##_score(query, keys + s * size, size) * scale;  \
        for (long s = 0; s < n_seen; s++) largest = scores[s] > largest ? scores[s] : largest;                    \
        for (long s = 0; s < n_seen; s++) scores[s] = exponential(scores[s] - largest);                           \
        for (long s = 0; s < n_seen; s++) total += scores[s];                                                     \
        long i = 0;                                                                                               \
        for (; i + 4 * LANES <= size; i += 4 * LANES) NAME##_sum(values + i, scores, total, out + i, n_seen, size, 4); \
        for (; i + LANES <= size; i += LANES) NAME##_sum(values + i, scores, total, out + i, n_seen, size, 1);    \
        for (; i < size; i++) {                                                                                   \
            float sum = 0;                                                                                        \
            for (long s = 0; s < n_seen; s++) sum += scores[s] * one_##NAME(values + s * size + i);               \
            out[i] = sum / total;                                                                                 \
        }                                                                                                         \
    }                                                                                                             \
    /* heads: queries, keys and values of each text's new token (n_texts, n_heads + 2 n_kv_heads, head_dim); they \
       are changed. positions: where it stands. scores: (n_texts, n_kv_heads, columns of the cache).              \
       out: (n_texts, n_heads, head_dim). */                                                                      \
    void attend_##NAME(const struct attention *how, float *heads, TYPE *keys, TYPE *values,                       \
                       const int64_t *positions, float *scores, float *out, int threads)                          \
    {                                                                                                             \
        const long size = how->head_dim, n_kv_heads = how->n_kv_heads, group = how->n_heads / n_kv_heads;         \
        const long n_columns = how->head_stride / size;                                                           \
        _Pragma("omp parallel for num_threads(threads) if (how->n_texts > 1)")                                    \
        for (long task = 0; task < how->n_texts * n_kv_heads; task++) {                                           \
            const long text = task / n_kv_heads, kv = task % n_kv_heads, position = positions[text];              \
            const long first = position + 1 > how->window ? position + 1 - how->window : 0;                       \
            const long start = text * how->text_stride + kv * how->head_stride;                                   \
            float *queries = heads + (text * (how->n_heads + 2 * n_kv_heads) + kv * group) * size;                \
            float *key = heads + (text * (how->n_heads + 2 * n_kv_heads) + how->n_heads + kv) * size;             \
            prepare(key, how->k_norm, how->k_eps, how, text);                                                     \
            NAME##_keep(keys + start + position * size, key, size);                                               \
            NAME##_keep(values + start + position * size, key + n_kv_heads * size, size);                         \
            for (long g = 0; g < group; g++) {                                                                    \
                prepare(queries + g * size, how->q_norm, how->q_eps, how, text);                                  \
                NAME##_attend(queries + g * size, keys + start + first * size, values + start + first * size,     \
                              scores + task * n_columns, out + (text * how->n_heads + kv * group + g) * size,     \
                              position + 1 - first, size);                                                        \
            }                                                                                                     \
        }                                                                                                         \
    }

ATTEND(float32, float)
ATTEND(bfloat16, uint16_t)
