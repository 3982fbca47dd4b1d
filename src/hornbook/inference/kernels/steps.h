/* What stands between the products of a decoding step: norms, attention over the cache, and gates.

   All vectors are float32, one after the other. */

#ifndef STEPS_H
#define STEPS_H

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

/* LayerNorm where there is a bias, else RMSNorm. No weight: no norm. */
struct norm {
    const float *weight, *bias;
    float eps;
};

INLINE void normalise_one(const float *x, const struct norm *norm, float *out, long size)
{
    float mean = 0;
    if (norm->bias) {
        for (long i = 0; i < size; i++) mean += x[i];
        mean /= size;
        for (long i = 0; i < size; i++) out[i] = x[i] - mean;
        x = out;
    }
    float scale = 1 / sqrtf(sum_of_squares(x, size) / size + norm->eps);
    for (long i = 0; i < size; i++) out[i] = x[i] * scale * norm->weight[i];
    if (norm->bias) for (long i = 0; i < size; i++) out[i] += norm->bias[i];
}

static void normalise(const float *vectors, const struct norm *norm, float *out, long count, long size, int threads)
{
    _Pragma("omp parallel for num_threads(threads) if (count >= MANY)")
    for (long v = 0; v < count; v++) normalise_one(vectors + v * size, norm, out + v * size, size);
}

/* silu(gate) * up, where each vector holds `size` gates and then as many numbers up. */
static void gate(const float *gates_ups, float *out, long count, long size, int threads)
{
    _Pragma("omp parallel for num_threads(threads) if (count >= MANY)")
    for (long v = 0; v < count; v++) {
        const float *gates = gates_ups + 2 * v * size, *ups = gates + size;
        for (long i = 0; i < size; i++) out[v * size + i] = gates[i] / (1 + exponential(-gates[i])) * ups[i];
    }
}

/* The tanh approximation of GELU: with (1 + tanh y) / 2 = 1 / (1 + e^-2y). */
static void bend(const float *vectors, float *out, long count, long size)
{
    for (long i = 0; i < count * size; i++) {
        float x = vectors[i], y = 0.7978845608f * (x + 0.044715f * x * x * x);
        out[i] = x / (1 + exponential(-2 * y));
    }
}

/* The shape of a layer's attention. */
struct attention {
    long n_heads, n_kv_heads, head_dim;
    long window;                /* tokens that a token sees, itself included */
    struct norm q_norm, k_norm; /* of each head */
};

/* One new token of each of some texts, and where their keys and values are. */
struct texts {
    long n_texts;
    long text_stride, head_stride;   /* numbers of the cache from one text to the next, from one head to the next */
    const int64_t *positions;        /* (n_texts) of the new tokens */
    const float *cosines, *sines;    /* (n_texts, head_dim / 2), or null where positions are not angles */
};

INLINE void turn(float *head, const float *cosines, const float *sines, long n_pairs)
{
    for (long i = 0; i < n_pairs; i++) {
        float first = head[i], second = head[i + n_pairs];
        head[i] = first * cosines[i] - second * sines[i];
        head[i + n_pairs] = second * cosines[i] + first * sines[i];
    }
}

INLINE void prepare(float *head, const struct norm *norm, const struct texts *texts, long text, long size)
{
    if (norm->weight) normalise_one(head, norm, head, size);
    if (texts->cosines) turn(head, texts->cosines + text * size / 2, texts->sines + text * size / 2, size / 2);
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
    /* heads: queries, keys and values of the new tokens (n_texts, n_heads + 2 n_kv_heads, head_dim); they are    \
       changed. scores: (n_texts, n_kv_heads, columns of the cache). out: (n_texts, n_heads, head_dim). */        \
    static void attend_##NAME(const struct attention *how, const struct texts *texts, float *heads, TYPE *keys,   \
                              TYPE *values, float *scores, float *out, int threads)                               \
    {                                                                                                             \
        const long size = how->head_dim, n_kv_heads = how->n_kv_heads, group = how->n_heads / n_kv_heads;         \
        const long n_columns = texts->head_stride / size, n_tasks = texts->n_texts * n_kv_heads;                  \
        _Pragma("omp parallel for num_threads(threads) if (n_tasks > 1)")                                         \
        for (long task = 0; task < n_tasks; task++) {                                                             \
            const long text = task / n_kv_heads, kv = task % n_kv_heads, position = texts->positions[text];       \
            const long first = position + 1 > how->window ? position + 1 - how->window : 0;                       \
            const long start = text * texts->text_stride + kv * texts->head_stride;                               \
            float *queries = heads + (text * (how->n_heads + 2 * n_kv_heads) + kv * group) * size;                \
            float *key = heads + (text * (how->n_heads + 2 * n_kv_heads) + how->n_heads + kv) * size;             \
            prepare(key, &how->k_norm, texts, text, size);                                                        \
            NAME##_keep(keys + start + position * size, key, size);                                               \
            NAME##_keep(values + start + position * size, key + n_kv_heads * size, size);                         \
            for (long g = 0; g < group; g++) {                                                                    \
                prepare(queries + g * size, &how->q_norm, texts, text, size);                                     \
                NAME##_attend(queries + g * size, keys + start + first * size, values + start + first * size,     \
                              scores + task * n_columns, out + (text * how->n_heads + kv * group + g) * size,     \
                              position + 1 - first, size);                                                        \
            }                                                                                                     \
        }                                                                                                         \
    }

ATTEND(float32, float)
ATTEND(bfloat16, uint16_t)

#endif
